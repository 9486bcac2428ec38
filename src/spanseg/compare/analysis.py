"""From the lines of ``results.csv`` to figures: means by row, tests against the reference, breakdowns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from spanseg.compare.design import NEW, OLD
from spanseg.stats import MeanInterval, PairedTest, holm, mean_interval, paired_test

ARRIVED = 0.95
"""A curve has arrived where another one leads when it reaches this share of the other's best Dice."""

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


def shared(lines: Sequence[Line], rows: Sequence[str], metric: str) -> list[Line]:
    """The lines of what every one of these rows was scored on, row by row the same people, splits and structures.

    Where one row missed a structure its distance is not defined, and no row is judged on it.
    """
    scored: dict[str, set[tuple[str, ...]]] = {row: set() for row in rows}
    kept = [line for line in lines if line["row"] in scored and line[metric]]
    for line in kept:
        scored[line["row"]].add(_what(line))
    common = set.intersection(*scored.values()) if scored else set()
    return [line for line in kept if _what(line) in common]


def _what(line: Line) -> tuple[str, ...]:
    """What a line is the score of, whichever row it is of."""
    return tuple(line[key] for key in ("seed", "split", "part", "centre", "subject", "structure"))


def missed(lines: Iterable[Line]) -> float:
    """Share of the structures that are there of which nothing was found; NaN where none is there."""
    there = [line for line in lines if float(line["truth_mm3"]) > 0]
    return sum(float(line["predicted_mm3"]) == 0 for line in there) / len(there) if there else math.nan


def converged(looks: Sequence[tuple[float, float]], steps: float) -> str:
    """Whether a learning curve (step and Dice of each look) had stopped rising: ``yes``, ``no``, or ``n/a``."""
    before = [score for step, score in looks if step <= (1 - TAIL) * steps]
    if not before:
        return "n/a"
    return "no" if looks[-1][1] - before[-1] > RISING else "yes"


def first_at(looks: Sequence[tuple[float, float]], goal: float) -> float | None:
    """The first step at which a learning curve (step and Dice of each look) is at ``goal``, or ``None``."""
    return next((step for step, score in looks if score >= goal), None)


def in_part(part: str) -> Callable[[Line], bool]:
    """Keep the lines of one part: ``new`` or ``old``."""
    return lambda line: line["part"] == part


def interval(values: Mapping[Subject, float]) -> MeanInterval:
    """Mean over subjects with its bootstrap interval."""
    return mean_interval(list(values.values()), ["/".join(who) for who in values])


def compare_rows(lines: Sequence[Line], rows: Sequence[str], reference: str, metric: str) -> list[Comparison]:
    """Test every row against the reference on what both were scored on.

    Args:
        lines: of ``results.csv``.
        rows: names, in the order of the table; p-values are corrected for all of them, also for those not yet run.
        reference: name of one of them.
        metric: a column.
    """
    return list(compare_pairs(lines, [(row, reference) for row in rows if row != reference], metric).values())


def compare_pairs(
    lines: Sequence[Line], pairs: Sequence[Sequence[str]], metric: str
) -> dict[tuple[str, str], Comparison]:
    """Test the first row of each pair against the second one on what both were scored on, where both were run.

    Args:
        lines: of ``results.csv``.
        pairs: names of rows; p-values are corrected for all of them, also for those not yet run.
        metric: a column.
    """
    tests = {}
    for row, other in pairs:
        found = by_subject(shared(lines, [row, other], metric), metric, in_part(NEW))
        if found:
            tests[row, other] = paired_test(*([found[one][who] for who in sorted(found[one])] for one in (other, row)))
    to_come = [1.0] * (len(pairs) - len(tests))
    wilcoxon = holm([test.wilcoxon_p for test in tests.values()] + to_come)
    t = holm([test.t_p for test in tests.values()] + to_come)
    return {pair: Comparison(pair[0], metric, test, wilcoxon[k], t[k]) for k, (pair, test) in enumerate(tests.items())}


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
    """Means of a metric by kind, group, part and row, over what all rows with results were scored on."""
    lines = shared(lines, sorted({line["row"] for line in lines}), metric)
    found = []
    for kind, group_of in BREAKDOWNS.items():
        for part in (NEW, OLD):
            groups = sorted({group_of(line) for line in lines if line["part"] == part})
            for group in groups:
                members = [line for line in lines if line["part"] == part and group_of(line) == group]
                for row, values in by_subject(members, metric).items():
                    found.append((kind, group, part, row, interval(values)))
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
