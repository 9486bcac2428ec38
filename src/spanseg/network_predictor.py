"""A network that was never exported, on the same path as ``spanseg segment``."""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from spanseg import model
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.intervals import Intervals
from spanseg.runtime import Words
from spanseg.runtime_torch import NetworkEngine, described
from spanseg.segmenter import Predictor
from spanseg.sources import teller


class NetworkPredictor(Predictor):
    """Segments with a network in memory.

    Args:
        recipe: of the network.
        network: in evaluation mode.
        engine: runs it; by default on the CPU, as the network of the first centre.

    Raises:
        SpansegError: the network sees more than the scan, such as what another network found.
    """

    def __init__(self, recipe: dict[str, Any], network: nn.Module, engine: NetworkEngine | None = None) -> None:
        self.protocol = model.protocol_of(recipe)
        self.folder = described(recipe)
        if self.folder.needs_first or self.folder.answers_prompts:
            raise SpansegError(
                f"the recipe's network sees {self.folder.inputs}, and only one that sees the scan alone can be tested "
                "without 'spanseg export'; export it and test its folder."
            )
        self.intervals = Intervals()
        tell = teller(recipe)
        self.engine = engine or NetworkEngine(network, "cpu", centre=-1 if tell is None else 0)
        self._teller = None if tell is None else _AsWords(tell)  # type: ignore[assignment]

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """A network in memory has no file that could be named."""
        return {"model": "in training"}


class _AsWords:
    """A training teller, asked as the one of an exported model is."""

    def __init__(self, tell: Any) -> None:
        self.tell = tell

    def words(self, facts: Facts, policy: str, with_diagnosis: bool) -> list[Words]:
        told = self.tell(facts, 0)
        return [Words(told.embedding[0].numpy(), told.mask[0].numpy())]
