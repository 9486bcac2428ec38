"""Finding the middle of the brain: a first guess from the top of the head, corrected by what the network predicts."""

from __future__ import annotations

import numpy as np

from spanseg.geometry import Slices, bounding_box

FROM_TOP_MM = 75.0
"""Typical distance from the top of the head to the centroid of the brain."""
HEIGHT_MM = 150.0
"""How far below the top the foreground counts: a neck is longer, a brain is not."""
SLAB_MM = 100.0
"""A slab less high than twice ``FROM_TOP_MM`` is centred on its middle, but at least half of this below its top."""
LOWEST_MM = 12.0
"""A scan with foreground in its lowest slices, this far up, shows a head and not a stripped brain."""
SLICE_MM2 = 1500.0
"""Foreground of a slice that counts: more than noise, less than the crown of a small head."""
FAR_MM = 8.0
"""A second pass is made when the predicted brain lies farther than this from the middle of the canvas."""


def first_guess(data: np.ndarray, voxel_mm: np.ndarray) -> np.ndarray:
    """Guess the centre of the brain from the foreground, reading from the top downwards.

    The centroid of the whole foreground would lie below the brain wherever neck or shoulders are in the image.

    Args:
        data: scan in canonical order, shape (i, j, k).
        voxel_mm: edge lengths of its voxels, shape (3,).

    Returns:
        Position in mm along the scan's axes from the centre of its first voxel, shape (3,).
    """
    steps = [max(1, int(4.0 / size)) for size in voxel_mm]
    coarse = data[:: steps[0], :: steps[1], :: steps[2]]
    size = voxel_mm * steps
    foreground = coarse > _threshold(coarse)
    area = foreground.sum(axis=(0, 1)) * size[0] * size[1]
    solid = np.flatnonzero(area > SLICE_MM2)
    top = int(solid[-1]) if solid.size else coarse.shape[2] - 1
    bottom = max(0, top - int(HEIGHT_MM / size[2]))
    inside = np.argwhere(foreground[:, :, bottom : top + 1])
    if not len(inside):
        return (np.array(data.shape) - 1) / 2 * voxel_mm
    middle = (inside.mean(axis=0) + np.array([0, 0, bottom])) * size
    lowest = max(bottom + 1, int(LOWEST_MM / size[2]))
    if area[:lowest].max() > SLICE_MM2:  # a head goes on below, a stripped brain floats
        middle[2] = top * size[2] - min(FROM_TOP_MM, max(top * size[2] / 2, SLAB_MM / 2))
    return middle


def _threshold(data: np.ndarray) -> float:
    """Otsu's threshold between air and tissue, on intensities cut off at the 99th percentile.

    Reference: Otsu, IEEE Trans. Systems, Man, and Cybernetics 1979.
    """
    low, high = np.quantile(data, [0.0, 0.99])
    if not high > low:
        return float(low)
    counts, edges = np.histogram(np.clip(data, low, high), bins=128)
    middles = (edges[:-1] + edges[1:]) / 2
    weight = counts.cumsum()
    mass = (counts * middles).cumsum()
    other = weight[-1] - weight
    with np.errstate(divide="ignore", invalid="ignore"):
        between = weight * other * (mass / weight - (mass[-1] - mass) / other) ** 2
    return float(middles[int(np.nanargmax(between))])


def offset_mm(brain: np.ndarray, voxel_mm: float) -> np.ndarray:
    """How far the centroid of a predicted brain lies from the middle of its canvas, in mm, shape (3,).

    Args:
        brain: boolean canvas.
        voxel_mm: edge length of the canvas's voxels.
    """
    centroid = np.array([_centroid(brain, axis) for axis in range(3)])
    return (centroid - (np.array(brain.shape) - 1) / 2) * voxel_mm


def _centroid(mask: np.ndarray, axis: int) -> float:
    profile = mask.sum(axis=tuple(other for other in range(3) if other != axis), dtype=np.float64)
    return float((profile * np.arange(len(profile))).sum() / max(profile.sum(), 1))


def largest_piece(brain: np.ndarray) -> Slices | None:
    """Box round the largest connected piece of a predicted brain, boolean (i, j, k); ``None`` if there is none."""
    from scipy import ndimage

    pieces, found = ndimage.label(brain)
    if not found:
        return None
    return bounding_box(pieces == 1 + np.bincount(pieces.ravel())[1:].argmax())


def touches_border(brain: np.ndarray, covered: np.ndarray) -> bool:
    """Whether the brain reaches a face of the canvas behind which the scan goes on.

    Args:
        brain: boolean canvas.
        covered: boolean canvas, true where the scan has voxels.
    """
    for axis in range(3):
        for end in (0, -1):
            face = np.take(brain, end, axis=axis) & np.take(covered, end, axis=axis)
            if face.sum() > 25:
                return True
    return False
