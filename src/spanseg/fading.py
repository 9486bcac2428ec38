"""Occipital white matter looks more like cortex than frontal white matter does: their contrast fades backwards."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from spanseg.deform import Draw, share_of
from spanseg.generation import GenerationClasses

ON_T1 = 0.5
"""How much of the fading there is where white matter is brighter than cortex, beside where it is darker."""


class Fading:
    """Moves cerebral white matter towards cortex, not at all at the frontal pole and most at the occipital one.

    A voxel that is white matter in part is moved in part, so that the border fades as the rest does. The poles are
    those of the white matter on the canvas, which must hold the whole brain: not for windows and neighbourhoods.

    On T2 and FLAIR of two patients the occipital pole had 0.4 to 0.6 of the frontal pole's contrast between white
    matter and cortex, on T1 of ten people 0.8 of it (``docs/experiments.md``, section 3).

    Args:
        table: generation classes.
        most: the largest share of the contrast that a scan loses at the occipital pole, 0 to 1; half of it on T1.
        device: where the work is done.
    """

    def __init__(self, table: GenerationClasses, most: float, device: torch.device | str = "cpu") -> None:
        self.most = most
        self.white = torch.from_numpy(np.isin(table.ids, (2, 41))).to(device)
        self.of_white, self.of_grey = (int(np.flatnonzero(table.ids == which)[0]) for which in (2, 3))

    def paint(
        self, image: Float[Tensor, "i j k"], reads: Sequence[Tensor], means: Float[Tensor, " class"], draw: Draw
    ) -> Float[Tensor, "i j k"]:
        """The image with less contrast at the back.

        Args:
            image: as painted from the reads.
            reads: generation classes, read at displaced places of each voxel for its partial volume.
            means: intensity of each generation class.
            draw: random numbers of this scan.
        """
        if self.most == 0:  # what is never painted is not drawn
            return image
        step = float(means[self.of_grey] - means[self.of_white])
        share = draw.rng.uniform(0, self.most) * (1.0 if step > 0 else ON_T1)
        white = share_of(self.white, reads)
        planes = torch.nonzero(white.sum((0, 2)))  # the canvas is RAS+: its second axis points forward
        if not len(planes):
            return image
        back, front = int(planes[0]), int(planes[-1])
        forward = torch.arange(white.shape[1], device=image.device, dtype=image.dtype)
        how_far_back = ((front - forward) / max(1, front - back)).clamp(0, 1)
        return (image + share * step * how_far_back[None, :, None] * white).clamp_(min=0)
