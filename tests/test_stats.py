"""Bootstrap means: right centre and width, one vote a subject, and the same figures for the same seed."""

import math

import numpy as np
import pytest
from scipy import stats

from spanseg.stats import holm, mean_interval, paired_test


def names(n: int) -> list[str]:
    return [f"sub-{index}" for index in range(n)]


def test_interval_is_that_of_scipy() -> None:
    values = np.random.default_rng(1).normal(0.8, 0.1, 25)
    found = mean_interval(values.tolist(), names(25))
    other = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((other.low, other.high), abs=0.003)
    assert found.subjects == 25


def test_interval_covers_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        found = mean_interval(generator.normal(0, 1, 40).tolist(), names(40))
        hits += found.low <= 0 <= found.high
    assert hits >= 50  # 95 % of 60 is 57; 49 or fewer would happen once in thousands of runs


def test_scans_of_one_subject_are_one_vote() -> None:
    found = mean_interval([1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"])
    assert (found.mean, found.subjects) == (0.5, 2)


def test_what_is_not_defined_is_left_out() -> None:
    found = mean_interval([math.nan, 0.5, 0.7], names(3))
    assert (found.mean, found.subjects) == (pytest.approx(0.6), 2)


def test_too_few_subjects_have_no_interval() -> None:
    one = mean_interval([0.5], ["a"])
    assert one.mean == 0.5 and math.isnan(one.low) and math.isnan(one.high)
    none = mean_interval([math.nan], ["a"])
    assert math.isnan(none.mean) and none.subjects == 0


def test_the_seed_decides() -> None:
    values = np.random.default_rng(3).random(9).tolist()
    assert mean_interval(values, names(9), seed=4) == mean_interval(values, names(9), seed=4)
    assert mean_interval(values, names(9), seed=4) != mean_interval(values, names(9), seed=5)


def test_a_paired_test_finds_a_shift_and_says_what_it_could_find() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(0.8, 0.05, 30)
    shifted = paired_test(first.tolist(), (first + 0.02 + generator.normal(0, 0.01, 30)).tolist())
    assert shifted.difference.low > 0 and shifted.wilcoxon_p < 0.001 and shifted.t_p < 0.001
    assert shifted.detectable < shifted.difference.mean
    same = paired_test([0.5, 0.6], [0.5, 0.6])
    assert same.t_p == 1 and same.detectable == 0
    assert math.isnan(paired_test([0.5], [0.6]).t_p)


def test_what_is_called_detectable_is_detected_four_times_in_five() -> None:
    generator, found, trials = np.random.default_rng(1), 0, 400
    for _ in range(trials):
        noise = generator.normal(0, 1.0, 12)
        reach = 0.89  # (t 0.975 + t 0.8 of 11 degrees of freedom) / sqrt(12)
        found += paired_test([0.0] * 12, (noise + reach).tolist()).t_p < 0.05
    assert 0.74 < found / trials < 0.86


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, math.nan, 0.02])[2] == pytest.approx(0.04) and math.isnan(holm([0.5, math.nan])[1])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
