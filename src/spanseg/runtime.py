"""Runs an exported model with OpenVINO: the only module that imports it."""

from __future__ import annotations

import math
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spanseg.errors import SpansegError
from spanseg.files import file_sha256
from spanseg.labels import load_protocol
from spanseg.machine import cores
from spanseg.sentences import with_reader
from spanseg.shipped import shipped_model, shipped_models

PRECISIONS = ("f32", "bf16", "auto")
FIRST = "tissue"
"""Folder of a network that runs before another one, inside that one's."""
MOST_THREADS = 1024


class Words(NamedTuple):
    """A sentence as a network reads it.

    Args:
        hidden: its hidden states, float32 (word, width).
        known: which of them count, bool (word,).
        first: what the network that runs before this one is told; ``None`` for nothing.
    """

    hidden: np.ndarray
    known: np.ndarray
    first: Words | None = None


@dataclass(frozen=True)
class ModelFolder:
    """An exported model: ``model.onnx`` and ``model.toml``.

    Args:
        path: the folder.
        table: contents of ``model.toml``.
    """

    path: Path
    table: dict[str, Any]

    @property
    def canvas_shape(self) -> tuple[int, int, int]:
        """Voxels of the canvas."""
        i, j, k = self.table["canvas"]["shape"]
        return i, j, k

    @property
    def voxel_mm(self) -> float:
        """Edge length of the canvas's voxels in mm."""
        return float(self.table["canvas"]["voxel_mm"])

    @property
    def windows(self) -> bool:
        """Whether the canvas is a window, several of which cover a brain, as in training."""
        return bool(self.table["canvas"].get("windows", False))

    @property
    def protocol(self) -> str:
        """Name of the protocol whose classes the model predicts."""
        return str(self.table["model"]["protocol"])

    @property
    def channels(self) -> int:
        """Channels of the canvas that the network takes."""
        return int(self.table.get("input", {}).get("count", 1))

    @property
    def inputs(self) -> list[dict[str, str]]:
        """What the channels are, in order, as in the recipe."""
        return list(self.table.get("input", {}).get("inputs", [{"image": "T1"}]))

    @property
    def needs_first(self) -> bool:
        """Whether another network has to run before this one."""
        return any("model" in one for one in self.inputs)

    @property
    def answers_prompts(self) -> bool:
        """Whether users point into the image for it: a click network, which segments nothing by itself."""
        return any("prompt" in one for one in self.inputs)

    @property
    def told(self) -> list[str]:
        """Which facts about the person the network is told; empty for none."""
        return list(self.table["model"].get("told", []))

    @property
    def first(self) -> ModelFolder | None:
        """The network that runs before this one, ``None`` where none has to."""
        return open_model(str(self.path / FIRST)) if self.needs_first else None

    @property
    def told_in_all(self) -> list[str]:
        """Which facts this network or the one before it is told."""
        before = self.first
        return self.told + [fact for fact in (before.told if before else []) if fact not in self.told]

    @property
    def title(self) -> str:
        """What the model's results say they were made with; of one that is told sentences, who read them."""
        model = self.table["model"]
        encoder = str(self.table.get("sentences", {}).get("encoder", ""))
        return with_reader(str(model.get("title", model["name"])), encoder)

    def sha256(self) -> str:
        """Hash of the network file."""
        return file_sha256(self.path / "model.onnx")


def open_model(name_or_path: str) -> ModelFolder:
    """Find a shipped model by name or a model folder by path.

    Raises:
        SpansegError: there is none, or the folder is incomplete or damaged.
    """
    try:
        path = shipped_model(name_or_path) or Path(name_or_path)
        if not path.exists():
            raise SpansegError(
                f"there is no model '{name_or_path}': shipped are {', '.join(shipped_models())}; else give a folder of "
                "'spanseg export'."
            )
        if (path / "recipe.toml").is_file() and not (path / "model.toml").is_file():
            raise SpansegError(f"{path}: this training run is not finished; go on with it with 'spanseg train'.")
        for needed in ("model.toml", "model.onnx"):
            if not (path / needed).is_file():
                raise SpansegError(
                    f"{path}: expected a model folder with model.toml and model.onnx, found no {needed}; "
                    "use --model default or a folder that 'spanseg export' wrote."
                )
        folder = ModelFolder(path, tomllib.loads((path / "model.toml").read_text(encoding="utf-8")))
        _check_table(folder)
        recorded = folder.table["model"].get("sha256")
        if recorded is not None and folder.sha256() != recorded:
            raise SpansegError(
                f"{path / 'model.onnx'}: this is not the network that model.toml records; it is damaged or from "
                "another model: copy the folder again, or install spanseg again."
            )
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpansegError(f"{path / 'model.toml'}: this is not valid TOML ({error}).") from error
    except OSError as error:
        raise SpansegError(f"{name_or_path}: this model folder cannot be read ({error.strerror}).") from error
    return folder


def require_threads(threads: int) -> None:
    """Refuse a number of threads that no computer has.

    Raises:
        SpansegError: fewer than one, or more than :data:`MOST_THREADS`.
    """
    if not 1 <= threads <= MOST_THREADS:
        raise SpansegError(f"threads must be 1 to {MOST_THREADS}, not {threads}.")


