"""Means over subjects with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
"""Share of the bootstrap means that the interval holds."""
_DRAWS, _AT_ONCE = 10_000, 500


@dataclass(frozen=True)
class MeanInterval:
    """A mean over subjects with its bootstrap interval; NaN where there are too few subjects.

    Args:
        mean: mean over the subjects.
        low: lower end of the 95 % interval.
        high: its upper end.
        subjects: how many subjects had a value.
    """

    mean: float
    low: float
    high: float
    subjects: int


def mean_interval(values: Sequence[float], subjects: Sequence[str], seed: int = 0) -> MeanInterval:
    """Mean over subjects with its 95 % percentile bootstrap interval.

    Scans of one subject are averaged first and subjects are drawn, because scans of one person are not independent.
    NaNs are left out. The same seed gives the same interval.

    Args:
        values: one value a scan.
        subjects: whose scan it is, one name a scan.
        seed: of the draws.

    Example:
        >>> mean_interval([1.0, 3.0, 5.0], ["a", "a", "b"]).mean
        3.5
    """
    of_subject: dict[str, list[float]] = {}
    for value, subject in zip(values, subjects, strict=True):
        if not math.isnan(value):
            of_subject.setdefault(subject, []).append(value)
    means = np.array([np.mean(scans) for scans in of_subject.values()])
    if not means.size:
        return MeanInterval(math.nan, math.nan, math.nan, 0)
    if means.size == 1:
        return MeanInterval(float(means[0]), math.nan, math.nan, 1)
    low, high = np.quantile(_bootstrap_means(means, seed), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return MeanInterval(float(means.mean()), float(low), float(high), means.size)


def _bootstrap_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Means of samples drawn with replacement, a batch at a time to bound the memory."""
    generator = np.random.default_rng(seed)
    batches = (generator.integers(values.size, size=(_AT_ONCE, values.size)) for _ in range(_DRAWS // _AT_ONCE))
    return np.concatenate([values[batch].mean(axis=1) for batch in batches])
