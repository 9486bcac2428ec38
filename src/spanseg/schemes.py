"""Label schemes of other people's truth: a shipped cross-walk, a table of the user, or the BIDS table beside the data.

A table is tab-separated with a header. ``index`` is the label in the image. ``maps_to`` says what it is in the
protocol: an id, a name, ``background``, or ``unknown`` for voxels that shall enter no score. A table without
``maps_to``, such as BIDS asks for, is read by its ``name`` column (the ``mapping`` of BIDS holds tissues and is not
used). Structures that no label maps to are ones that the truth does not label.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from spanseg.errors import SpansegError
from spanseg.inputs import stem_of
from spanseg.labels import UNKNOWN, Crosswalk, Protocol
from spanseg.tables import read_tsv

_NO_ENTRY = frozenset({"", "n/a"})


def find_scheme(labels: str | None, protocol: Protocol, image: Path) -> Crosswalk:
    """Return how the labels of an image map to a protocol.

    Args:
        labels: name of a shipped cross-walk or path of a table; ``None`` takes the BIDS table beside the image and,
            where there is none, the ids of the protocol itself.
        protocol: where the labels are mapped to.
        image: the label image.

    Raises:
        SpansegError: there is no such scheme, or the table cannot be read.
    """
    if labels is None:
        table = find_table(image)
        return protocol.crosswalk(protocol.name) if table is None else read_scheme(table, protocol)
    if labels in protocol.crosswalk_names:
        return protocol.crosswalk(labels)
    if Path(labels).is_file():
        return read_scheme(Path(labels), protocol)
    raise SpansegError(
        f"labels '{labels}': this is neither a file nor a label scheme of protocol '{protocol.name}', "
        f"which are {', '.join(protocol.crosswalk_names)}."
    )


def find_table(image: Path) -> Path | None:
    """Find the BIDS label table of an image: ``*_dseg.tsv`` beside it or, as BIDS inherits, above it.

    A table belongs to the image if the image's name holds every part of the table's name. The nearest folder wins, and
    in it the name with most parts; the search ends at the folder with ``dataset_description.json``.

    Raises:
        SpansegError: two tables fit equally well.
    """
    parts = set(stem_of(image).split("_"))
    for folder in _folders_of(image):
        fitting = [table for table in sorted(folder.glob("*dseg.tsv")) if set(table.stem.split("_")) <= parts]
        most = max((len(table.stem.split("_")) for table in fitting), default=0)
        best = [table for table in fitting if len(table.stem.split("_")) == most]
        if len(best) > 1:
            raise SpansegError(f"{image}: {best[0].name} and {best[1].name} both fit; name one with --labels.")
        if best:
            return best[0]
    return None


def read_scheme(table: Path, protocol: Protocol) -> Crosswalk:
    """Read a tab-separated label table.

    Raises:
        SpansegError: the table cannot be read, or a row makes no sense.
    """
    classes: dict[int, int | None] = {}
    for line, row in _rows(table):
        where = f"{table}, line {line}"
        index = _integer(row["index"])
        if index is None:
            raise SpansegError(f"{where}: index is '{row['index']}', expected the whole number of a label.")
        if index in classes:
            raise SpansegError(f"{where}: index {index} is in the table twice; keep one of the rows.")
        classes[index] = _target(row, protocol, where)
    mapped = {0: 0} | {index: target for index, target in classes.items() if target is not None}
    labelled = set(mapped.values())
    unlabelled = tuple(index for index in range(1, len(protocol)) if index not in labelled)
    if len(unlabelled) == len(protocol) - 1:
        raise SpansegError(
            f"{table}: no row leads to a structure of protocol '{protocol.name}'; "
            "add a column maps_to with ids or names of its structures, 'background' or 'unknown'."
        )
    return Crosswalk(table.name, mapped, unlabelled)


def names_in(table: Path) -> dict[int, str]:
    """Names that a label table gives to its labels, whether or not a protocol knows them.

    Raises:
        SpansegError: the table cannot be read.
    """
    named = {_integer(row["index"]): row.get("name", "") for _, row in _rows(table)}
    return {index: name for index, name in named.items() if index is not None and name not in _NO_ENTRY}


def _folders_of(image: Path) -> list[Path]:
    """Folder of the image and those above it up to the root of its BIDS dataset."""
    climbed: list[Path] = []
    for folder in image.absolute().parents:
        climbed.append(folder)
        if (folder / "dataset_description.json").is_file():
            return climbed
    return climbed[:1]


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    columns, rows = read_tsv(table)
    if "index" not in columns or {"maps_to", "name"}.isdisjoint(columns):
        raise SpansegError(
            f"{table}: expected tab-separated columns index, name and maps_to (one of the last two may be missing), "
            f"got {', '.join(sorted(columns)) or 'an empty file'}."
        )
    return rows


def _target(row: dict[str, str], protocol: Protocol, where: str) -> int | None:
    """Class index that a row maps to; ``None`` if the row does not say."""
    if "maps_to" not in row:  # anybody's names: one that is not ours is no mistake, and FreeSurfer calls 0 "Unknown"
        return _names(protocol).get(_plain(row["name"]))
    wanted = row["maps_to"]
    if wanted in _NO_ENTRY:
        return None
    structure_id = _integer(wanted)
    if structure_id is not None:
        if structure_id not in protocol.ids:
            raise SpansegError(f"{where}: maps_to is {structure_id}, which is no id of protocol '{protocol.name}'.")
        return protocol.class_of(structure_id)
    target = UNKNOWN if wanted.lower() == "unknown" else _names(protocol).get(_plain(wanted))
    if target is None:
        close = difflib.get_close_matches(wanted, [structure.name for structure in protocol.structures], n=1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        raise SpansegError(
            f"{where}: maps_to is '{wanted}', which protocol '{protocol.name}' does not name{hint}; "
            "give an id or a name of its structures, 'background' or 'unknown'."
        )
    return target


def _names(protocol: Protocol) -> dict[str, int]:
    """Class index of every name, without capitals and punctuation."""
    return {_plain(structure.name): index for index, structure in enumerate(protocol.structures)} | {"background": 0}


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _integer(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
