"""Cortex looks more like what surrounds it towards its outer surface, where vessels and pia lie."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spanseg.deform import Draw, blur, share_of
from spanseg.generation import GenerationClasses

REACH_MM = 1.0
"""How deep the surroundings shine in: standard deviation of a Gaussian."""


class Surface:
    """Moves cerebral cortex towards CSF, most at its outer surface and hardly at all 2 mm below it.

    A voxel that is cortex in part is moved in part. On T1 of two people voxels that manual labels count as cortex and a
    network as CSF lay at half to two thirds of the way from CSF to cortex (``docs/experiments.md``, section 3).

    Args:
        table: generation classes.
        most: the largest share of the way to CSF that cortex moves where it has nothing but CSF around it, 0 to 1; at a
            flat surface it is half of that.
        device: where the work is done.
    """

    def __init__(self, table: GenerationClasses, most: float, device: torch.device | str = "cpu") -> None:
        self.most = most
        self.grey = torch.from_numpy(np.isin(table.ids, (3, 42))).to(device)
        self.csf = torch.from_numpy(table.csf).to(device)
        self.of_grey, self.of_csf = (int(np.flatnonzero(table.ids == which)[0]) for which in (3, 24))

    def paint(
        self, image: Float[Tensor, "i j k"], reads: Sequence[Tensor], means: Float[Tensor, " class"], draw: Draw
    ) -> Float[Tensor, "i j k"]:
        """The image with a cortex that fades into CSF.

        Args:
            image: as painted from the reads.
            reads: generation classes, read at displaced places of each voxel for its partial volume.
            means: intensity of each generation class.
            draw: random numbers of this scan.
        """
        if self.most == 0:  # what is never painted is not drawn
            return image
        step = float(means[self.of_csf] - means[self.of_grey]) * draw.rng.uniform(0, self.most)
        around = blur(share_of(self.csf, reads), np.full(3, REACH_MM / draw.canvas.voxel_mm))
        return (image + step * around * share_of(self.grey, reads)).clamp_(min=0)
