"""Overlapping windows that cover a large canvas, and their answers blended into one."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from spanseg.geometry import Slices

_ONE = 256
"""What a weight of 1 is in the 16-bit sums: 255 times this, and the rounding of 27 windows, fit into them."""


def blended(
    answer: Callable[[Slices], np.ndarray], covered: np.ndarray, window: tuple[int, int, int], classes: int
) -> np.ndarray:
    """Ask about windows that overlap by half and average the answers, weighted by a triangle along each axis.

    Args:
        answer: gives the uint8 probabilities of a window, shape (class, i, j, k).
        covered: boolean canvas, true where the scan has voxels; windows without any are background and not asked about.
        window: voxels of a window, at most those of the canvas.
        classes: how many there are.

    Returns:
        uint8 probabilities of the whole canvas, shape (class, i, j, k).
    """
    total = np.zeros((classes, *covered.shape), dtype=np.uint16)
    axes = [axis_windows(n, size) for n, size in zip(covered.shape, window, strict=True)]
    for (i, along_i), (j, along_j), (k, along_k) in itertools.product(*axes):
        box = (i, j, k)
        weight = _ONE * along_i[:, None, None] * along_j[:, None] * along_k
        if not covered[box].any():
            total[0][box] += np.rint(255 * weight).astype(np.uint16)
            continue
        for sums, probability in zip(total, answer(box), strict=True):
            sums[box] += np.rint(probability * weight).astype(np.uint16)
    return ((total + _ONE // 2) // _ONE).astype(np.uint8)


def axis_windows(length: int, window: int) -> list[tuple[slice, np.ndarray]]:
    """Windows along one axis, evenly spaced and overlapping by at least half, with weights that sum to 1 everywhere.

    Args:
        length: voxels of the axis.
        window: voxels of a window, at most ``length``.

    Returns:
        For each window its voxels and their weights, float32, shape (window,).
    """
    steps = math.ceil(2 * (length - window) / window)
    starts = [round(step * (length - window) / max(steps, 1)) for step in range(steps + 1)]
    triangle = np.minimum(np.arange(window) + 1, window - np.arange(window)).astype(np.float64)
    total = np.zeros(length)
    for start in starts:
        total[start : start + window] += triangle
    places = [slice(start, start + window) for start in starts]
    return [(place, (triangle / total[place]).astype(np.float32)) for place in places]
