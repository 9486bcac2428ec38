"""What a centre that is new costs and what adapting to it does: direct loss, gain, forgetting, routed and unrouted."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spanseg.compare.analysis import Line, Subject, by_subject, in_part, interval, shared
from spanseg.compare.design import NEW, OLD
from spanseg.compare.study import BASE
from spanseg.stats import MeanInterval, PairedTest, paired_test

ALL = "all centres"
"""All people of all centres together, each counted once."""
MEAN = "mean of centres"
"""Each left-out centre counted once, however many people tested it."""
SAFE_LOSS = 0.01
"""An adapter is safe if no old centre loses more Dice than this with its weights."""
Values = Mapping[Subject, float]


@dataclass(frozen=True)
class DirectLoss:
    """What the base model loses at a centre that it does not know, in Dice.

    Args:
        centre: the centre.
        known: mean Dice of its test people with the base models that learned the centre.
        unknown: mean Dice of the same people with the one that did not.
        loss: known minus unknown, person by person.
    """

    centre: str
    known: float
    unknown: float
    loss: MeanInterval


@dataclass(frozen=True)
class CentreScore:
    """How a row did when one centre was new, in Dice.

    Args:
        centre: the new centre, ``ALL``, or ``MEAN``, whose intervals are over the left-out centres.
        row: name.
        gain: new centre, against the base model as it is.
        forgetting: old centres, base model minus row, with this row's weights (unrouted); negative is a gain.
        lost_by_centre: the mean forgetting of each old centre; empty for ``MEAN``.
        new, old: mean Dice.
        routed_old: mean Dice of the old centres when their scans go to the base model.
    """

    centre: str
    row: str
    gain: MeanInterval
    forgetting: MeanInterval
    lost_by_centre: Mapping[str, float]
    new: float
    old: float
    routed_old: float

    @property
    def retention(self) -> float:
        """What is left of the base model's Dice on old centres, unrouted."""
        return self.old / self.routed_old if self.routed_old else math.nan

    @property
    def harmonic(self) -> float:
        """Harmonic mean of the Dice of new and old, unrouted."""
        return 2 * self.new * self.old / (self.new + self.old) if self.new + self.old else math.nan

    @property
    def worst(self) -> str:
        """The old centre that loses most."""
        return max(self.lost_by_centre, key=lambda centre: self.lost_by_centre[centre])

    @property
    def is_safe(self) -> bool:
        """Whether no old centre loses more than one Dice point, unrouted."""
        return self.lost_by_centre[self.worst] <= SAFE_LOSS


def direct_losses(lines: Sequence[Line]) -> list[DirectLoss]:
    """For each centre what the base model loses where it is new; the same people were tested by bases that knew it."""
    of_base = [line for line in lines if line["row"] == BASE and line["dice"]]
    scored = [{_what(line) for line in of_base if in_part(part)(line)} for part in (NEW, OLD)]
    of_base = [line for line in of_base if _what(line) in set.intersection(*scored)]
    new, old = (by_subject(of_base, "dice", in_part(part)).get(BASE, {}) for part in (NEW, OLD))
    both = [who for who in new if who in old]
    found = []
    for centre in dict.fromkeys(centre for centre, _ in both):
        people = [who for who in both if who[0] == centre]
        known, unknown = (statistics.fmean(part[who] for who in people) for part in (old, new))
        found.append(DirectLoss(centre, known, unknown, interval({who: old[who] - new[who] for who in people})))
    return found


def _what(line: Line) -> tuple[str, ...]:
    """What a line of the base model is the score of, whether it knew the centre or not."""
    return tuple(line[key] for key in ("seed", "centre", "subject", "structure"))


def centre_scores(lines: Sequence[Line]) -> list[CentreScore]:
    """Gain and forgetting of every row for every centre that was left out; none without the base model's row."""
    found = []
    for split in dict.fromkeys(line["split"] for line in lines):
        members = [line for line in lines if line["split"] == split]
        rows = dict.fromkeys(line["row"] for line in members)
        found += [score for row in rows if (score := _score(split, row, members))]
    return found


def pooled_scores(lines: Sequence[Line]) -> list[CentreScore]:
    """The same over all centres, on what every row was scored on; who was tested several times counts once."""
    rows = list(dict.fromkeys(line["row"] for line in lines))
    common = shared(lines, rows, "dice")
    return [score for row in rows if (score := _score(ALL, row, common))]


def mean_scores(scores: Sequence[CentreScore], centres: int) -> list[CentreScore]:
    """Means over the left-out centres, of every row that has a score at all of them."""
    found = []
    for row in dict.fromkeys(one.row for one in scores):
        of_row = [one for one in scores if one.row == row]
        if len(of_row) < centres:
            continue
        gain = interval({(one.centre, ""): one.gain.mean for one in of_row})
        lost = interval({(one.centre, ""): one.forgetting.mean for one in of_row})
        means = (statistics.fmean(getattr(one, name) for one in of_row) for name in ("new", "old", "routed_old"))
        found.append(CentreScore(MEAN, row, gain, lost, {}, *means))
    return found


def centre_tests(lines: Sequence[Line], row: str, target: str, part: str) -> dict[str, PairedTest]:
    """A row minus the target, person by person, for each centre that was left out and both were run for."""
    found = {}
    for split in dict.fromkeys(line["split"] for line in lines):
        both = shared([line for line in lines if line["split"] == split], [row, target], "dice")
        people = by_subject(both, "dice", in_part(part))
        if row in people and target in people:
            found[split] = paired_test(*([people[one][who] for who in sorted(people[row])] for one in (target, row)))
    return found


def _score(centre: str, row: str, lines: Sequence[Line]) -> CentreScore | None:
    """A row against the base, on what both were scored on; ``None`` where that is nothing."""
    both = shared(lines, list(dict.fromkeys((row, BASE))), "dice")
    parts = [by_subject(both, "dice", in_part(part)) for part in (NEW, OLD)]
    if not all(row in part and BASE in part for part in parts):
        return None
    new, old = ((part[row], part[BASE]) for part in parts)
    gain = {who: value - new[1][who] for who, value in new[0].items()}
    lost = {who: old[1][who] - value for who, value in old[0].items()}
    means = (statistics.fmean(values.values()) for values in (new[0], old[0], old[1]))
    centres = dict.fromkeys(name for name, _ in lost)
    by_centre = {name: statistics.fmean(value for who, value in lost.items() if who[0] == name) for name in centres}
    return CentreScore(centre, row, interval(gain), interval(lost), by_centre, *means)
