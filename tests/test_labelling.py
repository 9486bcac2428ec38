"""Labels, mask and volumes from known probabilities."""

import numpy as np
import pytest

from spanseg import labelling
from spanseg.geometry import Placement
from spanseg.labels import load_protocol


@pytest.fixture(scope="module")
def protocol():
    return load_protocol("aseg")


def _same_grid(n: int) -> Placement:
    return Placement((n, n, n), np.full(3, 1.5), (n, n, n), 1.5, np.full(3, (n - 1) / 2 * 1.5))


def test_on_the_same_grid_labels_are_the_argmax_of_the_canvas():
    rng = np.random.default_rng(0)
    soft = rng.dirichlet(np.full(5, 0.3), size=(12, 12, 12)).transpose(3, 0, 1, 2)
    probabilities = np.rint(soft * 255).astype(np.uint8)
    labelled = labelling.to_scan(probabilities, _same_grid(12), keep=True)
    whole = probabilities.astype(int)
    whole[0] = 255 - whole[1:].sum(0)
    top = np.sort(whole, axis=0)
    clear = top[-1] > top[-2] + 1
    np.testing.assert_array_equal(labelled.classes[clear], whole.argmax(0)[clear])
    np.testing.assert_allclose(labelled.volumes_mm3[1:], probabilities[1:].sum((1, 2, 3)) / 255 * 1.5**3, rtol=1e-5)
    assert abs(labelled.probabilities.astype(int).sum(-1) - 255).max() <= 4


@pytest.mark.parametrize("scan_mm", [0.75, 1.5, 3.0])
def test_a_map_keeps_its_values_on_the_scans_grid(scan_mm):
    """A canvas of 18 mm in the middle of a scan of 36 mm."""
    n = round(36 / scan_mm)
    centre = np.full(3, (n - 1) / 2 * scan_mm)
    placement = Placement((n, n, n), np.full(3, scan_mm), (12, 12, 12), 1.5, centre)
    back = labelling.map_to_scan(np.full((12, 12, 12), 0.25, dtype=np.float32), placement)
    assert back.shape == (n, n, n)
    inside = np.abs(placement.scan_mm(0) - centre[0]) < 9 - 3
    np.testing.assert_allclose(back[np.ix_(inside, inside, inside)], 0.25, atol=1e-6)
    outside = np.abs(placement.scan_mm(0) - centre[0]) > 9 + 3
    assert not back[outside].any()


def test_islands_take_the_label_that_surrounds_them():
    classes = np.zeros((40, 40, 40), dtype=np.uint8)
    classes[5:35, 5:35, 5:35] = 1
    classes[10:20, 10:20, 10:20] = 7
    classes[28:30, 28:30, 28:30] = 7  # 8 voxels inside structure 1
    classes[1:3, 1:3, 1:3] = 7  # 8 voxels in the background
    changed = labelling.remove_islands(classes, 9, 1.0)
    assert changed == 16
    assert (classes == 7).sum() == 1000
    assert (classes[28:30, 28:30, 28:30] == 1).all()
    assert not classes[1:3, 1:3, 1:3].any()


def test_large_second_pieces_stay():
    classes = np.zeros((40, 20, 20), dtype=np.uint8)
    classes[2:18, 2:18, 2:18] = 3
    classes[25:33, 2:10, 2:10] = 3  # 512 voxels: no island
    assert labelling.remove_islands(classes, 9, 1.0) == 0


def test_mask_is_filled_and_ends_below_the_cerebellum(protocol):
    classes = np.zeros((40, 40, 60), dtype=np.uint8)
    csf, cerebellum, cortex = (protocol.class_of(i) for i in (24, 8, 3))
    classes[15:25, 15:25, 2:30] = csf  # reaches far down the spine
    classes[5:35, 5:35, 28:58] = cortex
    classes[12:28, 12:28, 24:30] = cerebellum
    classes[18:22, 18:22, 40:44] = 0  # a hole
    mask = labelling.brain_mask(classes, protocol, height_mm=1.0)
    assert mask[20, 20, 41]
    assert np.flatnonzero(mask.any((0, 1)))[0] == 14
    assert not classes[:, :, :14].any()


def test_mask_is_one_piece(protocol):
    classes = np.zeros((40, 40, 40), dtype=np.uint8)
    classes[5:25, 5:25, 5:25] = protocol.class_of(3)
    classes[33:36, 33:36, 33:36] = protocol.class_of(24)
    assert not labelling.brain_mask(classes, protocol, 1.0)[33:36].any()
    assert not classes[33:36].any(), "a crumb in the air keeps no label"


def test_a_cerebellum_that_thick_slices_part_from_the_brain_keeps_its_label(protocol):
    classes = np.zeros((40, 40, 40), dtype=np.uint8)
    classes[5:25, 5:25, 20:40] = protocol.class_of(3)
    classes[5:17, 5:17, 8:18] = protocol.class_of(8)
    labelling.brain_mask(classes, protocol, 1.0)
    assert (classes == protocol.class_of(8)).sum() == 12 * 12 * 10


@pytest.mark.parametrize("floor", [0.0, -200.0])
def test_stripped_scans_are_told_from_heads(floor):
    rng = np.random.default_rng(0)
    x = np.stack(np.meshgrid(*(np.arange(60) - 29.5,) * 3, indexing="ij"))
    radius = np.sqrt((x**2).sum(0))
    mask = radius < 18
    brain = np.where(mask, 100.0 + rng.normal(0, 5, mask.shape), 0.0)
    head = brain + np.where((radius > 21) & (radius < 26), 60.0, 0) + np.abs(rng.normal(0, 5, mask.shape)) * ~mask
    size = np.full(3, 2.0)
    assert labelling.is_stripped(brain + floor, mask, size)
    assert not labelling.is_stripped(head + floor, mask, size)
