"""One number for how far a result can be trusted, from 0 to 1, and in plain words what speaks against it.

A logistic model weighs a few measures of the scan and of its result, each of which grows as things get worse. Its
coefficients lie in ``quality.toml`` in the model folder; they were fitted on spoilt synthetic scans
(``benchmarks/quality.py``), so a score is about the model that lies beside them. It never changes a result.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from spanseg import recipe
from spanseg.asymmetry import lateral_pairs, volume_mm3
from spanseg.errors import SpansegError
from spanseg.flags import LIMITS, doubtful_structures
from spanseg.labels import load_protocol
from spanseg.measures import appearance, brain_ml, cut_edges_mm2
from spanseg.plain_names import plain_name
from spanseg.result import OFF_CANVAS, Segmentation

if TYPE_CHECKING:
    from spanseg.images import Scan

NAME = "quality.toml"
LOW = 0.6
"""Below this score a result carries a warning."""
ADULT_ML = (750.0, 1750.0)
"""Grey and white matter of adults: within these sizes no brain is better than another."""
ENOUGH_SIGNAL, ENOUGH_CONTRAST = 12.0, 1.5
"""Signal to noise, and contrast in standard deviations, of which more does a result no good."""
MOST_DOUBTS = 6
MOST_UNSURE, MISSED = 0.4, 0.6
"""How far the mean probability of all nuclei, and of one of them, can fall below 1 before no more is counted."""
MOST_UNUSUAL, MOST_UNLIKE = 3.0, 0.5
"""Where unusual sizes (in standard deviations) and differences of the sides (in shares of their mean) end."""
DECISIVE = {"brain_size": 0.15, "cut": 0.6, "off_canvas": 1.0}
"""From here on a measure decides alone, whatever the others say: sizes are wrong, or part of the brain is not there.
A brain outside 645 to 2033 ml; 30 cm² of brain at the edges of the scan (cropped to its bounding box, it stays below);
a brain that reaches the border of the network's canvas."""
DECIDED = 0.5
"""The highest score that a decisive measure leaves."""
MOST_REASONS = 4
OF_THE_SCAN = ("brain_size", "cut", "off_canvas", "contrast", "noise", "ghosts")
"""Measures that say more about the scan than about its result: named first, since they tell what to do."""
LEAST_WEIGHT = 0.3
"""What lowers the log odds by less is no reason."""
MOST_CUT_MM2 = 5000.0
"""Area of brain at the edges of the scan beyond which no more is counted."""
FAR_MM = 12.0
"""What lies further from the brain mask is expected to be air, at least in part."""
_COARSE_MM = 4.0
Features = dict[str, float]


class Usual(NamedTuple):
    """Logarithm of a structure's usual volume on one side, in percent of the brain.

    Args:
        mean: mean over people.
        spread: standard deviation over people.
    """

    mean: float
    spread: float


class Weight(NamedTuple):
    """How one measure enters the score.

    Args:
        typical: its mean over good scans.
        spread: its standard deviation over all scans, good and bad.
        weight: how much the log odds of a good result fall for each ``spread`` above ``typical``.
    """

    typical: float
    spread: float
    weight: float


@dataclass(frozen=True)
class QualityTable:
    """Contents of ``quality.toml``.

    Args:
        intercept: log odds of a good result where every measure is typical.
        weights: by name of the measure.
        profile: usual volumes, by plain name of the structure.
    """

    intercept: float
    weights: dict[str, Weight]
    profile: dict[str, Usual]


