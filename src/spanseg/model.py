"""A model is built from a recipe: a backbone on a canvas, for the classes of a protocol, and what it is told."""

import inspect
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from spanseg import meeting, parts
from spanseg.clicks import CHANNELS
from spanseg.deform import Canvas
from spanseg.errors import SpansegError
from spanseg.interfaces import Told
from spanseg.labels import Protocol, load_protocol

MEETINGS = ("gated", "prepend")
"""How tokens meet a stage of attention; on a stage of convolutions they meet in a two-way block."""

OUTPUTS = ("probabilities", "labels")
TOLD = ("table", "facts", "encoder")
"""Keys of ``[tokens]`` that say where the sentences come from, which facts they tell and who read them; not the
network's matter."""


class Prompted(nn.Module):
    """A backbone that is told something beside the image.

    Args:
        backbone: the network; its modules keep their names and weights.
        tokens: what it is told, as tokens for each point.
        meetings: where tokens meet features, by point; a module's name holds no dot, so a point's does not either.
    """

    def __init__(self, backbone: nn.Module, tokens: nn.Module, meetings: dict[str, meeting.Meeting]) -> None:
        super().__init__()
        self.backbone, self.tokens = backbone, tokens
        self.meetings = nn.ModuleDict(meetings)

    @property
    def stride(self) -> int:
        """The image's edge lengths must be multiples of this many voxels."""
        return int(self.backbone.stride)  # type: ignore[arg-type]

    def forward(self, image: Tensor, told: Told | None = None, **options: Any) -> Tensor:
        """Compute logits; told nothing, this is the backbone alone.

        Args:
            image: (batch, channel, i, j, k).
            told: one row a subject; ``None`` for nothing.
            options: passed to the backbone.
        """
        with ExitStack() as stack:
            for point, tokens in ({} if told is None else self.tokens(told)).items():
                stack.enter_context(self.meetings[point].feeding(tokens))  # type: ignore[operator]
            logits: Tensor = self.backbone(image, **options)
        return logits


def canvas_of(recipe: dict[str, Any]) -> Canvas:
    """The canvas that a recipe states.

    Raises:
        SpansegError: the section is missing or incomplete, or ``windows`` is neither true nor false.
    """
    section = recipe.get("canvas", {})
    if len(section.get("shape", ())) != 3 or not section.get("voxel_mm", 0) > 0:
        raise SpansegError("the recipe's [canvas] needs shape = [i, j, k] in voxels and voxel_mm > 0.")
    if not isinstance(section.get("windows", False), bool):
        raise SpansegError(
            "the recipe's [canvas] takes windows = true, for a canvas several of which cover a brain, or false."
        )
    i, j, k = section["shape"]
    return Canvas((i, j, k), float(section["voxel_mm"]))


def protocol_of(recipe: dict[str, Any]) -> Protocol:
    """The protocol that a recipe names (``aseg`` if it names none)."""
    return load_protocol(recipe.get("recipe", {}).get("protocol", "aseg"))


def inputs_of(recipe: dict[str, Any]) -> list[dict[str, str]]:
    """What the channels of a recipe's image are, in order.

    ``{image = "T1"}`` is the scan, ``{model = "tissue", output = "probabilities"}`` or ``"labels"`` is what the tissue
    network of the recipe's ``[cascade]`` finds in it, ``{prompt = "label"}`` and the other
    :data:`spanseg.clicks.CHANNELS`, all of them in this order, are what a user says about one structure.

    Raises:
        SpansegError: an entry that is neither.
    """
    inputs: list[dict[str, str]] = recipe.get("recipe", {}).get("inputs", [{"image": "T1"}])
    prompts = [one for one in inputs if "prompt" in one]
    if prompts and inputs != [{"image": "T1"}, *({"prompt": name} for name in CHANNELS)]:
        raise SpansegError(
            "the recipe's inputs mix prompts with other things; a click network's are the image, then "
            f"{', '.join(CHANNELS)}."
        )
    for one in [] if prompts else inputs:
        if set(one) != {"image"} and (one.get("model") != "tissue" or one.get("output") not in OUTPUTS):
            raise SpansegError(
                f'the recipe\'s inputs hold {one}; expected {{image = "T1"}} or {{model = "tissue", output = '
                f"{' or '.join(OUTPUTS)}}}."
            )
    return inputs


def is_clicked(recipe: dict[str, Any]) -> bool:
    """Whether a recipe's network is one that users point into."""
    return any("prompt" in one for one in inputs_of(recipe))


def channels_of(recipe: dict[str, Any]) -> int:
    """How many channels a recipe's image has."""
    tissues = len(load_protocol("tissue")) if any("model" in one for one in inputs_of(recipe)) else 0
    return sum(tissues if one.get("output") == "probabilities" else 1 for one in inputs_of(recipe))


