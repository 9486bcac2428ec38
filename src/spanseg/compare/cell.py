"""One cell of a study: train a row on a split, test it on people it never saw."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from spanseg import checkpoint, model, runs
from spanseg import recipe as recipes
from spanseg.compare.analysis import RISING
from spanseg.compare.design import NEW, OLD, Split
from spanseg.compare.origins import claim
from spanseg.compare.people import Person, Told, told_facts
from spanseg.compare.prompted import answered, drawn_classes
from spanseg.compare.results import SCORES, Cell, Finished
from spanseg.compare.study import Row, Study, base_row, recipe_of
from spanseg.evaluate import score_volumes
from spanseg.images import read_labels, read_scan
from spanseg.interfaces import Source
from spanseg.labelled import read_labelled
from spanseg.machine import forget_peak_memory, peak_memory_bytes
from spanseg.network_predictor import NetworkPredictor
from spanseg.sampling import GENTLE, STILL, RealScans
from spanseg.schemes import find_scheme
from spanseg.segmenter import SegmentOptions, segment_scan
from spanseg.sources import synth_options, teller
from spanseg.synth import SynthOptions
from spanseg.train import Trainer, read_history

Report = Callable[[Cell, dict[str, float]], None]


class CellRunner:
    """Runs the cells of a study.

    Args:
        study: what is compared.
        splits: who trains and who tests.
        people: everybody; facts are shuffled among them.
        work: folder for weights; they stay there.
        report: is told each step.
    """

    def __init__(
        self, study: Study, splits: Sequence[Split], people: Sequence[Person], work: Path, report: Report
    ) -> None:
        self.study, self.people, self.work, self.report = study, list(people), work, report
        self.splits = {split.name: split for split in splits}
        self.rows = {row.name: row for row in study.rows}
        self.centres = {centre.name: centre for centre in study.centres}

    def run(self, cell: Cell) -> Finished:
        """Train (or go on where it was stopped) and test."""
        split, row = self.splits[cell.split], self.rows[cell.row]
        recipe = recipe_of(self.study, row, cell.seed)
        if row.starts and split.before:
            recipe["train"]["start"] = str(self.base_of(cell))
        forget_peak_memory()
        told = {person.entry: person.facts for person in told_facts(self.people, row.facts, cell.seed)}
        network, trainer, history = self._network(cell, split, row, recipe, told)
        began = time.monotonic()
        scores = list(self._tests(cell, split, recipe, network, told))
        return Finished(scores, _cost(cell, network, trainer, history, time.monotonic() - began), _curve(cell, history))

    def base_of(self, cell: Cell) -> Path:
        """The run of the base model that a cell starts from."""
        return self.base(self.splits[cell.split], cell.seed)

    def has_base(self, cell: Cell) -> bool:
        """Whether the base model that a cell starts from is trained; what made it is checked when it is used."""
        return (self._base_folder(cell.split, cell.seed) / checkpoint.DELTA).is_file()

    def _base_folder(self, split: str, seed: int) -> Path:
        return self.work / f"base-{split}-{seed}"

    def base(self, split: Split, seed: int) -> Path:
        """The run in which the base model learned the centres that it knows before a split."""
        folder = self._base_folder(split.name, seed)
        recipe = recipe_of(replace(self.study, steps=self.study.base_steps), base_row(self.study), seed)
        told = {person.entry: person.facts for person in (*split.before, *split.watched_before)}
        claim(folder, recipe, split.before, split.watched_before, told, self.study.augment)
        if not (folder / checkpoint.DELTA).is_file():
            source = self.source(split.before, recipe, told)
            watched = self.source(split.watched_before, recipe, told, STILL) if split.watched_before else None
            trainer, look = runs.prepare_on(recipe, source, watched, folder)
            trainer.run(look, lambda line: self.report(Cell(seed, split.name, "base"), line))
            checkpoint.save(folder, trainer.ema, recipe)
            (folder / checkpoint.STATE).unlink(missing_ok=True)
        return folder

    def _network(
        self, cell: Cell, split: Split, row: Row, recipe: dict[str, Any], told: Told
    ) -> tuple[nn.Module, Trainer | None, list[dict[str, float]]]:
        """The network that a cell tests; if it was trained for this cell, with its trainer and what was logged.

        A base model that is tested as it is has the log of its own training.
        """
        if not row.trains:
            has_base = row.starts and split.before
            history = read_history(self.base_of(cell)) if has_base else []
            return runs.network_of(recipe).eval(), None, history
        if not row.weights_of:
            return self._trained(cell, split, recipe, told)
        other = replace(cell, row=row.weights_of)
        if _is_finished(self._folder(other), recipe):
            claim(self._folder(other), recipe, split.train, split.validate, told, self.study.augment)
            return checkpoint.restore(self._folder(other))[1].eval(), None, []
        return self._trained(other, split, recipe, told)[0], None, []

    def _folder(self, cell: Cell) -> Path:
        return self.work / f"{cell.split}-{cell.row}-{cell.seed}"

    def _trained(
        self, cell: Cell, split: Split, recipe: dict[str, Any], told: Told
    ) -> tuple[nn.Module, Trainer, list[dict[str, float]]]:
        """The network of a cell after its training, with what was logged."""
        folder = self._folder(cell)
        claim(folder, recipe, split.train, split.validate, told, self.study.augment)
        source = self.source(split.train, recipe, told)
        watched = self.source(split.validate, recipe, told, STILL) if split.validate else None
        trainer, look = runs.prepare_on(recipe, source, watched, folder)
        trainer.run(look, lambda line: self.report(cell, line))
        checkpoint.save(folder, trainer.ema, recipe)
        network = trainer.network
        checkpoint.load_delta(network, trainer.ema, str(folder))
        return network.eval(), trainer, trainer.history()

    def source(
        self,
        people: Iterable[Person],
        recipe: dict[str, Any],
        told: Told,
        how: SynthOptions | None = None,
    ) -> Source:
        """Real scans of people, told their facts; all of one centre that is new to the network."""
        protocol, scans = model.protocol_of(recipe), []
        for person in people:
            labels = self.centres[person.centre].labels or None
            read = read_labelled(person.scans, labels, protocol)
            scans += [replace(scan, facts=told[person.entry], centre=0) for scan in read]
        varied = GENTLE if self.study.augment == "gentle" else synth_options(recipe)
        return RealScans(scans, protocol, model.canvas_of(recipe), how or varied, teller(recipe))

    def _tests(
        self, cell: Cell, split: Split, recipe: dict[str, Any], network: nn.Module, told: Told
    ) -> Iterator[dict[str, Any]]:
        """Lines of ``results.csv``."""
        predictor, prompts = NetworkPredictor(recipe, network), self.rows[cell.row].prompts
        protocol = predictor.protocol
        names = {index: structure.name for index, structure in enumerate(protocol.structures)}
        for part, people in ((NEW, split.new), (OLD, split.old)):
            for person in people:
                options = SegmentOptions(facts=told[person.entry])
                head = {"seed": cell.seed, "split": cell.split, "row": cell.row, "part": part, "centre": person.centre}
                head |= {"subject": person.subject, "age_years": person.facts.age_years, "sex": person.facts.sex}
                for path, truth in person.scans:
                    scan, drawn = read_scan(path), read_labels(truth).volume
                    scheme = find_scheme(self.centres[person.centre].labels or None, protocol, truth)
                    if prompts:
                        known = drawn_classes(drawn, scheme, scan.volume, path.name)
                        found = answered(scan, known, recipe, network, prompts)
                    else:
                        found = segment_scan(scan, predictor, options).labels
                    scores = score_volumes(found, drawn, protocol, scheme, 1.0, path.name)
                    for index, one in scores.items():
                        yield head | {"structure": names[index]} | {name: getattr(one, name) for name in SCORES}


def _is_finished(folder: Path, recipe: dict[str, Any]) -> bool:
    """Whether a folder holds all that a training by this recipe leaves."""
    written = folder / "recipe.toml"
    there = (folder / checkpoint.DELTA).is_file() and written.is_file()
    return there and written.read_text(encoding="utf-8") == recipes.dumps(recipe)


def _cost(
    cell: Cell, network: nn.Module, trainer: Trainer | None, history: list[dict[str, float]], test_s: float
) -> dict[str, Any]:
    """The line of ``cells.csv``.

    The memory is the highest since the cell began. A step takes the median: some were stopped, or shared the machine.
    """
    looks = [(line["step"], line["validation"]) for line in history if not math.isnan(line["validation"])]
    best = max((score for _, score in looks), default=math.nan)
    arrived = next((step for step, score in looks if score >= best - RISING), math.nan)
    step_s = statistics.median(line["draw_s"] + line["step_s"] for line in history) if history else 0.0
    return {
        "seed": cell.seed,
        "split": cell.split,
        "row": cell.row,
        "trained": 0 if trainer is None else sum(p.numel() for p in trainer.trained.values()),
        "total": sum(p.numel() for p in network.parameters()),
        "steps": len(history),
        "train_s": len(history) * step_s,
        "test_s": test_s,
        "s_to_best": arrived * step_s,
        "peak_mib": (peak_memory_bytes() or 0) // 2**20,
    }


def _curve(cell: Cell, history: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Lines of ``curves.csv``: each look, with the mean loss since the last one."""
    lines, losses = [], []
    for line in history:
        losses.append(line["loss"])
        if not math.isnan(line["validation"]):
            head = {"seed": cell.seed, "split": cell.split, "row": cell.row}
            mean = sum(losses) / len(losses)
            lines.append(head | {"step": int(line["step"]), "loss": mean, "validation": line["validation"]})
            losses = []
    return lines
