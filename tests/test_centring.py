"""The first guess must find the brain under a neck and in a tilted head."""

import numpy as np
import pytest

from spanseg import centring


def _head(neck_mm: float, pitch_deg: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A head of 2 mm voxels: brain ellipsoid of 140 × 175 × 130 mm, scalp 15 mm round it, and a neck below."""
    shape = np.array([110, 130, 130 + int(neck_mm / 2)])
    x, y, z = np.meshgrid(*(np.arange(n) * 2.0 for n in shape), indexing="ij")
    centre = np.array([110.0, 130.0, shape[2] * 2 - 110.0])
    angle = np.deg2rad(pitch_deg)
    dy, dz = y - centre[1], z - centre[2]
    ry, rz = np.cos(angle) * dy - np.sin(angle) * dz, np.sin(angle) * dy + np.cos(angle) * dz
    head = ((x - centre[0]) / 85) ** 2 + (ry / 102) ** 2 + (rz / 80) ** 2 < 1
    neck = ((x - centre[0]) ** 2 + (y - centre[1] + 20) ** 2 < 60**2) & (z < centre[2])
    rng = np.random.default_rng(0)
    return (head | neck) * 100.0 + rng.normal(0, 3, shape), centre


@pytest.mark.parametrize(("neck_mm", "pitch_deg"), [(0, 0), (80, 0), (0, 30), (80, -30), (150, 10)])
def test_first_guess_is_within_reach_of_a_second_pass(neck_mm, pitch_deg):
    data, centre = _head(neck_mm, pitch_deg)
    guess = centring.first_guess(data, np.array([2.0, 2.0, 2.0]))
    assert np.abs(guess - centre).max() < 25


def test_first_guess_does_not_need_positive_values():
    data, _ = _head(40)
    size = np.array([2.0, 2.0, 2.0])
    np.testing.assert_allclose(centring.first_guess(data - 500, size), centring.first_guess(data, size), atol=1e-6)


def test_a_constant_image_gives_its_middle():
    guess = centring.first_guess(np.zeros((20, 20, 20)), np.ones(3))
    assert np.isfinite(guess).all()


def test_offset_is_in_mm():
    brain = np.zeros((40, 40, 40), dtype=bool)
    brain[10:20, 15:25, 18:28] = True
    np.testing.assert_allclose(centring.offset_mm(brain, 1.5), np.array([14.5, 19.5, 22.5]) * 1.5 - 19.5 * 1.5)


def test_the_largest_piece_is_boxed_alone():
    brain = np.zeros((20, 20, 20), dtype=bool)
    assert centring.largest_piece(brain) is None
    brain[3:9, 4:12, 5:6] = True
    brain[15:17, 18, 18:] = True
    assert centring.largest_piece(brain) == (slice(3, 9), slice(4, 12), slice(5, 6))


def test_touching_counts_only_where_the_scan_goes_on():
    brain = np.zeros((20, 20, 20), dtype=bool)
    brain[:8] = True
    covered = np.ones_like(brain)
    assert centring.touches_border(brain, covered)
    covered[0] = covered[:, 0] = covered[:, -1] = covered[:, :, 0] = covered[:, :, -1] = False
    assert not centring.touches_border(brain, covered)
