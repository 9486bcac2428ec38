"""A corrector that paints a ball and a belief that needs no model, for tests of sessions and of the server.

As a program it is ``spanseg serve`` with these two: ``python fake_corrector.py serve SCAN …``.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from spanseg.beginnings import Beginning
from spanseg.beliefs import Belief, belief_of
from spanseg.cases import Case
from spanseg.images import Scan
from spanseg.labels import load_protocol
from spanseg.prompts import Prompt
from spanseg.session import Session
from spanseg.session_folder import open_session

SHAPE = (21, 24, 22)
AFFINE = np.array([[0.0, -3, 0, 36], [3, 0, 0, -31], [0, 0, 3, -33], [0, 0, 0, 1]])  # not in canonical order
HIPPOCAMPUS, AMYGDALA, WHITE = 17, 18, 2
PROTOCOL = load_protocol("aseg")


def point(i: int, j: int, k: int, positive: bool = True) -> Prompt:
    """A click."""
    return Prompt("point", positive, ((i, j, k),))


class BallCorrector:
    """Gives a ball round the newest prompt to the structure, or takes it away."""

    name = "ball painter 1 (sha256 0000)"

    def __init__(self, *given: Any, **options: Any) -> None:
        self.asked: list[tuple[int, int]] = []

    def correct(self, labels: np.ndarray, structure: int, prompts: Sequence[Prompt]) -> np.ndarray:
        """Paint."""
        self.asked.append((structure, len(prompts)))
        newest = prompts[-1]
        centre = np.mean(newest.voxels, axis=0)
        away = sum((axis - c) ** 2 for axis, c in zip(np.indices(labels.shape), centre, strict=True))
        inside = away <= (2 + len(prompts)) ** 2
        after = labels.copy()
        if newest.positive:
            after[inside] = structure
        else:
            after[inside & (labels == structure)] = 0
        return after


class FakeBelief:
    """Labels a block as white matter, and doubts a piece of it and a smaller piece outside."""

    name, sha256 = "fake model 1", "0" * 64

    def __init__(self, *given: Any, **options: Any) -> None:
        self.asked = 0

    def __call__(self, scan: Scan) -> tuple[np.ndarray, Belief]:
        """Segment."""
        self.asked += 1
        labels = np.zeros(scan.volume.shape, dtype=np.int32)
        labels[4:16, 4:20, 4:14] = WHITE
        soft = np.zeros((*labels.shape, len(PROTOCOL)), dtype=np.uint8)
        soft[..., 0] = 255
        white, hippocampus = PROTOCOL.class_of(WHITE), PROTOCOL.class_of(HIPPOCAMPUS)
        _believe(soft, (slice(4, 16), slice(4, 20), slice(4, 14)), {white: 255})
        _believe(soft, (slice(8, 13), slice(8, 13), slice(8, 13)), {white: 55, hippocampus: 200})
        _believe(soft, (slice(17, 19), slice(4, 6), slice(4, 6)), {0: 100, hippocampus: 155})
        return labels, belief_of(soft, self.sha256)


def _believe(soft: np.ndarray, where: tuple[slice, slice, slice], classes: dict[int, int]) -> None:
    soft[where] = 0
    for index, value in classes.items():
        soft[(*where, index)] = value


def write_scan(path: Path, seed: int = 0) -> Path:
    """Write a small scan of noise on an oblique order of axes."""
    data = np.random.default_rng(seed).uniform(1, 100, SHAPE).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), path)
    return path


def write_labels(path: Path, values: dict[int, int] | None = None, affine: np.ndarray = AFFINE) -> Path:
    """Write a label image on the scan's grid: an id for each slice that is named."""
    data = np.zeros(SHAPE, dtype=np.int16)
    for index, value in (values or {5: HIPPOCAMPUS, 6: AMYGDALA}).items():
        data[index, 5:12, 5:12] = value
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return path


def begin(case: Case, beginning: Beginning | None = None, restore: bool = False) -> Session:
    """Open a session with the fake model."""
    return open_session(case, PROTOCOL, FakeBelief(), beginning, restore)


def click(session: Session, *clicks: tuple[int, tuple[int, int, int]]) -> None:
    """Answer positive points, each about a structure."""
    for structure, voxel in clicks:
        session.prompt(structure, point(*voxel), BallCorrector())


if __name__ == "__main__":
    from spanseg import beliefs, correcting
    from spanseg.cli.main import main

    beliefs.ModelBelief = FakeBelief  # type: ignore[assignment, misc]
    correcting.Corrector = BallCorrector  # type: ignore[assignment, misc]
    main(sys.argv[1:])
