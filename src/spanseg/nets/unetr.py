"""UNETR: a plain vision transformer as encoder; MONAI's network with named stages and groups."""

from collections.abc import Sequence
from typing import ClassVar

from monai.networks.nets import unetr as stock
from torch import nn

from spanseg.errors import SpansegError
from spanseg.nets._norms import quicken


class Unetr(stock.UNETR):
    """MONAI's UNETR under its own names, so that its weights load key by key.

    Twelve transformer blocks see patches of 16×16×16 voxels in one sequence; position embeddings tie the network to one
    canvas. The defaults are the published size.

    Args:
        in_channels: image channels.
        out_channels: classes, background included.
        image_shape: voxels along each edge of the canvas, multiples of 16.
        feature_size: channels of the finest convolutions.
        hidden_size: channels of the transformer.
        mlp_dim: hidden channels of a transformer block's own two-layer network.
        num_heads: heads of attention; must divide ``hidden_size``.

    Reference: Hatamizadeh et al., WACV 2022. The KGPL paper's count is that of MONAI before a block had
    ``norm_cross_attn``: 2 × ``hidden_size`` parameters a block that no pass without cross-attention reads.

    Raises:
        SpansegError: the heads do not divide the transformer's channels.
    """

    needs_two_positions: ClassVar[bool] = False  # its transformer normalises over channels
    pairs: ClassVar[dict[str, tuple[str, ...]]] = {
        "none": ("full", "decoder", "frozen_encoder", "lora"),
        "knowledge": ("full", "frozen_encoder", "tokens_and_head"),
        "learned": ("full", "frozen_encoder", "tokens_and_head"),
        "one_hot": ("frozen_encoder",),
    }

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        image_shape: Sequence[int],
        feature_size: int = 16,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_heads: int = 12,
    ) -> None:
        if hidden_size % num_heads:
            raise SpansegError(f"nets.Unetr: num_heads = {num_heads} does not divide hidden_size = {hidden_size}.")
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            img_size=tuple(image_shape),
            feature_size=feature_size,
            hidden_size=hidden_size,
            mlp_dim=mlp_dim,
            num_heads=num_heads,
        )
        quicken(self)

    @property
    def stride(self) -> int:
        """Edge lengths of the canvas must be multiples of this many voxels."""
        return int(self.patch_size[0])

    @property
    def stages(self) -> dict[str, int]:
        """The transformer's layers, in the order in which they run, with their channels."""
        return {f"layer{number}": self.hidden_size for number in range(1, len(self.vit.blocks) + 1)}

    @property
    def sequence(self) -> nn.Module:
        """The transformer whose one sequence holds the whole image; tokens may enter it and stay to its end."""
        return self.vit

    def stage_module(self, stage: str) -> nn.Module:
        """The transformer block of a layer."""
        return dict(zip(self.stages, self.vit.blocks, strict=True))[stage]

    def attention_blocks(self, stage: str) -> list[nn.Module]:
        """The one transformer block of a layer."""
        return [self.stage_module(stage)]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters by role; skips are the convolutions on the way from the transformer to the decoder."""
        modules = {
            "encoder": (self.vit,),
            "skips": (self.encoder1, self.encoder2, self.encoder3, self.encoder4),
            "decoder": (self.decoder5, self.decoder4, self.decoder3, self.decoder2),
            "head": (self.out,),
        }
        return {name: [p for part in parts for p in part.parameters()] for name, parts in modules.items()}
