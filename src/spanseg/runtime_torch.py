"""Runs networks through PyTorch: those of model folders on a GPU, and those that were never exported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spanseg.errors import SpansegError
from spanseg.runtime import Engine, ModelFolder, Words

if TYPE_CHECKING:
    from torch import nn

_WEIGHTS = "weights.safetensors"


class NetworkEngine:
    """A network in memory, called like an :class:`~spanseg.runtime.Engine`.

    Args:
        network: in evaluation mode.
        device: where it runs; it is moved there.
        precision: ``f32`` or ``bf16``.
        centre: row of the network's table of centres, -1 for none; for a network that is told something.
    """

    policy, used = Engine.policy, Engine.used

    def __init__(self, network: nn.Module, device: str, precision: str = "f32", centre: int = -1) -> None:
        import torch

        self.precision, self.device, self.centre = precision, device, centre
        self.threads = torch.get_num_threads()
        self.name = f"PyTorch {torch.__version__} {device}"
        self._network = network.to(device)

    def __call__(self, canvas: np.ndarray, words: Words | None = None) -> np.ndarray:
        """Class probabilities of one canvas; as :meth:`spanseg.runtime.Engine.__call__`."""
        import torch

        image = torch.from_numpy(np.ascontiguousarray(canvas)).to(self.device)
        image = image[None] if canvas.ndim == 4 else image[None, None]
        with torch.no_grad(), torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16"):
            probabilities = torch.softmax(self._network(image, **self._told(words)).float(), dim=1)
        return (probabilities * 255).round().to(torch.uint8)[0].cpu().numpy()

    def _told(self, words: Words | None) -> dict[str, Any]:
        """The argument ``told``: a sentence, the centre alone, or nothing at all."""
        if words is None and self.centre < 0:
            return {}
        import torch

        from spanseg.interfaces import Told

        nothing = np.zeros((1, 1), np.float32), np.zeros(1, bool)
        hidden, known = (torch.from_numpy(array)[None].to(self.device) for array in (words or nothing)[:2])
        return {"told": Told(hidden, known, torch.full((1,), self.centre, device=self.device))}


def require_device(device: str) -> None:
    """Refuse a device that PyTorch cannot use here.

    Raises:
        SpansegError: PyTorch or the device is missing, or there is no device of this name.
    """
    try:
        import torch
    except ImportError as error:
        raise SpansegError(f"--device {device} needs PyTorch: pip install -c constraints.txt '.[train]'.") from error
    if device not in ("cpu", "cuda"):
        raise SpansegError(f"device must be cpu or cuda, not '{device}'.")
    if device == "cuda" and not torch.cuda.is_available():
        raise SpansegError("--device cuda: PyTorch finds no CUDA device here; use --device cpu.")


def described(recipe: dict[str, Any], **named: str) -> ModelFolder:
    """What a model folder would say of a recipe's network, for one that was never exported.

    Args:
        recipe: of the network.
        named: ``name``, ``title`` and ``version`` of the model, where it has them.
    """
    from spanseg import model

    about = {"name": "in training", "version": "0", "licence": "not stated", "protocol": model.protocol_of(recipe).name}
    table = {"model": about | named, **model.described(recipe), "runtime": {"peak_mib": 1}}
    return ModelFolder(Path(), table)


class TorchEngine(NetworkEngine):
    """The network of a model folder on a CUDA device; one with a table of centres is told the first one.

    Args:
        folder: model folder with ``weights.safetensors`` and ``recipe.toml`` beside the exported network.
        precision: ``f32``, ``bf16`` or ``auto`` (f32).
        device: ``cuda``, or ``cpu`` to compare.

    Raises:
        SpansegError: PyTorch or the device is missing, the folder holds no weights, or its network needs another one.
    """

    def __init__(self, folder: ModelFolder, precision: str = "auto", device: str = "cuda") -> None:
        if folder.needs_first or not (folder.path / _WEIGHTS).is_file():
            lacks = "needs another network before it" if folder.needs_first else "is without them, as adapters are"
            raise SpansegError(
                f"{folder.path}: --device {device} runs a single network from its {_WEIGHTS}, and this model {lacks}; "
                "use --device cpu."
            )
        require_device(device)
        from spanseg import checkpoint, model
        from spanseg import recipe as recipes

        recipe = recipes.load(str(folder.path / "recipe.toml"))
        network = model.build(recipe).eval()
        weights = checkpoint.load_tensors(folder.path / _WEIGHTS)
        checkpoint.load_into(network, {key: value.float() for key, value in weights.items()}, str(folder.path))
        centre = 0 if recipe.get("tokens", {}).get("name") == "learned" else -1
        super().__init__(network, device, "bf16" if precision == "bf16" else "f32", centre)
        self.threads = 1
