"""Tissue networks for a cascade that trains on real scans: one a fold of people, made by the others' scans."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spanseg import recipe as recipes
from spanseg import splits
from spanseg.cascade import first_run
from spanseg.errors import SpansegError
from spanseg.labelled import RealOptions, chosen_pairs
from spanseg.participants import participant_of
from spanseg.parts import options_from

FOLDER = "folds"
EVERYONE = "all"
STEPS = 60
"""Steps of each tissue network unless ``[cascade] fold_steps`` says otherwise: it is tuned, not made anew."""


def tissue_recipes(recipe: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The tissue networks that a cascade needs before it can be trained, by the name of their folder.

    ``[cascade] folds = 3`` tunes the network of ``[cascade] tissue`` on the cascade's own people: once on all of them,
    for use, and once for each third of them on the other two, so that the cascade trains on tissue as rough as that of
    people who come later. All scans of a person are in one fold. A tissue network that has never seen a real scan (it
    is of grade A) is out-of-fold for everybody and needs no folds, unless it shall be tuned.

    Returns:
        Recipes; none where no folds are asked for, or the runs of the folds are named already.

    Raises:
        SpansegError: more folds than people or fewer than two, no real scans to make folds of, or a tissue network
            that was trained on the cascade's people.
    """
    first, section = first_run(recipe), recipe.get("cascade", {})
    folds = section.get("folds", 0)
    if first is None or isinstance(folds, list):
        return {}
    if "real" not in recipe:
        if folds:
            raise SpansegError("[cascade] folds are folds of real people, but the recipe has no [real]; leave it out.")
        return {}
    scans = [scan for scan, _ in chosen_pairs(options_from(RealOptions, recipe["real"], "real"))]
    splits.require_unseen(first, splits.scans_in(scans))
    if folds == 0:
        return {}
    people = sorted({participant_of(scan) for scan in scans})
    if not isinstance(folds, int) or not 2 <= folds <= len(people):
        raise SpansegError(f"[cascade] folds takes 2 to {len(people)}, the number of people, not {folds!r}.")
    others = {str(fold): [one for n, one in enumerate(people) if n % folds != fold] for fold in range(folds)}
    return {name: _tuned(first, recipe, chosen) for name, chosen in (others | {EVERYONE: people}).items()}


def _tuned(first: Path, recipe: dict[str, Any], people: list[str]) -> dict[str, Any]:
    """The recipe of the first network, started from its weights and trained on the scans of some people."""
    tissue = copy.deepcopy(recipes.load(str(first / "recipe.toml")))
    steps = int(recipe["cascade"].get("fold_steps", STEPS))
    train = tissue.get("train", {})
    warmup = min(int(train.get("warmup", steps)), steps // 5)
    tissue["train"] = train | {"start": str(first), "steps": steps, "warmup": warmup}
    tissue["real"] = recipe["real"] | {"subjects": people}
    return tissue


def using(recipe: dict[str, Any], made: Mapping[str, Path]) -> dict[str, Any]:
    """The recipe of a cascade whose tissue networks are finished; without any it stays as it is.

    Args:
        recipe: of the cascade.
        made: their runs, by the names that :func:`tissue_recipes` gave them.
    """
    if not made:
        return recipe
    folds = [str(run) for name, run in made.items() if name != EVERYONE]
    return recipe | {"cascade": recipe["cascade"] | {"tissue": str(made[EVERYONE]), "folds": folds}}
