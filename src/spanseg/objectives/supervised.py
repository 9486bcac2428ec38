"""Supervised objective: labels of every voxel, or of some sub-voxel phases."""

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from spanseg.errors import SpansegError
from spanseg.interfaces import Batch
from spanseg.losses import PRESETS, Unlabelled, dice_and_cross_entropy, dice_focal, soft_dice
from spanseg.parts import require_bounds

_LOSSES = ("dice_ce", "dice", "dice_focal")


class Supervised:
    """Dice, alone or with class-weighted cross-entropy or a focal loss, on the logits of a model.

    Args:
        phases: how many of the eight sub-voxel phases of a space-to-depth backbone are drawn for each step; 0 takes
            the logits of all voxels at once, which is what backbones without phases need.
        cross_entropy: weight of the cross-entropy beside the Dice loss.
        rarity: how strongly the cross-entropy weighs rare classes up, 0 for not at all.
        loss: ``dice_ce``, ``dice`` or ``dice_focal``.
        preset: settings of ``dice_focal``: ``paper``, ``authors_code`` or ``default``.
        alpha, gamma: replace the preset's weight and exponent of the focal loss.
    """

    def __init__(
        self,
        phases: int = 1,
        cross_entropy: float = 1.0,
        rarity: float = 0.5,
        loss: str = "dice_ce",
        preset: str = "default",
        alpha: float | None = None,
        gamma: float | None = None,
    ) -> None:
        if loss not in _LOSSES or preset not in PRESETS:
            raise SpansegError(
                f"[objective] has loss = '{loss}' and preset = '{preset}'; expected a loss of {', '.join(_LOSSES)} and "
                f"a preset of {', '.join(PRESETS)}."
            )
        given: dict[str, Any] = {
            name: value for name, value in (("alpha", alpha), ("gamma", gamma)) if value is not None
        }
        if loss != "dice_focal" and (given or preset != "default"):
            raise SpansegError(f"[objective] preset, alpha and gamma belong to loss = 'dice_focal', not to '{loss}'.")
        self.phases, self.cross_entropy, self.rarity, self.loss = phases, cross_entropy, rarity, loss
        self.focal = dataclasses.replace(PRESETS[preset], **given)
        require_bounds(self, {"phases": (0, 8), "cross_entropy": (0, math.inf), "rarity": (0, math.inf)}, "objective")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch; the phases drawn depend on the batch's index alone."""
        logits, target, unlabelled = self._all(model, batch) if not self.phases else self._some(model, batch)
        if self.loss == "dice":
            return {"dice": soft_dice(logits, target, unlabelled)}
        if self.loss == "dice_focal":
            dice, focal = dice_focal(logits, target, self.focal, unlabelled)
            return {"dice": dice, "focal": focal}
        dice, entropy = dice_and_cross_entropy(logits, target, self.rarity, unlabelled)
        return {"dice": dice, "cross_entropy": self.cross_entropy * entropy}

    def _all(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Unlabelled]:
        return model(batch.image, **_told(batch)), batch.target, batch.unlabelled

    def _some(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Unlabelled]:
        order = torch.randperm(8, generator=torch.Generator().manual_seed(batch.index))
        drawn = [int(phase) for phase in order[: self.phases]]
        parts = [batch.target[:, p // 4 :: 2, p // 2 % 2 :: 2, p % 2 :: 2] for p in drawn]
        logits = model(batch.image, phases=drawn, **_told(batch))
        return logits, torch.cat(parts), batch.unlabelled * len(drawn)


def _told(batch: Batch) -> dict[str, object]:
    """The argument ``told``, left out where there is nothing to tell: plain backbones do not know it."""
    return {} if batch.told is None else {"told": batch.told}
