"""Segment Anything (SAM): slices through a promptable transformer; the network of transformers under its own names."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SamConfig, SamModel

from spanseg.errors import SpansegError
from spanseg.slice_prompts import PLANES, SlicePrompts

_SLICES_AT_ONCE = 8
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _size(patch: int, image: dict[str, Any], width: int, decoder: dict[str, Any], mask: int = 16) -> dict[str, Any]:
    """Sizes of the image encoder, of the tokens that prompts and masks are made of, and of the mask decoder."""
    return {
        "vision_config": image | {"patch_size": patch, "output_channels": width, "num_pos_feats": width // 2},
        "prompt_encoder_config": {"patch_size": patch, "hidden_size": width, "mask_input_channels": mask},
        "mask_decoder_config": decoder | {"hidden_size": width, "iou_head_hidden_dim": width},
    }


def _image(width: int, layers: int, heads: int, window: int, wide: Sequence[int]) -> dict[str, Any]:
    """An image encoder in whose layers ``wide`` everything sees everything; in the others, windows see themselves."""
    depth = {"num_hidden_layers": layers, "num_attention_heads": heads, "global_attn_indexes": list(wide)}
    return {"hidden_size": width, "window_size": window} | depth


_SIZES = {
    "base": _size(16, _image(768, 12, 12, 14, (2, 5, 8, 11)), 256, {"mlp_dim": 2048, "num_attention_heads": 8}),
    "large": _size(16, _image(1024, 24, 16, 14, (5, 11, 17, 23)), 256, {"mlp_dim": 2048, "num_attention_heads": 8}),
    "huge": _size(16, _image(1280, 32, 16, 14, (7, 15, 23, 31)), 256, {"mlp_dim": 2048, "num_attention_heads": 8}),
    "small": _size(8, _image(128, 4, 4, 10, (1, 3)), 128, {"mlp_dim": 256, "num_attention_heads": 4}),
    "tiny": _size(4, _image(16, 2, 2, 2, (1,)), 16, {"mlp_dim": 16, "num_attention_heads": 2}, mask=8),
}


class Sam(SamModel):
    """transformers' SamModel on a canvas: each slice is an image, each class has a mask token of its own.

    Asked without a prompt, it labels all classes of all slices and puts them together to a canvas; a prompt is about
    one class, whose token answers. The matrix that positions are multiplied with is a buffer here, of unit variance as
    published: transformers counts it as 256 parameters, draws it 384 times too large, and would let it be trained.

    Args:
        in_channels: 1, the scan.
        out_channels: mask tokens, one a class, background included.
        image_shape: voxels along each edge of the canvas.
        side: edge in pixels that slices are scaled to.
        size: ``base``, ``large`` or ``huge`` as published, ``small`` for a CPU, ``tiny`` for tests.
        planes: how the canvas is cut: ``coronal``, ``axial``, ``sagittal``; with several, their probabilities are
            averaged, and prompts go to the first.
        neighbours: the three colours are a slice and those before and behind it; else the slice three times.

    Reference: Kirillov et al., ICCV 2023 (SAM); mask tokens as classes as in Zhang and Liu 2023 (SAMed).

    Raises:
        SpansegError: an unknown size or plane, a side that patches do not fill, or more than one channel.
    """

    pairs: ClassVar[dict[str, tuple[str, ...]]] = {"none": ("full", "decoder", "frozen_encoder", "lora")}
    keeps_start: ClassVar[bool] = True
    """Published weights stay a part of every run from them: no adaptation trains their matrix of positions."""

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        image_shape: Sequence[int],
        side: int = 512,
        size: str = "base",
        planes: Sequence[str] = ("coronal",),
        neighbours: bool = True,
    ) -> None:
        if size not in _SIZES or not planes or not set(planes) <= set(PLANES):
            raise SpansegError(
                f"nets.Sam takes a size of {', '.join(_SIZES)} and planes of {', '.join(PLANES)}, not '{size}' and "
                f"{list(planes)}."
            )
        patch = _SIZES[size]["vision_config"]["patch_size"]
        if in_channels != 1 or side % patch:
            raise SpansegError(
                f"nets.Sam of the size '{size}' takes one channel, the scan, and a side that is a multiple of {patch}, "
                f"not {in_channels} and {side}."
            )
        super().__init__(_config(size, side, out_channels))
        self.shape, self.side, self.planes, self.neighbours = tuple(image_shape), side, tuple(planes), neighbours
        _begin(self)

    @property
    def stride(self) -> int:
        """Any canvas will do: slices are scaled."""
        return 1

    @property
    def stages(self) -> dict[str, int]:
        """The image encoder's layers, in the order in which they run, with their channels."""
        width = self.config.vision_config.hidden_size
        return {f"layer{number}": width for number in range(1, len(self.vision_encoder.layers) + 1)}

    def stage_module(self, stage: str) -> nn.Module:
        """The transformer block of a layer."""
        return dict(zip(self.stages, self.vision_encoder.layers, strict=True))[stage]

    def attention_blocks(self, stage: str) -> list[nn.Module]:
        """The one transformer block of a layer; it sees slices, (slice, row, column, channel)."""
        return [self.stage_module(stage)]

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters by role; the head is what depends on the number of classes, and nothing skips the encoder."""
        decoder = self.mask_decoder
        by_class = (decoder.mask_tokens, decoder.output_hypernetworks_mlps, decoder.iou_prediction_head.proj_out)
        head = [p for part in by_class for p in part.parameters()]
        inside = {id(p) for p in head}
        others = [*self.prompt_encoder.parameters(), *decoder.parameters()]
        return {
            "encoder": list(self.vision_encoder.parameters()),
            "skips": [],
            "decoder": [p for p in others if id(p) not in inside],
            "head": head,
        }

    def forward(self, image: Tensor) -> Tensor:
        """Label a canvas without prompts, slice by slice.

        Args:
            image: (batch, 1, i, j, k), normalised.

        Returns:
            Logits (batch, class, i, j, k); with several planes, logarithms of the mean of their probabilities.
        """
        answers = [self._labelled(image, plane) for plane in self.planes]
        if len(answers) == 1:
            return answers[0]
        mean: Tensor = torch.stack([answer.log_softmax(1) for answer in answers]).exp().mean(0)
        return mean.clamp(min=1e-8).log()

    def _labelled(self, image: Tensor, plane: str) -> Tensor:
        depth, found = image.shape[2 + PLANES[plane]], []
        for which in torch.arange(depth, device=image.device).split(_SLICES_AT_ONCE):
            rows = which.expand(len(image), -1)
            masks, _ = self.ask(self.embed(image, plane, rows))
            found.append(self.on_slices(masks[:, 0], plane).unflatten(0, rows.shape))
        return torch.cat(found, 1).movedim(1, 2 + PLANES[plane])

    def embed(self, image: Tensor, plane: str, which: Tensor) -> Tensor:
        """Features of some slices.

        Args:
            image: (batch, 1, i, j, k), normalised.
            plane: which way the canvas is cut.
            which: numbers of the slices, (batch, slice).

        Returns:
            (batch · slice, channel, row, column).
        """
        return self.vision_encoder(self._pixels(image, plane, which)).last_hidden_state

    def _pixels(self, image: Tensor, plane: str, which: Tensor) -> Tensor:
        """Slices as pictures with three colours, squared and scaled; (batch · slice, 3, side, side)."""
        volume = image[:, 0].movedim(1 + PLANES[plane], 1)
        subject = torch.arange(len(volume), device=image.device)[:, None]
        steps = (-1, 0, 1) if self.neighbours else (0, 0, 0)
        seen = [volume[subject, (which + step).clamp(0, volume.shape[1] - 1)] for step in steps]
        colours = torch.stack(seen, 2).flatten(0, 1).clamp(0, 1)
        top, left, edge = _square(colours.shape[-2:])
        height, width = colours.shape[-2:]
        colours = F.pad(colours, (left, edge - width - left, top, edge - height - top))
        scaled = F.interpolate(colours, size=(self.side, self.side), mode="bilinear", antialias=self.side < edge)
        mean, deviation = (scaled.new_tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))
        return (scaled - mean) / deviation

    def ask(self, features: Tensor, prompts: SlicePrompts | None = None, plane: str = "") -> tuple[Tensor, Tensor]:
        """Answer prompts about slices, or label them without.

        Args:
            features: (slice, channel, row, column), of :meth:`embed`.
            prompts: what is asked; ``None`` asks once, about everything.
            plane: which way the slices of prompts are cut; the first of the network's planes by default.

        Returns:
            Logits (slice, structure, class, row, column), four times as fine as the features, and how well each mask
            will overlap with the truth, (slice, structure, class).
        """
        sparse, dense = self._encoded(features, prompts, plane or self.planes[0])
        slices, structures = dense.shape[:2]
        decoder = self.mask_decoder
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).expand(slices, structures, -1, -1)
        seen = (features[:, None] + dense).flatten(0, 1)
        positions = self.get_image_wide_positional_embeddings().expand(len(seen), -1, -1, -1)
        answers, image = decoder.transformer(torch.cat([own, sparse], 2), seen, positions, attention_similarity=None)
        fine = decoder.upscale_conv1(image.transpose(2, 3).reshape(seen.shape))
        fine = decoder.upscale_conv2(decoder.activation(decoder.upscale_layer_norm(fine)))
        fine = decoder.activation(fine).unflatten(0, (slices, structures))
        networks = enumerate(decoder.output_hypernetworks_mlps, start=1)
        weights = torch.stack([network(answers[:, :, place]) for place, network in networks], 2)
        logits = (weights @ fine.flatten(3)).unflatten(3, fine.shape[3:])
        return logits, decoder.iou_prediction_head(answers[:, :, 0])

    def _encoded(self, features: Tensor, prompts: SlicePrompts | None, plane: str) -> tuple[Tensor, Tensor]:
        """Prompts as tokens (slice, structure, token, channel) and maps (slice, structure, channel, row, column)."""
        encoder, (channels, *grid) = self.prompt_encoder, features.shape[1:]
        if prompts is None:
            prompts = SlicePrompts()
        given = [one for one in (prompts.points, prompts.boxes, prompts.logits) if one is not None]
        structures = given[0].shape[1] if given else 1
        if prompts.logits is None:
            dense = encoder.no_mask_embed.weight.reshape(1, 1, -1, 1, 1).expand(len(features), structures, -1, *grid)
        else:
            dense = encoder.mask_embed(prompts.logits.flatten(0, 1)[:, None]).unflatten(0, prompts.logits.shape[:2])
        if prompts.points is None and prompts.boxes is None:
            return features.new_zeros(len(features), structures, 0, channels), dense
        points = None if prompts.points is None else self._in_pixels(prompts.points, plane).flip(-1)
        boxes = None
        if prompts.boxes is not None:
            boxes = self._in_pixels(prompts.boxes.unflatten(-1, (2, 2)), plane).flip(-1).flatten(2)
        sparse, _ = encoder(points, prompts.labels, boxes, None)
        return sparse, dense

    def _in_pixels(self, voxels: Tensor, plane: str) -> Tensor:
        """Rows and columns of a slice in pixels of its scaled picture, both counted from their first centre."""
        top, left, edge = _square(self._slice_shape(plane))
        moved = voxels + voxels.new_tensor([top, left]) + 0.5
        return moved * (self.side / edge) - 0.5

    def from_slices(self, maps: Tensor, plane: str) -> Tensor:
        """Resample maps (slice, map, row, column) of the slices' voxels to the grid of the network's own masks."""
        height, width = self._slice_shape(plane)
        top, left, edge = _square((height, width))
        squared = F.pad(maps, (left, edge - width - left, top, edge - height - top), mode="replicate")
        grid = 4 * int(self.config.prompt_encoder_config.image_embedding_size)
        return F.interpolate(squared, size=(grid, grid), mode="bilinear", antialias=grid < edge)

    def _slice_shape(self, plane: str) -> tuple[int, int]:
        height, width = (n for axis, n in enumerate(self.shape) if axis != PLANES[plane])
        return height, width

    def on_slices(self, masks: Tensor, plane: str) -> Tensor:
        """Resample masks (slice, mask, row, column) to the voxels of the slices, so that losses see each of them."""
        height, width = self._slice_shape(plane)
        top, left, edge = _square((height, width))
        resized = F.interpolate(masks, size=(edge, edge), mode="bilinear", antialias=False)
        return resized[..., top : top + height, left : left + width]


def _config(size: str, side: int, classes: int) -> SamConfig:
    """transformers' configuration; its own start would draw the image encoder's weights within 1e-10."""
    sizes = {name: dict(options) for name, options in _SIZES[size].items()}
    sizes["vision_config"] |= {"image_size": side, "initializer_range": 0.02}
    sizes["prompt_encoder_config"] |= {"image_size": side}
    sizes["mask_decoder_config"] |= {"num_multimask_outputs": classes - 1}
    return SamConfig(**sizes)


def _begin(network: Any) -> None:
    """Replace the matrix of positions by a buffer, and begin the decoder's weights as torch does, not all near 0."""
    feats = network.config.vision_config.num_pos_feats
    matrix = torch.randn((2, feats), generator=torch.Generator("cpu").manual_seed(0), device="cpu")
    for place in (network.shared_image_embedding, network.prompt_encoder.shared_embedding):
        del place.positional_embedding
        place.register_buffer("positional_embedding", matrix)
    for part in (network.prompt_encoder, network.mask_decoder):
        for layer in part.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
                layer.reset_parameters()


def _square(shape: Sequence[int]) -> tuple[int, int, int]:
    """Where a slice lies in the square round it: rows above it, columns before it, edge of the square."""
    height, width = shape
    edge = max(height, width)
    return (edge - height) // 2, (edge - width) // 2, edge