def load(folder: Path, model_sha256: str) -> QualityTable | None:
    """Read the table of a model folder; ``None`` where there is none, or only one that was fitted to another network.

    Args:
        folder: the model folder.
        model_sha256: hash of its network.

    Raises:
        SpansegError: the file is not a table of the quality score, or of another version of spanseg.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        fit, weights, profile = found["fit"], found["weights"], found["profile"]
        table = QualityTable(
            float(fit["intercept"]),
            {name: Weight(*map(float, row)) for name, row in weights.items()},
            {name: Usual(*map(float, row)) for name, row in profile.items()},
        )
        fits_network = fit["model_sha256"] == model_sha256
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise SpansegError(f"{path}: this is no table of the quality score ({error}); copy the model again.") from error
    if unknown := sorted(table.weights.keys() - _WORDS.keys()):
        raise SpansegError(
            f"{path}: this version of spanseg does not measure {', '.join(unknown)}; "
            "install the one that made the table."
        )
    return table if fits_network else None


def dumps(table: QualityTable, about: dict[str, Any]) -> str:
    """Write a table as TOML.

    Args:
        table: the coefficients.
        about: what else is recorded of the fit; ``model_sha256`` must be among it.
    """
    rounded = {name: [round(value, 4) for value in row] for name, row in table.weights.items()}
    usual = {json.dumps(name): [round(value, 4) for value in row] for name, row in table.profile.items()}
    fit = {"intercept": round(table.intercept, 4)} | about
    return recipe.dumps({"fit": fit, "weights": rounded, "profile": usual})


def with_quality(scan: Scan, result: Segmentation, table: QualityTable | None) -> Segmentation:
    """Return the result with ``quality`` among its details; if it is low, with a warning and without intervals.

    Args:
        scan: the scan as read.
        result: its segmentation, on the same grid.
        table: what the model folder says; ``None`` gives no score.
    """
    if table is None:
        return replace(result, details=result.details | {"quality": None})
    features = measure(scan, result, table.profile)
    value, why = score(features, table), reasons(features, table)
    rounded = {name: round(number, 3) for name, number in features.items()}
    details = result.details | {"quality": {"score": round(value, 3), "reasons": why, "features": rounded}}
    if value >= LOW:
        return replace(result, details=details)
    warning = (
        f"Quality {value:.2f} of 1, the result is probably not usable: {'; '.join(why)}. Volumes are given without "
        "intervals."
    )
    bare = tuple(replace(row, low_mm3=None, high_mm3=None) for row in result.volumes)
    return replace(result, details=details, volumes=bare, warnings=(*result.warnings, warning))


def score(features: Features, table: QualityTable) -> float:
    """Probability that a result is good, 0 to 1."""
    log_odds = table.intercept - sum(_against(features, table).values())
    value = float(1 / (1 + np.exp(-np.clip(log_odds, -50, 50))))
    return min(value, DECIDED) if _decisive(features) else value


def _decisive(features: Features) -> list[str]:
    return [name for name, limit in DECISIVE.items() if features[name] >= limit]


def reasons(features: Features, table: QualityTable) -> list[str]:
    """What pulls the score down, in plain words: first what is wrong with the scan, then what is with the result.

    Empty for a good score.
    """
    if score(features, table) >= LOW:
        return []
    against = {name: much for name, much in _against(features, table).items() if much >= LEAST_WEIGHT}
    against |= dict.fromkeys(_decisive(features), math.inf)
    worst = sorted(against, key=lambda name: (name not in OF_THE_SCAN, -against[name]))
    return [_WORDS[name](features[name]) for name in worst[:MOST_REASONS]]


def _against(features: Features, table: QualityTable) -> dict[str, float]:
    """How much each measure lowers the log odds."""
    return {name: row.weight * (features[name] - row.typical) / row.spread for name, row in table.weights.items()}


def measure(scan: Scan, result: Segmentation, profile: dict[str, Usual]) -> Features:
    """Measures of a scan and its result, by name; each grows as things get worse, and ends at what is bad enough.

    Args:
        scan: the scan as read.
        result: its segmentation, on the same grid.
        profile: usual volumes.
    """
    volume_ml = brain_ml(result)
    doubts = doubtful_structures(result) if volume_ml else len(LIMITS)
    looks = appearance(scan, result)
    contrast, signal = (-3.0, 2.0) if looks is None else looks
    return {
        **_uncertainty(result),
        "doubtful": float(min(doubts, MOST_DOUBTS)),
        "sizes": _unusual_sizes(result, volume_ml, profile),
        "asymmetry": _asymmetry(result),
        "brain_size": _unusual_brain(volume_ml),
        "noise": -math.log(min(max(signal, 2.0), ENOUGH_SIGNAL)),
        "contrast": -min(max(contrast, -3.0), ENOUGH_CONTRAST),
        "islands": _islands(result),
        "cut": min(sum(cut_edges_mm2(result).values()) / MOST_CUT_MM2, 1.0),
        "off_canvas": float(OFF_CANVAS in result.warnings),
        **_surroundings(scan, result),
    }


def _uncertainty(result: Segmentation) -> Features:
    """Logarithm of how far the probabilities stay below 1 in the nuclei: on average, and in the worst of them."""
    protocol = load_protocol(result.protocol)
    names = [protocol.structures[protocol.class_of(value)].name for value in protocol.groups["nuclei"]]
    known = result.details.get("confidence", {})
    short = [min(max(1 - known.get(name, 0.0), 0.02), 1.0) for name in names]
    return {
        "uncertainty": math.log(min(float(np.mean(short)), MOST_UNSURE)),
        "worst_uncertainty": math.log(min(max(short), MISSED)),
    }


def _unusual_brain(volume_ml: float) -> float:
    """Logarithm of how far a brain is larger or smaller than those of adults; 0 within their range."""
    if not volume_ml:
        return 1.0
    smallest, largest = ADULT_ML
    return min(max(math.log(smallest / volume_ml), math.log(volume_ml / largest), 0.0), 1.0)


def _unusual_sizes(result: Segmentation, volume_ml: float, profile: dict[str, Usual]) -> float:
    """Mean distance of the structures' shares of the brain from the usual, in standard deviations of the logarithm."""
    distances = []
    for row in result.volumes:
        usual, mm3 = profile.get(plain_name(row.name)), volume_mm3(row)
        if usual is None:
            continue
        far = math.inf if not mm3 or not volume_ml else abs(math.log(mm3 / (10 * volume_ml)) - usual.mean)
        distances.append(min(far / usual.spread, 5.0))
    return min(float(np.mean(distances)), MOST_UNUSUAL) if distances else MOST_UNUSUAL


