"""How long the cells of a study take: as those did that are finished, else by the steps that they have before them."""

from __future__ import annotations

import statistics
import tempfile
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
    """

    plan: Plan
    results: Results
    step_s: float = 0.0

    @property
    def is_known(self) -> bool:
        """Whether there is anything to estimate from."""
        return bool(self.step_s or self._typical())

    def of(self, cell: Cell) -> float:
        """Seconds that a cell will probably take, the base model that it may have to train first included."""
        finished = self._by_row()
        if cell.row in finished:
            return statistics.median(finished[cell.row])
        row = next(row for row in self.plan.study.rows if row.name == cell.row)
        if row.weights_of:
            return 0.0
        if row.trains:
            return self._typical() or self.plan.study.steps * self.step_s
        has_base = any(split.before for split in self.plan.splits if split.name == cell.split)
        return self.plan.study.base_steps * self.step_s if has_base and row.starts else 0.0

    def left(self) -> float:
        """Seconds that the cells which are not finished will probably take, one after the other."""
        return sum(self.of(cell) for cell in self.plan.cells if not self.results.finished(cell))

    def _typical(self) -> float:
        """The median of the finished cells that trained; 0 if there is none."""
        trained = {row.name for row in self.plan.study.rows if row.trains and not row.weights_of}
        found = [value for row, values in self._by_row().items() if row in trained for value in values]
        return statistics.median(found) if found else 0.0

    def _by_row(self) -> dict[str, list[float]]:
        """Seconds of the finished cells by row."""
        seconds: dict[str, list[float]] = {}
        for cell, lines in self.results.costs.items():
            seconds.setdefault(cell.row, []).append(sum(float(lines[0][key] or 0) for key in ("train_s", "test_s")))
        return seconds


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
