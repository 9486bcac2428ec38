"""Who is one person: an entry of a data set, or several that a ``same_person_as`` column ties together."""

from __future__ import annotations

from collections.abc import Sequence

from spanseg.compare.study import Centre
from spanseg.participants import find_table
from spanseg.tables import read_tsv

SAME = "same_person_as"
"""Column of a participants table that names the person's entry in another data set, such as ``malc/sub-1000``."""


class Identities:
    """Names people, each by one entry (data set and subject), whatever the study calls the data sets.

    A table may name another data set as the study does, or by its folder.

    Args:
        centres: the data sets of the study.
    """

    def __init__(self, centres: Sequence[Centre]) -> None:
        self._names = {centre.data.resolve().name: centre.name for centre in centres}
        self._names |= {centre.name: centre.name for centre in centres}
        self._links = {mine: other for centre in centres for mine, other in self._links_of(centre)}

    def of(self, centre: str, subject: str) -> str:
        """The name of the person behind an entry: equal for two entries that are one person."""
        chain = [self._entry(centre, subject)]
        while (other := self._links.get(chain[-1], "")) and other not in chain:
            chain.append(other)
        return min(chain[chain.index(other) :]) if other else chain[-1]  # two that name each other: either will do

    def _entry(self, centre: str, subject: str) -> str:
        return f"{self._names.get(centre, centre)}/sub-{subject.removeprefix('sub-')}"

    def _links_of(self, centre: Centre) -> list[tuple[str, str]]:
        table = find_table(centre.data)
        columns, rows = read_tsv(table) if table else ((), [])
        if SAME not in columns:
            return []
        named = [(row["participant_id"], row[SAME]) for _, row in rows if row[SAME] not in ("", "n/a")]
        links = []
        for who, other in named:
            there, _, subject = other.rpartition("/")
            links.append((self._entry(centre.name, who), self._entry(there or centre.name, subject)))
        return links
