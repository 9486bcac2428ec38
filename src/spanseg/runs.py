"""From a recipe and a folder of label maps to a finished training run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from spanseg import checkpoint, model, parts
from spanseg import recipe as recipes
from spanseg.board import Board
from spanseg.cascade import cascaded
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.generation import PackedMap, load_classes
from spanseg.interfaces import Source
from spanseg.labelled import RealOptions, labelled_scans
from spanseg.rebalance import BIAS, rebalanced
from spanseg.sampling import GENTLE, Mixture, RealScans
from spanseg.sentences import load_table
from spanseg.silver import Silver
from spanseg.synth import Generator, SynthOptions
from spanseg.told import TAKES, Teller, Telling
from spanseg.train import Trainer, TrainOptions, validation_score

PLAIN = {"t1": 1.0, "t2": 0.0, "flair": 0.0, "random": 0.0, "infant": 0.0, "thick": 0.0, "cut": 0.0, "sloppy": 0.0}
"""What the left-out maps are drawn with: T1-like contrast, no thick slices, nothing cut off."""


def options_from(kind: type[Any], table: dict[str, Any], where: str) -> Any:
    """Build an options dataclass from a section of a recipe.

    Raises:
        SpansegError: an unknown key; the message lists those that exist.
    """
    known = [f.name for f in dataclasses.fields(kind)]
    unknown = [key for key in table if key not in known]
    if unknown:
        raise SpansegError(f"the recipe's [{where}] has no option {', '.join(unknown)}; it takes: {', '.join(known)}.")
    return kind(**table)


def split_maps(maps: list[PackedMap], left_out: int) -> tuple[list[PackedMap], list[PackedMap]]:
    """Leave the first maps out of training.

    Raises:
        SpansegError: nothing would be left to train on.
    """
    if left_out >= len(maps):
        raise SpansegError(f"[synth] left_out = {left_out} leaves no label map to train on: there are {len(maps)}.")
    return maps[left_out:], maps[:left_out]


def train(
    recipe: dict[str, Any],
    maps: list[PackedMap],
    folder: Path,
    report: Callable[[str, dict[str, float]], None],
    device: str = "cpu",
) -> Path:
    """Train a recipe to its end and return its weights; a stage that it starts from is trained first.

    A run that was stopped goes on; one that is finished is left as it is.

    Args:
        recipe: what to train and how.
        maps: packed label maps; the first ``left_out`` only validate.
        folder: where the run lives; earlier stages live beside it.
        report: called after each step with the run's name and the row that goes into ``history.csv``.
        device: where the work is done.
    """
    if (folder / checkpoint.DELTA).is_file():
        return folder / checkpoint.DELTA
    start = recipe.get("train", {}).get("start", "")
    if start in recipes.shipped():
        before = train(recipes.load(start), maps, folder.parent / start, report, device)
        recipe = recipe | {"train": recipe["train"] | {"start": str(before)}}
    trainer, look = prepare(recipe, maps, folder, device)
    with Board(folder) as board:

        def log(row: dict[str, float]) -> None:
            board.add(row)
            report(folder.name, row)

        trainer.run(look, log)
    return finish(trainer, recipe, sources(recipe, maps, device)[1])


def prepare(
    recipe: dict[str, Any], maps: list[PackedMap], folder: Path, device: str = "cpu"
) -> tuple[Trainer, Callable[[Trainer], float] | None]:
    """Build the trainer of a recipe and its look at the left-out maps (``None`` without left-out maps)."""
    section = dict(recipe.get("train", {}))
    start, minimum = section.pop("start", ""), float(section.pop("start_minimum", 1.0))
    options = options_from(TrainOptions, section, "train")
    torch.manual_seed(options.seed)
    network = model.backbone(recipe)
    if start:
        checkpoint.load_backbone(network, checkpoint.weights_of(start), minimum)
    network = model.equip(network, recipe).to(device)
    objective = dict(recipe["objective"])
    reward = parts.build("objectives", objective.pop("name"), objective)
    source, looked_at = sources(recipe, maps, device)
    trainer = Trainer(network, reward, source, options, folder)
    if looked_at is None:
        return trainer, None
    classes = len(model.protocol_of(recipe))
    return trainer, validation_score(looked_at, classes, options.validate_draws)


def sources(recipe: dict[str, Any], maps: list[PackedMap], device: str) -> tuple[Source, Source | None]:
    """What a recipe trains on, and what it is looked at with: plain draws of the left-out maps, if there are any.

    The section ``[real]`` (``data``, ``truth``, ``labels``, ``share``) mixes real scans with labels into the draws.
    A network that is told facts is told of synthetic scans that nothing is known. ``silver`` in ``[synth]`` degrades the
    labels of synthetic scans (:mod:`spanseg.silver`), the left-out ones too: who learns from silver labels has no others
    to choose weights by.
    """
    protocol, canvas = model.protocol_of(recipe), model.canvas_of(recipe)
    section = dict(recipe.get("synth", {}))
    seen, left_out = split_maps(maps, int(section.pop("left_out", 0)))
    silver = float(section.pop("silver", 0))
    options, table = options_from(SynthOptions, section, "synth"), load_classes(protocol)
    tell = teller(recipe)
    source = _telling(Silver(Generator(seen, table, canvas, options, device), silver, canvas.voxel_mm), tell)
    if "real" in recipe:
        real = options_from(RealOptions, recipe["real"], "real")
        scans = RealScans(labelled_scans(real, protocol), protocol, canvas, GENTLE if real.gentle else options, tell)
        source = Mixture([source, scans], [1 - real.share, real.share])
    if not left_out:
        return cascaded(recipe, source), None
    plain = Generator(left_out, table, canvas, dataclasses.replace(options, **PLAIN), device)
    looked_at = Silver(plain, silver, canvas.voxel_mm)
    return cascaded(recipe, source), cascaded(recipe, _telling(looked_at, tell))


def teller(recipe: dict[str, Any]) -> Teller | None:
    """What tells a recipe's network about people; ``None`` if it is told nothing."""
    section = recipe.get("tokens")
    if section is None:
        return None
    if section["name"] != "knowledge":
        return Teller(None)
    return Teller(load_table(section.get("table")), section.get("facts", TAKES))


def _telling(source: Source, tell: Teller | None) -> Source:
    return source if tell is None else Telling(source, tell(Facts()))


def finish(trainer: Trainer, recipe: dict[str, Any], looked_at: Source | None = None) -> Path:
    """Write the run's checkpoint: the averaged weights that did best on the left-out maps, else the last ones.

    With ``looked_at`` and a last bias, the class weights of the loss are taken out of it (:mod:`spanseg.rebalance`).
    """
    best = trainer.folder / "best.safetensors"
    weights = checkpoint.load_tensors(best) if best.is_file() else trainer.ema
    if looked_at is not None and BIAS in weights:
        weights = rebalanced(trainer.network, weights, looked_at)
    checkpoint.save(trainer.folder, weights, recipe)
    return trainer.folder / checkpoint.DELTA
