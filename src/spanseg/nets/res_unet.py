"""Compact residual U-Net whose trunk runs on a grid twice as coarse as the image."""

from collections.abc import Sequence
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from spanseg.nets._norms import InstanceNorm


class ResUNet(nn.Module):
    """Residual U-Net with a space-to-depth stem: cells of 2×2×2 voxels enter the trunk as channels.

    The trunk sees cells; the head answers for each of a cell's eight sub-voxels. It reads the trunk's features of the
    cell and a few filters round the sub-voxel itself, with the same weights for all eight, so that borders follow the
    image at its own resolution. In training only some of the eight (*phases*) need to be computed in a step.
    Instance norm (batch norm collapses with batch 1); resizing and convolution instead of transposed convolution.

    Args:
        in_channels: image channels.
        out_channels: classes, background included.
        widths: channels of each stage, finest first; each stage halves the grid of the one before.
        head_channels: hidden channels of the head, per sub-voxel.
        local_channels: filters of 5×5×5 voxels round a sub-voxel.
        aside: classifiers beside the coarse stages of the decoder, for deep supervision; the logits do not need them.

    Example:
        >>> net = ResUNet(in_channels=1, out_channels=3, widths=(8, 16), head_channels=8)
        >>> net(torch.zeros(1, 1, 8, 8, 8)).shape
        torch.Size([1, 3, 8, 8, 8])
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
        widths: Sequence[int] = (32, 64, 128, 192),
        head_channels: int = 48,
        local_channels: int = 16,
        aside: bool = False,
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.stem = _Normed(8 * in_channels, widths[0], 3)
        self.encoder = nn.ModuleList(_Residual(width) for width in widths)
        self.down = nn.ModuleList(_Normed(fine, coarse, 3, stride=2) for fine, coarse in pairwise(widths))
        self.up = nn.ModuleList(_Normed(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.decoder = nn.ModuleList(_Residual(width) for width in widths[:-1])
        self.head = nn.ModuleList(nn.Conv3d(widths[0], head_channels, 1) for _ in range(8))
        self.local = _Normed(in_channels, local_channels, 5, stride=2, padding=0)
        self.local_head = nn.Conv3d(local_channels, head_channels, 1)
        self.classify = nn.Conv3d(head_channels, out_channels, 1)
        coarse = range(1, len(widths) - 1) if aside else ()
        self.aside = nn.ModuleDict({f"decoder{level}": nn.Conv3d(widths[level], out_channels, 1) for level in coarse})
        for other in self.head[1:]:  # all sub-voxels of a cell start alike
            other.load_state_dict(self.head[0].state_dict())

    @property
    def stride(self) -> int:
        """The image's edge lengths must be multiples of this many voxels."""
        return 2 ** len(self.encoder)

    @property
    def stages(self) -> dict[str, int]:
        """Names of the stages, in the order in which they run, with their channels."""
        coded = {f"encoder{level}": width for level, width in enumerate(self.widths)}
        decoded = {f"decoder{level}": self.widths[level] for level in reversed(range(len(self.widths) - 1))}
        return coded | decoded

    def stage_module(self, stage: str) -> nn.Module:
        """The module that returns the features of a stage."""
        return dict(self._stage_modules())[stage]

    def _stage_modules(self) -> list[tuple[str, nn.Module]]:
        coded = [(f"encoder{level}", block) for level, block in enumerate(self.encoder)]
        return coded + [(f"decoder{level}", block) for level, block in enumerate(self.decoder)]

    def attention_blocks(self, stage: str) -> list[nn.Module]:
        """No stage of this network has attention of its own."""
        return []

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters by role; skip paths have none."""
        modules = {
            "encoder": (self.stem, self.encoder, self.down),
            "skips": (),
            "decoder": (self.up, self.decoder),
            "head": (self.head, self.local, self.local_head, self.classify, self.aside),
        }
        return {name: [p for part in parts for p in part.parameters()] for name, parts in modules.items()}

    def forward(
        self, image: Float[Tensor, "batch channel i j k"], phases: Sequence[int] | None = None
    ) -> Float[Tensor, "batch_phase class i2 j2 k2"]:
        """Compute logits.

        Args:
            image: normalised image; edge lengths are multiples of ``stride``.
            phases: ``None`` for logits of all voxels; numbers from 0 to 7 for those of some sub-voxels of each cell
                alone: phase 4a + 2b + c stands for ``image[..., a::2, b::2, c::2]``. Phases follow one another along
                the batch axis.
        """
        cells = self.cells(image)
        around = F.pad(image, (2,) * 6)
        logits = [self._phase(cells, around, phase) for phase in (range(8) if phases is None else phases)]
        return depth_to_space(torch.cat(logits, 1)) if phases is None else torch.cat(logits)

    def _phase(self, cells: Tensor, around: Tensor, phase: int) -> Tensor:
        """Logits of one sub-voxel of each cell."""
        a, b, c = phase // 4, phase // 2 % 2, phase % 2
        local = F.relu(self.local(around[..., a:, b:, c:]))
        return self.classify(F.relu(self.head[phase](cells) + self.local_head(local)))

    def cells(self, image: Float[Tensor, "batch channel i j k"]) -> Float[Tensor, "batch width i2 j2 k2"]:
        """Features of the cells, which the head reads."""
        x = F.relu(self.stem(space_to_depth(image)))
        skips = []
        for level, block in enumerate(self.encoder):
            x = block(x)
            if level < len(self.down):
                skips.append(x)
                x = F.relu(self.down[level](x))
        for level in reversed(range(len(skips))):
            x = F.interpolate(self.up[level](x), scale_factor=2.0, mode="trilinear", align_corners=False)
            x = self.decoder[level](F.relu(x + skips[level]))
        return x


class _Normed(nn.Sequential):
    """A convolution and instance norm: what is added to something else always has a scale of its own.

    Without the norm behind each convolution the coarse stages outgrew the fine ones ten-thousandfold within 800 steps
    of Muon, and skip connections no longer mattered (docs/experiments.md).
    """

    def __init__(self, channels: int, width: int, size: int, stride: int = 1, padding: int | None = None) -> None:
        pad = size // 2 if padding is None else padding
        convolution = nn.Conv3d(channels, width, size, stride=stride, padding=pad, bias=False)
        super().__init__(convolution, InstanceNorm(width, affine=True))


class _Residual(nn.Module):
    """Two 3×3×3 convolutions, each with instance norm, beside an identity path."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _Normed(width, width, 3)
        self.second = _Normed(width, width, 3)

    def forward(self, x: Float[Tensor, "batch channel i j k"]) -> Float[Tensor, "batch channel i j k"]:
        return F.relu(self.second(F.relu(self.first(x))) + x)


def space_to_depth(image: Float[Tensor, "batch channel i j k"]) -> Float[Tensor, "batch phases i2 j2 k2"]:
    """Move each 2×2×2 cell into channels: channel ``phase * channels + c``."""
    batch, channels, i, j, k = image.shape
    cells = image.reshape(batch, channels, i // 2, 2, j // 2, 2, k // 2, 2)
    return cells.permute(0, 3, 5, 7, 1, 2, 4, 6).reshape(batch, 8 * channels, i // 2, j // 2, k // 2)


def depth_to_space(cells: Float[Tensor, "batch phases i j k"]) -> Float[Tensor, "batch channel i2 j2 k2"]:
    """Undo :func:`space_to_depth`."""
    batch, phases, i, j, k = cells.shape
    image = cells.reshape(batch, 2, 2, 2, phases // 8, i, j, k).permute(0, 4, 5, 1, 6, 2, 7, 3)
    return image.reshape(batch, phases // 8, 2 * i, 2 * j, 2 * k)
