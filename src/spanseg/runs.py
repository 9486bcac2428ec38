"""From a recipe and a folder of label maps to a finished training run."""

import functools
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spanseg import checkpoint, files, folds, model, parts, splits
from spanseg import recipe as recipes
from spanseg.board import Board
from spanseg.cascade import first_run
from spanseg.errors import SpansegError
from spanseg.generation import PackedMap
from spanseg.interfaces import Objective, Source
from spanseg.rebalance import rebalanced
from spanseg.sources import sources, split, synth_options, with_encoder
from spanseg.train import Trainer, TrainOptions, validation_score

LOADED = "loaded.txt"
"""What of published weights went into the network that a run began with."""
RECIPE = "recipe.toml"
_MAY_CHANGE = (
    *("recipe.title", "tokens.encoder", "real.truth"),
    *("train.steps", "train.save_every", "train.validate_every", "train.bf16"),
)


def train(
    recipe: dict[str, Any],
    maps: list[PackedMap],
    folder: Path,
    report: Callable[[str, dict[str, float]], None],
    device: str = "cpu",
) -> Path:
    """Train a recipe to its end and return its weights; a stage that it starts from is trained first.

    So are the tissue networks of a cascade's folds, in ``folds`` below its folder (:mod:`spanseg.folds`). A run that
    was stopped goes on; one that is finished is left as it is. ``split.json`` tells who trains and who validates.

    Args:
        recipe: what to train and how.
        maps: packed label maps; the first ``left_out`` only validate.
        folder: where the run lives; earlier stages live beside it.
        report: called after each step with the run's name and the row that goes into ``history.csv``.
        device: where the work is done.

    Raises:
        SpansegError: the recipe cannot be trained, or a run of another one was stopped in the folder.
    """
    if (folder / checkpoint.DELTA).is_file():
        return folder / checkpoint.DELTA
    refuse_another(recipe, folder)
    _refuse_early(recipe)
    start = recipe.get("train", {}).get("start", "")
    if start in recipes.shipped() and not checkpoint.is_model(start):
        before = train(recipes.load(start), maps, folder.parent / start, report, device)
        recipe = recipe | {"train": recipe["train"] | {"start": str(before)}}
    recipe = with_encoder(_with_tissue(recipe, maps, folder, report, device))
    record = splits.checked(folder, *split(recipe, maps), _before(recipe))
    source, looked_at = sources(recipe, maps, device)
    trainer, look = prepare_on(recipe, source, looked_at, folder, device)
    splits.save(folder, record)
    files.write_text(folder / RECIPE, recipes.dumps(recipe))
    with Board(folder) as board:

        def log(row: dict[str, float]) -> None:
            board.add(row)
            report(folder.name, row)

        trainer.run(look, log)
    return finish(trainer, recipe, looked_at)


def _refuse_early(recipe: dict[str, Any]) -> None:
    """Refuse what can be seen to be wrong before the hours that the stages before it take."""
    rewarded(recipe)
    synth_options(recipe)
    model.backbone(recipe)


def refuse_another(recipe: dict[str, Any], folder: Path) -> None:
    """Refuse a recipe whose folder holds a run of another one, instead of passing it over or mixing the two.

    A run that was stopped may be asked for more steps. One that holds no recipe, as older versions left them until
    they were finished, is not judged.

    Raises:
        SpansegError: it does, or a run that is finished after another number of steps.
    """
    is_finished, written = (folder / checkpoint.DELTA).is_file(), folder / RECIPE
    if not written.is_file() or not (is_finished or (folder / checkpoint.STATE).is_file()):
        return
    made = recipes.load(str(written))
    there, here = _settings(made), _settings(recipe)
    other = [name for name in sorted(there.keys() | here.keys()) if there.get(name) != here.get(name)]
    if other:
        named = "; ".join(f"{one} = {there.get(one, 'nothing')}, not {here.get(one, 'nothing')}" for one in other[:3])
        raise SpansegError(
            f"{folder} holds a run of another recipe, with {named}{' …' if len(other) > 3 else ''}; ask for the same "
            "again, choose another folder with -o, or remove this one to begin again."
        )
    done, asked = _steps(made), _steps(recipe)
    if is_finished and done != asked:
        raise SpansegError(
            f"{folder} holds a run that is finished after {done} steps, and {asked} are asked for; choose another "
            f"folder with -o, or remove {folder / checkpoint.DELTA} to go on from its last step."
        )


