"""Supervised objective with further clicks: the network answers, is clicked on where it is most wrong, and answers."""

import numpy as np
import torch
from torch import Tensor, nn

from spanseg.clicks import channels, next_click
from spanseg.interfaces import Batch
from spanseg.objectives.supervised import Supervised


class Clicked:
    """The supervised objective on the last of a few answers; each further click corrects the answer before.

    Args:
        rounds: further clicks at most; how many a step has follows from its number alone.
        phases, rarity: as for ``supervised``.
    """

    def __init__(self, rounds: int = 2, phases: int = 2, rarity: float = 0.1) -> None:
        self.rounds = rounds
        self.supervised = Supervised(phases=phases, rarity=rarity)

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of the last answer."""
        rng = np.random.default_rng([batch.index, 3])
        image = batch.image
        for _ in range(int(rng.integers(self.rounds + 1))):
            image = clicked_again(model, image, batch.target, rng)
        return self.supervised(model, Batch(image, batch.target, batch.index))


@torch.no_grad()
def clicked_again(model: nn.Module, image: Tensor, target: Tensor, rng: np.random.Generator | None) -> Tensor:
    """Let the network answer, take its answer as the label and click where it is most wrong.

    Args:
        model: click network.
        image: (batch, 5, i, j, k), the scan and :data:`spanseg.clicks.CHANNELS`.
        target: (batch, i, j, k), where the structure is.
        rng: see :func:`spanseg.clicks.next_click`.
    """
    answers = (model(image).argmax(1) == 1).cpu().numpy()
    rows = []
    for row, answer, truth in zip(image, answers, (target == 1).cpu().numpy(), strict=True):
        click = next_click(truth, answer, rng)
        fresh = torch.from_numpy(channels(answer, [click] if click else []))
        fresh = fresh.to(row.device)
        marks = torch.maximum(fresh[1:], row[2:])
        rows.append(torch.cat([row[:1], fresh[:1], marks]))
    return torch.stack(rows).contiguous(memory_format=torch.channels_last_3d)
