"""Synthetic scans with their truth, as a BIDS data set, from any label map with FreeSurfer ids."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from spanseg import files
from spanseg.deform import Canvas
from spanseg.errors import SpansegError
from spanseg.flags import BRAIN_ML
from spanseg.generation import load_classes, pack
from spanseg.images import read_labels, scan_of, write_image, write_labels
from spanseg.interfaces import Sample
from spanseg.labels import Protocol, load_protocol
from spanseg.passes import MARGIN_MM
from spanseg.scanners import POSED
from spanseg.sources import PLAIN
from spanseg.synth import Generator, SynthOptions
from spanseg.volume import Volume, grid_round

EXTENT_MM = (168.0, 216.0, 168.0)
"""Field of view of a simulated scan."""
MOST_BRAIN_ML = 0.925 * BRAIN_ML[1]
"""Brain of a simulated person at most: results that measure a few per cent more are still those of a human brain."""
ROOM_MM = MARGIN_MM + 4.0
"""By this much a simulated brain is shorter than the field of view: what a model finds of it may be a voxel longer."""
_TRIES, _NEXT_TRY = 30, 1_000_000


def simulate(
    maps: list[Path],
    folder: Path,
    count: int,
    voxel_mm: float = 1.5,
    seed: int = 0,
    options: SynthOptions | None = None,
    invent_facts: bool = False,
) -> list[Path]:
    """Draw ``count`` people and write them as BIDS, the truth under ``derivatives/truth``.

    Args:
        maps: label maps; people are drawn from them in turn, each deformed.
        folder: data set to write; must be empty or absent.
        count: number of people.
        voxel_mm: edge length of the voxels.
        seed: the same seed gives the same data set.
        options: how far the generator goes; ``None`` for plain T1-like scans. Who is too large for the field of view is
            drawn again, but for options that cut it themselves (``cut``).
        invent_facts: write an invented age and sex for each person, which have nothing to do with the scans.

    Returns:
        Paths of the scans.

    Raises:
        SpansegError: no people asked for, a folder that is not empty, or a label map that cannot be drawn or gives
            nobody whose brain fits.
    """
    if count < 1 or not maps:
        raise SpansegError(f"simulate needs at least one label map and one person, not {len(maps)} and {count}.")
    if folder.exists() and any(folder.iterdir()):
        raise SpansegError(f"{folder}: expected an empty folder for the data set, found files; choose another one.")
    protocol = load_protocol("aseg")
    table = load_classes(protocol)
    packed = [pack(read_labels(path).volume, table, str(path)) for path in maps]
    i, j, k = (round(extent / voxel_mm) for extent in EXTENT_MM)
    canvas, how = Canvas((i, j, k), voxel_mm), options or replace(plain_options(), **POSED)
    generators = [Generator([one], table, canvas, how) for one in packed]
    _describe(folder, "Simulated scans", "raw")
    _describe(folder / "derivatives" / "truth", "Truth of the simulated scans", "derivative")
    files.write_text(folder / "participants.tsv", _participants(count, seed, invent_facts))
    affine = grid_round(np.zeros(3), (i, j, k), voxel_mm)
    scans = []
    for n in range(count):
        generator, draw = generators[n % len(maps)], (seed, n)
        sample = generator.draw(*draw) if how.cut else _whole(generator, protocol, draw, maps[n % len(maps)])
        scans.append(_write(sample, protocol.ids, affine, folder, _name(n)))
    return scans


def plain_options() -> SynthOptions:
    """T1-like contrast, no thick slices, nothing cut off; half of the scans skull-stripped."""
    return replace(SynthOptions(), **PLAIN)


def _participants(count: int, seed: int, invent_facts: bool) -> str:
    """The table of people, with invented facts if asked for."""
    if not invent_facts:
        return "participant_id\n" + "".join(f"{_name(n)}\n" for n in range(count))
    rng = np.random.default_rng([seed, 3])
    rows = [f"{_name(n)}\t{rng.integers(18, 91)}\t{rng.choice(['F', 'M'])}\n" for n in range(count)]
    return "participant_id\tage\tsex\n" + "".join(rows)


def _name(number: int) -> str:
    return f"sub-sim{number + 1:04d}"


def _whole(generator: Generator, protocol: Protocol, draw: tuple[int, int], source: Path) -> Sample:
    """Draw a person, again until the whole brain is seen; the same person for the same seed.

    Raises:
        SpansegError: nobody fits.
    """
    seed, number = draw
    for attempt in range(_TRIES):
        sample = generator.draw(seed, number + attempt * _NEXT_TRY)
        if _fits(sample.target[0].numpy(), protocol, generator.canvas.voxel_mm):
            return sample
    size = " × ".join(f"{extent:g}" for extent in EXTENT_MM)
    raise SpansegError(
        f"{source}: none of {_TRIES} people drawn from this label map has a brain of at most {MOST_BRAIN_ML:.0f} ml "
        f"that fits into {size} mm; check the voxel size in its header, or draw with --wide, which may cut brains off."
    )


def _fits(classes: np.ndarray, protocol: Protocol, voxel_mm: float) -> bool:
    """Whether a brain is no larger than a human one, lies inside, and leaves the room that a canvas asks for."""
    brain = np.isin(classes, [n for n, one in enumerate(protocol.structures) if one.tissue in ("GM", "WM")])
    if brain.sum() * voxel_mm**3 / 1000 > MOST_BRAIN_ML:
        return False
    for axis, n in enumerate(brain.shape):
        where = np.flatnonzero(brain.any(axis=tuple(other for other in range(3) if other != axis)))
        if len(where) and (where[0] == 0 or where[-1] == n - 1 or np.ptp(where) + 1 > n - ROOM_MM / voxel_mm):
            return False
    return True


def _write(sample: Sample, ids: np.ndarray, affine: np.ndarray, folder: Path, name: str) -> Path:
    image, target, *_ = sample
    scan = scan_of(Volume((image[0, 0].numpy() * 1000).round(), affine))
    anat, truth = folder / name / "anat", folder / "derivatives" / "truth" / name / "anat"
    for place in (anat, truth):
        place.mkdir(parents=True, exist_ok=True)
    written = np.append(ids, ids[0])  # the last entry serves UNKNOWN, -1: a label map's id without a side
    write_labels(truth / f"{name}_dseg.nii.gz", written[target[0].numpy()], scan)
    write_image(anat / f"{name}_T1w.nii.gz", scan.volume.data.astype(np.int16), scan)
    return anat / f"{name}_T1w.nii.gz"


def _describe(folder: Path, name: str, kind: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    table = {"Name": name, "BIDSVersion": "1.10.0", "DatasetType": kind, "GeneratedBy": [{"Name": "spanseg simulate"}]}
    files.write_text(folder / "dataset_description.json", json.dumps(table, indent=1) + "\n")
