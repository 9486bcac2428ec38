"""Deep supervision: beside the supervised loss, that of classifiers on the coarse stages of the decoder."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spanseg.errors import SpansegError
from spanseg.interfaces import Batch
from spanseg.losses import dice_and_cross_entropy
from spanseg.objectives.supervised import Supervised
from spanseg.parts import require_bounds


class DeeplySupervised:
    """Dice and class-weighted cross-entropy of the logits and, weighted, of a backbone's classifiers of coarse stages.

    Args:
        phases, cross_entropy, rarity: as for ``supervised``.
        aside: weight of the mean loss of the coarse classifiers (``[backbone] aside = true``), against the labels in
            the middle of their cells.

    Reference: Lee et al., AISTATS 2015 (deeply-supervised nets).
    """

    def __init__(self, phases: int = 1, cross_entropy: float = 1.0, rarity: float = 0.5, aside: float = 0.5) -> None:
        self.supervised = Supervised(phases, cross_entropy, rarity)
        self.aside = aside
        require_bounds(self, {"aside": (0, math.inf)}, "objective")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch.

        Raises:
            SpansegError: the model's backbone has no classifiers of coarse stages, or they are frozen.
        """
        backbone: Any = getattr(model, "backbone", model)
        classifiers: dict[str, nn.Module] = dict(getattr(backbone, "aside", None) or {})
        if not classifiers:
            raise SpansegError(
                "[objective] deeply_supervised needs classifiers of coarse stages, which this backbone has not; "
                "take res_unet with three widths or more and [backbone] aside = true, or the objective supervised."
            )
        if not all(parameter.requires_grad for one in classifiers.values() for parameter in one.parameters()):
            raise SpansegError(
                "[objective] deeply_supervised needs classifiers of coarse stages that learn, and this [adapt] freezes "
                "them; take the objective supervised."
            )
        with _features(backbone, list(classifiers)) as seen:
            losses = self.supervised(model, batch)
        coarse = [self._coarse(classify(seen[stage]), batch) for stage, classify in classifiers.items()]
        return losses | {"aside": self.aside * torch.stack(coarse).mean()}

    def _coarse(self, logits: Tensor, batch: Batch) -> Tensor:
        """Loss of coarse logits against the label in the middle of each cell."""
        sizes = [fine // coarse for fine, coarse in zip(batch.target.shape[1:], logits.shape[2:], strict=True)]
        target = batch.target[:, *(slice(size // 2, None, size) for size in sizes)]
        dice, entropy = dice_and_cross_entropy(logits, target, self.supervised.rarity, batch.unlabelled)
        return dice + self.supervised.cross_entropy * entropy


@contextmanager
def _features(backbone: Any, stages: list[str]) -> Iterator[dict[str, Tensor]]:
    """Features of some stages of a backbone, by stage, once it has run."""
    seen: dict[str, Tensor] = {}

    def keep(stage: str) -> Any:
        return lambda module, given, features: seen.update({stage: features})

    hooks = [backbone.stage_module(stage).register_forward_hook(keep(stage)) for stage in stages]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
