"""From a checkpoint to a model folder that runs without PyTorch, checked against PyTorch before it is written."""

import dataclasses
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spanseg import checkpoint, files, model, splits
from spanseg import recipe as recipes
from spanseg.cascade import first_run
from spanseg.centring import first_guess
from spanseg.chain import stacked
from spanseg.clicks import Click, channels
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.geometry import Placement
from spanseg.graph import Probabilities, write_onnx
from spanseg.images import read_scan
from spanseg.intensity import normalise
from spanseg.labels import Protocol
from spanseg.runtime import FIRST, Engine, ModelFolder, Words, open_model
from spanseg.sentences import load_table, with_reader
from spanseg.telling import TABLE
from spanseg.told import TAKES
from spanseg.volume import canonical

AGREE_F32, AGREE_BF16, AGREE_THREADS = 0.998, 0.99, 0.998
NUCLEUS_VOLUME = 0.02


@dataclasses.dataclass(frozen=True)
class Description:
    """What ``model.toml`` says about a model beside what the recipe knows.

    Args:
        name: short name.
        version: version of the weights.
        licence: SPDX identifier of the weights' licence.
        data: what the weights were trained on, one sentence.
    """

    name: str
    version: str
    licence: str
    data: str


def export(
    run: Path,
    folder: Path,
    description: Description,
    canvases: list[np.ndarray],
    centre: int = 0,
    adapter: dict[str, str] | None = None,
) -> dict[str, float]:
    """Write ``model.onnx``, ``weights.safetensors``, ``recipe.toml`` and ``model.toml`` into a folder.

    Args:
        run: checkpoint folder of the training run.
        folder: model folder; replaced as a whole once all checks have passed. Other files in it are kept.
        description: what the model folder says about itself.
        canvases: normalised float32 canvases on which PyTorch and the exported network must agree.
        centre: for a model with a table of centres, the row that becomes part of the graph.
        adapter: for an adapter, which centre it is for and which base it belongs to; its weights are not stored a
            second time as a whole, since the run's delta holds what changed.

    Returns:
        What was measured: agreements, peak memory, parameters.

    Raises:
        SpansegError: the checkpoint does not fit its recipe or is no number, or the exported network disagrees with
            PyTorch.
    """
    recipe, network = _as_used(*checkpoint.restore(run))
    weights = {key: _stored(value) for key, value in network.eval().state_dict().items()}
    if lost := [key for key, value in weights.items() if not value.isfinite().all()]:
        raise SpansegError(f"{run}: {lost[0]} holds what is no finite number; train again with a lower rate.")
    network.load_state_dict(weights)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".export-") as scratch:
        draft = Path(scratch)
        table = _table(recipe, description, network)
        words = _words(recipe, draft, table)
        canvases = _with_first(recipe, draft, table, description, canvases)
        graph = Probabilities(network, centre if _source(recipe) == "learned" else -1)
        write_onnx(graph, _inputs(np.zeros_like(canvases[0]), words), draft / "model.onnx")
        measured = _check(graph, ModelFolder(draft, table), model.protocol_of(recipe), canvases, words)
        table["runtime"] |= {"peak_mib": round(measured["peak_mib"]), "bf16_agrees": measured.pop("bf16_agrees", 0) > 0}
        table["agreement"] = {key: round(value, 5) for key, value in measured.items() if key != "peak_mib"}
        table["model"]["sha256"] = files.file_sha256(draft / "model.onnx")
        table["data"] = {"seen": sorted(splits.seen_by(run))}
        if adapter is None:
            checkpoint.save_tensors(draft / "weights.safetensors", weights)
            table["model"]["weights_sha256"] = files.file_sha256(draft / "weights.safetensors")
        else:
            table["adapter"] = adapter
        files.write_text(draft / "recipe.toml", recipes.dumps(recipe))
        files.write_text(draft / "model.toml", recipes.dumps(table))
        _publish(draft, folder)
    return measured | {"parameters": float(sum(p.numel() for p in network.parameters()))}


def _as_used(recipe: dict[str, Any], network: nn.Module) -> tuple[dict[str, Any], nn.Module]:
    """A recipe and its network without the classifiers of coarse stages, which are there for training alone."""
    if not recipe["backbone"].get("aside"):
        return recipe, network
    backbone: Any = getattr(network, "backbone", network)
    backbone.aside = nn.ModuleDict()
    plain = {key: value for key, value in recipe["objective"].items() if key != "aside"} | {"name": "supervised"}
    return recipe | {"backbone": recipe["backbone"] | {"aside": False}, "objective": plain}, network


def _source(recipe: dict[str, Any]) -> str:
    """Name of the recipe's token source."""
    return str(recipe.get("tokens", {}).get("name", "none"))


