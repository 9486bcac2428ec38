"""``spanseg compare``: compare ways of adapting a network, honestly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from spanseg.compare.plan import Plan
    from spanseg.compare.results import Cell, Results
    from spanseg.compare.study import Study
    from spanseg.compare.timing import Pace

Budget = Annotated[str, typer.Option(help="Begin nothing that would end later, such as 60m or 2h; empty: no limit.")]
Jobs = Annotated[int, typer.Option(min=1, help="Cells at once, each with its share of the cores.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Tables and report; default studies/results/NAME.")]
Work = Annotated[Path | None, typer.Option(help="Weights of the cells; default runs/NAME.")]
PlanOnly = Annotated[bool, typer.Option("--plan", help="Print the plan and stop.")]
Base = Annotated[str, typer.Option(help="Recipe that the rows are written on.")]
Rows = Annotated[str, typer.Option(help="Rows, comma-separated.")]
Steps = Annotated[int, typer.Option(min=1, help="Steps of every row.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="Override: section.key=value.")]
SECONDS = {"s": 1, "m": 60, "h": 3600, "": 60}


def compare(
    study: Annotated[Path, typer.Argument(help="TOML file of the study.")],
    data: Annotated[Path | None, typer.Option(help="Folder that holds the data sets; default: the study's.")] = None,
    out: Out = None,
    work: Work = None,
    budget: Budget = "",
    jobs: Jobs = 1,
    plan_only: PlanOnly = False,
) -> None:
    """Run a study: plan, cells, tables, report. A second call goes on where the first one stopped."""
    from spanseg.compare.study import read_study

    run_study(read_study(study, data), out, work, budget, jobs, plan_only)


def run_study(study: Study, out: Path | None, work: Path | None, budget: str, jobs: int, plan_only: bool) -> None:
    """Run a study and write its tables; the one path of ``compare`` and its short names."""
    from spanseg.compare import engine
    from spanseg.compare.page import write_report
    from spanseg.compare.plan import plan_of, require_starts
    from spanseg.compare.results import Results
    from spanseg.compare.tables import Summary

    limit = seconds_of(budget)
    plan = plan_of(study)
    folder = out or Path("studies") / "results" / study.name
    results = Results(folder, plan.cells, plan.meaning)
    require_starts(plan, results)
    place = work or Path("runs") / study.name
    pace = _tell(plan, results, place)
    if plan_only:
        return
    for cell in engine.run(plan, results, place, _report, limit, jobs, pace.step_s):
        print(f"finished: {_name(cell)}", flush=True)
        write_report(Summary(plan, results), folder)
    files = write_report(Summary(plan, results), folder)
    left = sum(not results.finished(cell) for cell in plan.cells)
    print(f"{len(plan.cells) - left} of {len(plan.cells)} cells are finished; report: {files[-1]}")
    if left:
        following = next(cell for cell in plan.cells if not results.finished(cell))
        needed = f"the next cell takes about {pace.of(following) / 60:.0f} minutes"
        print(f"the budget is spent; the same command goes on ({needed})")


def rows_in(words: str) -> list[str]:
    """Names of rows that stand between commas."""
    return [row.strip() for row in words.split(",")]


def seconds_of(budget: str) -> float | None:
    """Read a duration such as ``90s``, ``60m``, ``2h``; a bare number is minutes, nothing is no limit."""
    from spanseg.errors import SpansegError

    if not budget:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", budget.strip())
    if not found:
        raise SpansegError(f"--budget takes a duration such as 90s, 60m or 2h, not '{budget}'.")
    return float(found[1]) * SECONDS[found[2]]


def _tell(plan: Plan, results: Results, work: Path) -> Pace:
    """Print the plan with its time; where no cell is finished, a few steps are timed for it."""
    from spanseg.compare.cell import CellRunner
    from spanseg.compare.timing import Pace, seconds_of_a_step
    from spanseg.labelled import left_out_of_pairs

    to_do = [cell for cell in plan.cells if not results.finished(cell)]
    print(f"{plan.study.title}: {len(plan.people)} people, {len(plan.splits)} splits, {len(plan.study.rows)} rows")
    for split in plan.splits:
        counts = {"train": split.train, "watched": split.validate, "test": split.new}
        counts |= {"old test": split.old, "before": split.before}
        print(f"  {split.name}: {', '.join(f'{len(who)} {what}' for what, who in counts.items() if who)}")
    for centre in plan.study.centres:
        for note in left_out_of_pairs(centre.data, centre.data / "derivatives"):
            print(f"note: {note}")
    has_base = CellRunner(plan.study, plan.splits, plan.people, work, _report).has_base
    pace = Pace(plan, results, has_base=has_base)
    trains = {row.name for row in plan.study.rows if row.trains}
    if not pace.is_known and any(cell.row in trains or pace.needs_base(cell) for cell in to_do):
        pace = Pace(plan, results, seconds_of_a_step(plan), has_base)
    by = f" (a step took {pace.step_s:.2g} s just now; tests not counted)" if pace.step_s else ""
    print(f"{len(plan.cells)} cells, {len(to_do)} to do, about {pace.left() / 60:.0f} minutes{by}", flush=True)
    return pace


def _report(cell: Cell, row: dict[str, float]) -> None:
    if row["step"] % 25 == 0:
        print(f"{_name(cell)}  step {row['step']:.0f}  loss {row['loss']:.3f}", flush=True)


def _name(cell: Cell) -> str:
    return f"{cell.split} {cell.row} seed {cell.seed}"
