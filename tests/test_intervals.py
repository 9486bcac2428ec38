"""Intervals of volumes: how often they hold on data whose spread is known, and what is read from a model folder."""

import math
from pathlib import Path

import numpy as np
import pytest

from spanseg.errors import SpansegError
from spanseg.intervals import NAME, Intervals, conformal_quantiles, fit_factors, read_intervals, write_intervals
from spanseg.result import StructureVolume

CAUDATE = StructureVolume(11, "Left-Caudate", 3500.0, 3400.0)


def test_conformal_quantiles_hold_one_more_value_as_often_as_promised():
    """Skewed values, 40 at a time: their plain 5 % and 95 % quantiles would hold fewer than 90 % of new ones."""
    rng = np.random.default_rng(0)
    samples, new = rng.lognormal(size=(4000, 40)), rng.lognormal(size=4000)
    bounds = np.array([conformal_quantiles(sample, 0.9) for sample in samples])
    held = ((bounds[:, 0] <= new) & (new <= bounds[:, 1])).mean()
    exact = 37 / 41  # ranks 2 to 39 of 41 places, ends open
    assert held == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 4000))
    assert (new < bounds[:, 0]).mean() == pytest.approx((new > bounds[:, 1]).mean(), abs=0.02)


def test_conformal_quantiles_are_order_statistics():
    assert conformal_quantiles(np.arange(19.0)[::-1], 0.9) == (0.0, 18.0)
    assert conformal_quantiles(np.arange(39.0), 0.9) == (1.0, 37.0)
    assert conformal_quantiles(np.arange(18.0), 0.9) == (-math.inf, math.inf)


@pytest.mark.parametrize(("between", "within"), [(0.10, 0.03), (0.03, 0.10), (0.0, 0.05)])
def test_factors_of_three_people_hold_for_a_fourth(between, within):
    """Without the widening for few people, the first case would hold for about 60 % of them."""
    rng = np.random.default_rng(1)
    held = []
    for _ in range(1500):
        people = rng.normal(0.2, between, (4, 1)) + rng.normal(0, within, (4, 20))
        low, high = fit_factors(people[:3])
        held.append(low <= math.exp(people[3, 0]) <= high)
    assert 0.88 <= np.mean(held) <= 0.98


def test_too_few_people_or_scans_have_no_factors():
    assert fit_factors([[0.1] * 50]) is None
    assert fit_factors([[0.1, 0.2], [0.1, 0.3]]) is None


def test_the_interval_scales_with_the_volume():
    intervals = Intervals({"Left-Caudate": (0.8, 1.1)}, floor_mm3=0.0)
    small, large = (intervals.around(StructureVolume(11, "Left-Caudate", mm3, mm3)) for mm3 in (1000.0, 3000.0))
    assert (small.low_mm3, small.high_mm3) == pytest.approx((800, 1100))
    assert (large.low_mm3, large.high_mm3) == pytest.approx((2400, 3300))


def test_a_structure_that_was_not_found_may_be_there():
    lost = Intervals({"Left-Inf-Lat-Vent": (0.5, 3.0)}, 50.0).around(StructureVolume(5, "Left-Inf-Lat-Vent", 0.0, 0.0))
    assert (lost.low_mm3, lost.high_mm3) == (0.0, 100.0)


def test_a_lost_structure_that_everybody_has_gets_no_interval():
    lost = StructureVolume(17, "Left-Hippocampus", 0.4, 0.0)
    assert Intervals({"Left-Hippocampus": (0.8, 1.2)}).around(lost) == lost


def test_what_has_no_volume_or_no_factors_has_no_interval():
    intervals = Intervals({"IntraCranialVol": (0.9, 1.1)})
    stripped = StructureVolume(0, "IntraCranialVol", None, None, "skull-stripped")
    assert intervals.around(stripped) == stripped
    assert intervals.around(CAUDATE) == CAUDATE


def test_a_file_is_read_as_it_was_written(tmp_path: Path):
    write_intervals(tmp_path, "a" * 64, {"Left-Caudate": (0.9, 1.25), "3rd-Ventricle": (0.25, 2.0)}, people=3, scans=30)
    found = read_intervals(tmp_path, "a" * 64)
    assert found.factors == {"Left-Caudate": (0.9, 1.25), "3rd-Ventricle": (0.25, 2.0)}
    assert len(found.sha256) == 64 and not found.note


def test_no_file_and_a_file_for_other_weights_give_none(tmp_path: Path):
    assert read_intervals(tmp_path, "a" * 64) == Intervals()
    write_intervals(tmp_path, "b" * 64, {"Left-Caudate": (0.9, 1.1)}, people=3, scans=30)
    other = read_intervals(tmp_path, "a" * 64)
    assert not other.factors and "another network" in other.note
    assert other.around(CAUDATE).low_mm3 is None


@pytest.mark.parametrize(
    "text",
    [
        "this is no table",
        "[factors]\nx = [1, 2]",
        '[fit]\nmodel_sha256 = "a"\nfloor_mm3 = 50\n[factors]\nx = [2, 1]',
        '[fit]\nmodel_sha256 = "a"\nfloor_mm3 = 50\n[factors]\nx = [1]',
        '[fit]\nmodel_sha256 = "a"\nfloor_mm3 = 50\n[factors]\nx = [1, inf]',
        '[fit]\nmodel_sha256 = "a"\nfloor_mm3 = "nan"\n[factors]\nx = [1, 2]',
        'fit = 3\nfactors = "x"',
    ],
)
def test_a_damaged_file_is_refused(tmp_path: Path, text: str):
    (tmp_path / NAME).write_text(text, encoding="utf-8")
    with pytest.raises(SpansegError, match=NAME):
        read_intervals(tmp_path, "a")
