"""A trained network as an ONNX graph: probabilities out, weights in half precision."""

from pathlib import Path

import numpy as np
import onnx
import torch
from jaxtyping import Float, UInt8
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from spanseg.interfaces import Told

OPSET = 17


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