def _asymmetry(result: Segmentation) -> float:
    """Logarithm of the mean difference of the sides, in shares of their mean, of what should be alike on both."""
    judged = [pair for pair in lateral_pairs(result) if pair.name in LIMITS and LIMITS[pair.name].asymmetry_percent]
    percents = [pair.asymmetry_percent for pair in judged]
    mean = float(np.mean([2.0 if one is None else min(abs(one) / 100, 2.0) for one in percents]))
    return math.log(min(max(mean, 0.02), MOST_UNLIKE))


def _islands(result: Segmentation) -> float:
    """Decimal logarithm of the share of labelled voxels that were small separate pieces."""
    labelled = int(np.count_nonzero(result.labels.data))
    share = result.details.get("relabelled_voxels", 0) / max(labelled, 1)
    return math.log10(min(max(share, 1e-4), 1.0))


def _surroundings(scan: Scan, result: Segmentation) -> Features:
    """Brightness where there should be none, and none where brain was found; white matter is 1.

    ``ghosts``: brightness of the darker part of what lies far from the brain. ``empty``: share of the brain that is as
    dark as air.
    """
    from scipy import ndimage

    size_mm = scan.volume.voxel_size_mm
    step = tuple(slice(None, None, max(1, round(_COARSE_MM / size))) for size in size_mm)
    image, mask = scan.volume.data[step].astype(np.float32), result.mask.data[step] > 0
    tissue = result.tissue.data[step]
    if not (tissue > 1).any():
        return {"ghosts": 0.5, "empty": 1.0}
    darkest = float(np.quantile(image, 0.005))
    bright = float(np.quantile(image[tissue > 1], 0.9))
    shown = (image - darkest) / max(bright - darkest, 1e-9)
    spacing = size_mm * [one.step for one in step]
    far = shown[ndimage.distance_transform_edt(~mask, sampling=spacing) > FAR_MM]
    ghosts = float(np.quantile(far, 0.3)) if far.size else 0.0
    return {"ghosts": min(max(ghosts, 0.0), 0.5), "empty": float((shown[tissue > 1] < 0.1).mean())}


def _up_to(value: float, most: float) -> str:
    """Words to put after a number that ends at ``most``."""
    return " or more" if value >= most * 0.999 else ""


_WORDS: dict[str, Callable[[float], str]] = {
    "uncertainty": lambda value: (
        "the network is unsure in the deep nuclei (mean probability "
        f"{1 - math.exp(value):.2f}{' or less' if _up_to(math.exp(value), MOST_UNSURE) else ''})"
    ),
    "worst_uncertainty": lambda value: (
        "a deep nucleus was not found or is a guess"
        if _up_to(math.exp(value), MISSED)
        else f"one deep nucleus is uncertain (mean probability {1 - math.exp(value):.2f})"
    ),
    "doubtful": lambda value: (
        f"{value:.0f}{_up_to(value, MOST_DOUBTS)} structures are missing, uncertain or of an unlikely size"
    ),
    "sizes": lambda value: (
        "the structures' shares of the brain are unusual "
        f"({value:.1f}{_up_to(value, MOST_UNUSUAL)} standard deviations from the mean of adults)"
    ),
    "asymmetry": lambda value: (
        f"left and right differ by {100 * math.exp(value):.0f} %{_up_to(math.exp(value), MOST_UNLIKE)} on average"
    ),
    "brain_size": lambda value: (
        f"the brain is {math.exp(value):.1f} times{_up_to(value, 1.0)} too large or too small for an adult's: "
        "is the voxel size right?"
    ),
    "noise": lambda value: f"the scan is noisy (signal to noise {math.exp(-value):.0f})",
    "contrast": lambda value: (
        "grey matter is brighter than white" if value > 0.5 else "grey and white matter differ little in brightness"
    ),
    "islands": lambda value: f"{100 * 10**value:.1f} % of the labels were small separate pieces",
    "cut": lambda value: (
        f"the edge of the scan cuts through the brain ({MOST_CUT_MM2 / 100 * value:.0f} cm²{_up_to(value, 1.0)})"
    ),
    "off_canvas": lambda _: "the brain does not fit into the field that the network sees: is the voxel size right?",
    "ghosts": lambda value: f"it is not dark beside the head ({100 * value:.0f} % of the brain's brightness)",
    "empty": lambda value: f"{100 * value:.0f} % of what was labelled brain is as dark as air",
}
