"""Fit the 90 % intervals of a model's volumes on synthetic scans, or measure on real ones how often they hold.

    python benchmarks/calibrate.py DATA/labelmaps [--model FOLDER] [--draws 30]   # writes intervals.toml
    python benchmarks/calibrate.py --measure DATA/malc [--model FOLDER]           # writes nothing

Fitted on the label maps that the model's training left out (the first ones, as its ``recipe.toml`` says), drawn as
T1-like scans with the deformations, noise, blur, bias and ghosts of that recipe, a third of them skull-stripped, and
segmented as any scan is. Left and right count as two scans of one person. What the intervals cover and what they do
not: ``spanseg.intervals``. Real scans have no part in the fit.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spanseg import labelling, recipe, splits
from spanseg.errors import SpansegError
from spanseg.files import write_text
from spanseg.generation import load_classes, pack
from spanseg.images import read_labels, read_scan
from spanseg.intervals import FLOOR_MM3, fit_factors, write_intervals
from spanseg.labelled import pair_scans
from spanseg.labels import Protocol
from spanseg.schemes import find_scheme
from spanseg.segmenter import Predictor, SegmentOptions, load_model, segment_scan
from spanseg.simulate import simulate
from spanseg.sources import PLAIN
from spanseg.synth import SynthOptions
from spanseg.volume import canonical

STRIPPED_SHARE = 1 / 3
WIDEST = 5.0
"""An interval whose ends differ by more than this factor says nothing and is left out, such as that of sulcal CSF, of
which a stripped scan holds little and a whole head much."""
LogRatios = dict[str, list[float]]
"""Name of a volume → logarithms of true over found volume, one a scan."""


def main() -> None:
    """Run the benchmark."""
    arguments = parse()
    options = SegmentOptions(model=arguments.model, threads=arguments.threads)
    predictor = load_model(options)
    if arguments.measure is not None:
        pairs = sorted(pair_scans(arguments.measure, arguments.measure / "derivatives"))[:: arguments.every]
        show_coverage(coverage(pairs, arguments.labels, predictor, options), predictor.protocol)
    else:
        calibrate(arguments, predictor, options)


def calibrate(arguments: argparse.Namespace, predictor: Predictor, options: SegmentOptions) -> None:
    """Draw scans of each left-out person, compare their volumes, and write the intervals into the model folder."""
    trained = recipe.load(str(predictor.folder.path / "recipe.toml")).get("synth", {})
    maps = left_out_maps(arguments.labelmaps, int(trained.get("left_out", 0)), predictor)
    each = arguments.draws // len(maps)
    people: list[LogRatios] = []
    for number, path in enumerate(maps):
        people.append({})
        for scan, truth, is_whole in drawn(path, 1000 + number, each, arguments.voxel_mm, t1_like(trained)):
            add_ratios(people[-1], scan, true_volumes(truth, predictor.protocol, is_whole), predictor, options)
            print(f"{path.name}: {scan.name}{'' if is_whole else ', stripped'}", flush=True)
    if arguments.json:
        write_text(arguments.json, json.dumps(people, indent=1) + "\n")
    factors = fit(people, predictor.protocol)
    folder = predictor.folder
    write_intervals(folder.path, folder.sha256(), factors, len(maps), each * len(maps))
    for name, (low, high) in factors.items():
        print(f"{name:32}{low:8.3f}{high:8.3f}")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wanted = parser.add_mutually_exclusive_group(required=True)
    wanted.add_argument("labelmaps", type=Path, nargs="?", help="folder of the label maps that the model is trained on")
    wanted.add_argument("--measure", type=Path, metavar="BIDS", help="scans with true labels below derivatives")
    parser.add_argument("--model", default="default", help="name of a shipped model, or a model folder")
    parser.add_argument("--draws", type=int, default=30, metavar="N", help="synthetic scans, shared among the people")
    parser.add_argument("--voxel-mm", type=float, default=1.0, help="edge length of the synthetic scans' voxels")
    parser.add_argument("--labels", default="neuromorphometrics", help="label scheme of the truth to measure by")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="measure only every Nth scan")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the logarithms of true over found volume")
    parser.add_argument("--threads", type=int, help="threads of the network; all cores by default")
    return parser.parse_args()


def t1_like(trained: dict[str, Any]) -> SynthOptions:
    """The generator as far as the model's training went, for T1-like scans on which nothing is cut off."""
    options = {key: value for key, value in trained.items() if key in SynthOptions.__dataclass_fields__}
    return SynthOptions(**options | PLAIN)


def left_out_maps(labelmaps: Path, count: int, predictor: Predictor) -> list[Path]:
    """The first label maps, which the training of a model left out."""
    maps = sorted(labelmaps.rglob("*.nii.gz"))[:count]
    if len(maps) < 2:
        raise SpansegError(f"{labelmaps}: intervals need two people that the model has not seen, found {len(maps)}.")
    table = load_classes(predictor.protocol)
    packed = [pack(read_labels(path).volume, table, path.name) for path in maps]
    splits.require_unseen(predictor.folder.path, splits.maps_in(packed))
    return maps