def is_run(name_or_path: str) -> bool:
    """Whether this is a finished training run: no shipped model and no exported one."""
    path = Path(name_or_path)
    try:
        is_known = shipped_model(name_or_path) is not None or (path / "model.toml").is_file()
        return (path / "delta.safetensors").is_file() and not is_known
    except OSError:  # a name that is too long, a folder that may not be read: open_model says so
        return False


def _check_table(folder: ModelFolder) -> None:
    """Refuse a ``model.toml`` that lacks what is used later, or that belongs to another version of its protocol."""
    for (section, key), fits in _NEEDED.items():
        table = folder.table.get(section)
        if not isinstance(table, dict) or key not in table or not fits(table[key]):
            raise SpansegError(
                f"{folder.path / 'model.toml'}: '{key}' in [{section}] is missing or makes no sense; "
                "copy the folder again, or export the model again."
            )
    if not isinstance(folder.table["canvas"].get("windows", False), bool):
        raise SpansegError(
            f"{folder.path / 'model.toml'}: 'windows' in [canvas] is true or false; export the model again."
        )
    if folder.told and not _is_text(folder.table.get("sentences", {}).get("encoder")):
        raise SpansegError(
            f"{folder.path / 'model.toml'}: the network is told facts, and 'encoder' in [sentences] does not say who "
            "read the sentences; copy the folder again, or export the model again."
        )
    ids = load_protocol(folder.protocol).ids.tolist()
    if folder.table["labels"]["ids"] != ids:
        raise SpansegError(
            f"{folder.path / 'model.toml'}: the labels are not those of the protocol '{folder.protocol}' in this "
            "version of spanseg; export the model again."
        )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_size(value: Any) -> bool:
    return isinstance(value, int | float) and 0 < value < math.inf


def _is_shape(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(isinstance(n, int) and n > 0 for n in value)


_NEEDED: dict[tuple[str, str], Callable[[Any], bool]] = {
    ("model", "name"): _is_text,
    ("model", "version"): _is_text,
    ("model", "licence"): _is_text,
    ("model", "protocol"): _is_text,
    ("canvas", "shape"): _is_shape,
    ("canvas", "voxel_mm"): _is_size,
    ("labels", "ids"): lambda value: isinstance(value, list),
    ("runtime", "peak_mib"): _is_size,
}


def peak_bytes(model: ModelFolder) -> int:
    """Memory that one pass needs at most, measured at export and recorded in the model folder."""
    return int(float(model.table["runtime"]["peak_mib"]) * 2**20)


class Engine:
    """A compiled network.

    Args:
        model: the folder.
        precision: ``f32``, ``bf16`` or ``auto`` (bf16 only where the model was found to agree with f32 and the
            processor computes in it).
        threads: threads of the network; ``None`` takes all cores that this process may use.

    Raises:
        SpansegError: an unknown precision, or one that this processor does not have; a network that cannot be loaded.
    """

    policy = ""
    """What the network may prompt itself with; empty for one that takes no prompts."""
    used: Mapping[int, str] = {}
    """What it prompted itself with for each class of the last canvas."""

    def __init__(self, model: ModelFolder, precision: str = "auto", threads: int | None = None) -> None:
        if precision not in PRECISIONS:
            raise SpansegError(f"precision must be one of {', '.join(PRECISIONS)}, not '{precision}'.")
        if threads is not None:
            require_threads(threads)
        openvino = _openvino()
        core = openvino.Core()
        capabilities = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if precision == "bf16" and "BF16" not in capabilities:
            raise SpansegError("this processor does not compute in bf16; use --precision f32 or auto.")
        if precision == "auto":
            passed = bool(model.table["runtime"].get("bf16_agrees", False))
            precision = "bf16" if passed and "BF16" in capabilities else "f32"
        self.model, self.precision = model, precision
        self.threads = threads or cores()
        self.name = f"OpenVINO {openvino.__version__}"
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            network = core.read_model(str(model.path / "model.onnx"))
            self._compiled = core.compile_model(network, "CPU", settings)
            self._takes = {port.any_name: tuple(port.shape) for port in self._compiled.inputs}
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise SpansegError(f"{model.path / 'model.onnx'}: this network cannot be loaded ({reason}).") from error
        expected = (1, model.channels, *model.canvas_shape)
        if self._takes.get("image") != expected:
            raise SpansegError(
                f"{model.path / 'model.onnx'}: this network takes images of {self._takes.get('image')}, and model.toml "
                f"declares {expected}; export the model again."
            )

    def __call__(self, canvas: np.ndarray, words: Words | None = None) -> np.ndarray:
        """Class probabilities of one canvas.

        Args:
            canvas: float32 normalised image, shape (i, j, k) or (channel, i, j, k).
            words: the sentence, for a network that is told one.

        Returns:
            uint8 probabilities, 0 to 255, shape (class, i, j, k).

        Raises:
            SpansegError: no sentence for a network that is told one, or a sentence for one that is not.
        """
        inputs = {"image": canvas[None] if canvas.ndim == 4 else canvas[None, None]}
        if words is not None:
            inputs |= {"words": words.hidden[None], "known": words.known[None].astype(np.float32)}
        if inputs.keys() != self._takes.keys():
            given, takes = ", ".join(inputs), ", ".join(self._takes)
            raise SpansegError(f"{self.model.path}: this network takes {takes} and was given {given}.")
        return np.asarray(self._compiled(inputs)[0])[0]


def _openvino() -> Any:
    """Import OpenVINO without its telemetry, which would start a process that contacts a server and write to HOME."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino
