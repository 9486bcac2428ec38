"""Synthetic scans with their truth, as a BIDS data set, from any label map with FreeSurfer ids."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from spanseg import files
from spanseg.deform import Canvas
from spanseg.errors import SpansegError
from spanseg.generation import load_classes, pack
from spanseg.images import read_labels, scan_of, write_image, write_labels
from spanseg.labels import load_protocol
from spanseg.sources import PLAIN
from spanseg.synth import Generator, SynthOptions
from spanseg.volume import Volume, grid_round

EXTENT_MM = (168.0, 216.0, 168.0)
"""Field of view of a simulated scan."""


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
        options: how far the generator goes; ``None`` for plain T1-like scans.
        invent_facts: write an invented age and sex for each person, which have nothing to do with the scans.

    Returns:
        Paths of the scans.

    Raises:
        SpansegError: no people asked for, a folder that is not empty, or a label map that cannot be drawn.
    """
    if count < 1 or not maps:
        raise SpansegError(f"simulate needs at least one label map and one person, not {len(maps)} and {count}.")
    if folder.exists() and any(folder.iterdir()):
        raise SpansegError(f"{folder}: expected an empty folder for the data set, found files; choose another one.")
    protocol = load_protocol("aseg")
    table = load_classes(protocol)
    packed = [pack(read_labels(path).volume, table, str(path)) for path in maps]
    i, j, k = (round(extent / voxel_mm) for extent in EXTENT_MM)
    canvas, how = Canvas((i, j, k), voxel_mm), options or plain_options()
    generators = [Generator([one], table, canvas, how) for one in packed]
    _describe(folder, "Simulated scans", "raw")
    _describe(folder / "derivatives" / "truth", "Truth of the simulated scans", "derivative")
    files.write_text(folder / "participants.tsv", _participants(count, seed, invent_facts))
    affine = grid_round(np.zeros(3), (i, j, k), voxel_mm)
    return [_write(generators[n % len(maps)], protocol.ids, affine, folder, (seed, n)) for n in range(count)]


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


def _write(generator: Generator, ids: np.ndarray, affine: np.ndarray, folder: Path, draw: tuple[int, int]) -> Path:
    name = _name(draw[1])
    image, target, *_ = generator.draw(*draw)
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
