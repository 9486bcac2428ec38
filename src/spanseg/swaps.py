"""What a model makes of facts that are not true: one scan, other ages, the other sex, other diagnoses.

A model that is told facts may find what it was told instead of what is there. The scan stays the same here, so every
change of volume comes from the words alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from spanseg.errors import SpansegError
from spanseg.facts import DIAGNOSES, SEXES, Facts
from spanseg.geometry import Placement
from spanseg.images import Scan
from spanseg.passes import Looking, find_brain
from spanseg.segmenter import Predictor, SegmentOptions
from spanseg.telling import MARGINAL_AGES_YEARS
from spanseg.volume import canonical


@dataclass(frozen=True)
class Swap:
    """Volumes under other facts, beside those under the facts that were given.

    Args:
        fact: which one was swapped: ``age``, ``sex`` or ``diagnosis``.
        value: what was told instead.
        change_percent: change of each structure's volume, by its name; NaN for a structure that was not found.
    """

    fact: str
    value: str
    change_percent: dict[str, float]

    @property
    def median_percent(self) -> float:
        """Median over the structures of the size of the change."""
        return float(np.nanmedian(np.abs(list(self.change_percent.values()))))


def swaps(scan: Scan, predictor: Predictor, options: SegmentOptions) -> list[Swap]:
    """Swap each fact that the model is told and measure what that does to the volumes of one scan.

    Args:
        scan: the scan.
        predictor: a loaded model.
        options: the facts as they are.

    Raises:
        SpansegError: the model is told nothing.
    """
    takes = predictor.folder.told_in_all
    if not takes:
        name = predictor.folder.table["model"]["name"]
        raise SpansegError(f"the model '{name}' is not told age, sex or diagnosis: there is nothing to swap.")
    image, _ = canonical(scan.volume)
    looking = Looking(predictor, image, words=predictor.words_for(options))
    placement = find_brain(looking).view.placement

    def volumes(facts: Facts) -> np.ndarray:
        told = replace(options, facts=facts, facts_policy="given", tell_diagnosis=True)
        return _volumes(replace(looking, words=predictor.words_for(told)), placement)

    as_they_are = volumes(options.facts)
    return [
        Swap(fact, value, _change(as_they_are, volumes(facts), predictor))
        for fact, value, facts in _others(options.facts, takes)
    ]


def _others(facts: Facts, takes: Sequence[str]) -> list[tuple[str, str, Facts]]:
    """Each fact replaced by every other value, one at a time, and left out."""
    others = []
    if "age" in takes:
        others += [("age", f"{age:g} years", replace(facts, age_years=age)) for age in MARGINAL_AGES_YEARS]
        others.append(("age", "unknown", replace(facts, age_years=None)))
    if "sex" in takes:
        others += [("sex", sex or "unknown", replace(facts, sex=sex)) for sex in (*SEXES, None) if sex != facts.sex]
    if "diagnosis" in takes:
        named = [word for word in (*DIAGNOSES, None) if word != facts.diagnosis]
        others += [("diagnosis", word or "unknown", replace(facts, diagnosis=word)) for word in named]
    return others


def _volumes(looking: Looking, placement: Placement) -> np.ndarray:
    """Sum of the probabilities of each class on the canvas."""
    probabilities = looking.at(placement).answer.probabilities
    return probabilities.reshape(len(probabilities), -1).sum(1, dtype=np.float64)


def _change(before: np.ndarray, after: np.ndarray, predictor: Predictor) -> dict[str, float]:
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.where(before > 0, 100 * (after / before - 1), np.nan)
    names = [structure.name for structure in predictor.protocol.structures]
    return {name: float(value) for name, value in zip(names[1:], change[1:], strict=True)}


def swaps_text(found: Sequence[Swap]) -> str:
    """The result as a table for the terminal, with the structure that changed most."""
    lines = [f"{'fact':12}{'told instead':32}{'median |change|':>16}   most"]
    for swap in found:
        name, value = max(swap.change_percent.items(), key=lambda item: np.nan_to_num(abs(item[1])))
        lines.append(f"{swap.fact:12}{swap.value:32}{swap.median_percent:15.2f}%   {name} {value:+.2f}%")
    return "\n".join(lines)


def swaps_table(found: Sequence[Swap]) -> list[list[str]]:
    """The result as rows of a TSV file, header first: one row a swap and structure."""
    rows = [["fact", "told_instead", "structure", "volume_change_percent"]]
    for swap in found:
        rows += [[swap.fact, swap.value, name, f"{value:.4f}"] for name, value in swap.change_percent.items()]
    return rows
