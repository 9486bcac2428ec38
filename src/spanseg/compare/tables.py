"""The tables of a study, as rows of cells: in the papers' layout, in full, by group and by data set."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import replace

from spanseg.compare import analysis
from spanseg.compare.design import NEW
from spanseg.compare.plan import Plan
from spanseg.compare.results import SCORES, Cell, Results
from spanseg.compare.study import recipe_of
from spanseg.labels import load_protocol

Table = list[list[str]]
NOT_RUN = "not run"
METRICS = SCORES[:4]


class Summary:
    """What is asked of a study's results again and again.

    Args:
        plan: of the study.
        results: as far as they are there.
    """

    def __init__(self, plan: Plan, results: Results) -> None:
        self.plan, self.results, self.lines = plan, results, results.rows()
        self.rows = [row.name for row in plan.study.rows]
        whole = "full" if "full" in self.rows else ""
        self.reference = plan.study.reference or whole or self.rows[-1]
        self.target = whole or self.reference
        self.starred_against = "kgpl" if "kgpl" in self.rows else self.reference

    def done(self, row: str) -> tuple[int, int]:
        """How many cells of a row are finished, of how many."""
        cells = [cell for cell in self.plan.cells if cell.row == row]
        return sum(self.results.finished(cell) for cell in cells), len(cells)

    def cost(self, row: str, column: str) -> list[float]:
        """A column of ``cells.csv`` for a row; what is not known is left out."""
        lines = [line for cell, found in self.results.costs.items() if cell.row == row for line in found]
        return [float(line[column]) for line in lines if line[column]]

    def converged(self, row: str) -> str:
        """``not converged`` if any of a row's curves still rose."""
        said = set()
        for cell in self.results.curves:
            looks = self._looks(cell)
            if cell.row == row:
                said.add(analysis.converged(looks, max((step for step, _ in looks), default=0)))
        return "not converged" if "no" in said else "yes" if "yes" in said else "n/a"

    def seconds_to_arrive(self, row: str) -> list[float | None]:
        """Seconds of training with which each finished cell of a row arrives where the target's best Dice is.

        Arrived is a cell at ``ARRIVED`` of that best, on the people kept to watch; ``None`` for one that never is.
        Cells whose target was not run are left out. Where row or target learn nothing there is nothing to tell.
        """
        found: list[float | None] = []
        if not all(one.trains for one in self.plan.study.rows if one.name in (row, self.target)):
            return found
        for cell in self.plan.cells:
            goal = max((score for _, score in self._looks(replace(cell, row=self.target))), default=None)
            looks = self._looks(cell)
            if cell.row == row and looks and goal is not None and cell in self.results.costs:
                step = analysis.first_at(looks, analysis.ARRIVED * goal)
                cost = self.results.costs[cell][0]
                found.append(None if step is None else step * float(cost["train_s"]) / float(cost["steps"]))
        return found

    def _looks(self, cell: Cell) -> list[tuple[float, float]]:
        """Step and Dice of each look at a cell's learning curve."""
        lines = self.results.curves.get(cell, [])
        return [(float(line["step"]), float(line["validation"])) for line in lines if line["validation"]]

    def fair(self, metric: str, keep: Callable[[analysis.Line], bool]) -> dict[str, dict[analysis.Subject, float]]:
        """Values of every row by subject, over what all rows with results were scored on."""
        kept = [line for line in self.lines if keep(line)]
        rows = [row for row in self.rows if any(line["row"] == row for line in kept)]
        return analysis.by_subject(analysis.shared(kept, rows, metric), metric)


def paper_table(summary: Summary) -> Table:
    """The layout of KGPL's tables: parameters, Dice in per cent ± SD, ASD in hundredths of a mm, ``*`` for p < 0.05.

    For a protocol of tissues there is a column for each tissue. The star is the papers' own test: a paired t-test
    against KGPL (the reference, where there is no such row), with no correction for the number of rows.
    """
    structures = sorted({line["structure"] for line in summary.lines})
    groups: list[tuple[str, Callable[[analysis.Line], bool]]] = [("Average", lambda line: True)]
    if len(structures) <= 4:
        groups = [(name, _only(name)) for name in structures] + groups
    tests = analysis.compare_rows(summary.lines, summary.rows, summary.starred_against, "dice")
    starred = {one.row for one in tests if one.test.t_p < 0.05}
    table = [
        [
            "row",
            "cells",
            "trained M",
            "total M",
            *(f"{name} {what}" for what in ("DSC %", "ASD x100") for name, _ in groups),
        ]
    ]
    for row in summary.rows:
        cells = [_plus_minus(summary, row, "dice", 100, keep) for _, keep in groups]
        cells += [_plus_minus(summary, row, "asd_mm", analysis.ASD_AS_PRINTED, keep) for _, keep in groups]
        done = "{}/{}".format(*summary.done(row))
        table.append([row + (" *" if row in starred else ""), done, *_millions(summary, row), *cells])
    return table


def _only(structure: str) -> Callable[[analysis.Line], bool]:
    return lambda line: line["structure"] == structure


def _plus_minus(summary: Summary, row: str, metric: str, factor: float, keep: Callable[[analysis.Line], bool]) -> str:
    values = list(summary.fair(metric, lambda line: line["part"] == NEW and keep(line)).get(row, {}).values())
    if not values:
        return NOT_RUN
    spread = factor * statistics.stdev(values) if len(values) > 1 else math.nan
    return f"{factor * statistics.mean(values):.2f} ± {spread:.2f}"


def _millions(summary: Summary, row: str) -> list[str]:
    found = [summary.cost(row, column) for column in ("trained", "total")]
    return [f"{values[0] / 1e6:.3f}" if values else NOT_RUN for values in found]


