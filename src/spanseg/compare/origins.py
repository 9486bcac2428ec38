"""What made the weights in a study's work folder, so that no cell goes on from weights of something else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from spanseg import checkpoint, files, schemes, splits
from spanseg.compare.people import Person, Told, scans_of
from spanseg.errors import SpansegError

MADE_BY = "made_by.json"


def fingerprint(person: Person) -> str:
    """The beginning of a hash over a person's scans, labels and how these are read; recompressed files are the same."""
    members = splits.scans_in(path for pair in person.scans for path in pair)
    return joined([*(member.sha256 for member in members), *_schemes(person)])


def _schemes(person: Person) -> list[str]:
    """How a person's labels are read: the name of a shipped scheme, or a hash of each table."""
    if person.labels:
        table = Path(person.labels)
        return [files.file_sha256(table) if table.is_file() else person.labels]
    tables = {schemes.find_table(truth) for _, truth in person.scans}
    return sorted(files.file_sha256(table) for table in tables if table) or [""]


def joined(hashes: Iterable[str]) -> str:
    """One short hash of several."""
    return hashlib.sha256("".join(hashes).encode()).hexdigest()[: splits.SHORT]


def claim(
    folder: Path,
    recipe: Mapping[str, Any],
    learns: Iterable[Person],
    watched: Iterable[Person],
    told: Told,
    augment: str,
) -> None:
    """Take a folder for weights, and note what makes them and whose scans they see.

    Args:
        folder: of one training.
        recipe: of the training.
        learns: whom it learns from.
        watched: whom its curve is followed on.
        told: the facts that each person is told with, by centre and subject.
        augment: how far scans are varied.

    Raises:
        SpansegError: there are weights in the folder that another recipe, other scans or other facts made, or the
            curve is followed on a scan that this training, or the one that it starts from, learns from.
    """
    start = str(recipe["train"].get("start", ""))
    before = [checkpoint.weights_of(start)] if start else []
    begun = "".join(map(files.file_sha256, before))  # its folder may be called otherwise
    people = {"learns": list(learns), "watched": list(watched)}
    sides = {
        side: {f"{one.centre}/{one.subject}": [fingerprint(one), repr(told[one.entry])] for one in members}
        for side, members in people.items()
    }
    made_by = {"recipe": {**recipe, "train": {**recipe["train"], "start": begun}}, "augment": augment} | sides
    text, path = json.dumps(made_by, indent=1, sort_keys=True, ensure_ascii=False) + "\n", folder / MADE_BY
    has_weights = any((folder / name).is_file() for name in (checkpoint.DELTA, checkpoint.STATE))
    if has_weights and not (path.is_file() and path.read_text(encoding="utf-8") == text):
        raise SpansegError(
            f"{folder}: the weights here were made by another recipe, start, augmentation, other scans or other facts "
            "than this study's; give another --work, or remove the folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    files.write_text(path, text)
    if not has_weights:
        (folder / splits.NAME).unlink(missing_ok=True)  # whom a training meant to learn from that never got to weights
    seen, watched_scans = (splits.scans_in(scans_of(members)) for members in people.values())
    splits.write(folder, seen, watched_scans, [weights.parent for weights in before])
