"""How many parameters a recipe's model has and trains, by role, beside the figures of its paper."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from spanseg import model
from spanseg.errors import SpansegError

SHARE = "trainable_of_stock"
"""Key in ``[paper]`` of a paper's trainable parameters in percent of its stock backbone's."""


@dataclass(frozen=True)
class Count:
    """One line of the table.

    Args:
        key: its name in the recipe's section ``[paper]``.
        label: for people; parts of a sum are indented.
        parameters: counted in our model.
        paper: the figure of the paper; ``None`` where the recipe gives none.
    """

    key: str
    label: str
    parameters: int
    paper: int | None = None


def count(recipe: dict[str, Any]) -> list[Count]:
    """Count the model of a recipe; nothing is trained or loaded.

    Raises:
        SpansegError: a recipe that cannot be built, or a figure in ``[paper]`` for something that is not counted.
    """
    try:
        with torch.device("meta"):
            roles = _roles(recipe)
    except RuntimeError:  # MONAI's SwinUNETR reads values of tensors while it is built, and there are none on "meta"
        roles = _roles(recipe)
    counts = [
        *_sums("stock", "stock backbone", {name: _size(found) for name, found in roles["stock"].items()}),
        *(Count(name, name, _size(found)) for name, found in roles["added"].items()),
    ]
    every = roles["stock"] | roles["added"]
    counts.append(Count("total", "total", sum(map(_size, every.values()))))
    trained = {name: _size([p for p in found if p.requires_grad]) for name, found in every.items()}
    figures = {key: figure for key, figure in recipe.get("paper", {}).items() if key != SHARE}
    return _beside(counts + _sums("trainable", "trainable", trained), figures)


def _roles(recipe: dict[str, Any]) -> dict[str, dict[str, list[nn.Parameter]]]:
    """Parameters of the stock backbone by group, and those that tokens and adaptation added to it."""
    network = model.backbone(recipe)
    stock: dict[str, list[nn.Parameter]] = network.groups()  # type: ignore[operator]
    known = {id(p) for found in stock.values() for p in found}
    whole = model.equip(network, recipe)
    added = {}
    for name in ("tokens", "meetings"):
        part = getattr(whole, name, None)
        added[name] = [p for p in part.parameters() if id(p) not in known] if isinstance(part, nn.Module) else []
    known |= {id(p) for found in added.values() for p in found}
    added["deltas"] = [p for p in whole.parameters() if id(p) not in known]
    return {"stock": stock, "added": added}


def _size(parameters: list[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters)


def _sums(key: str, label: str, parts: dict[str, int]) -> list[Count]:
    """A sum and, indented below it, its parts."""
    below = [Count(f"{key}_{name}", f"  {name}", size) for name, size in parts.items()]
    return [Count(key, label, sum(parts.values())), *below]


def _beside(counts: list[Count], paper: dict[str, Any]) -> list[Count]:
    """Put the paper's figures beside ours."""
    keys = [one.key for one in counts]
    for key, figure in paper.items():
        if key not in keys or isinstance(figure, bool) or not isinstance(figure, (int, float)):
            raise SpansegError(
                f"the recipe's [paper] has '{key} = {figure}'; it takes numbers of parameters for {', '.join(keys)}."
            )
    return [
        Count(one.key, one.label, one.parameters, round(paper[one.key]) if one.key in paper else None) for one in counts
    ]


def lines(counts: list[Count], paper: dict[str, Any] | None = None) -> list[str]:
    """The table for people; the share is that of all parameters.

    Args:
        counts: of :func:`count`.
        paper: the recipe's ``[paper]``; a paper that gives a share of its stock backbone gets a line for it.
    """
    sizes = {one.key: one.parameters for one in counts}
    total = sizes["total"]
    rows = [f"{'':<18}{'parameters':>14}{'share':>9}{'paper':>14}"]
    for one in counts:
        figure = "" if one.paper is None else f"{one.paper:,}"
        rows.append(f"{one.label:<18}{one.parameters:>14,}{one.parameters / total:>9.2%}{figure:>14}".rstrip())
    if paper and SHARE in paper:
        ours, theirs = sizes["trainable"] / sizes["stock"], f"{paper[SHARE]} %"
        rows.append(f"{'trainable / stock':<18}{'':>14}{ours:>9.4%}{theirs:>14}")
    return rows
