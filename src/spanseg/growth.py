"""Structures grow and shrink, and those beside them make room: anatomies between and beyond those of the label maps."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from spanseg.deform import Draw, Place, blur
from spanseg.generation import GenerationClasses

REACH_MM = 3.0
"""How far a moving border takes its surroundings along: standard deviation of a Gaussian."""
ATROPHY = (((4, 43, 14), 1.0), ((5, 44), 0.7), ((24,), 0.4), ((17, 53), -0.3), ((18, 54), -0.2), ((3, 42), -0.1))
"""What atrophy does: FreeSurfer ids, and how far their borders move outwards for each mm of the ventricles'."""


class Growth:
    """Moves the borders of structures, each by a distance of its own, and those of an ageing brain together.

    Where two structures touch, their border moves by the difference of their distances. Borders of what is thinner than
    the reach move less. Labels and image move alike, so the truth stays true.

    Args:
        table: generation classes.
        growth_mm: standard deviation of each structure's own growth in mm, the same left and right.
        atrophy_mm: how far atrophy widens the ventricles at most in mm; a fifth of it narrows them in the young.
        device: where the work is done.
    """

    def __init__(
        self, table: GenerationClasses, growth_mm: float, atrophy_mm: float, device: torch.device | str = "cpu"
    ) -> None:
        self.growth_mm, self.atrophy_mm, self.device = growth_mm, atrophy_mm, torch.device(device)
        self.first = np.minimum(np.arange(len(table.ids)), table.mirror)
        self.own = table.brain.astype(np.float64)
        self.ageing = np.zeros(len(table.ids))
        for ids, share in ATROPHY:
            self.ageing[np.isin(table.ids, ids)] = share

    def moved(self, place: Place, labels: Tensor, draw: Draw) -> Place:
        """Where the canvas's voxels lie on a label map whose structures have grown.

        Args:
            place: where they lie as it is.
            labels: generation classes of the map, shape (i, j, k).
            draw: random numbers of this scan.
        """
        if self.growth_mm == 0 and self.atrophy_mm == 0:  # what is never moved is not drawn
            return place
        coarse = place.coarser().nearest(labels, (0.25, 0.25, 0.25))  # the middle of each cell of 2 x 2 x 2 voxels
        field = self._field(coarse, 2 * draw.canvas.voxel_mm, self._distances(draw)) / draw.canvas.voxel_mm
        voxels = F.interpolate(field[None], size=draw.canvas.shape, mode="trilinear", align_corners=False)[0]
        return place.displaced(voxels)

    def _distances(self, draw: Draw) -> Tensor:
        """By how many mm each generation class grows."""
        own = draw.rng.normal(0, self.growth_mm, len(self.own))[self.first] * self.own
        ageing = draw.rng.uniform(-0.2, 1.0) * self.atrophy_mm
        return torch.from_numpy((own + ageing * self.ageing).astype(np.float32)).to(self.device)

    @staticmethod
    def _field(classes: Tensor, voxel_mm: float, distances: Tensor) -> Tensor:
        """Displacement in mm, shape (3, i, j, k): towards what grows, by its distance at a border that is flat."""
        reach = math.ceil(3 * REACH_MM / voxel_mm)  # beyond the canvas all goes on as at its faces, which stay in place
        wide = F.pad(distances[classes.int()][None, None], (reach,) * 6, mode="replicate")[0, 0]
        inside = (slice(reach, -reach),) * 3
        pressure = blur(wide, np.full(3, REACH_MM / voxel_mm))[inside]
        slopes = torch.gradient(pressure, spacing=voxel_mm)
        return REACH_MM * math.sqrt(2 * math.pi) * torch.stack(list(slopes))
