"""Prompts as a network sees them: channels beside the image; and simulated clicks, which training and tests use.

Reference: clicks are placed as in Xu et al., CVPR 2016, and Mahadevan et al., BMVC 2018: the next one goes into the
largest piece that is wrong, where it is deepest. Here in 3D, and a part of the clicks goes to any voxel of the piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

CHANNELS = ("label", "positive", "negative", "box")
"""What a click network sees beside the image, in this order."""
REACH_VOXELS = 5
"""How far a click is drawn on its channel: 1 at its voxel, falling to 0 at this distance."""
_ALONG = np.arange(-REACH_VOXELS, REACH_VOXELS + 1)
_CONE = np.clip(1 - np.sqrt(_ALONG[:, None, None] ** 2 + _ALONG[:, None] ** 2 + _ALONG**2) / REACH_VOXELS, 0, 1).astype(
    np.float32
)


@dataclass(frozen=True)
class Click:
    """One click on a canvas.

    Args:
        voxel: index on the canvas, or on a slice.
        positive: whether the voxel belongs to the structure.
    """

    voxel: tuple[int, ...]
    positive: bool


def click_map(voxels: Iterable[Sequence[int]], shape: tuple[int, int, int]) -> np.ndarray:
    """Draw clicks as cones, float32 0 to 1, shape (i, j, k); voxels off the canvas as far as they reach in."""
    reach = REACH_VOXELS
    padded = np.zeros([n + 2 * reach for n in shape], dtype=np.float32)
    for voxel in voxels:
        if all(-reach <= index < n + reach for index, n in zip(voxel, shape, strict=True)):
            _draw(padded, [index + reach for index in voxel])
    return padded[reach:-reach, reach:-reach, reach:-reach]


def _draw(canvas: np.ndarray, centre: Sequence[int]) -> None:
    """Draw a cone round a voxel of a canvas, as far as it lies on it (in place)."""
    on, of = [], []
    for index, n in zip(centre, canvas.shape, strict=True):
        first, last = max(0, index - REACH_VOXELS), min(n, index + REACH_VOXELS + 1)
        on.append(slice(first, last))
        of.append(slice(first - index + REACH_VOXELS, last - index + REACH_VOXELS))
    part = canvas[tuple(on)]
    np.maximum(part, _CONE[tuple(of)], out=part)


def channels(label: np.ndarray, clicks: Sequence[Click], box: np.ndarray | None = None) -> np.ndarray:
    """What a click network sees beside the image.

    Args:
        label: where the structure is said to be now, boolean, shape (i, j, k).
        clicks: all clicks that count.
        box: voxels of a box that was drawn round the structure, boolean, same shape; ``None`` for none.

    Returns:
        float32 array (channel, i, j, k) in the order of :data:`CHANNELS`.
    """
    i, j, k = label.shape
    maps = [click_map((c.voxel for c in clicks if c.positive is sign), (i, j, k)) for sign in (True, False)]
    inside = np.zeros_like(label) if box is None else box
    return np.stack([label.astype(np.float32), *maps, inside.astype(np.float32)])


def next_click(truth: np.ndarray, label: np.ndarray, rng: np.random.Generator | None = None) -> Click | None:
    """Click into the largest connected piece in which a label is wrong.

    Args:
        truth, label: where the structure is and where it is said to be, boolean, shape (i, j, k) or (row, column).
        rng: with it, half of the clicks go to any voxel of the piece; without, each to its deepest voxel.

    Returns:
        The click, positive where the structure is missing; ``None`` if nothing is wrong.
    """
    from scipy import ndimage

    best: tuple[int, np.ndarray, tuple[slice, ...], bool] | None = None
    for positive, wrong in ((True, truth & ~label), (False, label & ~truth)):
        pieces, found = ndimage.label(wrong)
        if not found:
            continue
        sizes = np.bincount(pieces.ravel())[1:]
        largest = int(sizes.argmax()) + 1
        if best is None or sizes.max() > best[0]:
            box = ndimage.find_objects(pieces, largest)[largest - 1]
            best = int(sizes.max()), pieces[box] == largest, box, positive
    if best is None:
        return None
    _, piece, box, positive = best
    if rng is not None and rng.random() < 0.5:
        inside = np.argwhere(piece)
        chosen = inside[int(rng.integers(len(inside)))]
    else:
        depth = ndimage.distance_transform_edt(np.pad(piece, 1))[(slice(1, -1),) * piece.ndim]
        chosen = np.array(np.unravel_index(depth.argmax(), depth.shape))
    return Click(tuple(int(index) + side.start for index, side in zip(chosen, box, strict=True)), positive)
