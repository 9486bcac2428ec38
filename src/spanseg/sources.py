"""What a recipe trains on: synthetic scans, real ones or a mixture, told what is known about people."""

import dataclasses
import math
from typing import Any

from spanseg import model, splits
from spanseg.cascade import cascaded
from spanseg.clicked import Unprompted
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.generation import PackedMap, load_classes
from spanseg.interfaces import Source
from spanseg.labelled import RealOptions, chosen_pairs, labelled_scans
from spanseg.lifespan import Lifespan
from spanseg.parts import options_from
from spanseg.sampling import GENTLE, Mixture, RealScans
from spanseg.sentences import SentenceTable, load_table
from spanseg.silver import Silver
from spanseg.splits import Member
from spanseg.synth import FAMILIES, Generator, NearStructures, SynthOptions
from spanseg.tokens.knowledge import Knowledge
from spanseg.told import TAKES, Numbers, Teller, Telling

PLAIN: dict[str, Any] = {
    "t1": 1.0,
    "t2": 0.0,
    "flair": 0.0,
    "random": 0.0,
    "infant": 0.0,
    "thick": 0.0,
    "cut": 0.0,
    "sloppy": 0.0,
}
"""What the left-out maps are drawn with: T1-like contrast, no thick slices, nothing cut off."""
OWN = ("left_out", "silver", "lifespan")
"""Keys of ``[synth]`` that are no options of the generator."""


def synth_options(recipe: dict[str, Any]) -> SynthOptions:
    """How far the generator goes in a recipe.

    Raises:
        SpansegError: an unknown key, a range that is none, or a number that cannot be.
    """
    section = {key: value for key, value in recipe.get("synth", {}).items() if key not in OWN}
    for key, value in section.items():
        if isinstance(getattr(SynthOptions(), key, None), tuple) and not _is_range(value):
            raise SpansegError(f"the recipe's [synth] {key} is a lowest and a highest number such as [0.7, 1.35].")
    own = recipe.get("synth", {})
    left_out, silver, lifespan = (own.get(key, 0) for key in OWN)
    if type(left_out) is not int or left_out < 0 or lifespan not in (True, False) or not _is_level(silver):
        raise SpansegError(
            "the recipe's [synth] takes a whole number of label maps as left_out, a number from 0 as silver, and true "
            f"or false as lifespan, not {left_out!r}, {silver!r} and {lifespan!r}."
        )
    options: SynthOptions = options_from(SynthOptions, section, "synth")
    if not any(getattr(options, family) for family in FAMILIES):
        raise SpansegError(f"the recipe's [synth] needs one of {', '.join(FAMILIES)} above 0.")
    return options


