"""Runs the cells of a plan in an order in which every prefix is a balanced table, until the budget is spent."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import replace
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from threading import Thread
from typing import TypeVar

import torch

from spanseg.compare.cell import CellRunner
from spanseg.compare.plan import Plan
from spanseg.compare.results import Cell, Results
from spanseg.compare.timing import Pace
from spanseg.machine import cores

T = TypeVar("T")


def run(
    plan: Plan,
    results: Results,
    work: Path,
    report: Callable[[Cell, dict[str, float]], None],
    budget_s: float | None = None,
    jobs: int = 1,
    step_s: float = 0.0,
) -> Iterator[Cell]:
    """Run the cells that are not finished, and yield each when it is in the tables.

    Args:
        plan: what to do.
        results: tables that cells are added to.
        work: folder for weights, which stay there; a cell that was stopped goes on from it.
        report: is told each step; with several jobs only what happens in this process.
        budget_s: begin no cell that would probably end after this many seconds.
        jobs: cells at once, each in a process of its own with its share of the cores.
        step_s: seconds of a step, by which the budget is kept before a cell is finished.
    """
    began, runner = time.monotonic(), CellRunner(plan.study, plan.splits, plan.people, work, report)
    pace = Pace(plan, results, step_s, runner.has_base)
    left = [cell for cell in plan.cells if not results.finished(cell)]

    def fits(cell: Cell) -> bool:
        return budget_s is None or time.monotonic() - began + pace.of(cell) <= budget_s

    def base_fits(cell: Cell) -> bool:
        return budget_s is None or time.monotonic() - began + pace.base_s() <= budget_s

    if jobs == 1:
        for cell in left:
            if not fits(cell):
                return
            results.add(cell, runner.run(cell))
            yield cell
        return
    untrained = [cell for cell in _on_a_base(plan, left) if not runner.has_base(cell)]
    for _ in _at_once(CellRunner.base_of, plan, work, untrained, jobs, base_fits):
        pass  # bases are there before several cells at once start from them
    source = {row.name: row.weights_of for row in plan.study.rows}
    for tests_only in (False, True):  # weights are there before several rows at once test them
        part = [
            cell
            for cell in left
            if bool(source[cell.row]) is tests_only
            and (not tests_only or results.finished(replace(cell, row=source[cell.row])))
        ]
        for cell, found in _at_once(CellRunner.run, plan, work, part, jobs, fits):
            results.add(cell, found)
            yield cell


def _on_a_base(plan: Plan, left: Sequence[Cell]) -> list[Cell]:
    """The first cell of each base model that cells start from."""
    with_base = {split.name for split in plan.splits if split.before}
    firsts = {(cell.seed, cell.split): cell for cell in reversed(left) if cell.split in with_base}
    return sorted(firsts.values(), key=left.index)


def _at_once(
    task: Callable[[CellRunner, Cell], T],
    plan: Plan,
    work: Path,
    left: Sequence[Cell],
    jobs: int,
    fits: Callable[[Cell], bool],
) -> Iterator[tuple[Cell, T]]:
    """Do something for each cell, in several processes."""
    threads, waiting = max(1, cores() // jobs), list(left)
    running: dict[Future[T], Cell] = {}
    with ProcessPoolExecutor(jobs, get_context("spawn"), _end_with_parent, max_tasks_per_child=1) as pool:
        while waiting or running:
            while waiting and len(running) < jobs and fits(waiting[0]):
                cell = waiting.pop(0)
                running[pool.submit(_alone, task, plan, work, cell, threads)] = cell
            if not running:
                return
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(done), done.result()


def _alone(task: Callable[[CellRunner, Cell], T], plan: Plan, work: Path, cell: Cell, threads: int) -> T:
    """Do something for one cell in this process."""
    torch.set_num_threads(threads)
    return task(CellRunner(plan.study, plan.splits, plan.people, work, lambda cell, row: None), cell)


def _end_with_parent() -> None:
    """End this process when the one that started it is gone, killed or not: a study must not go on behind its back."""
    parent = parent_process()
    if parent is None:
        return

    def watch(sentinel: int) -> None:
        wait_for([sentinel])
        os._exit(1)

    Thread(target=watch, args=(parent.sentinel,), daemon=True).start()
