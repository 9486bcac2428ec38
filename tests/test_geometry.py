"""Truth tests of the way to the canvas and back."""

import numpy as np
import pytest

from spanseg.geometry import Placement, bounding_box, give_to_nearest, grown, interpolation


def _placement(scan_shape=(40, 50, 45), scan_mm=(1.0, 1.0, 1.0), canvas=(32, 32, 32), voxel=1.5, centre=None):
    size = np.array(scan_mm, dtype=float)
    middle = (np.array(scan_shape) - 1) / 2 * size if centre is None else np.array(centre, dtype=float)
    return Placement(scan_shape, size, canvas, voxel, middle)


def test_a_linear_ramp_keeps_its_values_in_world_units():
    placement = _placement(scan_mm=(0.8, 1.2, 3.0), scan_shape=(90, 60, 24))
    for axis in range(3):
        shape = [1, 1, 1]
        shape[axis] = -1
        ramp = np.broadcast_to(placement.scan_mm(axis).reshape(shape), placement.scan_shape).astype(np.float32)
        expected = np.broadcast_to(placement.canvas_mm(axis).reshape(shape), placement.canvas_shape)
        canvas = placement.to_canvas(ramp, outside=-1e6)
        inner = np.s_[4:-4, 4:-4, 4:-4]
        np.testing.assert_allclose(
            canvas[inner], expected[inner], atol=0.08
        )  # mm; a triangle on discrete samples is off by up to this


def test_what_the_scan_does_not_cover_is_filled():
    placement = _placement(scan_shape=(10, 10, 10), centre=(0, 4.5, 4.5))
    canvas = placement.to_canvas(np.ones((10, 10, 10), dtype=np.float32), outside=-7.0)
    assert canvas[0, 16, 16] == -7.0
    assert canvas[16, 16, 16] == pytest.approx(1.0)
    assert set(np.unique(canvas.round(3))) == {-7.0, 1.0}


@pytest.mark.parametrize("scan_mm", [(1.0, 1.0, 1.0), (0.7, 0.7, 0.7), (1.0, 1.0, 3.0), (2.0, 2.0, 2.0)])
def test_a_ball_keeps_place_and_volume_on_the_way_back(scan_mm):
    shape = tuple(round(60 / size) for size in scan_mm)
    placement = _placement(scan_shape=shape, scan_mm=scan_mm, canvas=(40, 40, 40))
    grid = np.meshgrid(*(placement.canvas_mm(a) for a in range(3)), indexing="ij")
    ball = 255 * (sum((g - c) ** 2 for g, c in zip(grid, (28, 30, 33), strict=True)) < 12**2).astype(np.float32)
    box = bounding_box(ball > 0)
    values, where = placement.from_canvas(ball, grown(box, ball.shape, 1))
    back = np.zeros(shape, dtype=np.float32)
    back[where] = values
    volume = back.sum() / 255 * np.prod(scan_mm)
    assert volume == pytest.approx((ball > 0).sum() * 1.5**3, rel=0.02)
    centroid = [(back.sum(tuple({0, 1, 2} - {a})) * placement.scan_mm(a)).sum() / back.sum() for a in range(3)]
    np.testing.assert_allclose(centroid, (28, 30, 33), atol=0.3)


def test_the_way_back_ignores_the_rest_of_the_canvas():
    placement = _placement()
    canvas = np.zeros(placement.canvas_shape, dtype=np.float32)
    canvas[10:14, 12:15, 9:12] = 200
    box = bounding_box(canvas > 0)
    small, where = placement.from_canvas(canvas, grown(box, canvas.shape, 1))
    whole, everywhere = placement.from_canvas(canvas, tuple(slice(0, n) for n in canvas.shape))
    full = np.zeros(placement.scan_shape, dtype=np.float32)
    full[everywhere] = whole
    np.testing.assert_allclose(full[where], small, atol=1e-3)
    full[where] = 0
    assert not full.any()


def test_interpolation_rows_sum_to_one_inside_and_to_zero_far_outside():
    matrix = interpolation(np.arange(10.0), 1.0, np.array([-3.0, 0.0, 4.3, 9.4, 12.0]), 1.5)
    np.testing.assert_allclose(matrix.sum(axis=1), [0, 1, 1, 1, 0], atol=1e-6)


def test_bounding_box_of_nothing_is_none():
    assert bounding_box(np.zeros((3, 3, 3), dtype=bool)) is None


def test_voxels_get_the_label_of_the_nearest_source():
    labels = np.array([5, 1, 1, 1, 1, 7, 9]).reshape(7, 1, 1)
    sources = np.isin(labels, (5, 7))  # 9 gives nothing and keeps its label
    given = (labels == 1) & (np.arange(7) != 4).reshape(7, 1, 1)
    give_to_nearest(labels, given, sources)
    assert labels.ravel().tolist() == [5, 5, 5, 7, 1, 7, 9]
    before = labels.copy()
    give_to_nearest(labels, np.ones_like(given), np.zeros_like(given))
    assert np.array_equal(labels, before), "nobody gives"
