"""Runs a study: a plan with its time, cells in an order in which every prefix is a balanced table, until the budget."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from spanseg import checkpoint, params
from spanseg import recipe as recipes
from spanseg.compare.cell import CellRunner
from spanseg.compare.design import Split, splits_of
from spanseg.compare.origins import fingerprint, joined
from spanseg.compare.people import Person, people_of
from spanseg.compare.results import Cell, Finished, Results
from spanseg.compare.study import Row, Study, base_row, recipe_of
from spanseg.errors import SpansegError
from spanseg.machine import cores


@dataclass(frozen=True)
class Plan:
    """Everything that a study will do, known before anything runs.

    Args:
        study: what is compared.
        people: everybody.
        splits: who trains and who tests.
        cells: in the order in which they run: a seed, a split, then every row, so that each prefix compares all rows
            on the same people as far as it got. Where a base model learns other centres first, the rows that train
            nothing run before all others: whether a new centre loses anything is known before anything adapts to it.
    """

    study: Study
    people: tuple[Person, ...]
    splits: tuple[Split, ...]
    cells: tuple[Cell, ...]

    @property
    def meaning(self) -> dict[str, Any]:
        """What each row and each split stands for, as JSON values: recipes, and who trains and tests."""
        beside = {} if self.study.augment == "gentle" else {"augment": self.study.augment}
        rows = {
            f"row {row.name}": recipe_of(self.study, row, 0) | {"facts": row.facts} | beside | _test_of(row)
            for row in self.study.rows
        }
        sides = ("train", "validate", "new", "old", "before", "watched_before")
        splits: dict[str, dict[str, Any]] = {}
        prints = {f"{one.centre}/{one.subject}": fingerprint(one) for one in self.people}
        for split in self.splits:
            groups = {side: vars(split)[side] for side in sides}
            named = {side: [f"{one.centre}/{one.subject}" for one in people] for side, people in groups.items()}
            data = joined(prints[name] for names in named.values() for name in names)
            splits[f"split {split.name}"] = named | {"data": data}
        before = recipe_of(replace(self.study, steps=self.study.base_steps), base_row(self.study), 0)
        for split in self.splits:
            if split.before:
                splits[f"split {split.name}"]["base"] = before
        return rows | splits


def _test_of(row: Row) -> dict[str, str]:
    """How a row is tested, where it is not as it was trained."""
    return {key: value for key, value in (("prompts", row.prompts), ("weights_of", row.weights_of)) if value}


def plan_of(study: Study) -> Plan:
    """Plan a study.

    Raises:
        SpansegError: a row that its backbone does not support, data that cannot be used, or people who would be learned
            from and tested.
    """
    _check_networks(study)
    people = people_of(study.centres)
    splits = splits_of(study, people)
    cells = [Cell(seed, split.name, row.name) for seed in study.seeds for split in splits for row in study.rows]
    if study.design == "leave_one_centre_out":
        untrained = {row.name for row in study.rows if not row.trains}
        cells.sort(key=lambda cell: cell.row not in untrained)
    return Plan(study, tuple(people), tuple(splits), tuple(cells))


def _check_networks(study: Study) -> None:
    """Build every row's network once."""
    first = (base_row(study),) if study.design == "leave_one_centre_out" else ()
    for row in (*first, *study.rows):
        params.count(recipe_of(study, row, 0))


def require_starts(plan: Plan, results: Results) -> None:
    """Find the weights that the cells start from which are still to be run.

    Raises:
        SpansegError: weights that are not there, or the name of a recipe in their place.
    """
    study = plan.study
    to_do = {cell.row for cell in plan.cells if not results.finished(cell)}
    first = (base_row(study),) if to_do and study.design == "leave_one_centre_out" else ()
    for row in (*first, *(one for one in study.rows if one.name in to_do)):
        start = recipe_of(study, row, 0)["train"].get("start", "")
        if start in recipes.shipped() and not checkpoint.is_model(start):
            raise SpansegError(
                f"{study.name}: its rows start from the recipe '{start}'; train it once (spanseg train {start} --data "
                f'LABELMAPS) and name the run in the study: settings = ["train.start=runs/{start}"].'
            )
        if start:
            checkpoint.weights_of(start)


