"""Where tokens meet features: hooks on a stock backbone, whose modules, names and weights stay as they are.

In a transformer block tokens are extra keys and values of the block's own attention, through its ``norm1``, ``qkv`` and
output projection. On a stage of convolutions they meet the features in a two-way block. Nothing is fed outside
:meth:`Meeting.feeding`, and an unfed backbone is the stock one.

Reference: Jia et al., ECCV 2022 (VPT; deep prompts are replaced at each layer, so their own outputs are discarded and
keys and values alone are exactly that method); Zhang et al., ICLR 2024 (a softmax of its own times tanh of a gate that
starts at 0); Kirillov et al., ICCV 2023 (two-way attention). Here each head has a gate of its own.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

Tokens = tuple[Float[Tensor, "batch token channel"], Bool[Tensor, "batch token"]]
"""Tokens of one point, and which of them count."""


class Meeting(nn.Module):
    """One point at which tokens meet features; idle until it is fed."""

    def __init__(self) -> None:
        super().__init__()
        self.fed: Tokens | None = None

    @contextmanager
    def feeding(self, tokens: Tokens) -> Iterator[None]:
        """Feed the point while the backbone runs."""
        self.fed = tokens
        try:
            yield
        finally:
            self.fed = None


class Gated(Meeting):
    """Attention of the image over tokens, with a softmax of its own, times tanh of a gate per head that starts at 0.

    Args:
        block: a transformer block with ``norm1`` and ``attn``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        attention, self._norm = _parts(block)
        self.gate = nn.Parameter(torch.zeros(attention.num_heads))
        attention.register_forward_hook(self._meet, with_kwargs=True)

    def _meet(self, attention: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        if self.fed is None:
            return None
        keys, values, mask = _keys_and_values(attention, self._norm(self.fed[0]), self.fed[1], len(args[0]))
        logits = _queries(attention, args[0]) @ keys.transpose(-2, -1)
        weights = logits.masked_fill(~mask[:, None, None], -1e4).softmax(-1) * mask[:, None, None]
        heads = (weights @ values) * torch.tanh(self.gate)[:, None, None]
        return output + F.linear(heads.transpose(1, 2).flatten(2), _projection(attention).weight)


class Prepended(Meeting):
    """Tokens before the image in one joint softmax; no position bias and no shift mask stands in their columns.

    Args:
        block: a transformer block with ``norm1`` and ``attn``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        attention, self._norm = _parts(block)
        attention.register_forward_hook(self._meet, with_kwargs=True)

    def _meet(self, attention: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any], output: Tensor) -> Tensor | None:
        if self.fed is None:
            return None
        image, windows = args[0], len(args[0])
        token_keys, token_values, mask = _keys_and_values(attention, self._norm(self.fed[0]), self.fed[1], windows)
        queries, keys, values = _queries_keys_values(attention, image)
        of_tokens = (queries @ token_keys.transpose(-2, -1)).masked_fill(~mask[:, None, None], -math.inf)
        of_image = queries @ keys.transpose(-2, -1) + _position_bias(attention, image.shape[1])
        of_image = _with_shift_mask(of_image, kwargs.get("mask"))
        weights = torch.cat([of_tokens, of_image], -1).softmax(-1)
        heads = weights @ torch.cat([token_values, values], 2)
        projected: Tensor = _projection(attention)(heads.transpose(1, 2).flatten(2))
        return projected


class InSequence(Meeting):
    """Tokens that enter a plain transformer before its first block and are stripped from every hidden state.

    Args:
        transformer: has ``blocks`` and returns (last state, hidden states), as MONAI's ViT does.
    """

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__()
        blocks: Any = transformer.blocks
        blocks[0].register_forward_pre_hook(self._enter)
        for block in blocks:
            block.attn.register_forward_pre_hook(self._hide_padding, with_kwargs=True)
        transformer.register_forward_hook(self._leave)

    def _enter(self, block: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        return None if self.fed is None else (torch.cat([self.fed[0], args[0]], 1), *args[1:])

    def _hide_padding(
        self, attention: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Tensor, ...], dict[str, Any]] | None:
        if self.fed is None:
            return None
        mask = self.fed[1]
        image = mask.new_ones(len(mask), args[0].shape[1] - mask.shape[1])
        return args, kwargs | {"attn_mask": torch.cat([mask, image], 1)}

    def _leave(
        self, transformer: nn.Module, args: tuple[Tensor, ...], output: tuple[Tensor, list[Tensor]]
    ) -> tuple[Tensor, list[Tensor]] | None:
        if self.fed is None:
            return None
        count = self.fed[0].shape[1]
        return output[0][:, count:], [state[:, count:] for state in output[1]]


class TwoWay(Meeting):
    """Tokens read the features of a stage, then the features read the tokens, which also scale its channels.

    Both what is added and the scale start at 0. The scale is needed: where a convolution and an instance norm follow,
    as everywhere in ``res_unet``, what is added alike in all voxels is taken out again (docs/experiments.md, §11).

    Reference: Kirillov et al., ICCV 2023, for the reading in both directions; Perez et al., AAAI 2018 (FiLM), for the
    scale, which here comes from the mean of the tokens after they have read the image.

    Args:
        stage: module whose output (batch, channel, i, j, k) is the stage's features.
        channels: of the features, and of the tokens.
        heads: of both attentions; the largest number up to it that divides the channels is taken.
    """

    def __init__(self, stage: nn.Module, channels: int, heads: int = 4) -> None:
        super().__init__()
        heads = max(n for n in range(1, heads + 1) if channels % n == 0)
        self.norm = nn.LayerNorm(channels)
        self.read_image = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.read_tokens = nn.MultiheadAttention(channels, heads, batch_first=True)
        self.scale = nn.Linear(channels, channels)
        for last in (self.read_tokens.out_proj, self.scale):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
        stage.register_forward_hook(self._meet)

    def _meet(self, stage: nn.Module, args: tuple[Tensor, ...], features: Tensor) -> Tensor | None:
        if self.fed is None:
            return None
        tokens, mask = self.fed
        shape = features.shape
        image = self.norm(features.flatten(2).transpose(1, 2))
        tokens = tokens + self.read_image(self.norm(tokens), image, image, need_weights=False)[0]
        is_told = mask.any(1)
        padding = ~(mask | ~is_told[:, None])  # a row without any token would be a softmax over nothing
        tokens = self.norm(tokens)
        answer, _ = self.read_tokens(image, tokens, tokens, key_padding_mask=padding, need_weights=False)
        answer = (answer * is_told[:, None, None]).transpose(1, 2).reshape(shape)
        mean = (tokens * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1)
        scale = (self.scale(mean) * is_told[:, None])[..., None, None, None]
        return features * (1 + scale) + answer


def _parts(block: nn.Module) -> tuple[Any, Any]:
    """The attention of a transformer block and the norm in front of it.

    The norm belongs to the backbone: returned bare, it must not be registered a second time under a meeting.
    """
    norm: Any = block.norm1
    return block.attn, norm.forward


def _queries_keys_values(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Heads first: three of shape (batch, head, position, channel), queries scaled."""
    batch, length, _ = x.shape
    qkv = attention.qkv(x).reshape(batch, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    return qkv[0] * attention.scale, qkv[1], qkv[2]


def _queries(attention: Any, x: Tensor) -> Tensor:
    return _queries_keys_values(attention, x)[0]


def _keys_and_values(attention: Any, tokens: Tensor, mask: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values of tokens, repeated for the windows of each subject, which follow one another."""
    windows = rows // len(tokens)
    _, keys, values = _queries_keys_values(attention, tokens)
    return (
        keys.repeat_interleave(windows, 0),
        values.repeat_interleave(windows, 0),
        mask.repeat_interleave(windows, 0),
    )


def _projection(attention: Any) -> Any:
    return attention.proj if hasattr(attention, "proj") else attention.out_proj


def _position_bias(attention: Any, length: int) -> Tensor | float:
    """Relative position bias of the image's columns, shape (1, head, length, length); 0 where there is none."""
    table = getattr(attention, "relative_position_bias_table", None)
    if table is None:
        return 0.0
    index = attention.relative_position_index[:length, :length].reshape(-1)
    return table[index].reshape(1, length, length, -1).permute(0, 3, 1, 2)


def _with_shift_mask(logits: Tensor, mask: Tensor | None) -> Tensor:
    """Add the mask of shifted windows, shape (window, length, length)."""
    if mask is None:
        return logits
    rows, heads, length, _ = logits.shape
    by_window = logits.reshape(rows // len(mask), len(mask), heads, length, length) + mask[:, None]
    return by_window.reshape(rows, heads, length, length)
