"""A network whose input holds what another network found: tissue first, structures on top of it.

Reference: KGPL trains its structure network on predicted tissue labels alone, in which most borders of the deep grey
matter cannot be seen. Here the default is the T1 with the tissue's probabilities; ``labels`` alone is the paper's way.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spanseg import checkpoint, model
from spanseg import recipe as recipes
from spanseg.errors import SpansegError
from spanseg.interfaces import Sample, Source
from spanseg.labelled import RealOptions, chosen_pairs
from spanseg.participants import participant_of
from spanseg.parts import options_from
from spanseg.told import TAKES


class Cascaded:
    """Puts what the first network finds in each sample into the channels of its image.

    Args:
        source: where samples come from.
        first: network of the first step.
        inputs: the recipe's list of inputs.
        out_of_fold: first networks for the people that ``first`` was trained on, by person: each has never seen that
            person, so that training meets predictions as rough as those in use.
    """

    def __init__(
        self,
        source: Source,
        first: nn.Module,
        inputs: list[dict[str, str]],
        out_of_fold: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.source, self.first, self.inputs = source, first.eval(), inputs
        self.out_of_fold = {name: network.eval() for name, network in (out_of_fold or {}).items()}

    def draw(self, seed: int, index: int) -> Sample:
        """Draw a sample and look at it with the first network."""
        sample = self.source.draw(seed, index)
        network = self.out_of_fold.get(sample.case, self.first)
        told = {} if sample.told is None or not isinstance(network, model.Prompted) else {"told": sample.told}
        with torch.no_grad():
            probabilities = torch.softmax(network(sample.image, **told), 1)
        return sample._replace(image=channels(sample.image, probabilities, self.inputs))


def channels(
    image: Float[Tensor, "batch 1 i j k"],
    probabilities: Float[Tensor, "batch class i j k"],
    inputs: list[dict[str, str]],
) -> Float[Tensor, "batch channel i j k"]:
    """Stack the inputs of a second network in the order of its recipe."""
    made = {
        "probabilities": lambda: probabilities,
        "labels": lambda: probabilities.argmax(1, keepdim=True).float() / (probabilities.shape[1] - 1),
    }
    return torch.cat([image if "image" in one else made[one["output"]]() for one in inputs], 1)


def first_run(recipe: dict[str, Any]) -> Path | None:
    """The run or model folder of a recipe's first network; ``None`` for a recipe without one.

    Raises:
        SpansegError: the recipe's inputs need a first network and ``[cascade]`` names none, or it has another canvas.
    """
    if not any("model" in one for one in model.inputs_of(recipe)):
        return None
    named = recipe.get("cascade", {}).get("tissue", "")
    if not named:
        raise SpansegError(
            "the recipe's inputs ask for predicted tissue; say which run predicts it: --set cascade.tissue=RUN."
        )
    folder = checkpoint.weights_of(named).parent
    first = recipes.load(str(folder / "recipe.toml"))
    if model.canvas_of(first) != model.canvas_of(recipe) or model.protocol_of(first).name != "tissue":
        raise SpansegError(
            f"{folder}: expected a run of the protocol 'tissue' on the canvas {model.canvas_of(recipe)}, this one is "
            f"of '{model.protocol_of(first).name}' on {model.canvas_of(first)}; train it on the same canvas."
        )
    return folder


def cascaded(recipe: dict[str, Any], source: Source) -> Source:
    """The source of a recipe, looked at by its first network if it has one.

    Of the runs in ``[cascade] folds`` each looks at the real people that it was not trained on. What is cached between
    draws and runs are these networks, not what they find: a scan is deformed anew in each draw, and its tissue with it.

    Raises:
        SpansegError: the first network is told other facts than this one, and samples tell these alone.
    """
    folder = first_run(recipe)
    if folder is None:
        return source
    before, network = checkpoint.restore(folder)
    facts = [one["tokens"].get("facts", TAKES) if "tokens" in one else None for one in (before, recipe)]
    if facts[0] is not None and (facts[1] is None or set(facts[0]) != set(facts[1])):
        raise SpansegError(
            f"{folder}: this tissue network is told {', '.join(facts[0])}, the recipe's network "
            f"{', '.join(facts[1] or ['nothing'])}; train both with the same [tokens] facts, or the first told nothing."
        )
    return Cascaded(source, network, model.inputs_of(recipe), _out_of_fold(recipe))


def _out_of_fold(recipe: dict[str, Any]) -> dict[str, nn.Module]:
    """The networks of the folds, each for the people that it has not seen.

    Raises:
        SpansegError: the folds are not made yet, or one of the people is in the training of all of them.
    """
    folds = recipe["cascade"].get("folds", [])
    if not folds:
        return {}
    if not isinstance(folds, list):
        raise SpansegError("[cascade] folds are trained by 'spanseg train'; here their runs are needed, as a list.")
    made = [checkpoint.restore(Path(run)) for run in folds]
    chosen = {}
    for scan, _ in chosen_pairs(options_from(RealOptions, recipe["real"], "real")):
        person = participant_of(scan)
        unseen = [network for tissue, network in made if person not in tissue["real"]["subjects"]]
        if not unseen:
            raise SpansegError(f"[cascade] folds: {person} was trained on in every fold; make the folds again.")
        chosen[person] = unseen[0]
    return chosen
