"""How well two label images agree: overlap, surface distances in mm and volumes, structure by structure.

The surface of a structure is the set of its voxels that share a face with a voxel outside it, and a distance is the
one between the centres of two such voxels, with the real edge lengths of the voxels. Where the truth is unknown, and
beyond the edge of the image, nothing is scored: what was predicted there changes no figure. A structure that ends at
an unknown voxel may go on there: a voxel with faces to unknown ones only is no surface to measure from, but it is one
to measure to, so that such a distance is never taken too large.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
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
        definitions). Nikolov weights surface elements by their area and puts them on the corners of voxels; here each
        surface voxel counts once and stands at its centre, which makes distances somewhat larger.
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

    @property
    def volume_error_abs_percent(self) -> float:
        """The same without its sign: errors of opposite sign do not cancel in a mean."""
        return abs(self.volume_error_percent)


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
    wanted = sorted(set(classes) - skipped - {0})
    predicted = np.where(np.isin(predicted, list(skipped)), 0, predicted)
    predicted = np.where(truth == UNKNOWN, UNKNOWN, predicted)
    size = max([0, *wanted]) + 1
    counts = _counts(truth, size), _counts(predicted, size), _counts(truth[truth == predicted], size)
    surfaces = _surfaces(truth, voxel_mm), _surfaces(predicted, voxel_mm)
    scores = {}
    for index in wanted:
        true, guessed, shared = (int(count[index]) for count in counts)
        volumes = true * float(voxel_mm.prod()), guessed * float(voxel_mm.prod())
        if true and guessed:
            distances = _distances(surfaces[0][index], surfaces[1][index], tolerance_mm)
            scores[index] = Scores(2 * shared / (true + guessed), *distances, *volumes)
        else:
            overlap = 0.0 if true or guessed else math.nan
            scores[index] = Scores(overlap, overlap, math.nan, math.nan, *volumes)
    return scores


def _counts(labels: np.ndarray, size: int) -> np.ndarray:
    """How often each class from 0 to ``size`` - 1 occurs."""
    return np.bincount(labels[(labels >= 0) & (labels < size)], minlength=size)


@dataclass(frozen=True)
class _Surface:
    """Surface voxels of one structure in mm, shape (point, 3): those to measure from and those to measure to."""

    measured_from: np.ndarray
    measured_to: np.ndarray


def _surfaces(labels: np.ndarray, voxel_mm: np.ndarray) -> dict[int, _Surface]:
    """Surface of every class above 0: one look at the six neighbours of each voxel serves all classes."""
    padded = np.pad(labels, 1, constant_values=UNKNOWN)
    ends, ends_in_known = np.zeros(labels.shape, dtype=bool), np.zeros(labels.shape, dtype=bool)
    for axis in range(3):
        for step in (-1, 1):
            neighbour = np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
            ends |= neighbour != labels
            ends_in_known |= (neighbour != labels) & (neighbour != UNKNOWN)
    points = np.argwhere(ends & (labels > 0))
    order = np.argsort(labels[tuple(points.T)], kind="stable")
    points = points[order]
    present, starts = np.unique(labels[tuple(points.T)], return_index=True)
    surfaces = {}
    for index, members in zip(present, np.split(points, starts)[1:], strict=True):
        known = ends_in_known[tuple(members.T)]
        surfaces[int(index)] = _Surface(members[known] * voxel_mm, members * voxel_mm)
    return surfaces


def _distances(truth: _Surface, predicted: _Surface, tolerance_mm: float) -> tuple[float, float, float]:
    """Surface Dice, average symmetric surface distance and 95th percentile of two surfaces."""
    directed = _nearest_mm(truth, predicted), _nearest_mm(predicted, truth)
    pooled = np.concatenate(directed)
    if not pooled.size:  # both end at unknown voxels alone
        return math.nan, math.nan, math.nan
    surface_dice = float((pooled <= tolerance_mm + SLACK_MM).mean())
    hd95_mm = max(float(np.percentile(distances, 95)) for distances in directed if distances.size)
    return surface_dice, float(pooled.mean()), hd95_mm


def _nearest_mm(start: _Surface, goal: _Surface) -> np.ndarray:
    """Distance in mm from each surface voxel of one structure to the nearest one of another."""
    # A tree of surface voxels costs the same however far apart the two lie; a distance map of the box does not.
    tree = KDTree(goal.measured_to, balanced_tree=False, compact_nodes=False)
    return tree.query(start.measured_from)[0]
