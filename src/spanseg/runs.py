"""From a recipe and a folder of label maps to a finished training run."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spanseg import checkpoint, model, parts
from spanseg.errors import SpansegError
from spanseg.generation import GenerationClasses, PackedMap, load_classes, pack
from spanseg.labels import Protocol
from spanseg.synth import Generator, SynthOptions
from spanseg.train import Trainer, TrainOptions, validation_score

PLAIN = {"t1": 1.0, "t2": 0.0, "flair": 0.0, "random": 0.0, "infant": 0.0, "thick": 0.0, "cut": 0.0, "sloppy": 0.0}
"""What the left-out maps are drawn with: T1-like contrast, no thick slices, nothing cut off."""

_WEIGHTS = (checkpoint.DELTA, "weights.safetensors")


def read_maps(folder: Path, table: GenerationClasses) -> list[PackedMap]:
    """Pack every label map under a folder, in the order of their names.

    Raises:
        SpansegError: the folder holds no label map, or one that cannot be drawn.
    """
    from spanseg.images import read_labels

    paths = sorted(path for pattern in ("*.nii.gz", "*.nii", "*.mgz") for path in folder.rglob(pattern))
    if not paths:
        raise SpansegError(f"{folder}: expected label maps (.nii, .nii.gz or .mgz), found none.")
    return [pack(read_labels(path).volume, table, path.name) for path in paths]


def save_packed(maps: list[PackedMap], path: Path) -> None:
    """Write packed maps into one compressed file, for machines that have no nibabel."""
    arrays: dict[str, Any] = {"names": np.array([m.name for m in maps])}
    for index, packed in enumerate(maps):
        arrays |= {f"classes{index}": packed.classes, f"centre{index}": packed.centre, f"voxel{index}": packed.voxel_mm}
    np.savez_compressed(path, **arrays)


def load_packed(path: Path) -> list[PackedMap]:
    """Read what :func:`save_packed` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return [
            PackedMap(str(name), stored[f"classes{i}"], stored[f"centre{i}"], stored[f"voxel{i}"])
            for i, name in enumerate(stored["names"])
        ]


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


def prepare(
    recipe: dict[str, Any], maps: list[PackedMap], folder: Path, device: str = "cpu"
) -> tuple[Trainer, Callable[[Trainer], float] | None]:
    """Build the trainer of a recipe and its look at the left-out maps (``None`` without left-out maps).

    Args:
        recipe: what to train and how.
        maps: packed label maps; the first ``left_out`` only validate.
        folder: where the run lives; an earlier run there is resumed.
        device: where the work is done.
    """
    protocol = model.protocol_of(recipe)
    synth = dict(recipe.get("synth", {}))
    seen, left_out = split_maps(maps, int(synth.pop("left_out", 0)))
    synth_options = options_from(SynthOptions, synth, "synth")
    train = dict(recipe.get("train", {}))
    start, minimum = train.pop("start", ""), float(train.pop("start_minimum", 1.0))
    options = options_from(TrainOptions, train, "train")
    torch.manual_seed(options.seed)
    network = model.build(recipe).to(device)
    if start:
        checkpoint.load_into(network, checkpoint.load_tensors(Path(start)), start, minimum)
    objective = dict(recipe["objective"])
    reward = parts.build("objectives", objective.pop("name"), objective)
    source = generator(recipe, protocol, seen, synth_options, device)
    trainer = Trainer(network, reward, source, options, folder)
    if not left_out:
        return trainer, None
    plain = dataclasses.replace(synth_options, **PLAIN)
    looked_at = generator(recipe, protocol, left_out, plain, device)
    return trainer, validation_score(looked_at, len(protocol), options.validate_draws)


def generator(
    recipe: dict[str, Any], protocol: Protocol, maps: list[PackedMap], options: SynthOptions, device: str
) -> Generator:
    """Generator of a recipe's canvas and protocol over some label maps."""
    return Generator(maps, load_classes(protocol), model.canvas_of(recipe), options, device)


def weights_of(start: str) -> Path:
    """Find the weights that a run, a model folder or the name of a shipped model stands for.

    Raises:
        SpansegError: none of these holds weights.
    """
    from importlib import resources

    shipped = Path(str(resources.files("spanseg"))) / "models" / start
    candidates = [Path(start), *(base / name for base in (Path(start), shipped) for name in _WEIGHTS)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise SpansegError(f"{start}: expected a run or model folder with {' or '.join(_WEIGHTS)}, found none.")


class Board:
    """Writes a run's figures for TensorBoard, if TensorBoard is installed; ``history.csv`` is written in any case.

    Args:
        folder: the run; event files go into its subfolder ``tensorboard``.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._writer = None
        else:
            self._writer = SummaryWriter(str(folder / "tensorboard"))

    def add(self, row: dict[str, float]) -> None:
        """Record one row of the history at its step."""
        if self._writer:
            for key, value in row.items():
                self._writer.add_scalar(key, value, int(row["step"]))

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *failure: object) -> None:
        if self._writer:
            self._writer.close()


def finish(trainer: Trainer, recipe: dict[str, Any]) -> Path:
    """Write the run's checkpoint: the averaged weights that did best on the left-out maps, else the last ones."""
    best = trainer.folder / "best.safetensors"
    weights = checkpoint.load_tensors(best) if best.is_file() else trainer.ema
    checkpoint.save(trainer.folder, weights, recipe)
    return trainer.folder / checkpoint.DELTA
