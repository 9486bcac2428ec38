"""What an evaluation gives back: scores of cases, their summary over subjects, and both as tables."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from spanseg.labels import Protocol
from spanseg.metrics import Scores
from spanseg.stats import MeanInterval, mean_interval

METRICS = (
    *("dice", "surface_dice", "asd_mm", "hd95_mm"),
    *("volume_error_mm3", "volume_error_percent", "volume_error_abs_percent"),
)
"""Attributes of :class:`~spanseg.metrics.Scores` that are averaged and summed up."""
ALL = "all_structures"


@dataclass(frozen=True)
class CaseScores:
    """Scores of one scan.

    Args:
        case: name of the scan.
        subject: whose scan it is.
        prediction: file name of the prediction.
        truth: file name of the truth.
        scheme: label scheme of the truth.
        scores: class index of the protocol to its scores; classes that the truth does not label are not there.
    """

    case: str
    subject: str
    prediction: str
    truth: str
    scheme: str
    scores: dict[int, Scores]


@dataclass(frozen=True)
class Row:
    """One line of a table: a structure, or a group that stands for the mean over its structures.

    Args:
        name: of the structure or the group.
        id: FreeSurfer id; 0 for a group.
        classes: class indices of its structures.
    """

    name: str
    id: int
    classes: tuple[int, ...]


@dataclass(frozen=True)
class RowScores:
    """One row in one case.

    Args:
        values: metric to mean over the structures for which it is defined, else NaN.
        missing: structures that are in prediction or truth only: their Dice is 0, and they have no distance.
        empty: structures that are in neither and enter no mean.
    """

    values: dict[str, float]
    missing: int
    empty: int


@dataclass(frozen=True)
class RowSummary:
    """One row over all cases.

    Args:
        row: which.
        cases: in how many cases it was scored, empty ones left out.
        missing: sum over the cases; these structures have no distance, so read the distances with this number.
        empty: sum over the cases.
        intervals: metric to mean over subjects and its interval.
    """

    row: Row
    cases: int
    missing: int
    empty: int
    intervals: dict[str, MeanInterval]


def rows_of(protocol: Protocol, scored: Iterable[int]) -> list[Row]:
    """Rows of a table: the groups of the protocol, all structures, then each structure; only what was scored.

    Args:
        protocol: names the groups.
        scored: class indices that have scores.
    """
    present = sorted(set(scored))
    groups = {
        name: tuple(index for index in map(protocol.class_of, ids) if index in present)
        for name, ids in protocol.groups.items()
    }
    rows = [Row(name, 0, classes) for name, classes in (groups | {ALL: tuple(present)}).items() if classes]
    structures = protocol.structures
    return rows + [Row(structures[index].name, structures[index].id, (index,)) for index in present]


def score_row(case: CaseScores, row: Row) -> RowScores | None:
    """Average a case over the structures of a row; ``None`` if the truth labels none of them."""
    members = [case.scores[index] for index in row.classes if index in case.scores]
    if not members:
        return None
    values = {metric: _mean(getattr(member, metric) for member in members) for metric in METRICS}
    return RowScores(values, sum(member.is_missing for member in members), sum(member.is_empty for member in members))


def summarise(cases: Sequence[CaseScores], protocol: Protocol, seed: int = 0) -> list[RowSummary]:
    """Sum up cases row by row: means over subjects with bootstrap intervals.

    Args:
        cases: scores of every scan.
        protocol: names the rows.
        seed: of the bootstrap.
    """
    summaries = []
    for row in rows_of(protocol, (index for case in cases for index in case.scores)):
        scored = [(case.subject, scores) for case in cases if (scores := score_row(case, row)) is not None]
        subjects = [subject for subject, _ in scored]
        intervals = {
            metric: mean_interval([scores.values[metric] for _, scores in scored], subjects, seed) for metric in METRICS
        }
        count = sum(not math.isnan(scores.values["dice"]) for _, scores in scored)
        missing, empty = (sum(getattr(scores, kind) for _, scores in scored) for kind in ("missing", "empty"))
        summaries.append(RowSummary(row, count, missing, empty, intervals))
    return summaries


def case_table(cases: Sequence[CaseScores], protocol: Protocol) -> list[list[str]]:
    """Cells of the table with one line a case and row, header first."""
    lines = [["case", "subject", "name", "id", *METRICS, "truth_mm3", "predicted_mm3", "missing", "empty"]]
    for case in cases:
        for row in rows_of(protocol, case.scores):
            if (scores := score_row(case, row)) is None:
                continue
            members = [case.scores[index] for index in row.classes]
            volumes = [_mean(member.truth_mm3 for member in members), _mean(member.predicted_mm3 for member in members)]
            head = [case.case, case.subject, row.name, str(row.id or "n/a")]
            lines.append(
                [*head, *map(_cell, [*scores.values.values(), *volumes]), str(scores.missing), str(scores.empty)]
            )
    return lines


def summary_table(summaries: Sequence[RowSummary]) -> list[list[str]]:
    """Cells of the table with one line a row, header first: mean and both ends of the interval of each metric."""
    header = ["name", "id", "cases", "subjects", "missing", "empty"]
    lines = [header + [f"{metric}_{part}" for metric in METRICS for part in ("mean", "low", "high")]]
    for summary in summaries:
        numbers = [
            number for interval in summary.intervals.values() for number in (interval.mean, interval.low, interval.high)
        ]
        subjects = summary.intervals["dice"].subjects
        counts = [summary.cases, subjects, summary.missing, summary.empty]
        lines.append([summary.row.name, str(summary.row.id or "n/a"), *map(str, counts), *map(_cell, numbers)])
    return lines


def summary_json(summaries: Sequence[RowSummary]) -> list[dict[str, Any]]:
    """The summary as JSON values; what is not defined is null."""
    return [
        {
            "name": summary.row.name,
            "id": summary.row.id or None,
            **{kind: getattr(summary, kind) for kind in ("cases", "missing", "empty")},
            **{metric: _nullable(asdict(interval)) for metric, interval in summary.intervals.items()},
        }
        for summary in summaries
    ]


def cases_json(cases: Sequence[CaseScores], protocol: Protocol) -> list[dict[str, Any]]:
    """The cases as JSON values: every structure's own scores; what is not defined is null."""
    fields = (*METRICS, "truth_mm3", "predicted_mm3")
    return [
        {
            **{kind: getattr(case, kind) for kind in ("case", "subject", "prediction", "truth", "scheme")},
            "structures": {
                protocol.structures[index].name: _nullable({field: getattr(scores, field) for field in fields})
                for index, scores in case.scores.items()
            },
        }
        for case in cases
    ]


