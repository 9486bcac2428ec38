"""A checkpoint is a folder of safetensors, TOML, CSV and JSON; nothing in it can run code."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from spanseg import files, import_sam, import_weights, model
from spanseg import recipe as recipes
from spanseg.errors import SpansegError
from spanseg.shipped import shipped_model
from spanseg.tensors import load_tensors, save_tensors

DELTA = "delta.safetensors"
STATE = "state.safetensors"
_WEIGHTS = (DELTA, "weights.safetensors")
_ASIDE = ("aside.", "backbone.aside.")
"""How classifiers are named that only train beside the others; who starts from weights without them draws them anew."""


def save(folder: Path, weights: dict[str, Tensor], recipe: dict[str, Any]) -> None:
    """Write the weights that a recipe made, beside the recipe; of those it started from, the hash."""
    folder.mkdir(parents=True, exist_ok=True)
    start = recipe.get("train", {}).get("start", "")
    note = {"base_sha256": files.file_sha256(weights_of(start))} if start else None
    save_tensors(folder / DELTA, weights, note)
    files.write_text(folder / "recipe.toml", recipes.dumps(recipe))


def restore(run: Path) -> tuple[dict[str, Any], nn.Module]:
    """Build the network of a finished run: what it started from, and the delta on top of it.

    Returns:
        The run's recipe and its network.

    Raises:
        SpansegError: the run is not finished, its delta does not fit its recipe, or what it started from has changed.
    """
    recipe, delta = _recipe_of(run), load_tensors(run / DELTA)
    network = model.backbone(recipe)
    start = recipe.get("train", {}).get("start", "")
    is_whole = recipe.get("adapt", {"name": "full"})["name"] == "full" and not getattr(network, "keeps_start", False)
    if start and not is_whole:
        base = weights_of(start)
        expected = _metadata(run / DELTA).get("base_sha256")
        if expected != files.file_sha256(base):
            raise SpansegError(
                f"{run / DELTA}: this delta belongs to other weights than {base} now holds; restore the weights that "
                "it was trained on top of, or train it again."
            )
        load_backbone(network, base, float(recipe["train"].get("start_minimum", 1.0)))
    network = model.equip(network, recipe)
    load_delta(network, delta, str(run / DELTA))
    return recipe, network


def _recipe_of(run: Path) -> dict[str, Any]:
    """Read the recipe of a run and refuse one that names no network; runs may have been edited or copied in part."""
    path = run / "recipe.toml"
    if not path.is_file():
        raise SpansegError(f"{path}: there is no such file, and without it the weights of a run mean nothing; copy it.")
    try:
        recipe = recipes.load(str(path))
        shape, voxel_mm = recipe["canvas"]["shape"], recipe["canvas"]["voxel_mm"]
        is_whole = isinstance(recipe["backbone"]["name"], str) and voxel_mm > 0 and len(shape) == 3
        is_whole = is_whole and all(isinstance(n, int) and n > 0 for n in shape)
    except (KeyError, TypeError, ValueError) as error:
        raise SpansegError(
            f"{path}: this recipe is damaged ({type(error).__name__}: {error}); copy it again."
        ) from error
    if not is_whole:
        raise SpansegError(f"{path}: this recipe is damaged: [canvas] holds three edges and a size; copy it again.")
    return recipe


def load_backbone(network: nn.Module, weights: Path, minimum: float = 1.0) -> list[str]:
    """Copy stored weights into a stock network; those of a prompted model give their backbone.

    Published weights of SAM are known by what is in them; other files of other people's (``.pt``, ``.pth``, ``.bin``)
    are read as published weights of the Swin UNETR.

    Returns:
        The load report of published weights, in lines; none for our own, which fit or are refused.

    Raises:
        SpansegError: the file cannot be read, holds less than ``minimum`` of the parameters or what is no number, or is
            of another network.
    """
    tensors = import_weights.read_tensors(weights)
    try:
        if import_sam.is_published(tensors):
            return import_sam.load_sam(network, tensors).lines()
        if weights.suffix in import_weights.FOREIGN:
            return import_weights.load_swin_unetr(network, tensors, minimum).lines()
    except SpansegError as error:
        raise SpansegError(f"{weights}: {error}") from error
    if weights.name == DELTA and (weights.parent / "recipe.toml").is_file():
        tensors = _merged(restore(weights.parent)[1])  # a delta alone is not a whole network
    own = {name.removeprefix("backbone."): value for name, value in tensors.items()}
    load_into(network, own, str(weights), minimum)
    return []


def _merged(network: nn.Module) -> dict[str, Tensor]:
    """Tensors of a network by the names that it has without low-rank deltas, which are added to what they belong to."""
    tensors = network.state_dict()
    for name, module in network.named_modules():
        if hasattr(module, "lora_A"):
            layer: Any = module
            first, second = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            weight = tensors[f"{name}.base_layer.weight"]
            weight += layer.scaling["default"] * (second.flatten(1) @ first.flatten(1)).reshape(weight.shape).detach()
    return {name.replace(".base_layer.", "."): value for name, value in tensors.items() if ".lora_" not in name}


def weights_of(start: str) -> Path:
    """Find the weights that the name of a shipped model, a run or a model folder stands for, in this order.

    Raises:
        SpansegError: none of these holds weights.
    """
    folder = shipped_model(start) or Path(start)
    for candidate in (folder, *(folder / name for name in _WEIGHTS)):
        if candidate.is_file():
            return candidate
    raise SpansegError(f"{start}: expected a run or model folder with {' or '.join(_WEIGHTS)}, found none.")


def is_model(name: str) -> bool:
    """Whether a name is that of a shipped model, which goes before a recipe of the same name."""
    folder = shipped_model(name)
    return folder is not None and (folder / "weights.safetensors").is_file()


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as stored:
        return stored.metadata() or {}


def load_into(network: nn.Module, tensors: dict[str, Tensor], where: str, minimum: float = 1.0) -> float:
    """Copy stored tensors into a network and return the share of its parameters that were found.

    Args:
        network: takes the tensors in place.
        tensors: by parameter name.
        where: file name for the message.
        minimum: smallest acceptable share of parameters, 0 to 1.

    Raises:
        SpansegError: names or shapes agree for less than ``minimum`` of the parameters.
    """
    own = network.state_dict()
    matching = {key: tensors[key] for key in own if key in tensors and tensors[key].shape == own[key].shape}
    parameters = [(name, one) for name, one in network.named_parameters() if not name.startswith(_ASIDE)]
    sizes = {name: one.numel() for name, one in parameters}  # buffers are built, not stored
    covered = sum(size for name, size in sizes.items() if name in matching) / max(1, sum(sizes.values()))
    if covered < minimum:
        missing = [name for name in sizes if name not in matching]
        raise SpansegError(
            f"{where}: {covered:.1%} of the network's parameters were found, {minimum:.1%} are needed; "
            f"missing or of another shape: {', '.join(missing[:4])}{' …' if len(missing) > 4 else ''}."
        )
    with torch.no_grad():
        for key, value in matching.items():
            own[key].copy_(value)
    return covered


def load_delta(network: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Copy what was trained into a network that was built by the same recipe and holds the same base.

    Raises:
        SpansegError: the tensors are not exactly those that this network trains.
    """
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    wrong = [name for name in tensors if name not in trained or trained[name].shape != tensors[name].shape]
    missing = [name for name in trained if name not in tensors]
    if wrong or missing:
        named = ", ".join((wrong + missing)[:4])
        raise SpansegError(
            f"{where}: this is the checkpoint of another recipe: {len(wrong)} tensors do not fit and {len(missing)} "
            f"are missing ({named}); use the recipe.toml that lies beside it."
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[name])


def save_state(folder: Path, step: int, groups: dict[str, dict[str, Tensor]]) -> None:
    """Write everything that resuming needs; the step is stored with the tensors, so that they cannot disagree."""
    tensors = {f"{group}/{key}": value for group, named in groups.items() for key, value in named.items()}
    save_tensors(folder / STATE, tensors, {"step": json.dumps(step)})


def load_state(folder: Path) -> tuple[int, dict[str, dict[str, Tensor]]] | None:
    """Read what :func:`save_state` wrote; ``None`` if there is nothing to resume."""
    path = folder / STATE
    if not path.is_file():
        return None
    tensors = load_tensors(path)
    with safe_open(path, framework="pt") as stored:
        step = int(json.loads(stored.metadata()["step"]))
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        group, _, name = key.partition("/")
        groups.setdefault(group, {})[name] = value
    return step, groups