def _words(recipe: dict[str, Any], draft: Path, table: dict[str, Any]) -> Words | None:
    """Words to try a network with that is told a sentence, whose table then lies beside the network."""
    if _source(recipe) != "knowledge":
        return None
    sentences = load_table(recipe["tokens"].get("table"))
    if "encoder" in recipe["tokens"]:
        sentences.require(recipe["tokens"]["encoder"])
    sentences.save(draft / TABLE)
    table["sentences"] = {"encoder": sentences.encoder, "sha256": files.file_sha256(draft / TABLE)}
    return Words(*sentences.embed(Facts(age_years=44, sex="female")))


def _with_first(
    recipe: dict[str, Any], draft: Path, table: dict[str, Any], description: Description, canvases: list[np.ndarray]
) -> list[np.ndarray]:
    """Export the network that a recipe's network needs before it, and put what it finds into the canvases."""
    run = first_run(recipe)
    if run is None:
        return canvases
    if (run / "model.onnx").is_file():
        shutil.copytree(run, draft / FIRST)
    else:
        export(run, draft / FIRST, dataclasses.replace(description, name=f"{description.name}-{FIRST}"), canvases)
    first = open_model(str(draft / FIRST))
    table["model"]["title"] = with_reader(table["model"]["title"], first.title)
    engine = Engine(first, "f32", 1)
    words = Words(*load_table(first.path / TABLE).embed(Facts())) if first.told else None
    return [stacked(canvas, engine(canvas, words), model.inputs_of(recipe)) for canvas in canvases]


def _inputs(canvas: np.ndarray, words: Words | None) -> dict[str, Tensor]:
    """Inputs of the graph by name."""
    image = {"image": torch.from_numpy(canvas[None] if canvas.ndim == 4 else canvas[None, None])}
    if words is None:
        return image
    return image | {"words": torch.from_numpy(words[0])[None], "known": torch.from_numpy(words[1])[None].float()}


def _stored(value: Tensor) -> Tensor:
    """A tensor as it is stored: floating point numbers in half precision."""
    return value.half() if value.is_floating_point() else value


def _publish(draft: Path, folder: Path) -> None:
    """Move the finished files over; ``model.toml`` last, since it names the hash of the network."""
    folder.mkdir(parents=True, exist_ok=True)
    if (draft / FIRST).is_dir():
        shutil.rmtree(folder / FIRST, ignore_errors=True)
        os.replace(draft / FIRST, folder / FIRST)
    for name in (TABLE, "weights.safetensors", "recipe.toml", "model.onnx", "model.toml"):
        if not (draft / name).exists():
            continue
        if os.name == "nt" and (folder / name).exists():
            shutil.copyfile(draft / name, folder / name)
        else:
            os.replace(draft / name, folder / name)


def _table(recipe: dict[str, Any], description: Description, network: nn.Module) -> dict[str, Any]:
    about = {
        "title": recipes.title_of(recipe, description.name),
        "protocol": model.protocol_of(recipe).name,
        "backbone": recipe["backbone"]["name"],
        "parameters": sum(p.numel() for p in network.parameters()),
        "told": list(recipe["tokens"].get("facts", TAKES)) if _source(recipe) == "knowledge" else [],
    }
    return {
        "model": dataclasses.asdict(description) | about,
        **model.described(recipe),
        "runtime": {"bf16_agrees": False},
    }


def _check(
    graph: Probabilities, folder: ModelFolder, protocol: Protocol, canvases: list[np.ndarray], words: Words | None
) -> dict[str, float]:
    """Run the exported network against PyTorch and against itself.

    Raises:
        SpansegError: f32 disagrees with PyTorch on more than 0.2 % of the brain voxels.
    """
    exported = _answers(folder, "f32", 1, canvases, words)
    measured = {"peak_mib": _peak_mib(folder, words)}
    expected = [_in_torch(graph, canvas, words) for canvas in canvases]
    measured["f32_against_pytorch"] = min(agreement(a, b) for a, b in zip(exported, expected, strict=True))
    if measured["f32_against_pytorch"] < AGREE_F32:
        raise SpansegError(
            f"the exported network agrees with PyTorch on {measured['f32_against_pytorch']:.2%} of the brain voxels; "
            f"at least {AGREE_F32:.1%} are needed, so nothing was written."
        )
    twice = _answers(folder, "f32", 2, canvases, words)
    measured["f32_threads"] = min(agreement(a, b) for a, b in zip(exported, twice, strict=True))
    try:
        rounded = _answers(folder, "bf16", 1, canvases, words)
    except SpansegError:
        return measured  # this processor has no bf16: the model stays with f32
    twice = _answers(folder, "bf16", 2, canvases, words)
    measured["bf16"] = min(agreement(a, b) for a, b in zip(rounded, exported, strict=True))
    measured["bf16_threads"] = min(agreement(a, b) for a, b in zip(rounded, twice, strict=True))
    measured["bf16_nucleus_volume"] = max(
        _volume_change(a, b, protocol) for a, b in zip(rounded, exported, strict=True)
    )
    measured["bf16_agrees"] = float(
        measured["bf16"] >= AGREE_BF16
        and measured["bf16_threads"] >= AGREE_THREADS
        and measured["bf16_nucleus_volume"] <= NUCLEUS_VOLUME
    )
    return measured