def _is_level(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_range(value: Any) -> bool:
    """Whether a value is two finite numbers, the lower one first."""
    if not isinstance(value, list | tuple) or len(value) != 2:
        return False
    return all(isinstance(end, int | float) and math.isfinite(end) for end in value) and value[0] <= value[1]


def split_maps(maps: list[PackedMap], left_out: int) -> tuple[list[PackedMap], list[PackedMap]]:
    """Leave the first maps out of training.

    Raises:
        SpansegError: nothing would be left to train on.
    """
    if left_out >= len(maps):
        raise SpansegError(f"[synth] left_out = {left_out} leaves no label map to train on: there are {len(maps)}.")
    return maps[left_out:], maps[:left_out]


def sources(recipe: dict[str, Any], maps: list[PackedMap], device: str) -> tuple[Source, Source | None]:
    """What a recipe trains on, and what it is looked at with: plain draws of the left-out maps, if there are any.

    ``[synth]`` takes the options of the generator and three of its own: ``left_out`` maps that only validate;
    ``silver``, how rough the labels are (of the left-out maps too: who learns from silver labels has no others to
    choose weights by); ``lifespan``, which draws an age first, and lets contrast and words follow from it. ``[real]``
    (``data``, ``truth``, ``labels``, ``share``) mixes real scans with labels into the draws. Of synthetic scans, but
    for those of the lifespan, a network that is told facts is told that nothing is known.
    """
    tell = teller(recipe)
    section, options = recipe.get("synth", {}), synth_options(recipe)
    left_out, silver = int(section.get("left_out", 0)), float(section.get("silver", 0))
    lifespan = bool(section.get("lifespan", False))
    if is_real_alone(recipe):
        return cascaded(recipe, _real(recipe, options, tell)[0]), None
    seen, unseen = split_maps(maps, left_out)
    source = _lifespan(recipe, seen, options, tell) if lifespan else _synthetic(recipe, seen, options, silver, device)
    if "real" in recipe:
        scans, share = _real(recipe, options, tell)
        source = Mixture([source, scans], [1 - share, share])
    if not unseen:
        return cascaded(recipe, source), None
    looked_at = _synthetic(recipe, unseen, dataclasses.replace(options, **PLAIN), silver, device)
    return cascaded(recipe, source), cascaded(recipe, looked_at)


def split(recipe: dict[str, Any], maps: list[PackedMap]) -> tuple[list[Member], list[Member]]:
    """What a recipe trains on, and what it is looked at with."""
    scans = []
    if "real" in recipe:
        real = options_from(RealOptions, recipe["real"], "real")
        scans = splits.scans_in(scan for scan, _ in chosen_pairs(real))
    if is_real_alone(recipe):
        return scans, []
    seen, unseen = split_maps(maps, int(recipe.get("synth", {}).get("left_out", 0)))
    return splits.maps_in(seen) + scans, splits.maps_in(unseen)


def is_real_alone(recipe: dict[str, Any]) -> bool:
    """Whether a recipe trains on real scans and draws nothing from label maps.

    Raises:
        SpansegError: an unknown key in ``[real]``.
    """
    return "real" in recipe and bool(options_from(RealOptions, recipe["real"], "real").share >= 1)


def _synthetic(
    recipe: dict[str, Any], maps: list[PackedMap], options: SynthOptions, silver: float, device: str
) -> Source:
    """Synthetic scans of people of whom nothing is known."""
    canvas, tell = model.canvas_of(recipe), teller(recipe)
    if model.is_clicked(recipe):
        return Unprompted(NearStructures(maps, load_classes(model.protocol_of(recipe)), canvas, options, device))
    source: Source = Generator(maps, load_classes(model.protocol_of(recipe)), canvas, options, device)
    if silver:
        source = Silver(source, silver, canvas.voxel_mm)
    return source if tell is None else Telling(source, tell(Facts()))


def _lifespan(recipe: dict[str, Any], maps: list[PackedMap], options: SynthOptions, tell: Teller | None) -> Source:
    if tell is None:
        raise SpansegError("[synth] lifespan = true is for networks that are told facts; give the recipe [tokens].")
    return Lifespan(maps, load_classes(model.protocol_of(recipe)), model.canvas_of(recipe), options, tell)


def _real(recipe: dict[str, Any], options: SynthOptions, tell: Teller | None) -> tuple[Source, float]:
    """Real scans with labels, and their share of the draws."""
    protocol, real = model.protocol_of(recipe), options_from(RealOptions, recipe["real"], "real")
    how = GENTLE if real.gentle else options
    scans = labelled_scans(real, protocol, is_told=tell is not None and tell.table is not None)
    return RealScans(scans, protocol, model.canvas_of(recipe), how, tell), real.share


def teller(recipe: dict[str, Any]) -> Teller | None:
    """What tells a recipe's network about people; ``None`` if it is told nothing."""
    section = recipe.get("tokens")
    if section is None:
        return None
    if section["name"] == "learned":
        return Teller(None)
    if section["name"] == "one_hot":
        return Teller(Numbers(), section.get("facts", TAKES))
    return Teller(_sentences(section), section.get("facts", TAKES))


def _sentences(section: dict[str, Any]) -> SentenceTable:
    """The sentences that a recipe's ``[tokens]`` name, if they are what its network was or will be trained with."""
    table, expected = load_table(section.get("table")), section.get("width", Knowledge.WIDTH)
    if table.width != expected:
        raise SpansegError(
            f"{table.source}: its sentences have {table.width} numbers a word, the recipe's network takes {expected}; "
            f"say --set tokens.width={table.width}."
        )
    if "encoder" in section:
        table.require(section["encoder"])
    return table


def with_encoder(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe in which stands who read the sentences that its network is told, so that no other reader's are told."""
    if recipe.get("tokens", {}).get("name") != "knowledge":
        return recipe
    return recipe | {"tokens": recipe["tokens"] | {"encoder": _sentences(recipe["tokens"]).encoder}}
