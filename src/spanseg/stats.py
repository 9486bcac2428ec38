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


@dataclass(frozen=True)
class PairedTest:
    """A mean difference between two ways of doing something to the same subjects.

    Args:
        difference: mean with its bootstrap interval.
        wilcoxon_p: two-sided, Wilcoxon signed rank; NaN with fewer than two subjects.
        t_p: two-sided, paired t.
        detectable: the smallest mean difference that this many subjects, differing as these do, would show with 80 %
            power at the 5 % level.
    """

    difference: MeanInterval
    wilcoxon_p: float
    t_p: float
    detectable: float


def paired_test(first: Sequence[float], second: Sequence[float]) -> PairedTest:
    """Test whether the second differs from the first, subject by subject; pairs with a NaN are left out.

    Example:
        >>> round(paired_test([0.1, 0.2, 0.3, 0.4], [0.2, 0.3, 0.4, 0.6]).difference.mean, 3)
        0.125
    """
    from scipy import stats

    pairs = np.array([first, second], dtype=float).T
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    change = pairs[:, 1] - pairs[:, 0]
    interval = mean_interval(change.tolist(), [str(number) for number in range(change.size)])
    if change.size < 2:
        return PairedTest(interval, math.nan, math.nan, math.nan)
    if not change.any():
        return PairedTest(interval, 1.0, 1.0, 0.0)
    error = float(change.std(ddof=1)) / math.sqrt(change.size)
    reach = float(stats.t.ppf(1 - 0.05 / 2, change.size - 1) + stats.t.ppf(0.8, change.size - 1))
    t_p = float(2 * stats.t.sf(abs(change.mean()) / error, change.size - 1)) if error else 0.0
    return PairedTest(interval, float(stats.wilcoxon(change).pvalue), t_p, reach * error)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values of one family for how many they are, by Holm's step-down rule; NaNs stay and do not count.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    counted = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    corrected, highest = list(p_values), 0.0
    for rank, (p, place) in enumerate(counted):
        highest = max(highest, min(1.0, p * (len(counted) - rank)))
        corrected[place] = highest
    return corrected
