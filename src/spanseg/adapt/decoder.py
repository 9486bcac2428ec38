"""Decoder training: the encoder and the skip paths stay as they are."""

from torch import nn


class Decoder:
    """Decoder and head are trained."""

    def apply(self, model: nn.Module) -> None:
        """Set ``requires_grad``."""
        model.requires_grad_(False)
        for group in ("decoder", "head"):
            for parameter in model.groups()[group]:  # type: ignore[operator]
                parameter.requires_grad_(True)
