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
        rarity: how strongly the cross-entropy weighs rare classes up, 0 for not at all.
    """

    def __init__(self, phases: int = 1, cross_entropy: float = 1.0, rarity: float = 0.5) -> None:
        self.phases, self.cross_entropy, self.rarity = phases, cross_entropy, rarity

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch; the phases drawn depend on the batch's index alone."""
        logits, target = self._all(model, batch) if not self.phases else self._some(model, batch)
        dice, entropy = dice_and_cross_entropy(logits, target, self.rarity)
        return {"dice": dice, "cross_entropy": self.cross_entropy * entropy}

    def _all(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        return model(batch.image), batch.target

    def _some(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        order = torch.randperm(8, generator=torch.Generator().manual_seed(batch.index))
        drawn = [int(phase) for phase in order[: self.phases]]
        parts = [batch.target[:, p // 4 :: 2, p // 2 % 2 :: 2, p % 2 :: 2] for p in drawn]
        return model(batch.image, phases=drawn), torch.cat(parts)
