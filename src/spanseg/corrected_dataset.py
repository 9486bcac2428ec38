"""Corrected cases as a BIDS data set that ``spanseg adapt --to`` takes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spanseg import __version__, files, sidecar
from spanseg.cases import Case
from spanseg.corrected import has_labels
from spanseg.errors import SpansegError
from spanseg.images import read_scan, write_image
from spanseg.inputs import EXPORT, stem_of
from spanseg.labels import Protocol
from spanseg.outputs import label_table
from spanseg.pairing import case_key
from spanseg.tables import read_tsv

_BIDS_VERSION = "1.9.0"
_DERIVATIVE = Path("derivatives") / "spanseg"
_COLUMNS = ("scan", "file", "case")
_README = f"""# {EXPORT}

Made by spanseg from correction sessions. Train on them with: spanseg adapt --from default --to THIS_FOLDER

Scans lie here, their corrected labels under derivatives/spanseg with the table of their ids. Scans whose names say
nothing of a contrast are named like the others, or T1w, whatever theirs is. Names that lost letters end with a piece of
a hash. The names they had are in scans.tsv.
"""


@dataclass(frozen=True)
class _Row:
    """One line of ``scans.tsv``.

    Args:
        name: of the person and the recording, which labels are found by.
        suffix: the contrast.
        file: name that the scan had.
        case: its name.
    """

    name: str
    suffix: str
    file: str
    case: str

    @property
    def key(self) -> str:
        """The name as a table holds it, on file systems that do not tell capitals apart."""
        return _cell(self.name).casefold()


def export_dataset(cases: Sequence[Case], protocol: Protocol, folder: Path) -> list[Path]:
    """Write the cases whose corrections were saved as a BIDS data set, and return the label images.

    Args:
        cases: all cases; those without saved labels are left out.
        protocol: of the labels.
        folder: where to; what lies there of the same cases is replaced, and other cases stay.

    Raises:
        SpansegError: nothing was saved yet, a scan was replaced since, two scans get one name or are of contrasts that
            cannot lie together, or the folder cannot be written to.
    """
    chosen = [case for case in cases if has_labels(case)]
    if not chosen:
        raise SpansegError("no case has saved labels yet; save the corrected one first.")
    earlier = _read_rows(folder / "scans.tsv")
    rows = _rows_of(chosen, earlier)
    whole = list({row.key: row for row in (*earlier, *rows)}.values())
    _refuse_passed_over(whole, folder)
    for case in chosen:
        _refuse_replaced(case)
    _write_tables(whole, protocol, folder)
    labels = []
    for case, row in zip(chosen, rows, strict=True):
        _copy_scan(case.scan, folder / _place(row) / f"{row.name}_{row.suffix}.nii")
        stem = folder / _DERIVATIVE / _place(row) / f"{row.name}_desc-corrected_dseg"
        labels.append(stem.with_name(f"{stem.name}.nii.gz"))
        _copy(case.saved[0], labels[-1])
        _copy(case.saved[-1], stem.with_name(f"{stem.name}.json"))
    return labels


def _write_tables(rows: Sequence[_Row], protocol: Protocol, folder: Path) -> None:
    """Write what is said of the scans and their labels; before them, so that no name is given twice."""
    lines = ["\t".join(_COLUMNS), *(f"{_cell(row.name)}_{row.suffix}\t{row.file}\t{row.case}" for row in rows)]
    files.write_text(folder / "scans.tsv", "".join(f"{line}\n" for line in lines))
    files.write_text(folder / "README.md", _README)
    files.write_text(folder / "dataset_description.json", _description(EXPORT, "raw"))
    files.write_text(
        folder / _DERIVATIVE / "dataset_description.json", _description("spanseg corrections", "derivative")
    )
    files.write_text(folder / _DERIVATIVE / "desc-corrected_dseg.tsv", label_table(protocol, ()))


def _read_rows(table: Path) -> list[_Row]:
    """What earlier exports wrote.

    Raises:
        SpansegError: this cannot be read.
    """
    if not table.exists():
        return []
    columns, lines = read_tsv(table)
    if not set(_COLUMNS) <= set(columns):
        raise SpansegError(
            f"{table}: expected the columns {', '.join(_COLUMNS)} of an export; remove its folder, and export again."
        )
    named = [(line["scan"].rpartition("_"), line) for _, line in lines]
    return [_Row(name, suffix, line["file"], line["case"]) for (name, _, suffix), line in named]


def _rows_of(cases: Sequence[Case], earlier: Sequence[_Row]) -> list[_Row]:
    """A row for each case; what says nothing of its contrast keeps the one that it was exported with first.

    Raises:
        SpansegError: two could not be told apart, for labels are found by the person and the recording.
    """
    names = [_bids_name(case) for case in cases]
    usual = next(filter(None, [*(suffix for _, suffix in names), *(row.suffix for row in earlier)]), "T1w")
    taken = {row.key: row for row in earlier}
    rows = []
    for case, (name, suffix) in zip(cases, names, strict=True):
        row = _Row(name, suffix or usual, _cell(case.scan.name), _cell(case.name))
        before = taken.get(row.key, row)
        if before.case != row.case:
            raise SpansegError(
                f"{before.case} and {row.case} would both be exported as {name}; correct them in different output "
                "folders (-o)."
            )
        taken[row.key] = row if suffix else replace(row, suffix=before.suffix)
        rows.append(taken[row.key])
    return rows


def _bids_name(case: Case) -> tuple[str, str]:
    """The name without its suffix, and the suffix (the contrast), if it has one.

    A name that is none of BIDS loses what BIDS forbids; a piece of its hash keeps it apart from others.
    """
    key = case_key(case.scan)
    if "sub" not in key:
        plain = re.sub("[^A-Za-z0-9]", "", case.name)
        hashed = "" if plain == case.name else hashlib.sha256(os.fsencode(case.name)).hexdigest()[:6]
        return f"sub-{plain}{hashed}", ""
    words = stem_of(case.scan).split("_")
    suffix = words.pop() if "-" not in words[-1] else ""
    return "_".join(f"{entity}-{value}" for entity, value in key.items()), suffix


def _place(row: _Row) -> Path:
    """Folders of the person and the session."""
    key = dict(word.split("-", 1) for word in row.name.split("_"))
    return Path(*(f"{entity}-{key[entity]}" for entity in ("sub", "ses") if entity in key), "anat")


def _refuse_passed_over(rows: Sequence[_Row], folder: Path) -> None:
    """Refuse other contrasts beside T1w, for of such a data set only what is named T1w is a scan to train on."""
    t1w = [row.case for row in rows if row.suffix == "T1w"]
    others = [row.case for row in rows if row.suffix != "T1w"]
    if t1w and others:
        raise SpansegError(
            f"{folder}: {t1w[0]} is exported as T1w, and beside it 'spanseg adapt' would pass over {others[0]}; "
            "correct them in different output folders (-o), or, if T1w was only supposed, remove this folder and "
            "export again."
        )


def _refuse_replaced(case: Case) -> None:
    """Refuse a scan that is not the one which the saved labels belong to."""
    try:
        recorded = json.loads(case.saved[-1].read_text(encoding="utf-8"))["input_sha256"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise SpansegError(f"{case.saved[-1]}: this record of a correction is damaged; save the case again.") from error
    if recorded != files.file_sha256(case.scan):
        raise SpansegError(
            f"{case.scan}: this is not the scan any more that the labels in {case.saved[0]} belong to; put that one "
            "back, or remove these labels to leave the case out."
        )


def _cell(text: str) -> str:
    """Text as it comes back from a table: no tabs or line ends, and a name that is no text written out."""
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())


def _copy_scan(scan: Path, to: Path) -> None:
    """Copy a NIfTI file byte for byte, so that its hash stays; turn other formats into NIfTI."""
    lower = scan.name.lower()
    if lower.endswith((".nii", ".nii.gz")):
        _copy(scan, to.with_name(f"{to.name}.gz") if lower.endswith(".gz") else to)
        return
    read = read_scan(scan)
    write_image(to.with_name(f"{to.name}.gz"), read.volume.data, read)


def _copy(source: Path, to: Path) -> None:
    with files.writing(to) as temporary:
        shutil.copyfile(source, temporary)


def _description(name: str, kind: str) -> str:
    made_by = {"Name": "spanseg", "Version": __version__}
    return sidecar.dumps({"Name": name, "BIDSVersion": _BIDS_VERSION, "DatasetType": kind, "GeneratedBy": [made_by]})
