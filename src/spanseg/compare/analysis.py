"""From the lines of ``results.csv`` to figures: means by row, tests against the reference, breakdowns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from spanseg.compare.design import NEW, OLD
from spanseg.stats import MeanInterval, PairedTest, holm, mean_interval, paired_test

Line = Mapping[str, str]
Subject = tuple[str, str]
"""Centre and name."""
ASD_AS_PRINTED = 100
"""The papers print average surface distances in hundredths of a millimetre."""
RISING = 0.005
"""A curve that gained more Dice than this in its tail has not converged; within this of its best it has arrived."""
TAIL = 1 / 3
"""How much of the steps the tail is: in the last sixth the learning rate is so low that every curve is flat."""


@dataclass(frozen=True)
class Comparison:
    """A row against the reference, over the same subjects.

    Args:
        row: name.
        metric: what is compared.
        test: second minus first is row minus reference.
        wilcoxon_holm: Wilcoxon's p, corrected for the number of rows.
        t_holm: the paired t-test's p, corrected likewise.
    """

    row: str
    metric: str
    test: PairedTest
    wilcoxon_holm: float
    t_holm: float


def by_subject(
    lines: Iterable[Line], metric: str, keep: Callable[[Line], bool] = lambda line: True
) -> dict[str, dict[Subject, float]]:
    """Mean of a metric for each row and subject, over structures and seeds; what is not defined is left out."""
    values: dict[str, dict[Subject, list[float]]] = {}
    for line in lines:
        if line[metric] and keep(line):
            of_row = values.setdefault(line["row"], {})
            of_row.setdefault((line["centre"], line["subject"]), []).append(float(line[metric]))
    return {row: {who: sum(all_) / len(all_) for who, all_ in found.items()} for row, found in values.items()}


def converged(looks: Sequence[tuple[float, float]], steps: float) -> str:
    """Whether a learning curve (step and Dice of each look) had stopped rising: ``yes``, ``no``, or ``n/a``."""
    before = [score for step, score in looks if step <= (1 - TAIL) * steps]
    if not before:
        return "n/a"
    return "no" if looks[-1][1] - before[-1] > RISING else "yes"


def in_part(part: str) -> Callable[[Line], bool]:
    """Keep the lines of one part: ``new`` or ``old``."""
    return lambda line: line["part"] == part


def interval(values: Mapping[Subject, float]) -> MeanInterval:
    """Mean over subjects with its bootstrap interval."""
    return mean_interval(list(values.values()), ["/".join(who) for who in values])


def complete_people(found: Mapping[str, Mapping[Subject, float]], rows: Sequence[str]) -> list[Subject]:
    """Subjects that were tested with every one of these rows."""
    sets = [set(found[row]) for row in rows if row in found]
    return sorted(set.intersection(*sets)) if sets else []


def compare_rows(lines: Sequence[Line], rows: Sequence[str], reference: str, metric: str) -> list[Comparison]:
    """Test every row against the reference on the subjects that both were tested on.

    Args:
        lines: of ``results.csv``.
        rows: names, in the order of the table.
        reference: name of one of them.
        metric: a column.
    """
    found = by_subject(lines, metric, in_part(NEW))
    others = [row for row in rows if row != reference and row in found and reference in found]
    tests = []
    for row in others:
        people = complete_people(found, [row, reference])
        tests.append(paired_test([found[reference][who] for who in people], [found[row][who] for who in people]))
    corrected = holm([test.wilcoxon_p for test in tests]), holm([test.t_p for test in tests])
    return [
        Comparison(row, metric, test, wilcoxon, t)
        for row, test, wilcoxon, t in zip(others, tests, *corrected, strict=True)
    ]


def age_group(line: Line) -> str:
    """Decade of a line's subject."""
    if not line["age_years"]:
        return "unknown"
    first = int(float(line["age_years"]) // 10) * 10
    return f"{first} to {first + 9}"


BREAKDOWNS: dict[str, Callable[[Line], str]] = {
    "age": age_group,
    "sex": lambda line: line["sex"] or "unknown",
    "structure": lambda line: line["structure"],
    "centre": lambda line: line["centre"],
}


def breakdown(lines: Sequence[Line], metric: str) -> list[tuple[str, str, str, str, MeanInterval]]:
    """Means of a metric by kind, group, part and row."""
    found = []
    for kind, group_of in BREAKDOWNS.items():
        for part in (NEW, OLD):
            groups = sorted({group_of(line) for line in lines if line["part"] == part})
            for group in groups:
                members = [line for line in lines if line["part"] == part and group_of(line) == group]
                for row, values in by_subject(members, metric).items():
                    found.append((kind, group, part, row, interval(values)))
    return found


@dataclass(frozen=True)
class CentreScore:
    """How a row did when one centre was new, in Dice.

    Args:
        split: the centre.
        row: name.
        gain: new centre, against the base model as it is.
        forgetting: old centres, base model minus row, with this row's weights (unrouted); negative is a gain.
        new, old: mean Dice.
        routed_old: mean Dice of the old centres when their scans go to the base model.
    """

    split: str
    row: str
    gain: MeanInterval
    forgetting: MeanInterval
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
    def is_safe(self) -> bool:
        """Whether the unrouted loss on old centres is at most one Dice point."""
        return self.forgetting.mean <= 0.01


def centre_scores(lines: Sequence[Line], base: str = "zero_shot") -> list[CentreScore]:
    """Gain and forgetting of every row for every centre that was left out; none without the base model's row."""
    found = []
    for split in dict.fromkeys(line["split"] for line in lines):
        members = [line for line in lines if line["split"] == split]
        new, old = (by_subject(members, "dice", in_part(part)) for part in (NEW, OLD))
        if base not in new or base not in old:
            continue
        for row in new:
            gain = {who: value - new[base][who] for who, value in new[row].items() if who in new[base]}
            lost = {who: old[base][who] - value for who, value in old[row].items() if who in old[base]}
            means = (interval(values).mean for values in (new[row], old[row], old[base]))
            found.append(CentreScore(split, row, interval(gain), interval(lost), *means))
    return found


def shots_to_match(lines: Sequence[Line], row: str, target: str) -> int | None:
    """The fewest shots with which a row reaches what the target reaches with all of them, within half a Dice point."""
    means: dict[str, dict[int, float]] = {}
    for split in dict.fromkeys(line["split"] for line in lines):
        found = by_subject((line for line in lines if line["split"] == split), "dice", in_part(NEW))
        for name, values in found.items():
            means.setdefault(name, {})[int(split.removesuffix("shot"))] = interval(values).mean
    if row not in means or target not in means:
        return None
    goal = means[target][max(means[target])] - 0.005
    return next((shots for shots, value in sorted(means[row].items()) if value >= goal), None)
