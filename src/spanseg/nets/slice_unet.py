"""A plain 2-D U-Net that labels a canvas slice by slice: what a promptable network of slices is measured against."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from spanseg.errors import SpansegError
from spanseg.slice_prompts import PLANES


class SliceUNet(nn.Module):
    """Two 3×3 convolutions a level, max-pooling down, transposed convolutions up, skips by concatenation.

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
        super().__init__()
        self.widths, self.plane, self.neighbours = tuple(widths), plane, neighbours
        seen = in_channels * (3 if neighbours else 1)
        self.encoder = nn.ModuleList(_Double(fine, coarse) for fine, coarse in pairwise((seen, *widths)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in pairwise(widths))
        self.decoder = nn.ModuleList(_Double(2 * width, width) for width in widths[:-1])
        self.classify = nn.Conv2d(widths[0], out_channels, 1)

    @property
    def stride(self) -> int:
        """Any canvas will do: slices are padded."""
        return 1

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

    def _logits(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.encoder[:-1]:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.encoder[-1](x)
        for level in reversed(range(len(skips))):
            x = self.decoder[level](torch.cat([skips[level], self.up[level](x)], 1))
        return self.classify(x)


class _Double(nn.Sequential):
    """Two 3×3 convolutions, each with instance norm and ReLU."""

    def __init__(self, channels: int, width: int) -> None:
        layers: list[nn.Module] = []
        for enters in (channels, width):
            layers += [nn.Conv2d(enters, width, 3, padding=1), nn.InstanceNorm2d(width, affine=True), nn.ReLU()]
        super().__init__(*layers)
