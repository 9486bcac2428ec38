"""What a network is told while it is trained: sentences about people, with some facts forgotten, and their centre."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.interfaces import Sample, Source, Told
from spanseg.sentences import SentenceTable

TAKES = ("age", "sex")
"""Facts that a network is told unless its recipe says otherwise; a diagnosis would be circular."""
FIELDS = {"age": "age_years", "sex": "sex", "diagnosis": "diagnosis"}


class Numbers:
    """Age and sex as numbers, in the place of a table of sentences: (age in centuries, age known, female, male)."""

    def embed(self, facts: Facts) -> tuple[np.ndarray, np.ndarray]:
        """One word of four numbers, float32 (1, 4), and its mask (1,); what is unknown is 0."""
        age = facts.age_years
        known = [0.0, 0.0] if age is None else [age / 100, 1.0]
        row = [*known, float(facts.sex == "female"), float(facts.sex == "male")]
        return np.array([row], dtype=np.float32), np.ones(1, dtype=bool)


class Teller:
    """Turns facts about a person into what a network is told.

    Args:
        table: of sentences, or numbers; ``None`` for a network that is told its centre alone.
        takes: which facts are told at all: ``age``, ``sex``, ``diagnosis``.
        forget: probability that a fact is left out of a draw, so that the network learns to do without it.
        forget_all: probability that all are.

    Raises:
        SpansegError: a fact that nobody can tell.
    """

    def __init__(
        self,
        table: SentenceTable | Numbers | None,
        takes: Sequence[str] = TAKES,
        forget: float = 0.15,
        forget_all: float = 0.05,
    ) -> None:
        unknown = [name for name in takes if name not in FIELDS]
        if unknown:
            raise SpansegError(
                f"facts are {', '.join(FIELDS)}, not '{unknown[0]}'; correct the recipe's [tokens] facts."
            )
        self.table, self.takes, self.forget, self.forget_all = table, tuple(takes), forget, forget_all

    def __call__(self, facts: Facts, centre: int = -1, rng: np.random.Generator | None = None) -> Told:
        """What the network is told about one person; with ``rng`` some facts are forgotten.

        Args:
            facts: what is known.
            centre: row of the table of centres, -1 for none.
            rng: of the draw.
        """
        if self.table is None:
            return Told(torch.zeros(1, 1, 1), torch.ones(1, 1, dtype=torch.bool), torch.tensor([centre]))
        kept = {FIELDS[name]: getattr(facts, FIELDS[name]) for name in self.takes}
        if rng is not None:
            none_left = rng.random() < self.forget_all
            kept = {name: None if none_left or rng.random() < self.forget else kept[name] for name in kept}
        words, mask = self.table.embed(replace(Facts(), **kept))
        return Told(torch.from_numpy(words)[None], torch.from_numpy(mask)[None], torch.tensor([centre]))


class Telling:
    """A source whose samples are all told the same, such as synthetic scans of nobody in particular.

    Args:
        source: where samples come from.
        told: what they are told.
    """

    def __init__(self, source: Source, told: Told) -> None:
        self.source, self.told = source, told

    def draw(self, seed: int, index: int) -> Sample:
        """Draw a sample and tell it."""
        return self.source.draw(seed, index)._replace(told=self.told)
