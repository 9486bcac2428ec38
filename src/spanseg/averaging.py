"""Answers of a network to several sentences about one scan: their mean, and how much they differ."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Averaged:
    """Mean of several answers.

    Args:
        probabilities: uint8, 0 to 255, shape (class, i, j, k).
        std: standard deviation over the answers, float32, shape (i, j, k): the root of half the variance summed over
            classes, which is that of the winning class's probability where two classes compete; ``None`` if there was
            one answer.
        differs: voxels whose label is not the same in all answers, boolean, shape (i, j, k); ``None`` if there was one.
    """

    probabilities: np.ndarray
    std: np.ndarray | None = None
    differs: np.ndarray | None = None

    def spread(self, brain: np.ndarray) -> dict[str, float]:
        """How much the answers differ: mean of ``std`` over the brain, and share of its voxels whose label differs.

        Args:
            brain: boolean, shape (i, j, k).

        Returns:
            Rounded values for the record; nothing if there was one answer or there is no brain.
        """
        if self.std is None or self.differs is None or not brain.any():
            return {}
        share = float(self.differs[brain].mean())
        return {"mean_std": round(float(self.std[brain].mean()), 4), "label_differs_share": round(share, 4)}


def averaged(answers: Iterable[np.ndarray]) -> Averaged:
    """Average answers one after the other, so that two of them are in memory at most; a single one stays as it is.

    Args:
        answers: at least one and at most 256 (their sum has 16 bits), uint8, shape (class, i, j, k).
    """
    following = iter(answers)
    first, second = next(following), next(following, None)
    if second is None:
        return Averaged(first)
    label = first.argmax(0).astype(np.uint8)
    total = np.zeros(first.shape, dtype=np.uint16)
    squares = np.zeros(first.shape[1:], dtype=np.int64)
    differs = np.zeros(first.shape[1:], dtype=bool)
    count = 0
    for answer in itertools.chain((first, second), following):
        count += 1
        total += answer
        squares += _squares(answer)
        differs |= answer.argmax(0) != label
    variance = (count * squares - _squares(total)) / (255.0 * count) ** 2  # of all classes together
    mean = ((total + count // 2) // count).astype(np.uint8)
    return Averaged(mean, np.sqrt(variance / 2).astype(np.float32), differs)


def _squares(values: np.ndarray) -> np.ndarray:
    """Sum of the squares over classes, whole numbers, shape (i, j, k); class after class to save memory."""
    total = np.zeros(values.shape[1:], dtype=np.int64)
    for one in values:
        total += np.square(one, dtype=np.int64)
    return total
