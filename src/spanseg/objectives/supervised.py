"""Supervised objective: labels of every voxel of one sub-voxel phase."""

import torch
from torch import Tensor, nn

from spanseg.interfaces import Batch
from spanseg.losses import dice_and_cross_entropy


class Supervised:
    """Dice and class-weighted cross-entropy on the logits of a model.

    Args:
        phases: how many of the eight sub-voxel phases of a space-to-depth backbone are drawn for each step; 0 takes
            the logits of all voxels at once, which is what backbones without phases need.
        cross_entropy: weight of the cross-entropy beside the Dice loss.
    """

    def __init__(self, phases: int = 1, cross_entropy: float = 1.0) -> None:
        self.phases, self.cross_entropy = phases, cross_entropy

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch; the phases drawn depend on the batch's index alone."""
        if not self.phases:
            dice, entropy = dice_and_cross_entropy(model(batch.image), batch.target)
            return {"dice": dice, "cross_entropy": self.cross_entropy * entropy}
        order = torch.randperm(8, generator=torch.Generator().manual_seed(batch.index))
        terms = [self._phase(model, batch, int(phase)) for phase in order[: self.phases]]
        dice, entropy = (torch.stack(column).mean() for column in zip(*terms, strict=True))
        return {"dice": dice, "cross_entropy": self.cross_entropy * entropy}

    def _phase(self, model: nn.Module, batch: Batch, phase: int) -> tuple[Tensor, Tensor]:
        a, b, c = phase // 4, phase // 2 % 2, phase % 2
        return dice_and_cross_entropy(model(batch.image, phase=phase), batch.target[:, a::2, b::2, c::2])
