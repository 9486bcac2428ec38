"""Truth tests of windows and their blending."""

import numpy as np
import pytest

from spanseg.windows import axis_windows, blended


@pytest.mark.parametrize(("length", "window"), [(96, 96), (97, 96), (145, 96), (192, 96), (200, 96), (7, 3), (40, 16)])
def test_windows_cover_every_voxel_overlap_by_half_and_weigh_one(length, window):
    windows = axis_windows(length, window)
    total = np.zeros(length)
    for place, weights in windows:
        assert place.start >= 0 and place.stop - place.start == window and place.stop <= length
        assert (weights > 0).all()
        total[place] += weights
    np.testing.assert_allclose(total, 1, atol=1e-6)
    starts = np.array([place.start for place, _ in windows])
    assert (starts[0], windows[-1][0].stop) == (0, length)
    assert (np.diff(starts) <= window / 2 + 1).all() and (np.diff(starts) > 0).all()


def test_what_follows_from_the_voxel_alone_is_the_same_as_in_one_pass():
    rng = np.random.default_rng(0)
    image = rng.random((23, 16, 41), dtype=np.float32)
    image[:8] = 1  # probabilities of 255 must not overflow

    def answer(box):
        bright = np.rint(255 * image[box]).astype(np.uint8)
        return np.stack([255 - bright, bright // 2, bright - bright // 2])

    whole = answer((slice(None), slice(None), slice(None)))
    found = blended(answer, np.ones(image.shape, dtype=bool), (16, 16, 16), 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, whole)


def test_where_windows_disagree_one_fades_into_the_other():
    def answer(box):
        share = np.full((8, 8, 8), 255 if box[0].start else 0, dtype=np.uint8)
        return np.stack([255 - share, share])

    found = blended(answer, np.ones((12, 8, 8), dtype=bool), (8, 8, 8), 2)
    profile = found[1, :, 4, 4].astype(int)
    assert (profile[:4] == 0).all() and (profile[8:] == 255).all()
    assert (np.diff(profile[3:9]) > 0).all() and np.diff(profile).max() < 128
    assert (found.astype(int).sum(0) == 255).all()


def test_windows_outside_the_scan_are_background_and_not_asked_about():
    asked = []

    def answer(box):
        asked.append(box)
        return np.stack([np.zeros((8, 8, 8), dtype=np.uint8), np.full((8, 8, 8), 255, dtype=np.uint8)])

    covered = np.zeros((24, 8, 8), dtype=bool)
    covered[:4] = True
    found = blended(answer, covered, (8, 8, 8), 2)
    assert [box[0].start for box in asked] == [0]
    assert (found[1, :4] == 255).all() and (found[0, 8:] == 255).all()
    assert (found.astype(int).sum(0) == 255).all()
