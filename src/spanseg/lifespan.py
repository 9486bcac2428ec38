"""Synthetic scans of a known age: the contrast between grey and white matter follows from it.

On T1-weighted scans white matter is darker than grey in a newborn, as dark at about six months, and brighter from then
on. Each scan is told its age, so that a network that listens knows which of the three it looks at.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from spanseg.deform import Canvas
from spanseg.facts import Facts
from spanseg.generation import GenerationClasses, PackedMap
from spanseg.interfaces import Sample
from spanseg.synth import Generator, SynthOptions
from spanseg.told import Teller

AGES_YEARS = {"newborn": (0.0, 0.1), "six months": (0.4, 0.6), "adult": (18.0, 90.0)}
"""Ages drawn from each period, in years."""
_CONTRAST = {"newborn": (-0.5, -0.2), "six months": (-0.08, 0.08)}
"""How far grey lies below white matter there, as a share of the adult's contrast; negative is inverted."""


class Lifespan:
    """Draws a period of life, an age in it and a scan of that age.

    Args:
        maps: packed label maps.
        table: generation classes of the maps.
        canvas: grid of what is drawn.
        options: how far the generator goes; the families of contrast are replaced.
        tell: makes what the network is told.
    """

    def __init__(
        self, maps: Sequence[PackedMap], table: GenerationClasses, canvas: Canvas, options: SynthOptions, tell: Teller
    ) -> None:
        self.tell = tell
        self.generators = {
            period: Generator(list(maps), table, canvas, _of_period(options, period)) for period in AGES_YEARS
        }

    def draw(self, seed: int, index: int) -> Sample:
        """Draw one scan with its truth, told the age."""
        rng = np.random.default_rng([seed, index, 2])
        period = str(rng.choice(list(AGES_YEARS)))
        age = float(rng.uniform(*AGES_YEARS[period]))
        told = self.tell(Facts(age_years=age), rng=rng)
        return self.generators[period].draw(seed, index)._replace(told=told)


def _of_period(options: SynthOptions, period: str) -> SynthOptions:
    """Options whose only family of contrasts is that of a period of life."""
    none: dict[str, Any] = {"t1": 0.0, "t2": 0.0, "flair": 0.0, "random": 0.0, "infant": 0.0}
    if period not in _CONTRAST:
        return dataclasses.replace(options, **none | {"t1": 1.0})
    return dataclasses.replace(options, **none | {"infant": 1.0}, infant_contrast=_CONTRAST[period])
