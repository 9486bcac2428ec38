"""Published weights: read without running any code in them, renamed to our names, and loaded with a report."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from spanseg.errors import SpansegError
from spanseg.tensors import load_tensors

_WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Under which of these a training script puts the weights, beside epoch, score and optimiser."""

_RENAMED = (
    (re.compile(r"^(?:module\.)+"), ""),  # of distributed training
    (re.compile(r"^(?:swin_vit|encoder)\."), "swinViT."),  # of the code for self-supervision; "encoder1." is another
    (re.compile(r"^(?=patch_embed\.|layers\d\.|norm\.)"), "swinViT."),  # of a file that holds the transformer alone
    (re.compile(r"^(swinViT\.layers\d\.0)\.0\."), r"\1."),
    (re.compile(r"\.mlp\.fc([12])\."), r".mlp.linear\1."),
)

FOREIGN = (".pt", ".pth", ".bin")
"""Suffixes of other people's files of weights."""


@dataclass(frozen=True)
class LoadReport:
    """What of a file went into a network.

    Args:
        tensors: share of the network's parameter tensors that were loaded, 0 to 1.
        parameters: share of its single parameters.
        groups: share of single parameters, by group of the backbone.
        missing: parameters of the network that the file does not have.
        mismatched: those that it has in another shape, with both shapes.
        unexpected: names in the file that the network does not have.
    """

    tensors: float
    parameters: float
    groups: dict[str, float]
    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    unexpected: tuple[str, ...]

    def lines(self) -> list[str]:
        """The report for people."""
        by_group = ", ".join(f"{name} {share:.1%}" for name, share in self.groups.items())
        rows = [f"loaded {self.tensors:.1%} of the tensors, {self.parameters:.1%} of the parameters ({by_group})"]
        listed = (("not in the file", self.missing), ("of another shape", self.mismatched), ("unused", self.unexpected))
        return rows + [f"{what}: {len(names)} ({_some(names)})" for what, names in listed if names]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors, .pt, .pth or .bin file; training state around them is left out.

    Raises:
        SpansegError: no such file, a file that holds more than plain tensors and values, or no tensors in it.
    """
    if path.suffix == ".safetensors":
        return load_tensors(path)
    if path.suffix not in FOREIGN or not path.is_file():
        raise SpansegError(f"{path}: expected a file of weights (.safetensors, .pt, .pth or .bin), found none.")
    try:
        with _plain_numbers():
            stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise SpansegError(
            f"{path}: only plain tensors and values are read, because other content can run code, and this file has "
            f"something else or is broken ({_first_line(error)}); save its state_dict() as safetensors."
        ) from error
    tensors = _tensors_of(stored)
    if not tensors:
        raise SpansegError(f"{path}: expected named tensors, at the top or in {', '.join(_WRAPPERS)}; found none.")
    return tensors


@contextmanager
def _plain_numbers() -> Iterator[None]:
    """Let a NumPy number pass, such as the best score that MONAI's scripts store beside the weights."""
    scalar = np.float64(0).__reduce__()[0]
    allowed: list[Any] = [scalar, np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32))]
    older: list[Any] = [(scalar, f"numpy.{where}.multiarray.scalar") for where in ("core", "_core")]
    with torch.serialization.safe_globals([*allowed, *older]):
        yield


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _tensors_of(stored: Any) -> dict[str, Tensor]:
    """Named tensors of a loaded file, out of the wrapper in which they lie."""
    while isinstance(stored, Mapping):
        inner = next((stored[key] for key in _WRAPPERS if isinstance(stored.get(key), Mapping)), None)
        if inner is None:
            return {str(key): value for key, value in stored.items() if isinstance(value, Tensor)}
        stored = inner
    return {}


def load_swin_unetr(network: nn.Module, tensors: dict[str, Tensor], minimum: float) -> LoadReport:
    """Load published SwinUNETR weights, whole networks or the transformer alone, into ours, in place.

    What fits by name and shape is loaded. Known forms: MONAI's own names; its self-supervised transformer (no prefix or
    ``module.``, ``fc1`` for ``linear1``); ``module.``, ``swin_vit.`` or ``encoder.`` in front. Weights made with MONAI
    up to 1.4 need the network's ``downsample = "merging_1_4"``.

    Args:
        network: of ``nets.swin_unetr``.
        tensors: by the names of their file, as :func:`read_tensors` gives them.
        minimum: smallest acceptable share of the network's parameters, 0 to 1.

    Raises:
        SpansegError: less than ``minimum`` was found; the network is left as it was.
    """
    own = dict(network.named_parameters())
    known = {_own_name(key): value for key, value in tensors.items()}
    fitting = {key: known[key] for key in own if key in known and known[key].shape == own[key].shape}
    require_numbers(fitting)
    report = _report(network, own, known, set(fitting))
    if report.parameters < minimum:
        raise SpansegError(
            f"these weights hold {report.parameters:.1%} of the network's parameters ({report.tensors:.1%} of its "
            f"tensors), {minimum:.1%} are needed; of another shape: {_some(report.mismatched)}; not in the file: "
            f"{_some(report.missing)}; unused: {_some(report.unexpected)}; give weights of a network of this size, or "
            "lower [train] start_minimum."
        )
    with torch.no_grad():
        for key, value in fitting.items():
            own[key].copy_(value)
    return report


def require_numbers(tensors: Mapping[str, Tensor]) -> None:
    """Refuse weights that no network can compute with.

    Raises:
        SpansegError: a tensor of whole numbers, or one that holds something that is no number.
    """
    broken = [name for name, one in tensors.items() if not one.is_floating_point() or not bool(one.isfinite().all())]
    if broken:
        raise SpansegError(
            f"these weights cannot be used: {len(broken)} of {len(tensors)} tensors hold no finite "
            f"floating-point numbers ({_some(tuple(broken))}); the file is damaged or quantised; get it in float32."
        )


def _own_name(key: str) -> str:
    """Our name for a published one."""
    for pattern, ours in _RENAMED:
        key = pattern.sub(ours, key)
    return key


def _report(network: Any, own: dict[str, nn.Parameter], known: dict[str, Tensor], loaded: set[str]) -> LoadReport:
    found = {id(own[key]) for key in loaded}

    def share(parameters: list[nn.Parameter]) -> float:
        return sum(p.numel() for p in parameters if id(p) in found) / max(1, sum(p.numel() for p in parameters))

    others = [key for key in own if key in known and key not in loaded]
    names = network.state_dict().keys()  # with the tables of positions, which follow from the size
    return LoadReport(
        tensors=len(loaded) / len(own),
        parameters=share(list(own.values())),
        groups={name: share(parameters) for name, parameters in network.groups().items()},
        missing=tuple(key for key in own if key not in known),
        mismatched=tuple(f"{key} {tuple(known[key].shape)} for {tuple(own[key].shape)}" for key in others),
        unexpected=tuple(key for key in known if key not in names),
    )


def _some(names: tuple[str, ...]) -> str:
    """The first few names, or the word nothing."""
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "") if names else "nothing"
