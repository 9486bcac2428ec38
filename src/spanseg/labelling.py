"""From class probabilities on the canvas to labels, mask and volumes on the scan's grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spanseg.geometry import Placement, bounding_box, give_to_nearest, grown
from spanseg.labels import Protocol

ISLAND_SHARE = 0.1
"""Pieces smaller than this share of a structure's largest piece are islands, unless they reach ``ISLAND_MM3``."""
ISLAND_MM3 = 300.0
CRUMB_SHARE = 0.05
"""Labels that hang together with nothing and are smaller than this share of the brain lie in air or neck. Larger pieces
stay: thick slices can part a cerebellum from the rest."""
BELOW_MM = 10.0
"""The mask ends this far below the lowest voxel of cerebellum or brain stem."""


@dataclass(frozen=True, eq=False)
class Labelled:
    """Classes on the scan's grid in canonical order.

    Args:
        classes: uint8 class indices, shape (i, j, k).
        volumes_mm3: from probabilities, shape (class,); background is 0.
        probabilities: uint8, shape (i, j, k, class), or ``None`` if not asked for.
        confidence: mean probability, 0 to 1, of each class over the voxels that got it; shape (class,), background and
            classes that were not found are 0.
    """

    classes: np.ndarray
    volumes_mm3: np.ndarray
    probabilities: np.ndarray | None
    confidence: np.ndarray


def to_scan(probabilities: np.ndarray, placement: Placement, keep: bool) -> Labelled:
    """Resample class after class inside its own bounding box and take the most probable one at each voxel.

    Args:
        probabilities: uint8 canvas, shape (class, i, j, k), class 0 background.
        placement: where the canvas lies on the scan.
        keep: return the resampled probabilities too.
    """
    shape, voxel_mm3 = placement.scan_shape, float(np.prod(placement.scan_voxel_mm))
    best = np.zeros(shape, dtype=np.float32)
    total = np.zeros(shape, dtype=np.float32)
    classes = np.zeros(shape, dtype=np.uint8)
    volumes = np.zeros(len(probabilities))
    kept = np.zeros((*shape, len(probabilities)), dtype=np.uint8) if keep else None
    for index in range(1, len(probabilities)):
        box = bounding_box(probabilities[index] > 0)
        if box is None:
            continue
        wide = grown(box, placement.canvas_shape, 1)
        values, where = placement.from_canvas(probabilities[index], wide)
        if not values.size:
            continue
        volumes[index] = values.sum(dtype=np.float64) / 255 * voxel_mm3
        wins = values > best[where]
        best[where][wins] = values[wins]
        classes[where][wins] = index
        total[where] += values
        if kept is not None:
            kept[where][..., index] = np.rint(values)
    classes[best < 255 - total] = 0
    if kept is not None:
        kept[..., 0] = np.clip(255 - np.rint(total), 0, 255)
    return Labelled(classes, volumes, kept, _confidence(classes, best, len(probabilities)))


def _confidence(classes: np.ndarray, best: np.ndarray, count: int) -> np.ndarray:
    """Mean of the winning probability (0 to 255) over the voxels of each class but the background, as 0 to 1."""
    inside = np.flatnonzero(classes)
    found = classes.ravel()[inside]
    sums = np.bincount(found, weights=best.ravel()[inside], minlength=count)
    return np.asarray(sums / np.maximum(np.bincount(found, minlength=count), 1) / 255)


def map_to_scan(values: np.ndarray, placement: Placement) -> np.ndarray:
    """Resample a canvas of values, (i, j, k), to the scan's grid in canonical order, float32; 0 outside the canvas."""
    result = np.zeros(placement.scan_shape, dtype=np.float32)
    inside, where = placement.from_canvas(values, (slice(None), slice(None), slice(None)))
    result[where] = inside
    return result


