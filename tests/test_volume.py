"""Geometry: every step has an exact inverse, over all 48 orientations and oblique grids."""

import itertools

import nibabel
import numpy as np
import pytest

from spanseg.volume import (
    SAME_GRID_MM,
    Volume,
    canonical,
    closest_orientation,
    farthest_mm,
    grid_round,
    on_one_grid,
    voxel_to_world,
)

ORIENTATIONS = [
    (axes, signs) for axes in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]


def oriented(axes: tuple[int, ...], signs: tuple[int, ...], tilt_degrees: float = 0.0) -> Volume:
    """A volume of distinct values whose array axis ``axes[w]`` runs along world axis w."""
    turn = np.zeros((3, 3))
    for world, (axis, sign) in enumerate(zip(axes, signs, strict=True)):
        turn[world, axis] = sign
    angle = np.deg2rad(tilt_degrees)
    tilt = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    affine = np.eye(4)
    affine[:3, :3] = tilt @ turn @ np.diag([0.7, 1.1, 3.0])
    affine[:3, 3] = (-11.0, 22.5, 7.25)
    return Volume(np.arange(4 * 5 * 6, dtype=np.int32).reshape(4, 5, 6), affine)


def test_there_are_48_orientations() -> None:
    assert len(ORIENTATIONS) == 48


@pytest.mark.parametrize("tilt", [0.0, 20.0])
@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_canonical_is_undone_exactly(axes: tuple[int, ...], signs: tuple[int, ...], tilt: float) -> None:
    volume = oriented(axes, signs, tilt)
    turned, orientation = canonical(volume)
    np.testing.assert_array_equal(orientation.to_original(turned.data), volume.data)
    np.testing.assert_array_equal(orientation.to_canonical(volume.data), turned.data)
    assert (np.diag(turned.affine[:3, :3]) > 0).all(), "each axis must run right, anterior, superior"


@pytest.mark.parametrize("tilt", [0.0, 20.0])
@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_canonical_keeps_every_voxel_in_its_place(axes: tuple[int, ...], signs: tuple[int, ...], tilt: float) -> None:
    volume = oriented(axes, signs, tilt)
    turned, _ = canonical(volume)
    for value in (0, 17, 59, 119):
        before = voxel_to_world(volume.affine, np.argwhere(volume.data == value)[0])
        after = voxel_to_world(turned.affine, np.argwhere(turned.data == value)[0])
        np.testing.assert_allclose(after, before, atol=1e-9)


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS[::7])
def test_a_channel_axis_stays_last(axes: tuple[int, ...], signs: tuple[int, ...]) -> None:
    volume = oriented(axes, signs)
    many = np.stack([volume.data, volume.data + 1000], axis=-1)
    orientation = closest_orientation(volume.affine)
    turned = orientation.to_canonical(many)
    np.testing.assert_array_equal(turned[..., 1], turned[..., 0] + 1000)
    np.testing.assert_array_equal(orientation.to_original(turned), many)


def test_canonical_agrees_with_nibabel() -> None:
    import nibabel

    for axes, signs in ORIENTATIONS:
        volume = oriented(axes, signs, 10.0)
        theirs = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume.data, volume.affine))
        ours, _ = canonical(volume)
        np.testing.assert_array_equal(ours.data, np.asanyarray(theirs.dataobj))
        np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-9)


def test_voxels_lie_where_nibabel_says() -> None:
    volume = oriented((2, 0, 1), (1, -1, -1), 33.0)
    points = np.random.default_rng(0).normal(size=(7, 3)) * 50
    theirs = nibabel.affines.apply_affine(volume.affine, points)
    np.testing.assert_allclose(voxel_to_world(volume.affine, points), theirs, atol=1e-9)


def test_sizes() -> None:
    volume = oriented((2, 0, 1), (1, -1, -1), 33.0)
    np.testing.assert_allclose(volume.voxel_size_mm, [0.7, 1.1, 3.0])
    assert volume.voxel_volume_mm3 == pytest.approx(0.7 * 1.1 * 3.0)
    assert volume.with_data(np.zeros((4, 5, 6, 2))).shape == (4, 5, 6)


def test_grids_are_compared_at_their_corners() -> None:
    shape = (256, 256, 256)
    ours, larger, moved = np.eye(4), np.diag([1.009, 1.009, 1.009, 1]), np.eye(4)
    moved[:3, 3] = (3, -4, 12)
    assert farthest_mm(ours, larger, shape) == pytest.approx(0.009 * 255 * np.sqrt(3))
    assert farthest_mm(ours, moved, shape) == pytest.approx(13)
    grid = Volume(np.zeros((2, 2, 2)), ours)
    assert on_one_grid(grid, Volume(np.zeros((2, 2, 2)), larger)), "0.02 mm"
    assert not on_one_grid(grid, Volume(np.zeros((2, 2, 2)), moved))
    assert not on_one_grid(grid, Volume(np.zeros((2, 2, 3)), ours))


def test_headers_in_single_precision_are_one_grid() -> None:
    """The largest grids in use, as a sform and as a qform that a file of another program keeps of them."""
    for axes, signs, tilt in (((0, 1, 2), (1, 1, 1), 12.3), ((2, 0, 1), (1, -1, -1), 33.0)):
        affine = oriented(axes, signs, tilt).affine
        header = nibabel.Nifti1Header()
        header.set_data_shape((512, 512, 512))
        header.set_sform(affine)
        header.set_qform(affine)
        for kept in (header.get_sform(), header.get_qform()):
            assert farthest_mm(affine, kept, (512, 512, 512)) < SAME_GRID_MM / 10


@pytest.mark.parametrize("shape", [(4, 6, 8), (5, 7, 3)])
def test_grid_round_has_its_middle_at_the_centre(shape: tuple[int, int, int]) -> None:
    affine = grid_round(np.array([3.0, -4.0, 5.5]), shape, 1.5)
    corners = voxel_to_world(affine, np.array([[0, 0, 0], [n - 1 for n in shape]]))
    np.testing.assert_allclose(corners.mean(axis=0), [3.0, -4.0, 5.5])
    np.testing.assert_allclose(affine[:3, :3], 1.5 * np.eye(3))
