"""``benchmarks/front_to_back.py``: distances in the plane of the slices, sixths of the head, labels of another grid."""

from types import ModuleType

import numpy as np
import pytest

import tiny
from spanseg.volume import Volume


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return tiny.benchmark("front_to_back")


def test_distances_are_within_slices_and_far_where_there_is_no_white_matter(benchmark: ModuleType) -> None:
    white = np.zeros((10, 12, 3), bool)
    white[4:6, 2:10, 1] = True
    found = benchmark.from_border_mm(white, np.array([2.0, 1.0, 4.0]))
    assert found[5, 5, 1] == -2 and found[6, 5, 1] == 2 and found[8, 5, 1] == 6
    assert np.isinf(found[..., (0, 2)]).all()


def test_sixths_hold_all_of_the_head_and_what_lies_beyond_the_cerebrum(benchmark: ModuleType) -> None:
    cerebrum = np.zeros((4, 40, 4), bool)
    cerebrum[1:3, 5:35, 1:3] = True
    places = benchmark.places(cerebrum)
    assert np.sum(places, axis=0).min() == np.sum(places, axis=0).max() == 1
    assert places[0][:, :10].all() and places[-1][:, 35:].all()
    cortex = np.zeros_like(cerebrum)
    cortex[0] = True  # labels outside the truth count against a scan
    assert benchmark.dice((cerebrum | cortex) & places[2], cerebrum & places[2]) < 0.8


def test_labels_are_read_at_the_other_scans_voxels(benchmark: ModuleType) -> None:
    labels = Volume(np.arange(8, dtype=np.int32).reshape(2, 2, 2), np.eye(4))
    finer = np.diag([0.5, 1.0, 1.0, 1.0])
    finer[0, 3] = -0.25
    found = benchmark.onto(labels, Volume(np.zeros((4, 2, 3)), finer))
    assert (found[:, 0, 0] == [0, 0, 4, 4]).all() and (found[..., 2] == 0).all()
