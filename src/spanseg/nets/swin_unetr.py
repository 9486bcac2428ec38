"""Swin UNETR: a transformer with shifted windows as encoder; MONAI's network with named stages and groups."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from monai.networks.nets import swin_unetr as stock
from torch import Tensor, nn

from spanseg.errors import SpansegError
from spanseg.nets._norms import quicken


class SwinUnetr(stock.SwinUNETR):
    """MONAI's SwinUNETR under its own names, so that published weights load key by key.

    A stage's channels are those of its blocks; at its end a stage merges 2×2×2 positions and doubles the channels.

    Args:
        in_channels: image channels.
        out_channels: classes, background included.
        feature_size: channels of the first stage, a multiple of 12; 48 is the published size.
        depths: transformer blocks of each stage.
        num_heads: heads of attention of each stage.
        window_size: edge of an attention window, in positions of its stage.
        downsample: how a stage merges. ``merging`` and ``mergingv2`` are MONAI's (they differ in the order of the eight
            sub-grids); ``merging_1_4`` is what ``merging`` was in MONAI up to 1.4: two sub-grids twice and two never.
            Weights that were published for MONAI up to 1.4 give their own features with ``merging_1_4`` alone.

    Reference: Hatamizadeh et al., BrainLes 2021; MONAI issue 8284 (the sub-grids).

    Raises:
        SpansegError: channels or heads that do not fit, or an unknown way to merge.
    """

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
        feature_size: int = 48,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        downsample: str = "merging",
    ) -> None:
        channels = [feature_size * 2**stage for stage in range(4)]
        divided = not any(width % heads for width, heads in zip(channels, num_heads, strict=False))
        if feature_size % 12 or len(depths) != 4 or len(num_heads) != 4 or not divided:
            raise SpansegError(
                "nets.SwinUnetr takes a feature_size that is a multiple of 12, four depths, and four num_heads that "
                f"divide the stages' channels {channels}, not {feature_size}, {list(depths)} and {list(num_heads)}."
            )
        if downsample not in _MERGING:
            raise SpansegError(f"nets.SwinUnetr takes downsample = {', '.join(_MERGING)}, not '{downsample}'.")
        super().__init__(
            in_channels=in_channels,
            out_channels=out_channels,
            feature_size=feature_size,
            depths=tuple(depths),
            num_heads=tuple(num_heads),
            window_size=window_size,
            downsample=_MERGING[downsample],
        )
        quicken(self)
        self.downsample = downsample

    @property
    def stride(self) -> int:
        """The image's edge lengths must be multiples of this many voxels."""
        return 2**5

    @property
    def stages(self) -> dict[str, int]:
        """The transformer's stages, in the order in which they run, with the channels of their blocks."""
        return {f"stage{number}": self.swinViT.embed_dim * 2 ** (number - 1) for number in range(1, 5)}

    def stage_module(self, stage: str) -> nn.Module:
        """The module that holds a stage's blocks and its merging."""
        vit = self.swinViT
        layers = (vit.layers1, vit.layers2, vit.layers3, vit.layers4)
        return dict(zip(self.stages, (layer[0] for layer in layers), strict=True))[stage]

    def attention_blocks(self, stage: str) -> list[nn.Module]:
        """The transformer blocks of a stage, in the order in which they run."""
        return list(self.stage_module(stage).blocks)  # type: ignore[arg-type]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters by role; skips are the convolutions on the way from the transformer to the decoder."""
        modules = {
            "encoder": (self.swinViT,),
            "skips": (self.encoder1, self.encoder2, self.encoder3, self.encoder4, self.encoder10),
            "decoder": (self.decoder5, self.decoder4, self.decoder3, self.decoder2, self.decoder1),
            "head": (self.out,),
        }
        return {name: [p for part in parts for p in part.parameters()] for name, parts in modules.items()}


class _Merging14(stock.PatchMergingV2):
    """Merging with the sub-grids of MONAI up to 1.4: positions 010 and 001 twice, 110 and 011 never."""

    _PLACES = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        i, j, k = x.shape[1:4]
        x = F.pad(x, (0, 0, 0, k % 2, 0, j % 2, 0, i % 2))
        merged = torch.cat([x[:, a::2, b::2, c::2] for a, b, c in self._PLACES], -1)
        reduced: Tensor = self.reduction(self.norm(merged))
        return reduced


_MERGING = {"merging": "merging", "mergingv2": "mergingv2", "merging_1_4": _Merging14}
