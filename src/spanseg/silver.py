"""Silver labels: accurate targets made as careless as automatic labels are, for learning from such labels.

Three faults, each stronger with the level: small pieces of structures are missed, borders wander, and what is thin is
smoothed away. The same seed and index give the same faults at every level, only larger or smaller.
"""

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from spanseg.deform import Canvas, Draw
from spanseg.errors import SpansegError
from spanseg.geometry import give_to_nearest
from spanseg.interfaces import Sample, Source
from spanseg.labels import UNKNOWN

MOST = 3.0
"""Highest level."""
BORDER_MM = 0.6
"""Standard deviation of the displacement of borders at level 1, at the control points of its smooth field."""
BORDER_SPACING_MM = 8.0
MISSED_MM3 = 300.0
"""Volume below which pieces may be missed at level 1."""
MISSED = 0.1
"""Probability with which such a piece is missed at level 1."""
_LARGE = 10  # pieces of structures that are this many times larger are not looked for: CSF, cortex, white matter
_STREAM = 1_000_003  # added to the seed, so that faults do not follow from the numbers that the scan was drawn with


class Silver:
    """A source whose targets are degraded; its images stay as they are.

    Args:
        source: what is degraded.
        level: how far, from 0 (not at all) to 3.
        voxel_mm: edge length of a voxel of what is drawn.

    Raises:
        SpansegError: a level outside 0 to 3.
    """

    def __init__(self, source: Source, level: float, voxel_mm: float) -> None:
        if not 0 <= level <= MOST:
            raise SpansegError(f"[synth] silver = {level}: expected a level from 0 (accurate labels) to {MOST:g}.")
        self.source, self.level, self.voxel_mm = source, level, voxel_mm

    def draw(self, seed: int, index: int) -> Sample:
        """Draw a sample and degrade its target."""
        sample = self.source.draw(seed, index)
        return sample._replace(target=degrade(sample.target[0], self.level, self.voxel_mm, (seed, index))[None])


def degrade(target: Int[Tensor, "i j k"], level: float, voxel_mm: float, draw: tuple[int, int]) -> Int[Tensor, "i j k"]:
    """Miss small pieces, move borders and smooth, in this order.

    Args:
        target: class of each voxel; voxels that are ``UNKNOWN`` stay so.
        level: how far, 0 for not at all.
        voxel_mm: edge length of a voxel.
        draw: seed and index, which decide all random choices.
    """
    if level <= 0:
        return target
    canvas = Canvas((target.shape[0], target.shape[1], target.shape[2]), voxel_mm)
    state = Draw(draw[0] + _STREAM, draw[1], canvas, target.device)
    silver = _missed(target, level, voxel_mm, state.rng)
    silver = _moved(silver, level * BORDER_MM / voxel_mm, state)
    for _ in range(round(level)):
        silver = smoothed(silver)
    return torch.where(target == UNKNOWN, UNKNOWN, silver)


def _missed(target: Tensor, level: float, voxel_mm: float, rng: np.random.Generator) -> Tensor:
    """Give small pieces of structures to the nearest other class."""
    from scipy import ndimage

    labels = target.cpu().numpy().copy()
    most_voxels, chance = level * MISSED_MM3 / voxel_mm**3, level * MISSED
    structures = np.maximum(labels, 0).astype(np.int32)
    volumes = np.bincount(structures.ravel())
    for index, box in enumerate(ndimage.find_objects(structures), start=1):
        numbers = rng.random(8)  # drawn for every class, so that one class's fate does not hang on another's
        if box is None or volumes[index] > _LARGE * most_voxels:
            continue
        pieces, found = ndimage.label(labels[box] == index)
        sizes = np.bincount(pieces.ravel())[1:]
        lost = [n + 1 for n in range(found) if sizes[n] < most_voxels and numbers[n % 8] < chance]
        if lost:
            _fill(labels, box, np.isin(pieces, lost))
    return torch.from_numpy(labels).to(target.device)


def _fill(labels: np.ndarray, box: tuple[slice, ...], lost: np.ndarray) -> None:
    """Give lost voxels of a box the label of the nearest voxel that is not lost (in place)."""
    wide = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
    view = labels[wide]
    gone = np.zeros(view.shape, dtype=bool)
    gone[tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, wide, strict=True))] = lost
    give_to_nearest(view, gone, ~gone)  # a target of one class up to its edges has no neighbour to give to, and stays


def _moved(target: Tensor, deviation_voxels: float, state: Draw) -> Tensor:
    """Read the target through a smooth random displacement; beyond its edges it goes on as at the edge."""
    field = state.smooth_field((BORDER_SPACING_MM,), (deviation_voxels,), 3)
    index = torch.zeros((), dtype=torch.int32, device=target.device)
    for axis, n in enumerate(target.shape):
        line = torch.arange(n, device=target.device).reshape([-1 if axis == other else 1 for other in range(3)])
        index = index * n + field[axis].add_(line).round_().to(torch.int32).clamp_(0, n - 1)
    return target.reshape(-1)[index.reshape(-1)].reshape(target.shape)


def smoothed(target: Int[Tensor, "i j k"]) -> Int[Tensor, "i j k"]:
    """Give each voxel the class that most of its 3×3×3 neighbourhood has; where its own has as many, it keeps that.

    Voxels on the edges of the grid stay as they are.
    """
    target = target.contiguous()
    inner = target[1:-1, 1:-1, 1:-1]
    mixed = torch.zeros_like(inner, dtype=torch.bool)  # others have six neighbours of their own class, and stay
    for axis, n in enumerate(target.shape):
        across = target[tuple(slice(None) if axis == other else slice(1, -1) for other in range(3))]
        mixed |= (inner != across.narrow(axis, 0, n - 2)) | (inner != across.narrow(axis, 2, n - 2))
    where = torch.nonzero(mixed) + 1
    row, plane = target.shape[2], target.shape[1] * target.shape[2]
    centre = where[:, 0] * plane + where[:, 1] * row + where[:, 2]
    shifts = torch.tensor([a * plane + b * row + c for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)])
    around = target.reshape(-1)[centre[:, None] + shifts.to(target.device)]
    own, most = around[:, 13], around.mode(1).values
    kept = (around == own[:, None]).sum(1) >= (around == most[:, None]).sum(1)
    result = target.clone()
    result.view(-1)[centre] = torch.where(kept, own, most)
    return result
