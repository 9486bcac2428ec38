"""Which scans are meant, and where the results of each go."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spanseg.errors import SpansegError
from spanseg.headers import DICOM, is_dicom
from spanseg.images import SUFFIXES, is_nifti_or_mgh

NOT_SCANS = frozenset(
    {"mask", "brainmask", "seg", "dseg", "probseg", "segmentation", "label", "labels", "labelmap"}
    | {"aseg", "aparc", "wmparc", "ribbon", "lesion", "roi"}
)
"""Words in a file name that say: this is a label map or a mask, not a scan."""
RESULTS = ("_dseg", "_tissue_dseg", "_desc-brain_mask", "_desc-brain", "_probseg", "_desc-facts_std")
"""What follows the stem in the names of the images that spanseg writes."""
CONTRASTS = ("_T2w", "_FLAIR", "_PDw", "_PDT2", "_inplaneT2")
"""How BIDS names end that are of anatomical images beside T1w."""
SESSION, EXPORT = "spanseg session", "Scans with corrected labels"
"""What the record of a correction session says it is, and what the data set of corrected scans is called."""
_OF_CORRECTIONS = {
    "session": ("session.json", f'"format": "{SESSION}'),
    "export": ("dataset_description.json", f'"Name": "{EXPORT}"'),
}
"""Folders in which corrections keep copies of scans and labels: the file that tells them, and what it holds."""
_MARKED_WITHIN = 1000
_LONGEST_NAME = 255
"""Bytes that file systems take for a name."""
_LOOKED_AT = 200


@dataclass(frozen=True)
class Job:
    """One scan to segment.

    Args:
        path: the scan.
        folder: where its results go.
        stem: what their names begin with.
    """

    path: Path
    folder: Path
    stem: str

    @property
    def sidecar(self) -> Path:
        """The JSON file that is written last: where it is, the scan is finished."""
        return self.folder / f"{self.stem}_dseg.json"


def find_jobs(sources: Sequence[str | Path], out: Path) -> list[Job]:
    """List the scans that files and folders stand for.

    A file gives its results straight under ``out``; a folder keeps its tree there. From a folder: ``*_T1w`` images if
    there are any, else ``mri/T1.mgz``, else every image that is not a label map or a mask by its name. What lies under
    ``derivatives`` or ``out``, what is hidden, and what corrections keep in folders below it, is never taken.

    Raises:
        SpansegError: nothing there, a format that is not read, DICOM, or two scans with one output name.
    """
    jobs: dict[tuple[Path, Path, str], Job] = {}
    for source in sources:
        try:
            for path, folder in _scans_of(Path(source), out):
                jobs.setdefault((_real(path), folder, stem_of(path)), Job(path, folder, stem_of(path)))
        except OSError as error:
            raise SpansegError(f"{source}: this cannot be read ({error.strerror}).") from error
    found = list(jobs.values())
    _refuse_long_names(found)
    _refuse_shared_names(found)
    _refuse_overwritten_scans(found)
    return found


def other_contrasts(sources: Sequence[str | Path], out: Path) -> list[Path]:
    """Anatomical images in folders that :func:`find_jobs` leaves out because there are ``*_T1w`` images beside them."""
    found, named = [], {_real(Path(source)) for source in sources}
    for source in map(Path, sources):
        images = [path for path in _walk(source, out) if is_nifti_or_mgh(path)] if source.is_dir() else []
        if any(map(_is_t1w, images)):
            found += [path for path in images if stem_of(path).endswith(CONTRASTS) and _real(path) not in named]
    return found


def stem_of(path: Path) -> str:
    """File name without its image suffix.

    Raises:
        SpansegError: the suffix is not one of an image format that is read, or nothing is left without it.
    """
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.name[: -len(suffix)]
    raise SpansegError(f"{path}: expected an image named like scan.nii.gz, with one of {', '.join(SUFFIXES)}.")


def _scans_of(source: Path, out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield the scans of one argument with their output folders."""
    if source.is_dir():
        for path in _scans_in(source, out):
            yield path, out / path.parent.relative_to(source)
        return
    if source.is_symlink() and not source.exists():
        raise SpansegError(f"{source}: this link leads nowhere; get the file first (for example with: git annex get).")
    if not source.exists():
        raise SpansegError(f"{source}: there is no such file or folder.")
    if _is_dicom(source):
        raise SpansegError(f"{source}: {DICOM}")
    yield source, out


