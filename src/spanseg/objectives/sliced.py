"""Supervised objective of a network that labels a canvas slice by slice: labels of some slices of each scan."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spanseg.interfaces import Batch
from spanseg.losses import dice_and_cross_entropy
from spanseg.slice_prompts import PLANES, drawn_slices


class Sliced:
    """Dice with class-weighted cross-entropy on drawn slices, most of them with structures, as ``prompted`` draws them.

    Args:
        slices: of each scan and step.
        cross_entropy: weight of the cross-entropy beside the Dice loss.
        rarity: how strongly the cross-entropy weighs rare classes up, 0 for not at all.
    """

    def __init__(self, slices: int = 8, cross_entropy: float = 1.0, rarity: float = 0.5) -> None:
        self.slices, self.cross_entropy, self.rarity = slices, cross_entropy, rarity

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch; the slices drawn depend on the batch's index alone."""
        network: Any = model
        axis = PLANES[network.plane]
        which = drawn_slices(batch.target, axis, self.slices, np.random.default_rng([batch.index, 4]))
        subject = torch.arange(len(which), device=which.device)[:, None]
        target = batch.target.movedim(1 + axis, 1)[subject, which].movedim(1, 1 + axis)
        logits = network(batch.image, slices=which)
        dice, entropy = dice_and_cross_entropy(logits, target, self.rarity, batch.unlabelled)
        return {"dice": dice, "cross_entropy": self.cross_entropy * entropy}
