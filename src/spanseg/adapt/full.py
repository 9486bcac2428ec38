"""Full training: everything may change."""

from torch import nn


class Full:
    """Every parameter of the model is trained."""

    def apply(self, model: nn.Module) -> None:
        """Set ``requires_grad`` on all parameters."""
        model.requires_grad_(True)
