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


def test_a_painted_scan_has_its_structures_medians_and_the_noise_asked_for(benchmark: ModuleType) -> None:
    truth = np.zeros((20, 60, 8), np.int32)
    truth[2:10, 6:54], truth[10:18, 6:54] = 2, 3
    data = np.where(truth == 2, 100.0, np.where(truth == 3, 110.0, 7.0)).astype(np.float32)
    data[4, 30, 4] = 900  # what is no structure is painted over
    image = Volume(data, np.diag([1.0, 1.0, 3.0, 1.0]))
    clean = benchmark.painted(image, truth, 0.0)
    assert clean.data[4, 30, 4] == 100 and clean.data[14, 30, 4] == 110 and 100 < clean.data[9, 30, 4] < 105
    assert (clean.data[truth == 0] == 7).all()  # what has no label stays
    noisy = benchmark.painted(image, truth, 4.0)
    inside = np.zeros(truth.shape, bool)
    inside[4:8, 10:50] = True
    assert benchmark.noise_of(Volume(noisy.data, image.affine), inside) == pytest.approx(4.0, rel=0.1)
    assert (noisy.data == benchmark.painted(image, truth, 4.0).data).all()
