"""Two exported networks in a row, without PyTorch: what the first one finds becomes channels of the second."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spanseg.runtime import FIRST, Engine, ModelFolder, Words, open_model


class Chain:
    """A network with the one that it needs before it; called like an :class:`~spanseg.runtime.Engine`.

    Args:
        folder: of the second network; the first one's lies in it.
        precision: of both, as for an engine.
        threads: of both.

    Raises:
        SpansegError: a folder is missing or damaged, or a network cannot be loaded.
    """

    policy, used = Engine.policy, Engine.used

    def __init__(self, folder: ModelFolder, precision: str = "auto", threads: int | None = None) -> None:
        first = open_model(str(folder.path / FIRST))
        self._first, self._second = Engine(first, precision, threads), Engine(folder, precision, threads)
        self._second_is_told = bool(folder.told)
        self._inputs = folder.inputs
        self.name, self.precision, self.threads = self._second.name, self._second.precision, self._second.threads

    def __call__(self, canvas: np.ndarray, words: Words | None = None) -> np.ndarray:
        """Class probabilities of one canvas; as :meth:`spanseg.runtime.Engine.__call__`."""
        found = self._first(canvas, words.first if words else None)
        return self._second(stacked(canvas, found, self._inputs), words if self._second_is_told else None)


def stacked(canvas: np.ndarray, found: np.ndarray, inputs: Sequence[dict[str, str]]) -> np.ndarray:
    """Stack the channels of a second network in the order of its inputs.

    Args:
        canvas: float32 normalised image, shape (i, j, k).
        found: uint8 probabilities of the first network, shape (class, i, j, k).
        inputs: as in the recipe.

    Returns:
        float32, shape (channel, i, j, k).
    """
    made = []
    for one in inputs:
        if "image" in one:
            made.append(canvas[None])
        elif one["output"] == "probabilities":
            made.append(found / np.float32(255))
        else:
            made.append(found.argmax(0)[None] / np.float32(len(found) - 1))
    return np.concatenate(made).astype(np.float32)
