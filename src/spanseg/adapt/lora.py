"""Low-rank deltas beside frozen weights."""

from collections.abc import Sequence

from torch import nn

from spanseg.errors import SpansegError


class Lora:
    """Injects low-rank deltas with peft; beside them, only named groups of the backbone are trained.

    On a fused ``qkv`` the delta moves the keys too, not queries and values alone as in the method's first experiments.
    Transposed convolutions cannot carry a delta: peft refuses them.

    Args:
        rank: of a delta.
        alpha: the delta is scaled by ``alpha / rank``; 0 stands for ``rank``.
        targets: ends of the names of the layers that get one; empty for ``qkv`` where there is attention, else all
            convolutions but those of the head.
        beside: groups of the backbone, such as ``decoder`` and ``head``, that are trained as they are.

    Reference: Hu et al., ICLR 2022 (LoRA).
    """

    def __init__(
        self, rank: int = 8, alpha: float = 0.0, targets: Sequence[str] = (), beside: Sequence[str] = ()
    ) -> None:
        self.rank, self.alpha, self.targets, self.beside = rank, alpha or rank, tuple(targets), tuple(beside)

    def apply(self, model: nn.Module) -> None:
        """Wrap the target layers and freeze everything else.

        Raises:
            SpansegError: no layer fits the targets, one of them is a transposed convolution, or there is no such group.
        """
        from peft import LoraConfig, inject_adapter_in_model

        names = self._names(model)
        groups: dict[str, list[nn.Parameter]] = model.groups()  # type: ignore[operator]
        if unknown := [group for group in self.beside if group not in groups]:
            raise SpansegError(f"adapt.Lora has beside = {unknown}; the backbone has the groups {', '.join(groups)}.")
        model.requires_grad_(False)
        config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=names)
        inject_adapter_in_model(config, model)
        for parameter in [p for group in self.beside for p in groups[group]]:
            parameter.requires_grad_(True)

    def _names(self, model: nn.Module) -> list[str]:
        layers = dict(model.named_modules())
        if not self.targets:
            fused = [name for name in layers if name.endswith("qkv")]
            return fused or _convolutions(model)
        named = [name for name in layers if name.endswith(self.targets)]
        transposed = [name for name in named if isinstance(layers[name], nn.ConvTranspose3d)]
        if transposed or not named:
            what = f"'{transposed[0]}' is a transposed convolution" if transposed else "no layer has such a name"
            raise SpansegError(
                f"adapt.Lora cannot use the targets {list(self.targets)}: {what}; name linear layers or convolutions."
            )
        return named


def _convolutions(model: nn.Module) -> list[str]:
    """Names of all convolutions but those of the head."""
    head = {id(parameter) for parameter in model.groups()["head"]}  # type: ignore[operator]
    layers = model.named_modules()
    return [name for name, layer in layers if isinstance(layer, nn.Conv3d) and id(layer.weight) not in head]
