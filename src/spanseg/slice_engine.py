"""A network of slices called like any engine, and its finished training run in the place of a model folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from spanseg import checkpoint, files
from spanseg.errors import SpansegError
from spanseg.runtime import ModelFolder, Words
from spanseg.runtime_torch import NetworkEngine, described, require_device
from spanseg.slice_answers import SeenCanvas, labelled, require_policy


class SliceEngine(NetworkEngine):
    """Runs a network of slices that may prompt itself; ``used`` tells what with, for each class of the last canvas.

    Args:
        network: in evaluation mode.
        policy: one of :data:`spanseg.slice_answers.POLICIES`.
        device: where it runs.

    Raises:
        SpansegError: an unknown policy.
    """

    def __init__(self, network: nn.Module, policy: str = "none", device: str = "cpu") -> None:
        require_policy(policy)
        super().__init__(network, device)
        self.policy = policy
        self.used: dict[int, str] = {}

    def __call__(self, canvas: np.ndarray, words: Words | None = None) -> np.ndarray:
        """Class probabilities of one canvas, uint8 (class, i, j, k); it is told nothing."""
        probabilities, self.used = labelled(SeenCanvas(self._network, canvas), self.policy)
        return probabilities


class RunFolder(ModelFolder):
    """A finished training run in the place of a model folder."""

    def sha256(self) -> str:
        """Hash of the weights that the run made and of its recipe, which says how they are used."""
        both = [files.file_sha256(self.path / name) for name in (checkpoint.DELTA, "recipe.toml")]
        return hashlib.sha256("".join(both).encode()).hexdigest()


def open_run(
    run: Path, policy: str = "none", device: str = "cpu", threads: int | None = None
) -> tuple[RunFolder, SliceEngine]:
    """Open a finished training run of a network of slices. Exported, it could not prompt itself.

    Args:
        run: the folder.
        policy: what prompts the network.
        device: where it runs.
        threads: of PyTorch, for the whole process; ``None`` leaves them.

    Raises:
        SpansegError: the run is not finished or of a network that can be exported; no such policy or device.
    """
    require_device(device)
    recipe, network = checkpoint.restore(run)
    if recipe["backbone"]["name"] != "sam":
        raise SpansegError(
            f"{run}: this is a training run of a network that takes no prompts: export it with 'spanseg export {run} "
            "--to FOLDER --check SCAN', then segment with --model FOLDER."
        )
    if recipe["canvas"].get("windows"):
        raise SpansegError(f"{run}: a network of slices looks at one canvas; take 'windows' out of its recipe.")
    if threads is not None:
        torch.set_num_threads(threads)
    version = files.file_sha256(run / checkpoint.DELTA)[:12]
    title = recipe.get("recipe", {}).get("title", "SAM")
    named = described(recipe, name=run.resolve().name, title=title, version=version)
    return RunFolder(run, named.table), SliceEngine(network.eval(), policy, device)
