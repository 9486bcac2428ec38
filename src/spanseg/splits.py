"""Who trained a model and who was held out, by the hashes of their files, so that no model is tested on the former."""

from __future__ import annotations

import gzip
import hashlib
import json
import tomllib
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from spanseg import files
from spanseg.errors import SpansegError
from spanseg.generation import PackedMap
from spanseg.participants import participant_of
from spanseg.sidecar import labels_sha256

NAME = "split.json"
FORMAT = "spanseg split 1"
SHORT = 16
"""Letters of a hash that are kept where names are not: in a model folder, which is given to others."""


@dataclass(frozen=True, order=True)
class Member:
    """A label map or a scan, on one side of a split.

    Args:
        kind: ``label map`` or ``scan``.
        name: the map's, or whose scan it is.
        sha256: of the packed voxels of a map, of the bytes of a scan's file as they are without compression.
    """

    kind: str
    name: str
    sha256: str


def maps_in(maps: Iterable[PackedMap]) -> list[Member]:
    """Label maps as members, by the voxels that training sees."""
    return [Member("label map", packed.name, labels_sha256(packed.classes)) for packed in maps]


def scans_in(scans: Iterable[Path]) -> list[Member]:
    """Scans as members, by the bytes of their files: compressed anew, a scan is still the same."""
    return [Member("scan", participant_of(scan), _sha256(scan)) for scan in scans]


def _sha256(scan: Path) -> str:
    """Hash of a file's bytes, unpacked where they can be."""
    now = scan.stat()
    return _sha256_of(scan, now.st_mtime_ns, now.st_size)


@lru_cache(maxsize=10_000)
def _sha256_of(scan: Path, mtime_ns: int, size: int) -> str:
    """The hash of a file as it is now; remembered, for a study asks for it again and again."""
    try:
        with gzip.open(scan) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return files.file_sha256(scan)


def write(folder: Path, train: Sequence[Member], held_out: Sequence[Member], starts: Sequence[Path] = ()) -> None:
    """Write the split of a training run into its folder; arguments and errors as for :func:`checked`."""
    save(folder, checked(folder, train, held_out, starts))


def save(folder: Path, record: dict[str, Any]) -> None:
    """Write what :func:`checked` returned."""
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(folder / NAME, json.dumps(record, indent=1, ensure_ascii=False) + "\n")


def checked(
    folder: Path, train: Sequence[Member], held_out: Sequence[Member], starts: Sequence[Path] = ()
) -> dict[str, Any]:
    """Check the split of a training run; what an earlier run in its folder was trained on counts as seen.

    Args:
        folder: of the run.
        train: what it trains on.
        held_out: what it is validated or tested with.
        starts: folders of the models that it starts from or looks through.

    Raises:
        SpansegError: something is held out that is trained on too, or that one of the models was trained on.
    """
    twice = sorted({member.sha256 for member in train} & {member.sha256 for member in held_out})
    if twice:
        one = next(member for member in held_out if member.sha256 == twice[0])
        raise SpansegError(f"the {one.kind} {one.name} is held out and trained on too; leave it out of one of the two.")
    earlier: set[str] = set()
    for place in (folder, *starts):
        require_unseen(place, held_out)
        earlier |= seen_by(place)
    return {
        "format": FORMAT,
        "train": [asdict(member) for member in sorted(train)],
        "held_out": [asdict(member) for member in sorted(held_out)],
        "earlier": sorted(earlier - {member.sha256[:SHORT] for member in train}),
    }


def seen_by(folder: Path) -> frozenset[str]:
    """What a run or an exported model was trained on, itself or what it started from: beginnings of hashes.

    Empty for a model without a record, such as one that others trained.

    Raises:
        SpansegError: the record is there and cannot be read.
    """
    try:
        if (folder / NAME).is_file():
            record = json.loads((folder / NAME).read_text(encoding="utf-8"))
            return frozenset([member["sha256"][:SHORT] for member in record["train"]] + record["earlier"])
        if (folder / "model.toml").is_file():
            table = tomllib.loads((folder / "model.toml").read_text(encoding="utf-8"))
            return frozenset(table.get("data", {}).get("seen", []))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpansegError(
            f"{folder}: the record of what this model was trained on cannot be read ({error}); copy the folder again."
        ) from error
    return frozenset()


def require_unseen(folder: Path, members: Iterable[Member]) -> None:
    """Refuse to test a model with what it was trained on.

    Raises:
        SpansegError: the first of the members that the model in the folder has seen.
    """
    seen = seen_by(folder)
    for member in members:
        if member.sha256[:SHORT] in seen:
            raise SpansegError(
                f"{member.name}: the model in {folder} was trained on this {member.kind}; leave it out, or use "
                "a model that has not seen it."
            )
