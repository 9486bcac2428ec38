"""A model is built from a recipe: a backbone on a canvas, for the classes of a protocol."""

from typing import Any

from torch import nn

from spanseg import parts
from spanseg.deform import Canvas
from spanseg.errors import SpansegError
from spanseg.labels import Protocol, load_protocol


def canvas_of(recipe: dict[str, Any]) -> Canvas:
    """The canvas that a recipe states.

    Raises:
        SpansegError: the section is missing or incomplete.
    """
    section = recipe.get("canvas", {})
    if len(section.get("shape", ())) != 3 or not section.get("voxel_mm", 0) > 0:
        raise SpansegError("the recipe's [canvas] needs shape = [i, j, k] in voxels and voxel_mm > 0.")
    i, j, k = section["shape"]
    return Canvas((i, j, k), float(section["voxel_mm"]))


def protocol_of(recipe: dict[str, Any]) -> Protocol:
    """The protocol that a recipe names (``aseg`` if it names none)."""
    return load_protocol(recipe.get("recipe", {}).get("protocol", "aseg"))


def build(recipe: dict[str, Any]) -> nn.Module:
    """Build the network of a recipe and let its adaptation decide what may change.

    Raises:
        SpansegError: an unknown part or option, or a canvas that does not fit the network's stride.
    """
    options = dict(recipe["backbone"])
    name = options.pop("name")
    network = parts.build("nets", name, options, in_channels=1, out_channels=len(protocol_of(recipe)))
    canvas = canvas_of(recipe)
    if any(n % network.stride for n in canvas.shape):
        raise SpansegError(
            f"canvas {canvas.shape} does not fit nets.{name}: each edge must be a multiple of {network.stride} voxels."
        )
    adaptation = dict(recipe.get("adapt", {"name": "full"}))
    parts.build("adapt", adaptation.pop("name"), adaptation).apply(network)
    return network