def _answers(
    folder: ModelFolder, precision: str, threads: int, canvases: list[np.ndarray], words: Words | None
) -> list[np.ndarray]:
    """What an engine finds, which is let go at once: each keeps as much memory as a pass takes."""
    engine = Engine(folder, precision, threads)
    return [engine(canvas, words) for canvas in canvases]


_PEAK = """
import sys, numpy
from pathlib import Path
from spanseg.machine import peak_memory_bytes
from spanseg.runtime import Engine, ModelFolder, Words
words, shape = int(sys.argv[2]), tuple(map(int, sys.argv[5:]))
told = Words(numpy.zeros((words, int(sys.argv[3])), numpy.float32), numpy.ones(words, bool)) if words else None
channels = int(sys.argv[4])
table = {"runtime": {}, "canvas": {"shape": list(shape)}, "input": {"count": channels}}
Engine(ModelFolder(Path(sys.argv[1]), table), "f32", 1)(numpy.zeros((channels, *shape), dtype=numpy.float32), told)
print((peak_memory_bytes() or 0) / 2**20)
"""


def _peak_mib(folder: ModelFolder, words: Words | None) -> float:
    """Peak memory of a process that runs the network once and holds nothing else, 0 where the system does not tell."""
    told = (0, 0) if words is None else words[0].shape
    command = [sys.executable, "-c", _PEAK, str(folder.path), *map(str, (*told, folder.channels, *folder.canvas_shape))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _in_torch(graph: Probabilities, canvas: np.ndarray, words: Words | None) -> np.ndarray:
    with torch.no_grad():
        answer: np.ndarray = graph(*_inputs(canvas, words).values())[0].numpy()
    return answer


def agreement(first: np.ndarray, second: np.ndarray) -> float:
    """Share of voxels with the same label among those that are brain in either result.

    A voxel also counts where both results see a tie between the two labels: their probabilities, which are whole
    numbers of 1/255, differ by one at most. Which of them wins there is rounding, and a network that is not sure of
    anything has many such voxels.

    Args:
        first, second: uint8 probabilities, shape (class, i, j, k).
    """
    one, other = first.argmax(0), second.argmax(0)
    brain = (one > 0) | (other > 0)
    same = (one == other) | (_ties(first, other) & _ties(second, one))
    return float(same[brain].mean()) if brain.any() else 1.0


def _ties(probabilities: np.ndarray, label: np.ndarray) -> np.ndarray:
    """Whether a label's probability is the largest one, or one step less, boolean, shape (i, j, k)."""
    there = np.take_along_axis(probabilities, label[None], axis=0)[0]
    return probabilities.max(0).astype(np.int16) - there <= 1


def _volume_change(first: np.ndarray, second: np.ndarray, protocol: Protocol) -> float:
    """Largest relative change of a nucleus's volume."""
    nuclei = [protocol.class_of(value) for value in protocol.groups.get("nuclei") or protocol.ids[1:].tolist()]
    one, other = (np.array([p[n].sum(dtype=np.float64) for n in nuclei]) for p in (first, second))
    return float((np.abs(one - other) / np.maximum(other, 1)).max())


def scan_canvas(path: Path, run: Path) -> np.ndarray:
    """Put a scan on the canvas of a run, as segmenting does: normalised float32, shape (i, j, k).

    For a click network, (channel, i, j, k) with one click in the middle.
    """
    recipe = recipes.load(str(run / "recipe.toml"))
    canvas = model.canvas_of(recipe)
    image, _ = canonical(read_scan(path).volume)
    centre = first_guess(image.data, image.voxel_size_mm)
    placement = Placement(image.shape, image.voxel_size_mm, canvas.shape, canvas.voxel_mm, centre)
    seen = normalise(placement.to_canvas(image.data, outside=float(np.quantile(image.data, 0.005))))
    if not model.is_clicked(recipe):
        return seen
    i, j, k = (n // 2 for n in canvas.shape)
    return np.concatenate([seen[None], channels(np.zeros(canvas.shape, dtype=bool), [Click((i, j, k), True)])])
