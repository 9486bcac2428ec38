"""From a recipe and a folder of label maps to a finished training run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from spanseg import checkpoint, model, parts
from spanseg import recipe as recipes
from spanseg.board import Board
from spanseg.generation import PackedMap
from spanseg.interfaces import Source
from spanseg.rebalance import BIAS, rebalanced
from spanseg.sources import options_from, sources
from spanseg.train import Trainer, TrainOptions, validation_score


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
    if start in recipes.shipped() and not checkpoint.is_model(start):
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
