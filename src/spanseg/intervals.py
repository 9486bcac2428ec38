"""90 % intervals of volumes: between which sizes the true volume lies, given the one that a model found.

``intervals.toml`` in a model folder holds two factors a volume. The true volume plus a floor lies between low × and
high × (the volume found plus that floor); the floor of some cubic millimetres lets a structure that was not found have
an interval too. ``benchmarks/calibrate.py`` fits the factors on synthetic scans of people whom the network never saw.

They cover a new person whose structures are drawn by the rules of the label maps that the model learned from, on a
scan that the generator could have made. They do not cover other rules (manual labels of another protocol may make
every amygdala a third smaller), thick slices, cut-off brains, or disease that no label map shows.
"""

from __future__ import annotations

import hashlib
import math
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from spanseg.errors import SpansegError
from spanseg.files import write_text
from spanseg.plain_names import MAY_BE_MISSING, plain_name
from spanseg.recipe import dumps
from spanseg.result import StructureVolume

NAME = "intervals.toml"
LEVEL = 0.9
FLOOR_MM3 = 50.0
"""A tenth of an accumbens: large enough that the logarithm of a lost ventricle horn is finite and moderate."""


@dataclass(frozen=True)
class Intervals:
    """What turns volumes into intervals.

    Args:
        factors: lowest and highest factor by the name of the volume.
        floor_mm3: added to a volume before it is multiplied, and taken off afterwards.
        sha256: of the file they were read from; empty if there was none that fits.
        note: why there are none although there is a file, one sentence; empty otherwise.
    """

    factors: dict[str, tuple[float, float]] = field(default_factory=dict)
    floor_mm3: float = FLOOR_MM3
    sha256: str = ""
    note: str = ""

    def around(self, row: StructureVolume) -> StructureVolume:
        """The same row with its interval, if there is one for a volume of its name.

        A structure that was not found gets none, unless it may rightly be invisible: zero is no volume to scale.

        Example:
            >>> Intervals({"Brain-Stem": (0.9, 1.2)}, 0.0).around(StructureVolume(16, "Brain-Stem", 20e3, 20e3)).low_mm3
            18000.0
        """
        is_lost = not row.mm3_labels and plain_name(row.name) not in MAY_BE_MISSING
        if row.mm3 is None or row.name not in self.factors or is_lost:
            return row
        raised = row.mm3 + self.floor_mm3
        low, high = (max(0.0, raised * factor - self.floor_mm3) for factor in self.factors[row.name])
        return replace(row, low_mm3=low, high_mm3=high)


def read_intervals(folder: Path, model_sha256: str) -> Intervals:
    """Read the intervals of a model folder; there are none without the file or if it is of another network.

    Args:
        folder: the model folder.
        model_sha256: hash of its network: factors fitted for other weights would be wrong and look right.

    Raises:
        SpansegError: the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return Intervals()
    try:
        content = path.read_bytes()
        table = tomllib.loads(content.decode("utf-8"))
        fitted_for, floor_mm3 = table["fit"]["model_sha256"], float(table["fit"]["floor_mm3"])
        factors = {str(name): (float(low), float(high)) for name, (low, high) in table["factors"].items()}
    except OSError as error:
        raise SpansegError(f"{path}: this file cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SpansegError(_damaged(path)) from error
    if not all(0 <= low <= high < math.inf for low, high in factors.values()) or not 0 <= floor_mm3 < math.inf:
        raise SpansegError(_damaged(path))
    if fitted_for != model_sha256:
        return Intervals(note=f"Volumes have no intervals: {NAME} was fitted for another network; fit it again.")
    return Intervals(factors, floor_mm3, hashlib.sha256(content).hexdigest())


def _damaged(path: Path) -> str:
    return (
        f"{path}: expected [fit] with model_sha256 and floor_mm3 and [factors] with two numbers a volume, found other "
        "content; copy the model folder again, or remove this file to go without intervals."
    )


def write_intervals(
    folder: Path, model_sha256: str, factors: dict[str, tuple[float, float]], people: int, scans: int
) -> Path:
    """Write the intervals of a model folder and return the path of the file.

    Args:
        folder: the model folder.
        model_sha256: hash of its network.
        factors: lowest and highest factor by the name of the volume.
        people: how many people they were fitted on.
        scans: how many scans.

    Raises:
        SpansegError: the folder cannot be written.
    """
    fit = {"level": LEVEL, "floor_mm3": FLOOR_MM3, "people": people, "scans": scans, "model_sha256": model_sha256}
    rounded = {name: [round(low, 4), round(high, 4)] for name, (low, high) in factors.items()}
    write_text(folder / NAME, dumps({"fit": fit, "factors": rounded}))
    return folder / NAME


def fit_factors(log_ratios: Sequence[Sequence[float]], level: float = LEVEL) -> tuple[float, float] | None:
    """Two factors between which the true volume over the one found lies in a new person.

    Scans of one person are no independent people. Two errors are therefore added in squares: conformal quantiles of
    the scans about the mean of their person, and how far the mean of a new person may lie from the mean over people, by
    Student's t: with three people, 3.4 times the standard deviation of their means.

    Args:
        log_ratios: for each person, the logarithms of true over found volume, one a scan (and side).
        level: share of people whose true volume the interval holds.

    Returns:
        Lowest and highest factor, ``None`` for fewer than two people or too few scans.
    """
    from scipy.special import stdtrit

    people = [np.asarray(values, dtype=float) for values in log_ratios if len(values) > 1]
    if len(people) < 2:
        return None
    means = np.array([values.mean() for values in people])
    # About their own mean scans scatter less than about the true one, by just what they add to the spread of the means.
    low, high = conformal_quantiles(np.concatenate([values - values.mean() for values in people]), level)
    if not math.isfinite(high - low):
        return None
    student = float(stdtrit(len(people) - 1, (1 + level) / 2))
    between = student * float(means.std(ddof=1)) * math.sqrt(1 + 1 / len(people))
    middle = float(means.mean())
    return math.exp(middle - math.hypot(low, between)), math.exp(middle + math.hypot(high, between))


def conformal_quantiles(values: np.ndarray, level: float) -> tuple[float, float]:
    """Bounds that hold one more value of the same kind with at least a probability; the rest is halved between them.

    Infinite where there are too few values to promise that (under 19 for 90 %).

    Reference:
        Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    outside = math.floor((1 - level) / 2 * (ordered.size + 1) + 1e-9)
    if outside < 1:
        return -math.inf, math.inf
    return float(ordered[outside - 1]), float(ordered[-outside])
