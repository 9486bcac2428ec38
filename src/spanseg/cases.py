"""Which scans are corrected, under which names, and where the files of each correction lie."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from spanseg.errors import SpansegError
from spanseg.inputs import Job, find_jobs, stem_of

SAVED = ("_dseg.nii.gz", "_dseg.tsv", "_volumes.tsv", "_dseg.json")
"""What follows ``<stem>_desc-corrected`` in the names of what is saved; the last is written last."""


@dataclass(frozen=True)
class Case:
    """One scan to correct.

    Args:
        name: unique among the cases that are open together.
        scan: its file, which is only read.
        folder: where all that belongs to its correction is written.
    """

    name: str
    scan: Path
    folder: Path

    @property
    def session(self) -> Path:
        """Folder of the session."""
        return self.folder / "session"

    @property
    def record(self) -> Path:
        """What the session began with; a session exists when this file does."""
        return self.session / "session.json"

    @property
    def start(self) -> Path:
        """Labels that the session began with."""
        return self.session / "start.nii.gz"

    @property
    def log(self) -> Path:
        """All events."""
        return self.session / "events.jsonl"

    @property
    def belief(self) -> Path:
        """Probabilities of the default model, kept so that reopening is quick."""
        return self.session / "belief.npz"

    @property
    def claim(self) -> Path:
        """Says which process has the session open."""
        return self.session / ".claim"

    @property
    def saved(self) -> tuple[Path, ...]:
        """The files of a saved correction: labels, their table, volumes, and the record."""
        return tuple(self.folder / f"{stem_of(self.scan)}_desc-corrected{ending}" for ending in SAVED)

    @property
    def written(self) -> Iterator[Path]:
        """Every file with a fixed name that a correction writes."""
        yield from (self.record, self.start, self.log, self.belief, self.claim, *self.saved)


def find_cases(source: Path, out: Path, labels: Path | None = None) -> list[Case]:
    """List the cases of a scan or of a folder of scans.

    Args:
        source: a scan, or a folder.
        out: folder under which each case gets its own, named as the case.
        labels: label image that shall not be overwritten either.

    Raises:
        SpansegError: no scan is there, labels are given for several, or something that is read would be overwritten.
    """
    jobs = find_jobs([source], out)
    if labels is not None and len(jobs) > 1:
        raise SpansegError(f"--labels belongs to one scan, and {source} holds {len(jobs)}; give one scan.")
    cases = [Case(name, job.path, out / name) for name, job in zip(_names(jobs, out), jobs, strict=True)]
    _refuse_overwriting(cases, [*(case.scan for case in cases), *([labels] if labels else [])])
    return cases


def _names(jobs: list[Job], out: Path) -> list[str]:
    """Stem of each scan; where scans share one, with the folders above it, as ``sub-01_mri_T1``."""
    counts = Counter(job.stem.casefold() for job in jobs)
    names = []
    for job in jobs:
        folders = job.folder.relative_to(out).parts if counts[job.stem.casefold()] > 1 else ()
        names.append("_".join([*folders, job.stem]))
    twice = [name for name, count in Counter(name.casefold() for name in names).items() if count > 1]
    if twice:
        raise SpansegError(f"two scans would both be named {twice[0]}; rename one, or give them one at a time.")
    return names


def _refuse_overwriting(cases: list[Case], inputs: list[Path]) -> None:
    read = {_plain(path): path for path in inputs}
    for case in cases:
        for path in case.written:
            if _plain(path) in read:
                raise SpansegError(
                    f"{read[_plain(path)]}: the correction of {case.scan.name} would overwrite this file; choose "
                    "another output folder (-o)."
                )


def _plain(path: Path) -> str:
    """A path without links, as file systems that do not tell capitals apart see it."""
    return os.path.realpath(path).casefold()
