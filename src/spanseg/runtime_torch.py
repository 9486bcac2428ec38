"""Runs the same weights through PyTorch on a GPU; loaded for ``--device cuda`` only."""

from __future__ import annotations

import numpy as np

from spanseg.errors import SpansegError
from spanseg.runtime import ModelFolder, Words


class TorchEngine:
    """The network of a model folder on a CUDA device.

    Args:
        folder: model folder with ``weights.safetensors`` and ``recipe.toml`` beside the exported network.
        precision: ``f32``, ``bf16`` or ``auto`` (f32).

    Raises:
        SpansegError: PyTorch or the device is missing, or the folder holds no weights.
    """

    def __init__(self, folder: ModelFolder, precision: str = "auto") -> None:
        try:
            import torch
        except ImportError as error:
            raise SpansegError("--device cuda needs PyTorch: pip install 'spanseg[train]'.") from error
        if not torch.cuda.is_available():
            raise SpansegError("--device cuda: PyTorch finds no CUDA device here; use --device cpu.")
        from spanseg import checkpoint, model
        from spanseg import recipe as recipes

        self.precision = "bf16" if precision == "bf16" else "f32"
        self.threads = 1
        self.name = f"PyTorch {torch.__version__} cuda"
        network = model.build(recipes.load(str(folder.path / "recipe.toml"))).eval()
        weights = checkpoint.load_tensors(folder.path / "weights.safetensors")
        checkpoint.load_into(network, {key: value.float() for key, value in weights.items()}, str(folder.path))
        self._network = network.to("cuda")

    def __call__(self, canvas: np.ndarray, words: Words | None = None) -> np.ndarray:
        """Class probabilities of one canvas; as :meth:`spanseg.runtime.Engine.__call__`."""
        import torch

        from spanseg.interfaces import Told

        image = torch.from_numpy(np.ascontiguousarray(canvas)).to("cuda")
        image = image[None] if canvas.ndim == 4 else image[None, None]
        told = {}
        if words is not None:
            hidden, known = (torch.from_numpy(array)[None].to("cuda") for array in words)
            told = {"told": Told(hidden, known, torch.full((1,), -1, device="cuda"))}
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16, enabled=self.precision == "bf16"):
            probabilities = torch.softmax(self._network(image, **told).float(), dim=1)
        return (probabilities * 255).round().to(torch.uint8)[0].cpu().numpy()
