"""Tensors in safetensors files: nothing in them can run code."""

from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from spanseg import files
from spanseg.errors import SpansegError


def save_tensors(path: Path, tensors: dict[str, Tensor], note: dict[str, str] | None = None) -> None:
    """Write tensors under a temporary name and rename, so that no reader sees half a file."""
    files.write_bytes(path, save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, note))


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
