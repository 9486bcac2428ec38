"""Metrics: hand-worked cases, a second library, and what unknown, empty and missing structures mean."""

import math

import numpy as np
import pytest
import SimpleITK
from scipy import ndimage

from spanseg.labels import UNKNOWN
from spanseg.metrics import Scores, score_classes


def cube(shape: tuple[int, int, int], start: tuple[int, int, int], edge: int = 4) -> np.ndarray:
    labels = np.zeros(shape, dtype=np.int16)
    labels[tuple(slice(first, first + edge) for first in start)] = 1
    return labels


def score(predicted: np.ndarray, truth: np.ndarray, voxel_mm: tuple[float, ...] = (1, 1, 1), **more: float) -> Scores:
    return score_classes(predicted, truth, voxel_mm, [1], **more)[1]


@pytest.mark.parametrize(("axis", "voxel_mm"), [(0, (2.0, 1.0, 1.0)), (1, (1.0, 2.0, 1.0)), (2, (1.0, 1.0, 2.0))])
def test_cubes_one_long_voxel_apart(axis: int, voxel_mm: tuple[float, ...]) -> None:
    """A cube of 4 voxels has 64 - 8 = 56 surface voxels. Moved by one voxel of 2 mm: the 16 of the face left behind
    are 2 mm away, the inner 4 of the opposite face 1 mm (from the rim in their own plane), all others 0."""
    start = [2, 2, 2]
    start[axis] += 1
    found = score(cube((9, 9, 9), (start[0], start[1], start[2])), cube((9, 9, 9), (2, 2, 2)), voxel_mm)
    assert found.dice == 2 * 48 / 128
    assert found.asd_mm == pytest.approx((16 * 2 + 4 * 1) / 56)
    assert found.hd95_mm == 2
    assert found.surface_dice == pytest.approx(40 / 56)
    assert (found.truth_mm3, found.predicted_mm3, found.volume_error_mm3) == (128, 128, 0)


def test_single_voxels_are_as_far_apart_as_their_centres() -> None:
    found = score(cube((8, 8, 8), (4, 6, 2), 1), cube((8, 8, 8), (1, 2, 2), 1), (1.0, 1.0, 5.0))
    assert (found.dice, found.surface_dice, found.asd_mm, found.hd95_mm) == (0, 0, 5, 5)


def test_hd95_is_the_larger_direction_and_asd_pools_both() -> None:
    """A far island of one voxel is 1 of 1 surface voxels one way and 1 of 57 the other."""
    truth = cube((30, 9, 9), (2, 2, 2))
    predicted = cube((30, 9, 9), (2, 2, 2))
    predicted[25, 3, 3] = 1
    found = score(predicted, truth)
    assert found.asd_mm == pytest.approx(20 / (56 + 57))
    assert found.hd95_mm == 0  # 1 of 57 is less than 5 %
    one = score(cube((30, 9, 9), (25, 3, 3), 1), truth)
    distances = np.sqrt([(x - 25) ** 2 + (y - 3) ** 2 + (z - 3) ** 2 for x, y, z in surface_of(truth)])
    assert one.hd95_mm == pytest.approx(max(np.percentile(distances, 95), distances.min()))
    assert one.asd_mm == pytest.approx((distances.sum() + distances.min()) / 57)


def surface_of(mask: np.ndarray) -> np.ndarray:
    return np.argwhere((mask > 0) & ~ndimage.binary_erosion(mask > 0))


@pytest.mark.parametrize("seed", range(3))
def test_agrees_with_simpleitk(seed: int) -> None:
    """Overlap, surfaces and distance maps of a second library, on blobs in long voxels."""
    generator = np.random.default_rng(seed)
    voxel_mm = (0.9, 1.3, 2.7)
    masks = []
    for _ in range(2):
        blob = ndimage.gaussian_filter(generator.standard_normal((24, 22, 20)), 2.5)
        blob[[0, -1]] = blob[:, [0, -1]] = blob[:, :, [0, -1]] = -9
        masks.append((blob > 0).astype(np.uint8))
    found = score(masks[0].astype(np.int16), masks[1].astype(np.int16), voxel_mm, tolerance_mm=2.0)

    images = [SimpleITK.GetImageFromArray(mask) for mask in masks]
    for image in images:
        image.SetSpacing(voxel_mm[::-1])  # arrays of SimpleITK are turned
    overlap = SimpleITK.LabelOverlapMeasuresImageFilter()
    overlap.Execute(images[1], images[0])
    contours = [SimpleITK.LabelContour(image, fullyConnected=False) for image in images]
    maps = [SimpleITK.SignedMaurerDistanceMap(contour, False, False, True) for contour in contours]
    far, on = ([SimpleITK.GetArrayFromImage(image) for image in images] for images in (maps, contours))
    away = [np.abs(far[1 - first])[on[first] > 0] for first in (0, 1)]
    assert found.dice == pytest.approx(overlap.GetDiceCoefficient())
    assert found.asd_mm == pytest.approx(np.concatenate(away).mean(), rel=1e-5)
    assert found.hd95_mm == pytest.approx(max(np.percentile(distances, 95) for distances in away), rel=1e-5)
    assert found.surface_dice == pytest.approx((np.concatenate(away) <= 2.0).mean(), abs=1e-3)
    assert found.volume_error_percent == pytest.approx(100 * (masks[0].sum() / masks[1].sum() - 1))


