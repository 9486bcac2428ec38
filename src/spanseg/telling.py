"""What a model is told about a person when it segments, without PyTorch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.runtime import ModelFolder, Words
from spanseg.sentences import SentenceTable, load_table

POLICIES = ("given", "unknown", "marginalise")
MARGINAL_AGES_YEARS = (0.25, 1.0, 2.0, 10.0, 20.0, 40.0, 60.0, 80.0)
"""Ages whose answers ``marginalise`` averages; each costs one pass of the network."""
TABLE = "sentences.npz"
_SILENCE = Words(np.zeros((0, 0), dtype=np.float32), np.zeros(0, dtype=bool))


class Teller:
    """Finds the words for what is known about a person, for a network and for the one that runs before it.

    Args:
        folder: of a model; the table of the sentences that it is told lies in it.

    Raises:
        SpansegError: the table is missing, damaged, or made by another encoder than the model was trained with.
    """

    def __init__(self, folder: ModelFolder) -> None:
        self.takes = tuple(folder.told)
        self.table: SentenceTable | None = None
        if self.takes:
            self.table = load_table(folder.path / TABLE)
            self.table.require(str(folder.table["sentences"]["encoder"]))
        before = folder.first
        self.first = Teller(before) if before and before.told else None

    def words(self, facts: Facts, policy: str = "given", with_diagnosis: bool = False) -> list[Words]:
        """The sentences that one scan is segmented with; the answers to several are averaged.

        Args:
            facts: what is known.
            policy: ``given`` tells the facts as they are, ``unknown`` tells nothing about the person, ``marginalise``
                averages over ages and leaves sex and diagnosis out.
            with_diagnosis: tell the diagnosis too. It is left out otherwise: a network that is told that somebody is
                ill may find what it was told.

        Raises:
            SpansegError: an unknown policy.
        """
        if policy not in POLICIES:
            raise SpansegError(f"the facts policy must be one of {', '.join(POLICIES)}, not '{policy}'.")
        people = [Facts()] if policy == "unknown" else [facts]
        if policy == "marginalise":
            hears_ages = "age" in self.takes or (self.first is not None and "age" in self.first.takes)
            people = [Facts(age_years=age) for age in MARGINAL_AGES_YEARS] if hears_ages else [Facts()]
        return [self._words(one, with_diagnosis) for one in people]

    def _words(self, facts: Facts, with_diagnosis: bool) -> Words:
        """What one person's facts are in words, those of the network before included."""
        mine = _SILENCE if self.table is None else Words(*self.table.embed(self._told(facts, with_diagnosis)))
        return mine._replace(first=None if self.first is None else self.first._words(facts, with_diagnosis))

    def _told(self, facts: Facts, with_diagnosis: bool) -> Facts:
        """The facts without those that the model is not told."""
        kept = {"age_years": facts.age_years, "sex": facts.sex, "diagnosis": facts.diagnosis}
        for name, field in (("age", "age_years"), ("sex", "sex"), ("diagnosis", "diagnosis")):
            if name not in self.takes or (name == "diagnosis" and not with_diagnosis):
                kept[field] = None
        return replace(Facts(), **kept)  # type: ignore[arg-type]