def drawn(
    labelmap: Path, seed: int, count: int, voxel_mm: float, options: SynthOptions
) -> Iterator[tuple[Path, Path, bool]]:
    """Synthetic scans of one person with their truth, and whether the whole head is in them."""
    stripped = round(count * STRIPPED_SHARE)
    for strip, share in ((0.0, count - stripped), (1.0, stripped)):
        if not share:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "bids"
            how = dataclasses.replace(options, strip=strip)
            simulate([labelmap], folder, share, voxel_mm, 2 * seed + int(strip), how)
            for scan, truth in sorted(pair_scans(folder, folder / "derivatives")):
                yield scan, truth, not strip


def true_volumes(path: Path, protocol: Protocol, is_whole: bool, labels: str | None = None) -> dict[str, float]:
    """Volumes of a label image by the names of the volume table; those that it does not hold in full are left out."""
    scheme = find_scheme(labels, protocol, path)
    truth, _ = canonical(read_labels(path).volume)
    classes = scheme.apply(truth.data, str(path)).clip(min=0).astype(np.uint8)  # unknown voxels are no structure's
    mm3 = np.bincount(classes.ravel(), minlength=len(protocol)) * truth.voxel_volume_mm3
    known = [index for index in range(1, len(protocol)) if index not in scheme.unlabelled]
    volumes = {protocol.structures[index].name: float(mm3[index]) for index in known}
    for tissue, value in protocol.tissues.items():
        members = np.flatnonzero(protocol.tissue_of_class == value)
        if set(members) <= set(known):
            volumes[f"Total-{tissue}"] = float(mm3[members].sum())
    if is_whole:
        mask = labelling.brain_mask(classes, protocol, float(truth.voxel_size_mm[2]))
        volumes["IntraCranialVol"] = float(mask.sum()) * truth.voxel_volume_mm3
    return volumes


def add_ratios(
    ratios: LogRatios, scan: Path, true: dict[str, float], predictor: Predictor, options: SegmentOptions
) -> None:
    """Segment a scan and add the logarithms of true over found volume."""
    for row in segment_scan(read_scan(scan), predictor, options).volumes:
        if row.mm3 is not None and row.name in true:
            ratio = (true[row.name] + FLOOR_MM3) / (row.mm3 + FLOOR_MM3)
            ratios.setdefault(row.name, []).append(math.log(ratio))


def fit(people: Sequence[LogRatios], protocol: Protocol) -> dict[str, tuple[float, float]]:
    """Factors of every volume of which they say something; both sides of a structure share theirs."""
    names = {structure.id: structure.name for structure in protocol.structures}
    other_side = {structure.name: names[structure.mirror] for structure in protocol.structures}
    factors = {}
    for name in dict.fromkeys(name for ratios in people for name in ratios):
        sides = dict.fromkeys((name, other_side.get(name, name)))
        found = fit_factors([[value for side in sides for value in ratios.get(side, [])] for ratios in people])
        if found is not None and found[1] < WIDEST * found[0]:
            factors[name] = found
    return factors


def coverage(
    pairs: Sequence[tuple[Path, Path]], labels: str, predictor: Predictor, options: SegmentOptions
) -> dict[str, list[tuple[bool, float, float]]]:
    """By volume, for each scan: whether the interval holds the truth; its width and the truth, where 1 was found."""
    seen: dict[str, list[tuple[bool, float, float]]] = {}
    for scan, truth in pairs:
        true = true_volumes(truth, predictor.protocol, False, labels)
        for row in segment_scan(read_scan(scan), predictor, options).volumes:
            if row.mm3 and row.low_mm3 is not None and row.high_mm3 is not None and row.name in true:
                holds = row.low_mm3 <= true[row.name] <= row.high_mm3
                width = (row.high_mm3 - row.low_mm3) / row.mm3
                seen.setdefault(row.name, []).append((holds, width, true[row.name] / row.mm3))
        print(scan.name, flush=True)
    return seen


def show_coverage(seen: dict[str, list[tuple[bool, float, float]]], protocol: Protocol) -> None:
    """Print how often the intervals hold, volume by volume, and the means over the structures and the 12 nuclei."""
    print(f"\n{'volume':32}{'scans':>6}{'holds %':>9}{'width %':>9}{'true/found':>12}   (medians)")
    shares = {name: 100 * float(np.mean([holds for holds, _, _ in rows])) for name, rows in seen.items()}
    for name, rows in seen.items():
        _, widths, ratios = zip(*rows, strict=True)
        print(f"{name:32}{len(rows):6}{shares[name]:9.0f}{100 * np.median(widths):9.0f}{np.median(ratios):12.2f}")
    nuclei = {protocol.structures[protocol.class_of(value)].name for value in protocol.groups["nuclei"]}
    structures = {structure.name for structure in protocol.structures}
    for what, names in (("structures", structures & seen.keys()), ("12 nuclei", nuclei & seen.keys())):
        wide = np.median([width for name in names for _, width, _ in seen[name]])
        print(f"{what}: hold {np.mean([shares[name] for name in names]):.0f} %, median width {100 * wide:.0f} %")


if __name__ == "__main__":
    main()