def _settings(recipe: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, by section and key: without what :func:`train` fills in, and what may change on the way."""
    sections = tomllib.loads(recipes.dumps(recipe)).items()
    settings = {f"{section}.{key}": value for section, table in sections for key, value in table.items()}
    if "real.data" in settings:
        settings["real.data"] = "given"  # wherever it lies now; who is learned from, split.json knows
    start, folds = Path(str(settings.get("train.start", ""))), settings.get("cascade.folds")
    if start.name == checkpoint.DELTA:  # of an earlier stage, which was asked for by its name
        settings["train.start"] = start.parent.name
    if folds:  # each fold has a run of its own, and holds the tissue network that it was asked to start from
        settings["cascade.folds"] = len(folds) if isinstance(folds, list) else folds
        settings.pop("cascade.tissue", None)
    return {name: value for name, value in settings.items() if name not in _MAY_CHANGE and name[:6] != "paper."}


def _steps(recipe: dict[str, Any]) -> int:
    return int(recipe.get("train", {}).get("steps", TrainOptions.steps))


def _with_tissue(
    recipe: dict[str, Any],
    maps: list[PackedMap],
    folder: Path,
    report: Callable[[str, dict[str, float]], None],
    device: str,
) -> dict[str, Any]:
    """Train the tissue networks that a cascade's folds need, and put their runs into its recipe."""
    made = {}
    for name, tissue in folds.tissue_recipes(recipe).items():
        titled = functools.partial(_report_as, f"{folder.name}, tissue of fold {name}", report)
        made[name] = train(tissue, maps, folder / folds.FOLDER / name, titled, device).parent
    return folds.using(recipe, made)


def _report_as(title: str, report: Callable[[str, dict[str, float]], None], _: str, row: dict[str, float]) -> None:
    """Report a step under another title than the name of its folder, which for a fold is a number."""
    report(title, row)


def _before(recipe: dict[str, Any]) -> list[Path]:
    """Folders of the models that a recipe starts from and looks through."""
    start, first = recipe.get("train", {}).get("start", ""), first_run(recipe)
    begun = [checkpoint.weights_of(start).parent] if start else []
    return begun if first is None else [*begun, first]


def prepare(
    recipe: dict[str, Any], maps: list[PackedMap], folder: Path, device: str = "cpu"
) -> tuple[Trainer, Callable[[Trainer], float] | None]:
    """Build the trainer of a recipe and its look at the left-out maps (``None`` without left-out maps)."""
    return prepare_on(recipe, *sources(recipe, maps, device), folder, device)


def prepare_on(
    recipe: dict[str, Any], source: Source, looked_at: Source | None, folder: Path, device: str = "cpu"
) -> tuple[Trainer, Callable[[Trainer], float] | None]:
    """Build the trainer of a recipe that draws from a source, and its look at another one.

    Args:
        recipe: what to train and how.
        source: where training samples come from.
        looked_at: where the samples of the learning curve come from; ``None`` for no curve.
        folder: of the run.
        device: where the work is done.

    Raises:
        SpansegError: an encoder is frozen that nobody has trained, or the recipe cannot be built.
    """
    change = recipe.get("adapt", {}).get("name", "full")
    if change != "full" and not recipe.get("train", {}).get("start"):
        raise SpansegError(
            f"the recipe's adaptation '{change}' freezes weights that nobody has trained; say what to start "
            "from: --from RUN, a model folder, or published weights."
        )
    options, reward = rewarded(recipe)
    network = network_of(recipe, folder / LOADED).to(device)
    trainer = Trainer(network, reward, source, options, folder)
    if looked_at is None:
        return trainer, None
    classes = len(model.protocol_of(recipe))
    return trainer, validation_score(looked_at, classes, options.validate_draws)


def rewarded(recipe: dict[str, Any]) -> tuple[TrainOptions, Objective]:
    """How a recipe trains, and what its network is rewarded for.

    Raises:
        SpansegError: an option or an objective that does not exist.
    """
    section = {key: value for key, value in recipe.get("train", {}).items() if key not in ("start", "start_minimum")}
    objective = dict(recipe.get("objective", {}))
    if "name" not in objective:
        raise SpansegError('the recipe says nothing to be rewarded for; add [objective] with name = "supervised".')
    reward: Objective = parts.build("objectives", objective.pop("name"), objective)
    options: TrainOptions = parts.options_from(TrainOptions, section, "train")
    if options.keep_start and not recipe["train"].get("start"):
        raise SpansegError(f"the recipe's [train] keep_start = {options.keep_start} needs a start to keep; name one.")
    return options, reward


def network_of(recipe: dict[str, Any], loaded: Path | None = None) -> nn.Module:
    """The network of a recipe as its training begins: the weights that it starts from, else those of its seed.

    Args:
        recipe: of the network.
        loaded: file for the load report of published weights.
    """
    section = recipe.get("train", {})
    torch.manual_seed(int(section.get("seed", TrainOptions.seed)))
    network = model.backbone(recipe)
    if section.get("start"):
        minimum = float(section.get("start_minimum", 1.0))
        lines = checkpoint.load_backbone(network, checkpoint.weights_of(section["start"]), minimum)
        if lines and loaded is not None:
            files.write_text(loaded, "\n".join(lines) + "\n")
    return model.equip(network, recipe)


def finish(trainer: Trainer, recipe: dict[str, Any], looked_at: Source | None = None) -> Path:
    """Write the run's checkpoint: the averaged weights that did best on the left-out maps, else the last ones.

    ``[train] keep_start`` mixes the weights that the run started from into them.

    With ``looked_at`` and a last bias, the class weights of the loss are taken out of it (:mod:`spanseg.rebalance`).
    """
    best = trainer.folder / "best.safetensors"
    trained = checkpoint.load_tensors(best) if best.is_file() else trainer.ema
    weights = {name: value.cpu() for name, value in trained.items()}
    if trainer.options.keep_start:
        weights |= _mixed(weights, recipe, trainer.options.keep_start)
    if looked_at is not None:
        weights = rebalanced(trainer.network, weights, looked_at)
    checkpoint.save(trainer.folder, weights, recipe)
    return trainer.folder / checkpoint.DELTA


def _mixed(weights: dict[str, Tensor], recipe: dict[str, Any], share: float) -> dict[str, Tensor]:
    """Trained weights mixed with what they began as; not those that were new then, whose beginning is chance."""
    begun, plain = network_of(recipe).state_dict(), dict(model.backbone(recipe).named_parameters())
    mixed = [name for name in weights if name.removeprefix("backbone.") in plain]
    return {name: torch.lerp(weights[name], begun[name], share) for name in mixed}
