"""White matter as it is: lesions, caps of the ventricles, slow changes. Label maps hold none, so they are painted."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from spanseg.deform import Draw
from spanseg.generation import GenerationClasses

REACH_MM = 12.0
"""How far from the lateral ventricles white matter counts as near them."""
LOAD = (0.001, 0.08)
"""Smallest and largest share of the cerebral white matter that lesions touch, soft edges included; log-uniform."""


class Lesions:
    """Paints blobs of another intensity into cerebral white matter; what they lie in stays white matter.

    They differ from white matter to the side of grey matter on the same scan, by 0.4 to 1.6 times its distance and,
    where grey is brighter, by up to 0.35 more: darker on T1, brighter on T2 and FLAIR. From one scan to the next they
    gather round the lateral ventricles (rims, caps, streaks) or lie scattered. White matter between them changes slowly
    from place to place, with a standard deviation of at most a third of the way to grey matter.

    Args:
        table: generation classes.
        share: probability that a scan has any.
        device: where the work is done.
    """

    def __init__(self, table: GenerationClasses, share: float, device: torch.device | str = "cpu") -> None:
        self.share = share
        self.white = torch.from_numpy(np.isin(table.ids, (2, 41))).to(device)
        self.ventricle = torch.from_numpy(np.isin(table.ids, (4, 43))).to(device)
        self.of_white, self.of_grey = (int(np.flatnonzero(table.ids == which)[0]) for which in (2, 3))

    def paint(
        self, image: Float[Tensor, "i j k"], classes: Tensor, means: Float[Tensor, " class"], draw: Draw
    ) -> Float[Tensor, "i j k"]:
        """The image with lesions, or as it is; ``means`` are the intensities of the generation classes."""
        if self.share == 0 or draw.rng.random() >= self.share:  # what is never painted is not drawn
            return image
        white = self.white[classes.int()]
        if not white.any():
            return image
        step = float(means[self.of_grey] - means[self.of_white])
        change = draw.rng.uniform(0.4, 1.6) * step + draw.rng.uniform(0, 0.35) * (step > 0)
        slow = draw.rng.uniform(0, 0.33) * step * draw.smooth_field((35.0,), (1.0,), 1)[0] * white
        return (image + slow + change * self._where(white, classes, draw)).clamp_(min=0)

    def _where(self, white: Bool[Tensor, "i j k"], classes: Tensor, draw: Draw) -> Float[Tensor, "i j k"]:
        """How much of each voxel is lesion, 0 to 1: where a rough field, higher near the ventricles, is highest."""
        score = draw.smooth_field((draw.rng.choice([6.0, 9.0, 14.0]),), (1.0,), 1)[0]
        score += draw.rng.uniform(0, 3) * self._near(classes, draw.canvas.voxel_mm)
        load = float(np.exp(draw.rng.uniform(*np.log(LOAD))))
        border = torch.quantile(score[white][::4], 1 - load)
        return ((score - border) / 0.4).clamp(0, 1) * white

    def _near(self, classes: Tensor, voxel_mm: float) -> Float[Tensor, "i j k"]:
        """1 in the lateral ventricles, falling to 0 at ``REACH_MM`` from them."""
        near = self.ventricle[classes.int()][None, None].float()
        steps = max(1, round(REACH_MM / voxel_mm))
        total = near.clone()
        for _ in range(steps - 1):
            near = F.max_pool3d(near, 3, stride=1, padding=1)
            total += near
        return total[0, 0] / steps
