"""From a scan's grid to the canvas and back: separable resampling along the scan's own axes.

The canvas is parallel to the scan's voxel axes (turned to RAS+ order), so that each axis is resampled by one small
matrix: exact placement, quick, and the way back is the same operation with the grids exchanged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Placement:
    """Where the canvas lies on a scan in canonical order.

    Args:
        scan_shape: voxels of the scan along its three axes.
        scan_voxel_mm: edge lengths of the scan's voxels, shape (3,).
        canvas_shape: voxels of the canvas.
        canvas_voxel_mm: edge length of the canvas's voxels.
        centre_mm: middle of the canvas in mm along the scan's axes, measured from the centre of its first voxel.
    """

    scan_shape: tuple[int, int, int]
    scan_voxel_mm: np.ndarray
    canvas_shape: tuple[int, int, int]
    canvas_voxel_mm: float
    centre_mm: np.ndarray

    def canvas_mm(self, axis: int) -> np.ndarray:
        """Positions of the canvas's voxel centres along an axis, in mm."""
        n = self.canvas_shape[axis]
        return self.centre_mm[axis] + (np.arange(n) - (n - 1) / 2) * self.canvas_voxel_mm

    def scan_mm(self, axis: int) -> np.ndarray:
        """Positions of the scan's voxel centres along an axis, in mm."""
        return np.arange(self.scan_shape[axis]) * self.scan_voxel_mm[axis]

    def to_canvas(self, data: np.ndarray, outside: float) -> np.ndarray:
        """Resample a scan in canonical order, (i, j, k), to a float32 canvas; ``outside`` fills the rest."""
        result = data.astype(np.float32, copy=False)
        for axis in range(3):
            result = along(self._matrix(axis), result, axis)
        return np.where(self.covered(), result, np.float32(outside))

    def covered(self) -> np.ndarray:
        """Canvas voxels where the scan has voxels, boolean, shape (i, j, k)."""
        i, j, k = (self._matrix(axis).sum(axis=1) > 0 for axis in range(3))
        return i[:, None, None] & j[None, :, None] & k[None, None, :]

    def _matrix(self, axis: int) -> np.ndarray:
        step = float(self.scan_voxel_mm[axis])
        return interpolation(self.scan_mm(axis), step, self.canvas_mm(axis), self.canvas_voxel_mm)

    def from_canvas(self, data: np.ndarray, box: Slices) -> tuple[np.ndarray, Slices]:
        """Resample one box of a canvas to the scan's grid.

        Args:
            data: canvas, shape (i, j, k); zero outside ``box``.
            box: where the canvas is not zero.

        Returns:
            float32 values and the slices of the scan in canonical order that they belong to.
        """
        result, where = data[box].astype(np.float32), []
        for axis in range(3):
            positions = self.canvas_mm(axis)[box[axis]]
            near = np.abs(self.scan_mm(axis)[:, None] - positions[None, :]).min(axis=1) < self.canvas_voxel_mm
            near_indices = np.flatnonzero(near)
            first, last = (near_indices[0], near_indices[-1] + 1) if near_indices.size else (0, 0)
            targets = self.scan_mm(axis)[first:last]
            matrix = interpolation(positions, self.canvas_voxel_mm, targets, self.canvas_voxel_mm, normalised=False)
            result = along(matrix, result, axis)
            where.append(slice(int(first), int(last)))
        return result, (where[0], where[1], where[2])

    def to_scan_mm(self, canvas_voxels: np.ndarray) -> np.ndarray:
        """Map canvas voxel indices, shape (3,), to mm along the scan's axes."""
        n = np.array(self.canvas_shape)
        return self.centre_mm + (np.asarray(canvas_voxels) - (n - 1) / 2) * self.canvas_voxel_mm


def interpolation(
    source_mm: np.ndarray, source_step: float, target_mm: np.ndarray, target_step: float, normalised: bool = True
) -> np.ndarray:
    """Matrix (target, source) of linear interpolation; where the target is coarser, of a triangle-filtered average.

    Args:
        source_mm: positions of the source samples.
        source_step: their distance in mm.
        target_mm: positions of the target samples.
        target_step: their distance in mm.
        normalised: let rows sum to 1 near the ends of the source, where samples are missing; without it, what is
            missing counts as 0. Rows farther than half a source step from any source sample are 0 either way.
    """
    width = max(source_step, target_step)
    distance = np.abs(target_mm[:, None] - source_mm[None, :])
    weights = np.clip(1 - distance / width, 0, None)
    if normalised:
        reached = (target_mm > source_mm[0] - 0.51 * source_step) & (target_mm < source_mm[-1] + 0.51 * source_step)
        total = weights.sum(axis=1, keepdims=True)
        weights = np.where(reached[:, None] & (total > 0), weights / np.maximum(total, 1e-12), 0)
    else:
        weights *= source_step / width
    return weights.astype(np.float32)


def along(matrix: np.ndarray, data: np.ndarray, axis: int) -> np.ndarray:
    """Apply a matrix (out, in) along one axis of an array (i, j, k)."""
    return np.moveaxis(np.tensordot(matrix, data, axes=(1, axis)), 0, axis)


def bounding_box(mask: np.ndarray) -> Slices | None:
    """Smallest box that holds all true voxels of (i, j, k); ``None`` if there are none."""
    slices = []
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        if not hit.size:
            return None
        slices.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return slices[0], slices[1], slices[2]


def grown(box: Slices, shape: tuple[int, int, int], voxels: int) -> Slices:
    """Widen a box on all sides, within the array."""
    a, b, c = (slice(max(0, s.start - voxels), min(n, s.stop + voxels)) for s, n in zip(box, shape, strict=True))
    return a, b, c


def give_to_nearest(labels: np.ndarray, given: np.ndarray, sources: np.ndarray) -> None:
    """Give voxels the label of the nearest voxel that is a source (in place); without any source, nothing changes.

    Args:
        labels: shape (i, j, k).
        given: voxels that get another label, boolean, same shape.
        sources: voxels whose labels are given, boolean, same shape.
    """
    from scipy import ndimage

    if sources.any():
        nearest = ndimage.distance_transform_edt(~sources, return_distances=False, return_indices=True)
        labels[given] = labels[tuple(nearest[:, given])]
