"""Tokens made of age and sex as plain numbers: what a sentence has to beat."""

import torch
from torch import Tensor, nn

from spanseg.interfaces import Told


class OneHot(nn.Module):
    """A small network turns the numbers into tokens for each point.

    Args:
        points: channels of each point that is fed, by its name.
        width: how many numbers there are (:class:`spanseg.told.Numbers`).
        count: tokens at one point.
        hidden: channels between the two layers.
    """

    def __init__(self, *, points: dict[str, int], width: int = 4, count: int = 24, hidden: int = 16) -> None:
        super().__init__()
        self.points, self.count = dict(points), count
        self.shared = nn.Sequential(nn.Linear(width, hidden), nn.GELU())
        self.project = nn.ModuleDict({point: nn.Linear(hidden, count * channels) for point, channels in points.items()})

    def forward(self, told: Told) -> dict[str, tuple[Tensor, Tensor]]:
        """Tokens and their mask for each point: (batch, count, channels) and (batch, count)."""
        hidden = self.shared(told.embedding[:, 0])
        mask = torch.ones(len(hidden), self.count, dtype=torch.bool, device=hidden.device)
        return {point: (self.project[point](hidden).unflatten(1, (self.count, -1)), mask) for point in self.points}