def remove_islands(classes: np.ndarray, count: int, voxel_mm3: float) -> int:
    """Give small separate pieces of each structure the label that surrounds them (in place).

    Args:
        classes: uint8 class indices, shape (i, j, k).
        count: number of classes.
        voxel_mm3: volume of a voxel.

    Returns:
        Number of voxels that changed.
    """
    from scipy import ndimage

    islands = np.zeros(classes.shape, dtype=bool)
    for index, box in enumerate(ndimage.find_objects(classes, max_label=count - 1), start=1):
        if box is None:
            continue
        pieces, found = ndimage.label(classes[box] == index)
        if found < 2:
            continue
        sizes = np.bincount(pieces.ravel())[1:]
        small = sizes < min(ISLAND_SHARE * sizes.max(), ISLAND_MM3 / voxel_mm3)
        islands[box] |= np.concatenate([[False], small])[pieces]
    _fill_from_neighbours(classes, islands)
    return int(islands.sum())


def _fill_from_neighbours(classes: np.ndarray, holes: np.ndarray) -> None:
    """Replace marked voxels by the nearest unmarked label (in place)."""
    from scipy import ndimage

    pieces, _ = ndimage.label(holes, np.ones((3, 3, 3)))
    for index, box in enumerate(ndimage.find_objects(pieces), start=1):
        a, b, c = box
        wide = grown((a, b, c), classes.shape, 2)
        give_to_nearest(classes[wide], pieces[wide] == index, ~holes[wide])


def brain_mask(classes: np.ndarray, protocol: Protocol, height_mm: float) -> np.ndarray:
    """All structures and the CSF within the skull, holes filled, in one piece; labels below it and crumbs are removed.

    Args:
        classes: uint8 class indices in canonical order, shape (i, j, k); changed in place there.
        protocol: names the structures that decide where the mask ends.
        height_mm: edge length of a voxel along the inferior-superior axis.
    """
    from scipy import ndimage

    lowest = _lowest_slice(classes, protocol)
    cut = max(0, lowest - int(np.ceil(BELOW_MM / height_mm))) if lowest is not None else 0
    classes[:, :, :cut] = 0
    box = bounding_box(classes > 0)
    mask = np.zeros(classes.shape, dtype=bool)
    if box is None:
        return mask
    inside = ndimage.binary_fill_holes(classes[box] > 0)
    pieces, found = ndimage.label(inside)
    if found > 1:
        sizes = np.bincount(pieces.ravel())[1:]
        inside = pieces == 1 + sizes.argmax()
        small = sizes < CRUMB_SHARE * sizes.max()
        classes[box][np.concatenate([[False], small])[pieces]] = 0
    mask[box] = inside
    return mask


def _lowest_slice(classes: np.ndarray, protocol: Protocol) -> int | None:
    """Lowest slice with a structure of the group ``below_the_brain``."""
    deciding = np.zeros(256, dtype=bool)
    deciding[[protocol.class_of(value) for value in protocol.groups["below_the_brain"]]] = True
    slices = np.flatnonzero(deciding[classes].any(axis=(0, 1)))
    return int(slices[0]) if slices.size else None


def is_stripped(data: np.ndarray, mask: np.ndarray, voxel_mm: np.ndarray) -> bool:
    """Whether what lies 3 to 12 mm outside the brain is empty, so that the skull is not in the image.

    Args:
        data: scan in canonical order, shape (i, j, k).
        mask: brain mask, same shape.
        voxel_mm: edge lengths of the voxels, shape (3,).
    """
    from scipy import ndimage

    box = bounding_box(mask)
    if box is None:
        return False
    step = [max(1, int(2.0 / size)) for size in voxel_mm]
    wide = grown(box, mask.shape, int(np.ceil(14 / voxel_mm.min())))
    coarse = tuple(slice(s.start, s.stop, n) for s, n in zip(wide, step, strict=True))
    distance = ndimage.distance_transform_edt(~mask[coarse], sampling=voxel_mm * step)
    around = data[coarse][(distance > 3) & (distance < 12)]
    if not around.size:
        return True
    tissue = float(np.median(data[mask]))
    darkest = float(data.min())
    return bool((around <= darkest + 0.02 * (tissue - darkest)).mean() > 0.85)
