"""What a BIDS participants table says about the people: one tab-separated row a person."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path

from spanseg.errors import SpansegError
from spanseg.facts import UNKNOWN_WORDS, Facts, age_from_text
from spanseg.pairing import case_key
from spanseg.tables import read_tsv

NAME = "participants.tsv"
_COLUMNS = {"age_years": ("age",), "sex": ("sex", "gender"), "diagnosis": ("diagnosis", "dx", "group")}
"""Facts, and the columns that hold them; of several the first counts."""
SAME = "same_person_as"
"""Column that names the person's entry in another data set, such as ``malc/sub-1000``, or another one in this."""
_OTHER_SEX = frozenset({"o", "other"})
"""BIDS allows it; there is no sentence for it, so it is told as unknown."""
_YEARS = frozenset({"y", "yr", "yrs", "year", "years", "a"})


def find_table(folder: Path) -> Path | None:
    """Find the participants table of a BIDS dataset: in the folder itself or above, up to the dataset's root.

    The search ends at the folder with ``dataset_description.json``; without one, only the folder itself counts.
    """
    climbed: list[Path] = []
    for place in (folder.absolute(), *folder.absolute().parents):
        climbed.append(place)
        if (place / "dataset_description.json").is_file():
            break
    else:
        climbed = climbed[:1]
    return next((place / NAME for place in climbed if (place / NAME).is_file()), None)


def read_participants(path: Path) -> dict[str, Facts]:
    """Read a participants table.

    Columns (in any case): ``participant_id``; ``age`` in years, where ``89+`` is 89; ``sex`` or ``gender``;
    ``diagnosis``, ``dx`` or ``group``. ``n/a`` and an empty cell are unknown, and so is a column that is missing.

    Returns:
        Facts by participant, such as ``sub-01``; the ``sub-`` is added where the table leaves it out.

    Raises:
        SpansegError: the table cannot be read, ages are not in years, or a cell makes no sense.
    """
    people: dict[str, Facts] = {}
    lines: dict[str, int] = {}
    for line, row in _rows(path):
        where = f"{path}, line {line}"
        if not row["participant_id"]:
            raise SpansegError(f"{where}: participant_id is empty; write whose row it is, such as sub-01.")
        person, facts = with_sub(row["participant_id"]), _facts(row, where)
        if people.get(person, facts) != facts:
            raise SpansegError(f"{where}: {person} stands in line {lines[person]} too, with other facts; keep one row.")
        people[person] = facts
        lines.setdefault(person, line)
    if any(facts.age_years is not None for facts in people.values()):
        _require_years(path)
    return people


def read_same_persons(path: Path) -> list[tuple[int, str, str]]:
    """Read under whose name participants stand elsewhere: line, participant and the words of the table.

    Raises:
        SpansegError: the table cannot be read.
    """
    rows = [(line, row) for line, row in _rows(path) if row.get(SAME, "").lower() not in UNKNOWN_WORDS]
    return [(line, row["participant_id"], row[SAME]) for line, row in rows]


def participant_of(scan: Path) -> str:
    """Whose scan a file is, by the ``sub-…`` of its name or of its FreeSurfer folder, else by its whole name.

    Example:
        >>> participant_of(Path("sub-01_ses-2_T1w.nii.gz")), participant_of(Path("bert/mri/T1.mgz"))
        ('sub-01', 'sub-bert')
    """
    key = case_key(scan)
    if "sub" in key:
        return with_sub(key["sub"])
    found = re.match(r"sub-[^_]+", key["name"])
    return found[0] if found else with_sub(key["name"])


def facts_of(table: Mapping[str, Facts], case: str, path: Path) -> Facts:
    """Return what a table says about one person.

    Args:
        table: what :func:`read_participants` read.
        case: the person, such as ``sub-01``.
        path: where the table is, for the message.

    Raises:
        SpansegError: the person is not in it.
    """
    if case in table:
        return table[case]
    close = difflib.get_close_matches(case, table, n=1)
    hint = f" (the nearest is {close[0]})" if close else ""
    raise SpansegError(
        f"{path}: there is no row for {case} among its {len(table)}{hint}; add one, with n/a for what is unknown."
    )


def _facts(row: dict[str, str], where: str) -> Facts:
    """The facts of one row, checked cell by cell so that a message names the column."""
    cells: dict[str, str | float | None] = {}
    for field, columns in _COLUMNS.items():
        column = next((name for name in columns if name in row), None)
        if column is None:
            continue
        text = row[column]
        try:
            cells[field] = _value(field, text)
            Facts(**{field: cells[field]})  # type: ignore[arg-type]
        except SpansegError as error:
            advice = ", or rename the column if it holds something else" if column == "group" else ""
            reason = str(error).rstrip(".")
            raise SpansegError(
                f"{where}, column {column}: {reason}; correct the cell, or write n/a{advice}."
            ) from error
    return Facts(**cells)  # type: ignore[arg-type]


def _value(field: str, text: str) -> str | float | None:
    if field == "age_years":
        return age_from_text(re.sub(r"^(\d+(?:\.\d+)?)\+$", r"\1", text))
    return None if field == "sex" and text.lower() in _OTHER_SEX else text


def with_sub(participant: str) -> str:
    """Put the ``sub-`` before a participant where a table leaves it out."""
    return participant if participant.startswith("sub-") else f"sub-{participant}"


def _require_years(path: Path) -> None:
    """Refuse ages that the table's own description says are in months or weeks."""
    description = path.with_suffix(".json")
    if not description.is_file():
        return
    try:
        columns = json.loads(description.read_text(encoding="utf-8-sig"))
        units = {name.lower(): entry for name, entry in columns.items()}["age"]["Units"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return  # a description is optional, and so is each of its parts
    if isinstance(units, str) and units.strip().lower() not in _YEARS:
        raise SpansegError(
            f"{path}: {description.name} says that ages are in '{units}', expected years; convert the column to years "
            "(six months are 0.5) and write years there."
        )


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    columns, rows = read_tsv(path)
    if "participant_id" not in columns:
        raise SpansegError(
            f"{path}: expected tab-separated columns participant_id, age, sex and diagnosis (all but the first may be "
            f"missing), got {', '.join(columns) or 'an empty file'}."
        )
    return rows
