"""Supervised objective with clicks: a network is told what is wrong with one structure, answers, and is told again.

It answers for all structures, so that it learns the anatomy at every voxel of every step; what it is told is about one.
A network that had to answer for the structure under the click alone drew a ball round it, whatever the image showed
(docs/experiments.md).
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from spanseg.clicked import ClickOptions, chosen, said
from spanseg.clicks import channels, next_click
from spanseg.interfaces import Batch
from spanseg.objectives.supervised import Supervised
from spanseg.parts import options_from

_STREAM = 3


class Clicked:
    """The supervised objective on the last of a few answers; each further click corrects the answer before.

    Args:
        rounds: further clicks at most; how many a step has follows from its number alone.
        silent: how often nothing is said at all.
        phases, rarity: as for ``supervised``.
        clicks: fields of :class:`spanseg.clicked.ClickOptions`.

    Raises:
        SpansegError: an unknown key in ``clicks``.
    """

    def __init__(
        self,
        rounds: int = 2,
        silent: float = 0.1,
        phases: int = 2,
        rarity: float = 0.1,
        clicks: dict[str, float] | None = None,
    ) -> None:
        self.rounds, self.silent = rounds, silent
        self.supervised = Supervised(phases=phases, rarity=rarity)
        self.options: ClickOptions = options_from(ClickOptions, clicks or {}, "objective.clicks")

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of the last answer; the image's prompt channels are filled here."""
        rng = np.random.default_rng([batch.index, _STREAM])
        image = batch.image
        if rng.random() >= self.silent:
            structures = [chosen(target, self.options, rng) for target in batch.target]
            rows = zip(image, batch.target, structures, strict=True)
            first = [
                torch.cat([row[:1], said(target == one, target > 0, self.options, (batch.index, number))])
                for number, (row, target, one) in enumerate(rows)
            ]
            image = torch.stack(first).contiguous(memory_format=torch.channels_last_3d)
            for _ in range(int(rng.integers(self.rounds + 1))):
                image = clicked_again(model, image, batch.target, structures, rng)
        return self.supervised(model, dataclasses.replace(batch, image=image))


@torch.no_grad()
def clicked_again(
    model: nn.Module, image: Tensor, target: Tensor, structures: list[int], rng: np.random.Generator | None
) -> Tensor:
    """Let the network answer, take its answer as the label and click where it is most wrong.

    Args:
        model: click network.
        image: (batch, 5, i, j, k), the scan and :data:`spanseg.clicks.CHANNELS`.
        target: (batch, i, j, k), class of each voxel.
        structures: which class is spoken of, one a subject.
        rng: see :func:`spanseg.clicks.next_click`.
    """
    answers = model(image).argmax(1)
    rows = []
    for row, found, truth, structure in zip(image, answers, target, structures, strict=True):
        label = (found == structure).cpu().numpy()
        click = next_click((truth == structure).cpu().numpy(), label, rng)
        fresh = torch.from_numpy(channels(label, [click] if click else [])).to(row.device)
        rows.append(torch.cat([row[:1], fresh[:1], torch.maximum(fresh[1:], row[2:])]))
    return torch.stack(rows).contiguous(memory_format=torch.channels_last_3d)