def test_truth_and_prediction_may_change_places() -> None:
    first, second = cube((12, 12, 12), (2, 3, 2), 5), cube((12, 12, 12), (4, 3, 3), 4)
    one, other = score(first, second, (1, 2, 3)), score(second, first, (1, 2, 3))
    for name in ("dice", "surface_dice", "asd_mm", "hd95_mm"):
        assert getattr(one, name) == pytest.approx(getattr(other, name))
    assert one.volume_error_mm3 == -other.volume_error_mm3


def test_every_class_gets_its_own_scores() -> None:
    truth = cube((12, 12, 12), (1, 1, 1)) + 2 * cube((12, 12, 12), (6, 6, 6))
    predicted = cube((12, 12, 12), (1, 1, 1)) + 2 * cube((12, 12, 12), (6, 6, 7))
    together = score_classes(predicted, truth, (1, 1, 1), range(4))
    assert sorted(together) == [1, 2, 3], "background is not scored"
    assert together[1].dice == 1
    assert together[2] == score((predicted == 2).astype(int), (truth == 2).astype(int))


def test_predictions_in_unknown_voxels_change_nothing() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, (8, 8, 8))
    truth[generator.random(truth.shape) < 0.3] = UNKNOWN
    predicted = generator.integers(0, 3, truth.shape)
    other = np.where(truth == UNKNOWN, generator.integers(0, 3, truth.shape), predicted)
    assert (other != predicted).any()
    assert score_classes(other, truth, (1, 1, 2), [1, 2]) == score_classes(predicted, truth, (1, 1, 2), [1, 2])


def test_a_structure_may_go_on_into_the_unknown() -> None:
    """The truth ends where the unknown begins: no prediction there is wrong, whether it stops or goes on."""
    truth = cube((12, 8, 8), (2, 2, 2))
    truth[6:] = UNKNOWN
    goes_on = np.zeros(truth.shape, dtype=int)
    goes_on[2:10, 2:6, 2:6] = 1
    for predicted in (goes_on, cube((12, 8, 8), (2, 2, 2))):
        found = score(predicted, truth)
        assert (found.dice, found.surface_dice, found.asd_mm, found.hd95_mm) == (1, 1, 0, 0)
        assert found.predicted_mm3 == 64
    short = goes_on.copy()
    short[5:] = 0
    assert score(short, truth).asd_mm > 0, "what is known to be missing counts"


def test_beyond_the_image_nothing_is_known() -> None:
    """A slab that the image cuts has two faces of 25 voxels, and the cut itself is no surface to measure from. With
    one face moved by 1 mm, its 25 voxels lie 1 mm off one way; the other way the 16 on the cut may touch."""
    truth, predicted = np.zeros((9, 5, 5), dtype=int), np.zeros((9, 5, 5), dtype=int)
    truth[3:6], predicted[3:7] = 1, 1
    assert score(predicted, truth).asd_mm == pytest.approx((25 + 9) / 100)


def test_unlabelled_classes_count_as_background() -> None:
    truth = cube((9, 9, 9), (2, 2, 2))
    predicted = truth + 2 * cube((9, 9, 9), (6, 6, 6), 2)
    found = score_classes(predicted, truth, (1, 1, 1), [1, 2], unlabelled=[2])
    assert set(found) == {1}
    inside = np.where(truth == 1, 2, 0)  # all of class 1 predicted as the unlabelled class
    assert score_classes(inside, truth, (1, 1, 1), [1, 2], unlabelled=[2])[1].dice == 0


def test_empty_structures_have_no_score() -> None:
    nothing = np.zeros((5, 5, 5), dtype=int)
    found = score(nothing, nothing)
    assert found.is_empty and not found.is_missing
    assert all(math.isnan(value) for value in (found.dice, found.surface_dice, found.asd_mm, found.hd95_mm))
    assert math.isnan(found.volume_error_mm3) and math.isnan(found.volume_error_percent)


def test_missing_structures_score_nothing_and_have_no_distance() -> None:
    nothing, something = np.zeros((9, 9, 9), dtype=int), cube((9, 9, 9), (2, 2, 2))
    lost, invented = score(nothing, something), score(something, nothing)
    for found in (lost, invented):
        assert found.is_missing and not found.is_empty
        assert (found.dice, found.surface_dice) == (0, 0)
        assert math.isnan(found.asd_mm) and math.isnan(found.hd95_mm)
    assert (lost.volume_error_mm3, lost.volume_error_percent, lost.volume_error_abs_percent) == (-64, -100, 100)
    assert invented.volume_error_mm3 == 64 and math.isnan(invented.volume_error_percent)


def test_rounded_voxel_sizes_do_not_move_the_tolerance() -> None:
    """Surfaces one voxel apart are within 1 mm, also where the header says 1.0000002 mm."""
    for edge in (1.0, 1.0000002, 0.9999997):
        assert score(cube((9, 9, 9), (3, 2, 2)), cube((9, 9, 9), (2, 2, 2)), (edge, edge, edge)).surface_dice == 1
