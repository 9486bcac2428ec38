"""A checkpoint is a folder of safetensors, TOML, CSV and JSON; nothing in it can run code."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from spanseg import files
from spanseg import recipe as recipes
from spanseg.errors import SpansegError

DELTA = "delta.safetensors"


def save_tensors(path: Path, tensors: dict[str, Tensor], note: dict[str, str] | None = None) -> None:
    """Write tensors under a temporary name and rename, so that no reader sees half a file."""
    with files.writing(path) as temporary:
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, temporary, metadata=note)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        SpansegError: the file is missing or not safetensors.
    """
    if not path.is_file():
        raise SpansegError(f"{path}: expected a safetensors file, found none.")
    try:
        with safe_open(path, framework="pt") as stored:
            return {key: stored.get_tensor(key) for key in stored.keys()}  # noqa: SIM118 (safe_open is no dict)
    except Exception as error:
        raise SpansegError(f"{path}: this is not a readable safetensors file ({error}).") from error


def save(folder: Path, weights: dict[str, Tensor], recipe: dict[str, Any]) -> None:
    """Write the weights that a recipe made, beside the recipe."""
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors(folder / DELTA, weights)
    files.write_text(folder / "recipe.toml", recipes.dumps(recipe))


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
    covered = sum(own[key].numel() for key in matching) / max(1, sum(value.numel() for value in own.values()))
    if covered < minimum:
        missing = [key for key in own if key not in matching]
        raise SpansegError(
            f"{where}: {covered:.1%} of the network's parameters were found, {minimum:.1%} are needed; "
            f"missing or of another shape: {', '.join(missing[:4])}{' …' if len(missing) > 4 else ''}."
        )
    with torch.no_grad():
        for key, value in matching.items():
            own[key].copy_(value)
    return covered


def save_state(folder: Path, step: int, groups: dict[str, dict[str, Tensor]]) -> None:
    """Write everything that resuming needs; the step is stored with the tensors, so that they cannot disagree."""
    tensors = {f"{group}/{key}": value for group, named in groups.items() for key, value in named.items()}
    save_tensors(folder / "state.safetensors", tensors, {"step": json.dumps(step)})


def load_state(folder: Path) -> tuple[int, dict[str, dict[str, Tensor]]] | None:
    """Read what :func:`save_state` wrote; ``None`` if there is nothing to resume."""
    path = folder / "state.safetensors"
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
