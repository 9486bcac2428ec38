"""Left and right are paired by the protocol, and the index has the right sign."""

import pytest

import results
from spanseg.asymmetry import lateral_pairs

RESULT = results.result_of(results.ball_labels())


def test_pairs_are_left_and_right_of_one_structure():
    pairs = lateral_pairs(RESULT)
    assert len(pairs) == 14
    for pair in pairs:
        assert pair.left.name == pair.right.name.replace("Right-", "Left-")


@pytest.mark.parametrize(
    ("left", "right", "percent"), [(3300.0, 2700.0, 20.0), (1.0, 3.0, -100.0), (0.0, 5.0, -200.0), (0.0, 0.0, None)]
)
def test_index(left, right, percent):
    result = results.with_volume(results.with_volume(RESULT, "Left-Caudate", mm3=left), "Right-Caudate", mm3=right)
    caudate = next(pair for pair in lateral_pairs(result) if pair.name == "Caudate")
    assert caudate.asymmetry_percent == (None if percent is None else pytest.approx(percent))


def test_labels_stand_in_where_there_are_no_probabilities():
    result = results.with_volume(RESULT, "Left-Caudate", mm3=None, mm3_labels=1000.0)
    result = results.with_volume(result, "Right-Caudate", mm3=None, mm3_labels=3000.0)
    caudate = next(pair for pair in lateral_pairs(result) if pair.name == "Caudate")
    assert caudate.asymmetry_percent == pytest.approx(-100)
