"""Prompt tuning: the backbone stays as it is."""

from typing import Any

from torch import nn


class TokensAndHead:
    """Tokens and where they meet features are trained, and the head if it is asked for.

    Args:
        head: train the head too. A changed head changes the answers for all centres, so old centres stay bit-identical
            only without it.

    Reference: Saeed et al., Bioengineering 2023 (multi-centre prompt tuning): prompts alone, under 1 % of parameters.
    """

    def __init__(self, head: bool = True) -> None:
        self.head = head

    def apply(self, model: nn.Module) -> None:
        """Set ``requires_grad``."""
        model.requires_grad_(True)
        backbone: Any = model.backbone
        backbone.requires_grad_(False)
        for parameter in backbone.groups()["head"] if self.head else []:
            parameter.requires_grad_(True)
