"""What a model is told about a person when it segments, without PyTorch."""

from __future__ import annotations

from dataclasses import replace

from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.runtime import ModelFolder, Words
from spanseg.sentences import SentenceTable, load_table

POLICIES = ("given", "unknown", "marginalise")
MARGINAL_AGES_YEARS = (0.25, 1.0, 2.0, 10.0, 20.0, 40.0, 60.0, 80.0)
"""Ages whose answers ``marginalise`` averages; each costs one pass of the network."""
TABLE = "sentences.npz"


class Teller:
    """Finds the words for what is known about a person.

    Args:
        folder: of a model that is told something; the table of its sentences lies in it.

    Raises:
        SpansegError: the table is missing, damaged, or made by another encoder than the model was trained with.
    """

    def __init__(self, folder: ModelFolder) -> None:
        self.takes = tuple(folder.told)
        self.table: SentenceTable = load_table(folder.path / TABLE)
        self.table.require(str(folder.table["sentences"]["encoder"]))

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
        if policy == "unknown":
            return [self.table.embed(Facts())]
        if policy == "marginalise":
            return [self.table.embed(Facts(age_years=age)) for age in MARGINAL_AGES_YEARS]
        return [self.table.embed(self._told(facts, with_diagnosis))]

    def _told(self, facts: Facts, with_diagnosis: bool) -> Facts:
        """The facts without those that the model is not told."""
        kept = {"age_years": facts.age_years, "sex": facts.sex, "diagnosis": facts.diagnosis}
        for name, field in (("age", "age_years"), ("sex", "sex"), ("diagnosis", "diagnosis")):
            if name not in self.takes or (name == "diagnosis" and not with_diagnosis):
                kept[field] = None
        return replace(Facts(), **kept)  # type: ignore[arg-type]
