"""Tokens learned for each centre, from nothing but its scans."""

import math

import torch
from torch import Tensor, nn

from spanseg.interfaces import Told


class Learned(nn.Module):
    """A table of tokens, one set of rows for each centre and point; a centre that is not in it is fed nothing.

    Args:
        points: channels of each point that is fed, by its name.
        centres: how many centres the table holds.
        count: tokens of a centre at one point.
        patch: values that one patch of the image holds (in VPT's rule for the initial spread).

    Reference: Jia et al., ECCV 2022 (initial values uniform within ``sqrt(6 / (patch + channels))``).
    """

    def __init__(self, *, points: dict[str, int], centres: int = 1, count: int = 10, patch: int = 8) -> None:
        super().__init__()
        self.points, self.count = dict(points), count
        self.table = nn.ParameterDict(
            {point: nn.Parameter(_uniform(centres, count, channels, patch)) for point, channels in points.items()}
        )

    def forward(self, told: Told) -> dict[str, tuple[Tensor, Tensor]]:
        """Tokens and their mask for each point: (batch, count, channels) and (batch, count)."""
        known = told.centre >= 0
        mask = known[:, None].expand(-1, self.count)
        return {point: (self.table[point][told.centre.clamp(min=0)], mask) for point in self.points}


def _uniform(centres: int, count: int, channels: int, patch: int) -> Tensor:
    spread = math.sqrt(6 / (patch + channels))
    return torch.empty(centres, count, channels).uniform_(-spread, spread)
