"""How long the cells of a study take: as those did that are finished, else by the steps that they have before them."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from spanseg import runs
from spanseg.compare.cell import CellRunner
from spanseg.compare.plan import Plan
from spanseg.compare.results import Cell, Results
from spanseg.compare.study import base_row, recipe_of

PROBED = 3
"""Steps that are timed where no cell is finished."""


@dataclass(frozen=True)
class Pace:
    """What is known of a study's time.

    Args:
        plan: of the study.
        results: as far as they are there.
        step_s: seconds of a training step; 0 if that was not measured.
        has_base: whether the base model that a cell starts from is there.
    """

    plan: Plan
    results: Results
    step_s: float = 0.0
    has_base: Callable[[Cell], bool] = lambda cell: False

    @property
    def is_known(self) -> bool:
        """Whether there is anything to estimate from."""
        return bool(self.step_s or self._typical())

    def of(self, cell: Cell) -> float:
        """Seconds that a cell will probably take, with the base model that it has to train first."""
        return self._alone(cell) + (self.base_s() if self.needs_base(cell) else 0.0)

    def base_s(self) -> float:
        """Seconds that a base model will probably take."""
        trained = self._seconds("train_s")
        found = [value for row in self.plan.study.rows if not row.trains for value in trained.get(row.name, [])]
        return statistics.median(found) if found else self.plan.study.base_steps * self.step_s

    def needs_base(self, cell: Cell) -> bool:
        """Whether a base model has to be trained before a cell can begin."""
        row = next(row for row in self.plan.study.rows if row.name == cell.row)
        split = next(split for split in self.plan.splits if split.name == cell.split)
        return bool(split.before) and row.starts and not self.has_base(cell)

    def left(self) -> float:
        """Seconds that the cells which are not finished will probably take, one after the other."""
        cells = [cell for cell in self.plan.cells if not self.results.finished(cell)]
        bases = {(cell.seed, cell.split) for cell in cells if self.needs_base(cell)}
        return sum(map(self._alone, cells)) + len(bases) * self.base_s()

    def _alone(self, cell: Cell) -> float:
        """Seconds of a cell's own training and tests."""
        row = next(row for row in self.plan.study.rows if row.name == cell.row)
        tests, trained = (self._seconds(what).get(row.name) for what in ("test_s", "train_s"))
        if tests and trained:
            return statistics.median(tests) + (statistics.median(trained) if row.trains else 0.0)
        if row.weights_of or not row.trains:
            return 0.0
        return self._typical() or self.plan.study.steps * self.step_s

    def _typical(self) -> float:
        """The median of the finished cells that trained, with their tests; 0 if there is none."""
        learned = [row.name for row in self.plan.study.rows if row.trains and not row.weights_of]
        tests, trained = self._seconds("test_s"), self._seconds("train_s")
        found = [sum(pair) for row in learned if row in tests for pair in zip(tests[row], trained[row], strict=True)]
        return statistics.median(found) if found else 0.0

    def _seconds(self, column: str) -> dict[str, list[float]]:
        """A column of ``cells.csv`` by row."""
        found: dict[str, list[float]] = {}
        for cell, lines in self.results.costs.items():
            found.setdefault(cell.row, []).append(float(lines[0][column] or 0))
        return found


def seconds_of_a_step(plan: Plan) -> float:
    """Time a few steps of the base recipe, with everything trained, on the first person of a study."""
    recipe = recipe_of(replace(plan.study, steps=PROBED), base_row(plan.study), 0)
    recipe["train"].pop("start", None)
    person = plan.splits[0].train[0]
    with tempfile.TemporaryDirectory() as scratch:
        runner = CellRunner(plan.study, plan.splits, plan.people, Path(scratch), lambda cell, line: None)
        source = runner.source([person], recipe, {person.entry: person.facts})
        trainer, _ = runs.prepare_on(recipe, source, None, Path(scratch))
        taken: list[float] = []
        trainer.run(None, lambda line: taken.append(line["draw_s"] + line["step_s"]))
    return statistics.median(taken)
