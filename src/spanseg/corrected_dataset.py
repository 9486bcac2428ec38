"""Corrected cases as a BIDS data set that ``spanseg adapt --to`` takes."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
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

_BIDS_VERSION = "1.9.0"
_README = f"""# {EXPORT}

Made by spanseg from correction sessions. Train on them with: spanseg adapt --from default --to THIS_FOLDER

Scans lie here, their corrected labels under derivatives/spanseg with the table of their ids. Scans whose names say
nothing of a contrast are named like the others, or T1w, whatever theirs is. The names they had are in scans.tsv.
"""


def export_dataset(cases: Sequence[Case], protocol: Protocol, folder: Path) -> list[Path]:
    """Write the cases whose corrections were saved as a BIDS data set, and return the label images.

    Args:
        cases: all cases; those without saved labels are left out.
        protocol: of the labels.
        folder: where to; what lies there is replaced file by file.

    Raises:
        SpansegError: nothing was saved yet, two scans get one name, or the folder cannot be written to.
    """
    chosen = [case for case in cases if has_labels(case)]
    if not chosen:
        raise SpansegError("no case has saved labels yet; save the corrected one first.")
    names = [_bids_name(case) for case in chosen]
    _refuse_shared(chosen, names)
    usual = next((suffix for _, _, suffix in names if suffix), "T1w")
    names = [(folders, name, suffix or usual) for folders, name, suffix in names]
    derivative = folder / "derivatives" / "spanseg"
    labels = []
    for case, (person, name, suffix) in zip(chosen, names, strict=True):
        place = Path(*person) / "anat"
        _copy_scan(case.scan, folder / place / f"{name}_{suffix}.nii")
        labels.append(derivative / place / f"{name}_desc-corrected_dseg.nii.gz")
        _copy(case.saved[0], labels[-1])
        _copy(case.saved[-1], labels[-1].with_name(f"{name}_desc-corrected_dseg.json"))
    files.write_text(derivative / "desc-corrected_dseg.tsv", label_table(protocol, ()))
    files.write_text(derivative / "dataset_description.json", _description("spanseg corrections", "derivative"))
    files.write_text(folder / "dataset_description.json", _description(EXPORT, "raw"))
    files.write_text(folder / "README.md", _README)
    rows = [f"{name}_{suffix}\t{case.scan.name}\n" for case, (_, name, suffix) in zip(chosen, names, strict=True)]
    files.write_text(folder / "scans.tsv", "".join(["scan\tfile\n", *rows]))
    return labels


def _bids_name(case: Case) -> tuple[tuple[str, ...], str, str]:
    """Folders of the person and session, the name without its suffix, and the suffix (the contrast), if it has one."""
    key = case_key(case.scan)
    if "sub" not in key:
        person = "sub-" + (re.sub("[^A-Za-z0-9]", "", case.name) or "scan")
        return (person,), person, ""
    words = stem_of(case.scan).split("_")
    suffix = words.pop() if "-" not in words[-1] else ""
    folders = tuple(f"{entity}-{key[entity]}" for entity in ("sub", "ses") if entity in key)
    return folders, "_".join(f"{entity}-{value}" for entity, value in key.items()), suffix


def _refuse_shared(cases: Sequence[Case], names: Sequence[tuple[tuple[str, ...], str, str]]) -> None:
    """Refuse what could not be told apart: labels are found by the person and the recording, not by the contrast."""
    taken: dict[str, Path] = {}
    for case, (_, name, _) in zip(cases, names, strict=True):
        if name.casefold() in taken:
            raise SpansegError(
                f"{taken[name.casefold()]} and {case.scan} would both be exported as {name}; correct them in "
                "different output folders (-o)."
            )
        taken[name.casefold()] = case.scan


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
