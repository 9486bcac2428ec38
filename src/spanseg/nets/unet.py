"""The plain 3-D U-Net of the KGPL paper: the one whose parameters its tables count."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from spanseg.nets._layers import Layers


class UNet(nn.Module):
    """Two 3×3×3 convolutions a level, max-pooling down, transposed convolutions up, skips by concatenation.

    The full size exists to be counted and compared; on a CPU use narrow widths. Studies that say U-Net use
    ``res_unet``. There is no ``lora`` here: peft gives no low-rank delta to transposed convolutions, so only part of
    this network could be adapted by it.

    Args:
        in_channels: image channels.
        out_channels: classes, background included.
        widths: channels of each level, finest first, the last one the bottleneck's; each level halves the grid.

    Reference: Çiçek et al., MICCAI 2016 (3-D U-Net); widths and count as in KGPL.

    Example:
        >>> net = UNet(in_channels=1, out_channels=3, widths=(4, 8))
        >>> net(torch.zeros(1, 1, 8, 8, 8)).shape
        torch.Size([1, 3, 8, 8, 8])
    """

    pairs: ClassVar[dict[str, tuple[str, ...]]] = {
        "none": ("full", "decoder", "frozen_encoder"),
        "knowledge": ("full", "frozen_encoder", "tokens_and_head"),
        "learned": ("full", "frozen_encoder", "tokens_and_head"),
        "one_hot": ("frozen_encoder",),
    }

    layers: ClassVar[Layers] = Layers(nn.Conv3d, nn.ConvTranspose3d, nn.InstanceNorm3d, F.max_pool3d)
    """What it is built of; ``slice_unet`` is the same in two dimensions."""

    def __init__(
        self, *, in_channels: int, out_channels: int, widths: Sequence[int] = (64, 128, 256, 512, 1024)
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.encoder = nn.ModuleList(self._double(fine, coarse) for fine, coarse in pairwise((in_channels, *widths)))
        self.up = nn.ModuleList(self.layers.up(coarse, fine, 2, stride=2) for fine, coarse in pairwise(widths))
        self.decoder = nn.ModuleList(self._double(2 * width, width) for width in widths[:-1])
        self.classify = self.layers.convolution(widths[0], out_channels, 1)

    def _double(self, channels: int, width: int) -> nn.Sequential:
        """Two convolutions of 3 voxels along each edge, each with instance norm and ReLU."""
        made: list[nn.Module] = []
        for enters in (channels, width):
            norm = self.layers.norm(width, affine=True)
            made += [self.layers.convolution(enters, width, 3, padding=1), norm, nn.ReLU()]
        return nn.Sequential(*made)

    @property
    def stride(self) -> int:
        """The image's edge lengths must be multiples of this many voxels."""
        return 2 ** (len(self.widths) - 1)

    @property
    def stages(self) -> dict[str, int]:
        """Names of the stages, in the order in which they run, with their channels."""
        *skipped, bottom = self.widths
        coded = {f"encoder{level}": width for level, width in enumerate(skipped)}
        decoded = {f"decoder{level}": skipped[level] for level in reversed(range(len(skipped)))}
        return coded | {"bottleneck": bottom} | decoded

    def stage_module(self, stage: str) -> nn.Module:
        """The module that returns the features of a stage."""
        coded = {f"encoder{level}": block for level, block in enumerate(self.encoder[:-1])}
        decoded = {f"decoder{level}": block for level, block in enumerate(self.decoder)}
        return (coded | {"bottleneck": self.encoder[-1]} | decoded)[stage]

    def attention_blocks(self, stage: str) -> list[nn.Module]:
        """No stage of this network has attention of its own."""
        return []

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters by role; the bottleneck is the encoder's, skip paths have none."""
        modules = {
            "encoder": (self.encoder,),
            "skips": (),
            "decoder": (self.up, self.decoder),
            "head": (self.classify,),
        }
        return {name: [p for part in parts for p in part.parameters()] for name, parts in modules.items()}

    def forward(self, image: Float[Tensor, "batch channel i j k"]) -> Float[Tensor, "batch class i j k"]:
        """Compute logits.

        Args:
            image: normalised image; edge lengths are multiples of ``stride``.
        """
        return self._logits(image)

    def _logits(self, image: Tensor) -> Tensor:
        x, skips = self.encoder[0](image), []
        for block in self.encoder[1:]:
            skips.append(x)
            x = block(self.layers.pool(x, 2))
        for level in reversed(range(len(skips))):
            x = self.decoder[level](torch.cat([skips[level], self.up[level](x)], 1))
        logits: Tensor = self.classify(x)
        return logits
