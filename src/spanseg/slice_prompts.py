"""Which slices are trained on, prompts as a network takes them, and simulated ones: boxes, points, earlier answers.

Reference: boxes are moved and points drawn from the error of the last answer as in Kirillov et al., ICCV 2023 (SAM).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from spanseg.clicks import Click, next_click

PLANES = {"sagittal": 0, "coronal": 1, "axial": 2}
"""Ways to cut a canvas, with the axis of each; a slice's rows and columns are the other two, in their order."""
EMPTY = 0.1
"""Share of the slices drawn for training that may show no structure."""
NO_POINT = -1
"""Label of a point that stands for none, where other structures of the batch have more points."""
BOX_JITTER, MOST_JITTER_VOXELS, MARGIN_VOXELS = 0.1, 4.0, 3.0
"""A simulated box is moved by this share of its side, at most by so much, and widened by a margin half of the time."""


@dataclass(frozen=True)
class SlicePrompts:
    """Prompts for each structure of each slice, in voxels of the slice, (row, column) counted from voxel centres.

    Args:
        points: where was pointed at; ``None`` for no points.
        labels: 1 for a point on the structure, 0 for one off it, :data:`NO_POINT` for none.
        boxes: first row, first column, last row, last column.
        logits: an earlier answer, on the grid of the network's masks.
    """

    points: Float[Tensor, "slice structure point 2"] | None = None
    labels: Int[Tensor, "slice structure point"] | None = None
    boxes: Float[Tensor, "slice structure 4"] | None = None
    logits: Float[Tensor, "slice structure row column"] | None = None

    def with_points(self, more: Sequence[Sequence[Click | None]]) -> SlicePrompts:
        """Add one point to each structure of each slice; ``None`` adds a point that stands for none."""
        voxels = [[(0.0, 0.0) if one is None else one.voxel for one in row] for row in more]
        signs = [[NO_POINT if one is None else int(one.positive) for one in row] for row in more]
        points, labels = torch.tensor(voxels, dtype=torch.float32)[:, :, None], torch.tensor(signs)[:, :, None]
        if self.points is not None and self.labels is not None:
            points = torch.cat([self.points, points.to(self.points.device)], 2)
            labels = torch.cat([self.labels, labels.to(self.labels.device)], 2)
        return replace(self, points=points, labels=labels)

    def to(self, device: torch.device) -> SlicePrompts:
        """The same prompts on a device."""
        named = {name: getattr(self, name) for name in ("points", "labels", "boxes", "logits")}
        return SlicePrompts(**{name: None if value is None else value.to(device) for name, value in named.items()})


def drawn_slices(
    target: Int[Tensor, "batch i j k"], axis: int, count: int, rng: np.random.Generator, empty: float = EMPTY
) -> Int[Tensor, "batch slice"]:
    """Draw slices of each scan; but for a share, of those that show a structure.

    Args:
        target: class of each voxel.
        axis: which axis is cut, 0 to 2.
        count: slices of each scan.
        rng: what is drawn with.
        empty: share of slices that may show none, 0 to 1.

    Returns:
        Their numbers.
    """
    others = [1 + other for other in (0, 1, 2) if other != axis]
    rows = []
    for shown in (target > 0).any(others[1]).any(others[0]).cpu().numpy():
        full, every = np.flatnonzero(shown), np.arange(len(shown))
        rows.append([rng.choice(every if not full.size or rng.random() < empty else full) for _ in range(count)])
    return torch.tensor(np.array(rows), device=target.device)


def around(mask: np.ndarray, margin: float = 0.0) -> np.ndarray:
    """Box round a mask that is not empty, widened within the slice: first row and column, last row and column."""
    inside = np.argwhere(mask)
    last = np.array(mask.shape) - 1
    low, high = np.clip(inside.min(0) - margin, 0, last), np.clip(inside.max(0) + margin, 0, last)
    return np.concatenate([low, high]).astype(np.float32)


def simulated_box(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A box as people draw it round a structure that is there: sides a little off, often with a margin; shape (4,)."""
    box = around(mask)
    sides = np.maximum(box[2:] - box[:2] + 1, 1)
    off = np.clip(rng.normal(0, BOX_JITTER, 4) * np.tile(sides, 2), -MOST_JITTER_VOXELS, MOST_JITTER_VOXELS)
    if rng.random() < 0.5:
        off += np.array([-1, -1, 1, 1]) * rng.uniform(0, MARGIN_VOXELS)
    rows, columns = (np.sort(np.clip((box + off)[axis::2], 0, mask.shape[axis] - 1)) for axis in (0, 1))
    return np.array([rows[0], columns[0], rows[1], columns[1]], dtype=np.float32)


def simulated_point(
    mask: np.ndarray, answer: np.ndarray | None = None, rng: np.random.Generator | None = None
) -> Click | None:
    """A point where an answer is most wrong; without an answer, on the structure. ``None`` where nothing is wrong.

    Args:
        mask: where the structure is, boolean, shape (row, column).
        answer: where it is said to be; ``None`` if nothing was answered yet.
        rng: see :func:`spanseg.clicks.next_click`.
    """
    return next_click(mask, np.zeros_like(mask) if answer is None else answer, rng)
