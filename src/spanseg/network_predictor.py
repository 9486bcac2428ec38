"""A network that was never exported, on the same path as ``spanseg segment``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from spanseg import model
from spanseg.facts import Facts
from spanseg.intervals import Intervals
from spanseg.runtime import ModelFolder, Words
from spanseg.runtime_torch import NetworkEngine
from spanseg.segmenter import Predictor
from spanseg.sources import teller


class NetworkPredictor(Predictor):
    """Segments with a network in memory.

    Args:
        recipe: of the network.
        network: in evaluation mode.
        engine: runs it; by default on the CPU, as the network of the first centre.
    """

    def __init__(self, recipe: dict[str, Any], network: nn.Module, engine: NetworkEngine | None = None) -> None:
        self.protocol = model.protocol_of(recipe)
        canvas = model.canvas_of(recipe)
        table = {
            "model": {"name": "in training", "version": "0", "licence": "not stated", "protocol": self.protocol.name},
            "canvas": {"shape": list(canvas.shape), "voxel_mm": canvas.voxel_mm},
            "labels": {"ids": self.protocol.ids.tolist()},
            "runtime": {"peak_mib": 1},
        }
        self.folder = ModelFolder(Path(), table)
        self.intervals = Intervals()
        self.engine = engine or NetworkEngine(network, "cpu", centre=0)
        tell = teller(recipe)
        self._teller = None if tell is None else _AsWords(tell)  # type: ignore[assignment]
        self.identity = {"model": "in training"}


class _AsWords:
    """A training teller, asked as the one of an exported model is."""

    def __init__(self, tell: Any) -> None:
        self.tell = tell

    def words(self, facts: Facts, policy: str, with_diagnosis: bool) -> list[Words]:
        told = self.tell(facts, 0)
        return [Words(told.embedding[0].numpy(), told.mask[0].numpy())]
