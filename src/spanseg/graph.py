"""A trained network as an ONNX graph: probabilities out, weights in half precision."""

import contextlib
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import torch
from jaxtyping import Float, UInt8
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from spanseg.interfaces import Told

OPSET = 17
_KNOWN = b"Constant folding"
"""What PyTorch's exporter writes past Python's warnings, once for each slice with a step: it changes nothing."""


class Probabilities(nn.Module):
    """The network with a softmax and probabilities as whole numbers from 0 to 255.

    Args:
        network: plain or prompted.
        centre: row of a prompted network's table of centres, which is then part of the graph.
    """

    def __init__(self, network: nn.Module, centre: int = -1) -> None:
        super().__init__()
        self.network, self.centre = network, centre

    def forward(
        self, image: Float[Tensor, "batch channel i j k"], words: Tensor | None = None, known: Tensor | None = None
    ) -> UInt8[Tensor, "batch class i j k"]:
        """Compute probabilities; with hidden states of a sentence for a network that is told one."""
        return (torch.softmax(self._logits(image, words, known), dim=1) * 255).round().to(torch.uint8)

    def _logits(self, image: Tensor, words: Tensor | None, known: Tensor | None) -> Tensor:
        logits: Tensor
        if words is not None and known is not None:
            told = Told(words, known > 0.5, torch.full((len(words),), self.centre))
            logits = self.network(image, told)
        elif self.centre >= 0:
            nothing = torch.zeros(len(image), 1, 1)
            logits = self.network(image, Told(nothing, nothing[..., 0] > 0, torch.full((len(image),), self.centre)))
        else:
            logits = self.network(image)
        return logits


def write_onnx(graph: Probabilities, inputs: dict[str, Tensor], path: Path) -> None:
    """Trace a network at the shapes of its inputs, which stay static, and store the weights in half precision."""
    with _without_known_warnings():
        torch.onnx.export(
            graph.eval(),
            tuple(inputs.values()),
            str(path),
            input_names=list(inputs),
            output_names=["probabilities"],
            opset_version=OPSET,
            dynamo=False,
        )
    stored = onnx.load(str(path))
    store_half(stored.graph)
    stored.metadata_props.add(key="spanseg", value="probabilities are uint8, 0 to 255; input as in model.toml")
    onnx.save(stored, str(path))


@contextlib.contextmanager
def _without_known_warnings() -> Iterator[None]:
    """Keep quiet about tracing: shapes are static on purpose, and what was traced is compared with PyTorch anyway."""
    with warnings.catch_warnings(), _without_lines(_KNOWN):
        for kind in (torch.jit.TracerWarning, UserWarning, DeprecationWarning):
            warnings.simplefilter("ignore", kind)
        yield


@contextlib.contextmanager
def _without_lines(known: bytes) -> Iterator[None]:
    """Hold back what the process, C++ too, writes to standard error, and write it afterwards without known lines."""
    try:
        terminal = os.dup(2)
    except OSError:  # it is closed
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            for line in held:
                if known not in line:
                    os.write(2, line)


def store_half(graph: onnx.GraphProto) -> None:
    """Replace each float32 weight by a float16 one and a cast, which halves the file and changes no arithmetic."""
    casts = []
    for index, tensor in enumerate(list(graph.initializer)):
        if tensor.data_type != TensorProto.FLOAT or numpy_helper.to_array(tensor).size < 64:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}.half")
        graph.initializer[index].CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], to=TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(casts + nodes)
