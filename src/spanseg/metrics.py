"""How well two label images agree: overlap, surface distances in mm and volumes, structure by structure.

The surface of a structure is the set of its voxels that share a face with a voxel outside it, and a distance is the
one between the centres of two such voxels, with the real edge lengths of the voxels. Where the truth is unknown, and
beyond the edge of the image, nothing is scored: what was predicted there changes no figure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from spanseg.labels import UNKNOWN

SLACK_MM = 1e-3
"""Added to the tolerance of the surface Dice: headers round voxel sizes (1.0000002 mm), and distances of exactly one
voxel are the most frequent ones of all."""


@dataclass(frozen=True)
class Scores:
    """Agreement of one structure between a prediction and the truth; what is not defined is NaN.

    Args:
        dice: 2 |A ∩ B| / (|A| + |B|); 0 if the structure is in one of the two only.
        surface_dice: share of both surfaces' voxels that lie within the tolerance of the other surface (normalised
            surface Dice); 0 if the structure is in one of the two only.
        asd_mm: average symmetric surface distance: the mean over the distances of both directions, pooled.
        hd95_mm: the larger of the two directions' 95th percentiles.
        truth_mm3: volume in the truth.
        predicted_mm3: volume in the prediction, where the truth is known.

    Reference:
        Nikolov et al., arXiv:1809.04430 (surface Dice); Maier-Hein, Reinke et al., Nature Methods 21, 2024 (the other
        definitions). Nikolov weights surface elements by their area; here each surface voxel counts once.
    """

    dice: float
    surface_dice: float
    asd_mm: float
    hd95_mm: float
    truth_mm3: float
    predicted_mm3: float

    @property
    def is_empty(self) -> bool:
        """Whether the structure is in neither of the two: there is nothing to score."""
        return self.truth_mm3 == 0 and self.predicted_mm3 == 0

    @property
    def is_missing(self) -> bool:
        """Whether the structure is in one of the two only: it has no distances."""
        return (self.truth_mm3 == 0) != (self.predicted_mm3 == 0)

    @property
    def volume_error_mm3(self) -> float:
        """Predicted minus true volume in mm³."""
        return math.nan if self.is_empty else self.predicted_mm3 - self.truth_mm3

    @property
    def volume_error_percent(self) -> float:
        """Predicted minus true volume in per cent of the true one."""
        return 100 * self.volume_error_mm3 / self.truth_mm3 if self.truth_mm3 else math.nan


def score_classes(
    predicted: np.ndarray,
    truth: np.ndarray,
    voxel_size_mm: Iterable[float],
    classes: Iterable[int],
    unlabelled: Iterable[int] = (),
    tolerance_mm: float = 1.0,
) -> dict[int, Scores]:
    """Score every class of a prediction against the truth.

    Args:
        predicted: class indices, shape (i, j, k).
        truth: class indices of the same shape; ``UNKNOWN`` voxels enter no score.
        voxel_size_mm: edge lengths of a voxel.
        classes: which classes to score; background and the unlabelled ones are left out.
        unlabelled: classes that the truth does not label, so that its 0 means "background or one of these":
            predictions of them count as background.
        tolerance_mm: up to which distance the surface Dice takes surfaces as equal.

    Example:
        >>> cube = np.zeros((4, 4, 4), int)
        >>> cube[1:3, 1:3, 1:3] = 7
        >>> score_classes(cube, cube, (1, 1, 2), [7])[7].truth_mm3
        16.0
    """
    voxel_mm = np.array(list(voxel_size_mm), dtype=float)
    skipped = set(unlabelled)
    predicted = np.where((truth == UNKNOWN) | np.isin(predicted, list(skipped)), 0, predicted)
    truth = np.pad(truth, 1, constant_values=UNKNOWN)
    predicted = np.pad(predicted, 1)
    true_boxes, predicted_boxes = _boxes(truth), _boxes(predicted)
    scores = {}
    for index in sorted(set(classes) - skipped - {0}):
        box = _round_both(true_boxes.get(index), predicted_boxes.get(index))
        known = truth[box] != UNKNOWN
        scores[index] = _score(predicted[box] == index, truth[box] == index, known, voxel_mm, tolerance_mm)
    return scores


Box = tuple[slice, slice, slice]


def _boxes(labels: np.ndarray) -> dict[int, Box]:
    """Bounding box of every class above 0."""
    found = ndimage.find_objects(np.maximum(labels, 0).astype(np.int32))
    return {index: box for index, box in enumerate(found, start=1) if box is not None}


def _round_both(first: Box | None, second: Box | None) -> Box:
    """The box round two boxes with one voxel to spare on each side; an empty one if there are none."""
    boxes = [box for box in (first, second) if box is not None]
    if not boxes:
        return slice(0), slice(0), slice(0)
    low = [min(box[axis].start for box in boxes) - 1 for axis in range(3)]
    high = [max(box[axis].stop for box in boxes) + 1 for axis in range(3)]
    return slice(low[0], high[0]), slice(low[1], high[1]), slice(low[2], high[2])


def _score(
    predicted: np.ndarray, truth: np.ndarray, known: np.ndarray, voxel_mm: np.ndarray, tolerance_mm: float
) -> Scores:
    """Score one structure given as two masks; ``known`` marks the voxels that count."""
    counts = int(truth.sum()), int(predicted.sum())
    voxel_mm3 = float(voxel_mm.prod())
    volumes = counts[0] * voxel_mm3, counts[1] * voxel_mm3
    if not any(counts):
        return Scores(math.nan, math.nan, math.nan, math.nan, *volumes)
    if not all(counts):
        return Scores(0.0, 0.0, math.nan, math.nan, *volumes)
    dice = 2 * int((truth & predicted).sum()) / sum(counts)
    directed = surface_distances_mm(predicted, truth, known, voxel_mm)
    pooled = np.concatenate(directed)
    if not pooled.size:  # both surfaces lie along unknown voxels alone
        return Scores(dice, math.nan, math.nan, math.nan, *volumes)
    hd95_mm = max(float(np.percentile(distances, 95)) for distances in directed if distances.size)
    surface_dice = float((pooled <= tolerance_mm + SLACK_MM).mean())
    return Scores(dice, surface_dice, float(pooled.mean()), hd95_mm, *volumes)


def surface_distances_mm(
    first: np.ndarray, second: np.ndarray, known: np.ndarray, voxel_size_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances from each surface voxel of one mask to the surface of the other, in mm, for both directions.

    A structure that ends at an unknown voxel may go on there: a voxel with faces to unknown ones only is no surface to
    measure from, but it is one to measure to, so that such a distance is never taken too large.

    Args:
        first: not empty, shape (i, j, k), nothing on the edge of the array.
        second: likewise.
        known: voxels whose truth is known; both masks lie inside.
        voxel_size_mm: edge lengths of a voxel, shape (3,).
    """
    from_first, to_first = _surfaces(first, known)
    from_second, to_second = _surfaces(second, known)
    return _nearest_mm(from_first, to_second, voxel_size_mm), _nearest_mm(from_second, to_first, voxel_size_mm)


def _surfaces(mask: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxel indices (point, 3) of the surface to measure from and of the one to measure to."""
    measured_to = mask & ndimage.binary_dilation(~mask)
    measured_from = measured_to & ndimage.binary_dilation(known & ~mask)
    return np.argwhere(measured_from), np.argwhere(measured_to)


def _nearest_mm(points: np.ndarray, surface: np.ndarray, voxel_mm: np.ndarray) -> np.ndarray:
    """Distance of each point to the nearest one of a surface, both as voxel indices (point, 3)."""
    # A tree of surface voxels costs the same however far apart the two lie, which a distance map of the box does not.
    tree = KDTree(surface * voxel_mm, balanced_tree=False, compact_nodes=False)
    return tree.query(points * voxel_mm)[0]
