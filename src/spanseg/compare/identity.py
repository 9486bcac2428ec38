"""Who is one person: entries of data sets that share a participants table, or that ``same_person_as`` ties together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spanseg.compare.study import Centre
from spanseg.errors import SpansegError
from spanseg.participants import SAME, find_table, read_same_persons, with_sub


class Identities:
    """Names people, each by one entry (data set and subject), whatever the study calls the data sets.

    A table may name a data set as the study does or by its folder; capitals make no difference. Data sets that share a
    table hold the same people.

    Args:
        centres: the data sets of the study.

    Raises:
        SpansegError: a table names a data set that may be one of two, or no subject.
    """

    def __init__(self, centres: Sequence[Centre]) -> None:
        self._owner: dict[str, str] = {}  # of a data set: the first that shares its table
        self._meant: dict[str, set[str]] = {}  # by a name that tables may use
        self._same: dict[str, str] = {}  # of an entry: another one of the person
        first: dict[Path, str] = {}
        for centre in centres:
            table = find_table(centre.data)
            place = (table.parent if table else centre.data).resolve()
            self._owner[centre.name] = first.setdefault(place, centre.name)
            for name in (centre.name, centre.data.name, centre.data.resolve().name, place.name):
                self._meant.setdefault(name.casefold(), set()).add(self._owner[centre.name])
        for centre in centres:
            if table := find_table(centre.data):
                self._read(centre.name, table)

    def of(self, centre: str, subject: str) -> str:
        """The name of the person behind an entry: equal for two entries that are one person."""
        return self._first(_entry(self._owner[centre], subject))

    def _first(self, entry: str) -> str:
        while entry in self._same:
            entry = self._same[entry]
        return entry

    def _read(self, centre: str, table: Path) -> None:
        """Tie the entries of a data set to those that its table names."""
        for line, subject, words in read_same_persons(table):
            where = f"{table}, line {line}"
            *folders, other = (part.strip() for part in words.split("/"))
            if not other:
                raise SpansegError(
                    f"{where}: {SAME} takes a data set and a subject such as malc/sub-01, not '{words}'."
                )
            there = self._data_set(folders[-1], where) if folders else self._owner[centre]
            mine, its = self.of(centre, subject), self._first(_entry(there, other))
            if mine != its:
                self._same[mine] = its

    def _data_set(self, name: str, where: str) -> str:
        """The data set that a table means; a name that the study does not know stands for itself."""
        meant = sorted(self._meant.get(name.casefold(), {name}))
        if len(meant) > 1:
            raise SpansegError(
                f"{where}: {SAME} names the data set '{name}', which may be [centre.{meant[0]}] or "
                f"[centre.{meant[1]}] of the study; rename the folder of one, or its section."
            )
        return meant[0]


def _entry(centre: str, subject: str) -> str:
    return f"{centre.casefold()}/{with_sub(subject.casefold())}"
