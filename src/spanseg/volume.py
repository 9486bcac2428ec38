"""A volume is voxels and the matrix that places them; every geometric step here knows its exact inverse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SAME_GRID_MM = 0.05
"""How far apart the corners of two grids may lie and still be one: headers are rounded."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with their place in the world.

    Args:
        data: array of shape (i, j, k), or (i, j, k, channel) for probabilities.
        affine: (4, 4) float64 matrix from voxel indices to millimetres, world axes right, anterior, superior (RAS+).

    Example:
        >>> Volume(np.zeros((2, 3, 4)), np.diag([2.0, 1.0, 1.0, 1.0])).voxel_size_mm.tolist()
        [2.0, 1.0, 1.0]
    """

    data: np.ndarray
    affine: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels along the three axes."""
        i, j, k = self.data.shape[:3]
        return i, j, k

    @property
    def voxel_size_mm(self) -> np.ndarray:
        """Edge lengths of a voxel in mm, shape (3,)."""
        return np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0))

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel in mm³."""
        return float(abs(np.linalg.det(self.affine[:3, :3])))

    def with_data(self, data: np.ndarray) -> Volume:
        """Return other voxels on the same grid."""
        return Volume(data, self.affine)


@dataclass(frozen=True)
class Orientation:
    """How a grid was turned to canonical (RAS+) order.

    Args:
        axes: for each canonical axis, the axis of the original array that holds it.
        flips: for each canonical axis, whether the original axis ran the other way.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    def to_canonical(self, data: np.ndarray) -> np.ndarray:
        """Turn an array of the original grid, (i, j, k, ...), to canonical order (a view)."""
        turned = data.transpose(*self.axes, *range(3, data.ndim))
        return np.flip(turned, tuple(axis for axis in range(3) if self.flips[axis]))

    def to_original(self, data: np.ndarray) -> np.ndarray:
        """Undo :meth:`to_canonical` exactly (a view)."""
        flipped = np.flip(data, tuple(axis for axis in range(3) if self.flips[axis]))
        return flipped.transpose(*np.argsort(self.axes).tolist(), *range(3, data.ndim))


def closest_orientation(affine: np.ndarray) -> Orientation:
    """Find the axis permutation and flips that bring a grid closest to RAS+.

    Args:
        affine: (4, 4) voxel-to-world matrix; oblique grids get the assignment with the largest sum of cosines.
    """
    cosines = affine[:3, :3] / np.maximum(np.sqrt((affine[:3, :3] ** 2).sum(axis=0)), 1e-12)
    best, axes = -1.0, (0, 1, 2)
    for candidate in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        score = sum(abs(cosines[world, axis]) for world, axis in enumerate(candidate))
        if score > best + 1e-9:
            best, axes = score, candidate
    first, second, third = (bool(cosines[world, axis] < 0) for world, axis in enumerate(axes))
    return Orientation(axes, (first, second, third))


def canonical(volume: Volume) -> tuple[Volume, Orientation]:
    """Return the volume in the orientation closest to RAS+, with the same world coordinates, and how to undo it."""
    orientation = closest_orientation(volume.affine)
    turn = np.zeros((4, 4))
    turn[3, 3] = 1.0
    for world, axis in enumerate(orientation.axes):
        turn[axis, world] = -1.0 if orientation.flips[world] else 1.0
        turn[axis, 3] = volume.shape[axis] - 1 if orientation.flips[world] else 0.0
    return Volume(orientation.to_canonical(volume.data), volume.affine @ turn), orientation


def farthest_mm(first: np.ndarray, second: np.ndarray, shape: tuple[int, int, int]) -> float:
    """Largest distance in mm between the places that two matrices, each (4, 4), give to a corner of a grid."""
    corners = np.array([(i, j, k, 1) for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)])
    return float(np.linalg.norm(corners @ (first - second)[:3].T, axis=1).max())


def on_one_grid(first: Volume, second: Volume) -> bool:
    """Whether two volumes have the same shape, and corners within ``SAME_GRID_MM`` of each other."""
    return first.shape == second.shape and farthest_mm(first.affine, second.affine, first.shape) <= SAME_GRID_MM


def voxel_to_world(affine: np.ndarray, points_voxels: np.ndarray) -> np.ndarray:
    """Map voxel indices (..., 3) to world points (..., 3) in mm."""
    return points_voxels @ affine[:3, :3].T + affine[:3, 3]


def grid_round(centre_mm: np.ndarray, shape: tuple[int, int, int], voxel_mm: float) -> np.ndarray:
    """Affine of an axis-aligned RAS+ grid with isotropic voxels whose middle lies at ``centre_mm``."""
    affine = np.diag([voxel_mm, voxel_mm, voxel_mm, 1.0])
    affine[:3, 3] = np.asarray(centre_mm) - voxel_mm * (np.asarray(shape) - 1) / 2
    return affine