def described(recipe: dict[str, Any]) -> dict[str, Any]:
    """What ``model.toml`` says of a recipe's network, exported or not: its canvas, its inputs and its labels."""
    structures = protocol_of(recipe).structures
    return {
        "canvas": dict(recipe["canvas"]),
        "input": {
            "normalisation": "spanseg.intensity.normalise",
            "orientation": "RAS",
            "count": channels_of(recipe),
            "inputs": inputs_of(recipe),
        },
        "labels": {"ids": [one.id for one in structures], "names": [one.name for one in structures]},
    }


def build(recipe: dict[str, Any]) -> nn.Module:
    """Build the model of a recipe: :func:`backbone`, then :func:`equip`."""
    return equip(backbone(recipe), recipe)


def backbone(recipe: dict[str, Any]) -> nn.Module:
    """Build the stock network of a recipe, told nothing, everything trainable.

    Raises:
        SpansegError: an unknown part or option, or a canvas that does not fit the network's stride.
    """
    options = dict(recipe["backbone"])
    name, canvas = options.pop("name"), canvas_of(recipe)
    given: dict[str, Any] = {"in_channels": channels_of(recipe), "out_channels": len(protocol_of(recipe))}
    if "image_shape" in inspect.signature(parts.find("nets", name)).parameters:
        given["image_shape"] = canvas.shape
    network: nn.Module = parts.build("nets", name, options, **given)
    stride = int(network.stride)  # type: ignore[arg-type]
    if any(n % stride for n in canvas.shape):
        raise SpansegError(
            f"canvas {canvas.shape} does not fit nets.{name}: each edge must be a multiple of {stride} voxels."
        )
    if max(canvas.shape) == stride and getattr(network, "needs_two_positions", True):  # to normalise over
        raise SpansegError(
            f"canvas {canvas.shape} is too small for nets.{name}: one edge at least must be {2 * stride} voxels long."
        )
    return network


def equip(network: nn.Module, recipe: dict[str, Any]) -> nn.Module:
    """Give a backbone its tokens, and let the recipe's adaptation decide what may change.

    Raises:
        SpansegError: the backbone does not support this token source with this adaptation, or has no such stage.
    """
    adaptation = dict(recipe.get("adapt", {"name": "full"}))
    change = adaptation.pop("name")
    told = recipe.get("tokens", {}).get("name", "none")
    pairs: dict[str, tuple[str, ...]] = network.pairs  # type: ignore[assignment]
    if change not in pairs.get(told, ()):
        possible = "; ".join(f"{name}: {', '.join(known)}" for name, known in pairs.items())
        raise SpansegError(
            f"nets.{recipe['backbone']['name']} does not support tokens '{told}' with adapt '{change}'; it supports "
            f"({possible})."
        )
    model = _told(network, dict(recipe["tokens"])) if "tokens" in recipe else network
    parts.build("adapt", change, adaptation).apply(model)
    return model


def _told(network: Any, section: dict[str, Any]) -> Prompted:
    """Attach meetings to the stages that a recipe names, and build the tokens for them."""
    name, stages = section.pop("name"), section.pop("stages", None)
    depth, meet = section.pop("depth", "deep"), section.pop("meet", "gated")
    for other in TOLD:
        section.pop(other, None)
    if depth not in ("deep", "shallow") or meet not in MEETINGS:
        raise SpansegError(
            f"[tokens] takes depth = deep or shallow and meet = {' or '.join(MEETINGS)}, not '{depth}' and '{meet}'."
        )
    named = list(network.stages) if stages is None else list(stages)
    missing = [stage for stage in named if stage not in network.stages]
    if missing or not named:
        raise SpansegError(f"[tokens] names no stage of the backbone: {missing}; it has {', '.join(network.stages)}.")
    if depth == "shallow":
        places = _first(network, named[0], meet)
    else:
        places = {point: place for stage in named for point, place in _every(network, stage, meet).items()}
    channels = {point: network.stages[point.partition("_")[0]] for point in places}
    return Prompted(network, parts.build("tokens", name, section, points=channels), places)


def _every(network: Any, stage: str, meet: str) -> dict[str, meeting.Meeting]:
    """A meeting at each attention block of a stage, or at the end of a stage of convolutions."""
    blocks = network.attention_blocks(stage)
    if not blocks:
        return {stage: meeting.TwoWay(network.stage_module(stage), network.stages[stage])}
    kind = meeting.Gated if meet == "gated" else meeting.Prepended
    return {f"{stage}_{number}": kind(block) for number, block in enumerate(blocks)}


def _first(network: Any, stage: str, meet: str) -> dict[str, meeting.Meeting]:
    """The first point of a stage alone; in a plain transformer the tokens then stay in its sequence."""
    transformer = getattr(network, "sequence", None)
    if transformer is not None and meet == "prepend":
        return {f"{stage}_0": meeting.InSequence(transformer)}
    places = _every(network, stage, meet)
    point = next(iter(places))
    return {point: places[point]}