def summary_text(summaries: Sequence[RowSummary]) -> str:
    """The summary as people read it on a terminal."""
    wide = max([len(summary.row.name) for summary in summaries], default=0)
    lines = [f"{'':{wide}}  cases   Dice  [95 % interval]    NSD  ASD mm  HD95 mm  volume %  missing"]
    for summary in summaries:
        dice = summary.intervals["dice"]
        nsd, asd, hd95, volume = (
            summary.intervals[name].mean for name in ("surface_dice", "asd_mm", "hd95_mm", "volume_error_percent")
        )
        interval = "n/a" if math.isnan(dice.low) else f"[{dice.low:.3f}, {dice.high:.3f}]"
        lines.append(
            f"{summary.row.name:{wide}}  {summary.cases:5d}  {_wide(dice.mean, '5.3f')}  {interval:>15}  "
            f"{_wide(nsd, '5.3f')}  {_wide(asd, '6.2f')}  {_wide(hd95, '7.2f')}  {_wide(volume, '+8.1f')}  "
            f"{summary.missing:7d}"
        )
    if any(summary.intervals["dice"].subjects == 1 for summary in summaries):
        lines.append("n/a: an interval needs two subjects at least, and a structure that is missing has no distance")
    return "\n".join(lines)


def _wide(number: float, form: str) -> str:
    """A number in a form such as ``6.2f``, or ``n/a`` as wide as that."""
    return f"{'n/a':>{form.strip('+').partition('.')[0]}}" if math.isnan(number) else f"{number:{form}}"


def _mean(values: Iterable[float]) -> float:
    """Mean of what is a number; NaN if nothing is."""
    numbers = [value for value in values if not math.isnan(value)]
    return sum(numbers) / len(numbers) if numbers else math.nan


def _cell(number: float) -> str:
    return "n/a" if math.isnan(number) else f"{number:.5g}"


def _nullable(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}
