"""Tokens made of a sentence about the person: embeddings plus a learned offset."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from spanseg.errors import SpansegError
from spanseg.interfaces import Told

ADAPTERS = ("lowrank", "linear", "mean_linear")


class Knowledge(nn.Module):
    """Projects the hidden states of a sentence to each point, and adds an offset there that starts at 0.

    Args:
        points: channels of each point that is fed, by its name.
        width: of the hidden states.
        count: words of a sentence, padding included.
        adapter: ``lowrank`` (one projection to ``rank`` channels for all points, then one for each), ``linear`` (one
            full projection for each point), or ``mean_linear`` (the paper's: each word becomes its mean, one number).
        rank: channels between the two projections of ``lowrank``.
        offset: learn an offset; without it the tokens are the sentence alone.

    Reference: KGPL (knowledge-guided prompt learning). There the mean over a hidden state is taken, which layer norm
    has made nearly constant: whoever is described, the tokens hardly differ. So ``lowrank`` is the default here.

    Raises:
        SpansegError: an unknown adapter.
    """

    WIDTH: ClassVar[int] = 384
    """Numbers a word of the shipped sentences."""

    def __init__(
        self,
        *,
        points: dict[str, int],
        width: int = WIDTH,
        count: int = 24,
        adapter: str = "lowrank",
        rank: int = 16,
        offset: bool = True,
    ) -> None:
        super().__init__()
        if adapter not in ADAPTERS:
            raise SpansegError(f"tokens.Knowledge has no adapter '{adapter}'; it takes: {', '.join(ADAPTERS)}.")
        self.adapter = adapter
        enters = {"lowrank": rank, "linear": width, "mean_linear": 1}[adapter]
        self.shared = nn.Linear(width, rank) if adapter == "lowrank" else nn.Identity()
        self.project = nn.ModuleDict({point: nn.Linear(enters, points[point]) for point in points})
        learned = points if offset else {}
        self.offset = nn.ParameterDict({point: nn.Parameter(torch.zeros(count, points[point])) for point in learned})
        self.points = dict(points)

    def forward(self, told: Told) -> dict[str, tuple[Tensor, Tensor]]:
        """Tokens and their mask for each point: (batch, count, channels) and (batch, count)."""
        hidden = told.embedding.mean(2, keepdim=True) if self.adapter == "mean_linear" else self.shared(told.embedding)
        tokens = {point: self.project[point](hidden) for point in self.points}
        return {point: (tokens[point] + self._offset(point), told.mask) for point in self.points}

    def _offset(self, point: str) -> Tensor | float:
        return self.offset[point] if self.offset else 0.0
