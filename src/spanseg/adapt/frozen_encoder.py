"""A frozen encoder: tokens, decoder and head are trained, and by the authors' code the skip paths too."""

from typing import Any

from torch import nn

from spanseg.errors import SpansegError

POLICIES = {"paper_code": ("skips", "decoder", "head"), "strict": ("decoder", "head")}


class FrozenEncoder:
    """What the backbone calls its encoder is frozen.

    Args:
        policy: ``paper_code`` trains all but the encoder (for a transformer: all but the transformer, the convolutions
            on its skip paths included); ``strict`` trains decoder and head only.

    Reference: KGPL. Its text says that all but decoder and prompts is frozen; its code freezes the transformer alone,
    which leaves 87 % of the Swin UNETR trainable.

    Raises:
        SpansegError: an unknown policy.
    """

    def __init__(self, policy: str = "paper_code") -> None:
        if policy not in POLICIES:
            raise SpansegError(f"adapt.FrozenEncoder takes policy = {' or '.join(POLICIES)}, not '{policy}'.")
        self.trained = POLICIES[policy]

    def apply(self, model: nn.Module) -> None:
        """Set ``requires_grad``; tokens and where they meet features are always trained."""
        model.requires_grad_(True)
        stock: Any = getattr(model, "backbone", model)
        for group, parameters in stock.groups().items():
            for parameter in parameters:
                parameter.requires_grad_(group in self.trained)