def _scans_in(source: Path, out: Path) -> list[Path]:
    files = list(_walk(source, out))
    images = [path for path in files if is_nifti_or_mgh(path)]
    kinds: tuple[Callable[[Path], bool], ...] = (_is_t1w, _is_freesurfer_t1, _is_no_label_map)
    for kind in kinds:
        chosen = [path for path in images if kind(path)]
        if chosen:
            return chosen
    if any(_is_dicom(path) for path in files[:_LOOKED_AT]):
        raise SpansegError(f"{source}: {DICOM}")
    raise SpansegError(f"{source}: found no scan in this folder; expected files with {', '.join(SUFFIXES)}.")


def _walk(source: Path, out: Path) -> Iterator[Path]:
    """Yield the files under a folder in the order of their names; linked folders are entered once."""
    seen = {os.path.realpath(out)} - {os.path.realpath(source)}
    for folder, names, files in os.walk(source, onerror=_refuse_folder, followlinks=True):
        if os.path.realpath(folder) in seen:
            names.clear()
            continue
        seen.add(os.path.realpath(folder))
        names[:] = sorted(name for name in names if _may_hold_scans(Path(folder) / name))
        yield from (Path(folder) / name for name in sorted(files) if not name.startswith("."))


def _may_hold_scans(folder: Path) -> bool:
    """Whether to look into a folder that nobody named: not if it is hidden, of derivatives, or of corrections."""
    if folder.name.startswith(".") or folder.name == "derivatives":
        return False
    file, mark = _OF_CORRECTIONS.get(folder.name, ("", ""))
    try:
        if not file or not (folder / file).is_file():
            return True
        with (folder / file).open("rb") as stream:
            return mark.encode() not in stream.read(_MARKED_WITHIN)
    except OSError:
        return True


def _refuse_folder(error: OSError) -> None:
    raise SpansegError(f"{error.filename}: this folder cannot be read ({error.strerror}).") from error


def _is_t1w(path: Path) -> bool:
    return path.name.endswith(("_T1w.nii", "_T1w.nii.gz"))


def _is_freesurfer_t1(path: Path) -> bool:
    return path.name == "T1.mgz" and path.parent.name == "mri"


def _is_no_label_map(path: Path) -> bool:
    words = re.split(r"[^a-z0-9]+", path.name.lower())
    return NOT_SCANS.isdisjoint(words) and not stem_of(path).endswith(RESULTS)


def _is_dicom(path: Path) -> bool:
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with path.open("rb") as stream:
            return is_dicom(stream.read(132))
    except OSError:
        return False


def _real(path: Path) -> Path:
    """The path without links; one that leads round in a circle is left to fail where it is opened."""
    return Path(os.path.realpath(path))


def _refuse_long_names(jobs: list[Job]) -> None:
    """Refuse scans whose results would have names that no file system takes."""
    added = max(len(result) for result in RESULTS) + len(".nii.gz")
    for job in jobs:
        if len(os.fsencode(job.stem)) + added > _LONGEST_NAME:
            raise SpansegError(
                f"{job.path}: this name is too long, for results add up to {added} letters to it and file systems take "
                f"{_LONGEST_NAME}; give the scan a shorter name."
            )


def _refuse_shared_names(jobs: list[Job]) -> None:
    """Refuse scans whose results would overwrite each other, on any file system."""
    taken: dict[str, Path] = {}
    for job in jobs:
        name = unicodedata.normalize("NFC", str(_real(job.folder) / job.stem)).casefold()
        if name in taken:
            raise SpansegError(
                f"{taken[name]} and {job.path} would both write {job.folder / job.stem}_dseg.nii.gz; "
                "rename one, segment them into different folders (-o), or give the folder above, whose tree is kept."
            )
        taken[name] = job.path


def _refuse_overwritten_scans(jobs: list[Job]) -> None:
    """Refuse results that would replace one of the scans."""
    scans = {_real(job.path) for job in jobs}
    for job in jobs:
        for result in RESULTS:
            written = job.folder / f"{job.stem}{result}.nii.gz"
            if _real(written) in scans:
                raise SpansegError(
                    f"{written}: a result of {job.path} would overwrite this scan; choose another folder with -o."
                )