LONG = [
    *("row", "cells", "metric", "people", "mean", "low", "high", "minus_reference", "diff_low", "diff_high"),
    *("wilcoxon_p", "wilcoxon_holm", "t_p", "t_holm", "detectable_80", "trained", "total"),
    *("peak_mib", "train_s", "s_to_best", "s_to_arrive", "converged", "missed"),
]


def long_table(summary: Summary) -> Table:
    """Every row and metric with its interval, its tests against the reference and its cost."""
    table = [LONG]
    for metric in METRICS:
        tests = {one.row: one for one in analysis.compare_rows(summary.lines, summary.rows, summary.reference, metric)}
        fair = summary.fair(metric, analysis.in_part(NEW))
        for row in summary.rows:
            finished, planned = summary.done(row)
            head = [row, f"{finished}/{planned}", metric]
            if not finished:
                table.append([*head, *[NOT_RUN] * (len(LONG) - len(head))])
                continue
            mean = analysis.interval(fair.get(row, {}))
            compared = tests.get(row)
            tested = _tested(compared) if compared else ["reference" if row == summary.reference else "n/a"] * 8
            table.append(
                [
                    *head,
                    str(mean.subjects),
                    *map(number, (mean.mean, mean.low, mean.high)),
                    *tested,
                    *_costs(summary, row),
                ]
            )
    return table


def _tested(one: analysis.Comparison) -> list[str]:
    change, test = one.test.difference, one.test
    values = (change.mean, change.low, change.high, test.wilcoxon_p, one.wilcoxon_holm, test.t_p, one.t_holm)
    return [number(value) for value in (*values, test.detectable)]


def _costs(summary: Summary, row: str) -> list[str]:
    medians = [summary.cost(row, column) for column in ("trained", "total", "peak_mib", "train_s", "s_to_best")]
    missed = analysis.missed(line for line in summary.lines if line["row"] == row and line["part"] == NEW)
    figures = [number(statistics.median(values)) if values else "n/a" for values in medians]
    return [*figures, _arrival(summary, row), summary.converged(row), number(missed)]


def _arrival(summary: Summary, row: str) -> str:
    """Median seconds until a row's cells arrive where the full training does; cells that never do count as longest."""
    seconds = [math.inf if one is None else one for one in summary.seconds_to_arrive(row)]
    if not seconds:
        return "n/a"
    median = statistics.median(seconds)
    return "not reached" if math.isinf(median) else number(median)


PAIRS = [
    *("row", "against", "metric", "people", "difference", "low", "high"),
    *("wilcoxon_p", "wilcoxon_holm", "t_p", "t_holm", "detectable_80"),
]


def pairs_table(summary: Summary) -> Table:
    """The pairs of rows that the study names, tested against each other; Holm's correction is over the pairs."""
    table = [PAIRS]
    for metric in METRICS:
        tests = analysis.compare_pairs(summary.lines, summary.plan.study.against, metric)
        for row, other in summary.plan.study.against:
            one = tests.get((row, other))
            cells = [NOT_RUN] * (len(PAIRS) - 3)
            if one is not None:
                cells = [str(one.test.difference.subjects), *_tested(one)]
            table.append([row, other, metric, *cells])
    return table


def breakdown_table(summary: Summary) -> Table:
    """Mean Dice by age, sex, structure and centre."""
    table = [["kind", "group", "part", "row", "people", "dice", "low", "high"]]
    table += [["all", "all", NEW, row, *[NOT_RUN] * 4] for row in summary.rows if not summary.done(row)[0]]
    for kind, group, part, row, mean in analysis.breakdown(summary.lines, "dice"):
        table.append([kind, group, part, row, str(mean.subjects), *map(number, (mean.mean, mean.low, mean.high))])
    return table


def dataset_table(summary: Summary) -> Table:
    """Every row on every data set that tested: how much of the protocol it labels, how often a structure was missed.

    ``coverage`` counts the structures that the data set's labels can score. ``failures`` is the share of the structures
    that are there of which nothing was found: their Dice is 0 and counts as such, their distances are not defined.
    """
    recipe = recipe_of(summary.plan.study, summary.plan.study.rows[0], 0)
    structures = len(load_protocol(recipe.get("recipe", {}).get("protocol", "aseg"))) - 1
    table = [["row", "centre", "people", "coverage", "failures", *METRICS]]
    for row in summary.rows:
        for centre in sorted({line["centre"] for line in summary.lines}):
            lines = [line for line in summary.lines if (line["row"], line["centre"]) == (row, centre)]
            if not lines:
                table.append([row, centre, *[NOT_RUN] * (len(table[0]) - 2)])
                continue
            means = [analysis.interval(analysis.by_subject(lines, metric).get(row, {})) for metric in METRICS]
            table.append(
                [
                    *(row, centre, str(means[0].subjects)),
                    f"{len({line['structure'] for line in lines})}/{structures}",
                    number(analysis.missed(lines)),
                    *(number(mean.mean) for mean in means),
                ]
            )
    return table


def shots_table(summary: Summary) -> Table:
    """Shots with which each row matches what the full training reaches with all of them."""
    table = [["row", f"shots to match {summary.target}"]]
    for row in summary.rows:
        if any(done < planned for done, planned in (summary.done(row), summary.done(summary.target))):
            table.append([row, NOT_RUN])
            continue
        found = analysis.shots_to_match(summary.lines, row, summary.target)
        table.append([row, "not reached" if found is None else str(found)])
    return table


def markdown(table: Table) -> str:
    """A table as Markdown."""
    head, *body = table
    lines = [head, ["---"] * len(head), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def number(value: float) -> str:
    """A figure for people, ``n/a`` where there is none."""
    return "n/a" if math.isnan(value) else f"{value:.4g}" if abs(value) < 1e5 else f"{value:.0f}"
