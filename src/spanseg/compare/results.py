"""The two tables that a study fills: scores by subject, and what each cell cost. Everything else is made from them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spanseg import files
from spanseg.errors import SpansegError

STARTS = "starts"
"""Key of the plan: hash of the weights in each run that rows start from."""
RESULTS, COSTS, CURVES, PLAN = "results.csv", "cells.csv", "curves.csv", "plan.json"
SCORES = ("dice", "asd_mm", "hd95_mm", "surface_dice", "truth_mm3", "predicted_mm3")
COLUMNS = (
    *("seed", "split", "row", "part", "centre", "subject", "age_years", "sex", "structure"),
    *SCORES,
)
COST_COLUMNS = ("seed", "split", "row", "trained", "total", "steps", "train_s", "test_s", "s_to_best", "peak_mib")
CURVE_COLUMNS = ("seed", "split", "row", "step", "loss", "validation")


@dataclass(frozen=True, order=True)
class Cell:
    """One training and its tests.

    Args:
        seed: repetition.
        split: name of the split.
        row: name of the row.
    """

    seed: int
    split: str
    row: str


@dataclass(frozen=True)
class Finished:
    """What a cell gave, as lines of the tables.

    Args:
        scores: of ``results.csv``.
        cost: of ``cells.csv``.
        curve: of ``curves.csv``.
    """

    scores: list[dict[str, Any]]
    cost: dict[str, Any]
    curve: list[dict[str, Any]]


class Results:
    """The tables of a study in a folder, written as a whole after each cell, in the order of the plan.

    Args:
        folder: of the study's results.
        plan: all cells in their order.
        meaning: what each row and each split stands for; what is finished must have meant the same.

    Raises:
        SpansegError: a table of another study, or one that was edited by hand.
    """

    def __init__(self, folder: Path, plan: Sequence[Cell], meaning: Mapping[str, Any]) -> None:
        self.folder, self.plan, self.meaning = folder, list(plan), dict(meaning)
        self.scores = _by_cell(folder / RESULTS, COLUMNS)
        self.costs = _by_cell(folder / COSTS, COST_COLUMNS)
        self.curves = _by_cell(folder / CURVES, CURVE_COLUMNS)
        strangers = [cell for cell in self.scores if cell not in self.plan]
        if strangers:
            raise SpansegError(
                f"{folder / RESULTS}: it holds the cell {strangers[0]}, which this study does not have; "
                "give another --out, or remove the file."
            )
        self._require_same_meaning()

    def _require_same_meaning(self) -> None:
        """Refuse to go on with results that another recipe, number of steps, set of people or start made."""
        path = self.folder / PLAN
        if not self.scores or not path.is_file():
            return
        earlier = json.loads(path.read_text(encoding="utf-8"))
        known, starts = earlier.get(STARTS, {}), self.meaning.get(STARTS, {})
        changed = [start for start in starts if known.get(start, starts[start]) != starts[start]]
        if changed and not all(self.finished(cell) for cell in self.plan):
            raise SpansegError(
                f"{path}: {changed[0]} does not hold the weights that the results began with; give another --out, or "
                "bring them back."
            )
        self.meaning[STARTS] = starts | known
        for name in sorted({part for cell in self.scores for part in (f"row {cell.row}", f"split {cell.split}")}):
            if earlier.get(name) != json.loads(json.dumps(self.meaning.get(name))):
                raise SpansegError(
                    f"{path}: the {name} of this study is not the one that made the results (its recipe, its steps or "
                    "its people have changed); give another --out, or undo the change."
                )

    def finished(self, cell: Cell) -> bool:
        """Whether the cell's scores are in the table."""
        return cell in self.scores

    def add(self, cell: Cell, found: Finished) -> None:
        """Put a cell into the tables; the scores last, for they say that it is finished."""
        self.costs[cell], self.curves[cell] = [_text(found.cost)], [_text(row) for row in found.curve]
        self.scores[cell] = [_text(row) for row in found.scores]
        self.folder.mkdir(parents=True, exist_ok=True)
        files.write_text(self.folder / PLAN, json.dumps(self.meaning, indent=1, ensure_ascii=False) + "\n")
        for name, columns, lines in (
            (CURVES, CURVE_COLUMNS, self.curves),
            (COSTS, COST_COLUMNS, self.costs),
            (RESULTS, COLUMNS, self.scores),
        ):
            ordered = [line for one in self.plan if one in self.scores for line in lines.get(one, [])]
            files.write_text(self.folder / name, to_csv(columns, ordered))

    def rows(self) -> list[dict[str, str]]:
        """All lines of ``results.csv`` in the order of the plan."""
        return [line for cell in self.plan for line in self.scores.get(cell, [])]


def to_csv(columns: Sequence[str], lines: Iterable[Mapping[str, Any]]) -> str:
    """Write lines as CSV text."""
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return stream.getvalue()


def _by_cell(path: Path, columns: Sequence[str]) -> dict[Cell, list[dict[str, str]]]:
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        reader = csv.DictReader(stream)
        if tuple(reader.fieldnames or ()) != tuple(columns):
            raise SpansegError(f"{path}: expected the columns {', '.join(columns)}; remove the file to begin again.")
        found: dict[Cell, list[dict[str, str]]] = {}
        for line in reader:
            found.setdefault(Cell(int(line["seed"]), line["split"], line["row"]), []).append(line)
    return found


def _text(row: Mapping[str, Any]) -> dict[str, str]:
    """Cells as they stand in the file, so that what was just made equals what is read again."""
    return {key: _cell(value) for key, value in row.items()}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return ("" if value != value else f"{value:.6g}") if isinstance(value, float) else str(value)
