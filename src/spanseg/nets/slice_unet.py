"""A plain 2-D U-Net that labels a canvas slice by slice: what a promptable network of slices is measured against."""

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from spanseg.errors import SpansegError
from spanseg.nets._layers import Layers
from spanseg.nets.unet import UNet
from spanseg.slice_prompts import PLANES


class SliceUNet(UNet):
    """The plain U-Net in two dimensions.

    It sees no farther across its slices than to their neighbours; instance norm looks at each slice alone.

    Args:
        in_channels: image channels.
        out_channels: classes, background included.
        widths: channels of each level, finest first, the last one the bottleneck's; each level halves a slice.
        plane: how the canvas is cut: ``coronal``, ``axial`` or ``sagittal``.
        neighbours: each slice is seen with the one before and the one behind it; else alone.

    Reference: Ronneberger et al., MICCAI 2015 (U-Net); here with padded convolutions and instance norm.

    Raises:
        SpansegError: an unknown plane.

    Example:
        >>> net = SliceUNet(in_channels=1, out_channels=3, widths=(4, 8))
        >>> net(torch.zeros(1, 1, 7, 5, 10)).shape
        torch.Size([1, 3, 7, 5, 10])
    """

    layers = Layers(nn.Conv2d, nn.ConvTranspose2d, nn.InstanceNorm2d, F.max_pool2d)
    pairs: ClassVar[dict[str, tuple[str, ...]]] = {"none": ("full", "decoder", "frozen_encoder")}

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        widths: Sequence[int] = (16, 32, 64, 128),
        plane: str = "coronal",
        neighbours: bool = True,
    ) -> None:
        if plane not in PLANES:
            raise SpansegError(f"nets.SliceUNet takes a plane of {', '.join(PLANES)}, not '{plane}'.")
        super().__init__(in_channels=in_channels * (3 if neighbours else 1), out_channels=out_channels, widths=widths)
        self.plane, self.neighbours = plane, neighbours

    @property
    def stride(self) -> int:
        """Any canvas will do: slices are padded."""
        return 1

    def forward(
        self, image: Float[Tensor, "batch channel i j k"], slices: Int[Tensor, "batch slice"] | None = None
    ) -> Float[Tensor, "batch class _ _ _"]:
        """Compute logits.

        Args:
            image: normalised image.
            slices: numbers of those that are wanted, which then make up the canvas along its plane's axis; ``None``
                for all.
        """
        axis = 2 + PLANES[self.plane]
        pictures = self._pictures(image.movedim(axis, 1), slices)
        height, width = pictures.shape[-2:]
        cell = 2 ** (len(self.widths) - 1)
        padded = F.pad(pictures, (0, -width % cell, 0, -height % cell))
        logits = self._logits(padded)[..., :height, :width]
        return logits.unflatten(0, (len(image), -1)).movedim(1, axis)

    def _pictures(self, volume: Tensor, slices: Tensor | None) -> Tensor:
        """Slices of volumes (batch, slice, channel, row, column) as pictures (batch · slice, channel, row, column)."""
        depth = volume.shape[1]
        which = torch.arange(depth, device=volume.device).expand(len(volume), -1) if slices is None else slices
        subject = torch.arange(len(volume), device=volume.device)[:, None]
        steps = (-1, 0, 1) if self.neighbours else (0,)  # beyond the border lies the last slice again
        seen = [volume[subject, (which + step).clamp(0, depth - 1)] for step in steps]
        return torch.cat(seen, 2).flatten(0, 1)