def seconds_left(plan: Plan, results: Results) -> float | None:
    """Estimate what is left to do from the cells that are finished; ``None`` before there is one that trained."""
    seconds = _seconds(results)
    trained = {row.name for row in plan.study.rows if row.trains and not row.weights_of}
    typical = [value for row, values in seconds.items() if row in trained for value in values]
    if not typical:
        return None
    middle = statistics.median(typical)
    left = [cell for cell in plan.cells if not results.finished(cell)]
    return sum(statistics.median(seconds.get(cell.row, [middle if cell.row in trained else 0.0])) for cell in left)


def _seconds(results: Results) -> dict[str, list[float]]:
    """Seconds of the finished cells by row."""
    seconds: dict[str, list[float]] = {}
    for cell, lines in results.costs.items():
        seconds.setdefault(cell.row, []).append(sum(float(lines[0][key] or 0) for key in ("train_s", "test_s")))
    return seconds


def run(
    plan: Plan,
    results: Results,
    work: Path,
    report: Callable[[Cell, dict[str, float]], None],
    budget_s: float | None = None,
    jobs: int = 1,
) -> Iterator[Cell]:
    """Run the cells that are not finished, and yield each when it is in the tables.

    Args:
        plan: what to do.
        results: tables that cells are added to.
        work: folder for weights, which stay there; a cell that was stopped goes on from it.
        report: is told each step; with several jobs only what happens in this process.
        budget_s: begin no cell that would probably end after this many seconds.
        jobs: cells at once, each in a process of its own with its share of the cores.
    """
    began, runner = time.monotonic(), CellRunner(plan.study, plan.splits, plan.people, work, report)
    left = [cell for cell in plan.cells if not results.finished(cell)]

    def fits(cell: Cell) -> bool:
        if budget_s is None:
            return True
        seconds = _seconds(results)
        known = seconds.get(cell.row) or [value for values in seconds.values() for value in values]
        return time.monotonic() - began + (statistics.median(known) if known else 0) <= budget_s

    if jobs == 1:
        for cell in left:
            if not fits(cell):
                return
            results.add(cell, runner.run(cell))
            yield cell
        return
    _bases(plan, runner, [cell for cell in left if fits(cell)])
    source = {row.name: row.weights_of for row in plan.study.rows}
    for tests_only in (False, True):  # weights are there before several rows at once test them
        part = [
            cell
            for cell in left
            if bool(source[cell.row]) is tests_only
            and (not tests_only or results.finished(replace(cell, row=source[cell.row])))
        ]
        for cell, found in _at_once(plan, work, part, jobs, fits):
            results.add(cell, found)
            yield cell


def _bases(plan: Plan, runner: CellRunner, left: Sequence[Cell]) -> None:
    """Train what several cells start from before they run side by side."""
    for split in plan.splits:
        for seed in plan.study.seeds if split.before else ():
            if any(cell.split == split.name and cell.seed == seed for cell in left):
                runner.base(split, seed)


def _at_once(
    plan: Plan, work: Path, left: Sequence[Cell], jobs: int, fits: Callable[[Cell], bool]
) -> Iterator[tuple[Cell, Finished]]:
    """Run cells in several processes."""
    threads, waiting = max(1, cores() // jobs), list(left)
    running: dict[Future[Finished], Cell] = {}
    with ProcessPoolExecutor(jobs, get_context("spawn"), max_tasks_per_child=1) as pool:
        while waiting or running:
            while waiting and len(running) < jobs and fits(waiting[0]):
                cell = waiting.pop(0)
                running[pool.submit(_alone, plan, work, cell, threads, os.getpid())] = cell
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(done), done.result()


def _alone(plan: Plan, work: Path, cell: Cell, threads: int, parent: int) -> Finished:
    """Run one cell in this process, and stop when the process that asked for it is gone."""

    def report(_: Cell, row: dict[str, float]) -> None:
        if os.getppid() != parent:
            raise SystemExit(f"the study was stopped at step {row['step']:.0f}")

    torch.set_num_threads(threads)
    return CellRunner(plan.study, plan.splits, plan.people, work, report).run(cell)
