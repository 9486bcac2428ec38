"""Judge a model folder as a default model, and refuse it if it is worse than the one that is shipped.

    python benchmarks/validate.py DATA                 # the shipped model: print and record its figures anew
    python benchmarks/validate.py DATA --model FOLDER  # a candidate: exit code 1 if it is worse
    python benchmarks/validate.py DATA --model FOLDER --accept  # and record its figures

Worse is: the mean of (12 nuclei, white matter, cortex, lateral ventricles) on native ``malc`` falls, or any group of
structures on any set of scans falls by more than 0.02. The figures shipped lie in ``benchmarks/validation.json``; they
hold for the synthetic heads that were drawn then, so that a change of the generator asks for new ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from calibrate import left_out_maps
from spanseg.evaluate import score_volumes
from spanseg.evaluation import CaseScores, Row, rows_of, score_row
from spanseg.files import write_text
from spanseg.images import read_labels
from spanseg.judging import ScanWithTruth, judge
from spanseg.labelled import pair_scans
from spanseg.labels import Protocol, load_protocol
from spanseg.participants import find_table, read_participants
from spanseg.result import Segmentation
from spanseg.runtime import open_model
from spanseg.schemes import find_scheme
from spanseg.segmenter import SegmentOptions, load_model
from spanseg.simulate import plain_options, simulate

RECORD = Path(__file__).with_name("validation.json")
WORST_FALL = 0.02
LEFT_OUT = 3
"""Label maps that no default model is trained on."""
HEADLINE = ("nuclei", "cerebral_white_matter", "cerebral_cortex", "lateral_ventricles")
TISSUES = ("Gray-Matter", "White-Matter", "Cerebrospinal-Fluid")
JUDGED = (*HEADLINE, "other_structures", "worst_person_nuclei", *TISSUES)
SIXTEEN = (4, 43, 5, 44, 7, 46, 8, 47, 26, 58, 28, 60, 14, 15, 16, 24)
"""Ids beside the 12 nuclei whose mean is the row ``other_structures``."""
AGES = ((0, 30), (30, 60), (60, 200))
Table = dict[str, dict[str, float]]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder with malc, ixi and labelmaps")
    parser.add_argument("--model", default="default", help="model folder of a candidate")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth scan, for a quick look")
    parser.add_argument("--accept", action="store_true", help="record the figures of a candidate that is not worse")
    arguments = parser.parse_args()
    options = SegmentOptions(model=arguments.model)
    maps = left_out_maps(arguments.data / "labelmaps", LEFT_OUT, load_model(options))
    table = dict(tables(arguments.data, maps, options, arguments.every))
    show(table)
    if arguments.every > 1:
        return
    network, draws = open_model(arguments.model).sha256(), draws_sha256(maps)
    record = json.dumps({"model_sha256": network, "draws_sha256": draws, "table": table}, indent=1) + "\n"
    shipped = json.loads(RECORD.read_text(encoding="utf-8"))
    if shipped["model_sha256"] == network:
        write_text(RECORD, record)
        return
    if shipped.get("draws_sha256") != draws:
        sys.exit("validation.json is of other synthetic heads; run this with the model that it is of first")
    reasons = worse(shipped["table"], table)
    print("\n".join(reasons) if reasons else "not worse than the recorded model")
    if arguments.accept and not reasons:
        write_text(RECORD, record)
    sys.exit(1 if reasons else 0)


def draws_sha256(maps: Sequence[Path]) -> str:
    """Hash of one synthetic head: the generator's, by which figures of different days can be compared."""
    with tempfile.TemporaryDirectory() as scratch:
        pairs = heads(maps[:1], "t1", Path(scratch) / "bids", 1)
        volumes = [nib.load(path).dataobj for path in pairs[0]]
        return hashlib.sha256(b"".join(np.ascontiguousarray(volume).tobytes() for volume in volumes)).hexdigest()


def tables(
    data: Path, maps: Sequence[Path], options: SegmentOptions, every: int
) -> Iterator[tuple[str, dict[str, float]]]:
    """Each group of scans with its mean Dice by row."""
    malc = sorted(pair_scans(data / "malc", data / "malc" / "derivatives"))[::every]
    tissues = Tissues("neuromorphometrics")
    cases, protocol = judge(malc, "neuromorphometrics", options, seen=tissues)
    yield "malc, native", means(cases, protocol) | tissues.means() | {"worst_person_nuclei": worst(cases, protocol)}
    yield from by_age(data / "malc", cases, protocol)
    with tempfile.TemporaryDirectory() as scratch:
        thick = [thick_slices(pair, Path(scratch)) for pair in malc[::3]]
        yield "malc, 3 mm slices", judged(thick, "neuromorphometrics", options)
    yield (
        "ixi, whole heads",
        judged(sorted(pair_scans(data / "ixi", data / "ixi" / "derivatives"))[::every], "muse", options),
    )
    for contrast in ("t1", "t2", "flair"):
        with tempfile.TemporaryDirectory() as scratch:
            pairs = heads(maps, contrast, Path(scratch) / "bids", 2 * len(maps))
            yield f"synthetic heads, {contrast}", judged(pairs, "aseg", options)


def judged(pairs: Sequence[ScanWithTruth], labels: str, options: SegmentOptions) -> dict[str, float]:
    """Mean Dice over scans, by row and by tissue."""
    tissues = Tissues(labels)
    return means(*judge(pairs, labels, options, seen=tissues)) | tissues.means()


class Tissues:
    """Collects Dice of grey and white matter and, where the sulci are labelled, CSF, by the tissue protocol."""

    def __init__(self, labels: str) -> None:
        self.labels, self.protocol = labels, load_protocol("tissue")
        self.found: dict[str, list[float]] = {}

    def __call__(self, pair: ScanWithTruth, result: Segmentation) -> None:
        """Score one result."""
        truth, crosswalk = read_labels(pair[1]).volume, find_scheme(self.labels, self.protocol, pair[1])
        for index, scores in score_volumes(result.tissue, truth, self.protocol, crosswalk, 1.0, pair[0].name).items():
            self.found.setdefault(self.protocol.structures[index].name, []).append(scores.dice)

    def means(self) -> dict[str, float]:
        """Mean Dice by tissue."""
        return {name: round(float(np.mean(values)), 4) for name, values in self.found.items()}


def heads(maps: Sequence[Path], contrast: str, folder: Path, count: int) -> list[ScanWithTruth]:
    """Label maps drawn with one contrast, as whole heads."""
    only = {"t1": 0.0, "t2": 0.0, "flair": 0.0, "random": 0.0, "infant": 0.0} | {contrast: 1.0}
    drawn = dataclasses.replace(plain_options(), strip=0.0, **only)
    simulate(list(maps), folder, count, seed=11, options=drawn)
    return sorted(pair_scans(folder, folder / "derivatives"))


def thick_slices(pair: ScanWithTruth, folder: Path) -> ScanWithTruth:
    """A scan with slices of 3 mm along its third axis, and the truth in their middles."""
    scan, truth = (nib.load(path) for path in pair)
    count = scan.shape[2] // 3
    affine = scan.affine @ np.diag([1, 1, 3, 1])
    affine[:3, 3] = (scan.affine @ np.array([0, 0, 1, 1]))[:3]
    image = np.asarray(scan.dataobj)[..., : 3 * count].reshape(*scan.shape[:2], count, 3).mean(-1)
    labels = np.asarray(truth.dataobj)[..., 1 : 3 * count : 3]
    paths = folder / pair[0].name, folder / pair[1].name
    nib.save(nib.Nifti1Image(image.astype(np.float32), affine), paths[0])
    nib.save(nib.Nifti1Image(labels.astype(np.int16), affine), paths[1])
    return paths


def means(cases: Sequence[CaseScores], protocol: Protocol) -> dict[str, float]:
    """Mean Dice of each group of structures, the nuclei and the others one by one."""
    rows = rows_of(protocol, cases[0].scores)
    others = tuple(protocol.class_of(value) for value in SIXTEEN if protocol.class_of(value) in cases[0].scores)
    wanted = [row for row in rows if row.name != "below_the_brain"] + [Row("other_structures", 0, others)]
    return {row.name: round(average(cases, row), 4) for row in wanted}


def average(cases: Sequence[CaseScores], row: Row) -> float:
    """Mean Dice of a row over cases, those without it left out."""
    scored = [scores.values["dice"] for case in cases if (scores := score_row(case, row)) is not None]
    return float(np.nanmean(scored)) if np.isfinite(scored).any() else math.nan


def worst(cases: Sequence[CaseScores], protocol: Protocol) -> float:
    """Mean Dice of the nuclei of the person in whom it is lowest."""
    (row,) = [row for row in rows_of(protocol, cases[0].scores) if row.name == "nuclei"]
    return round(min(average([case], row) for case in cases), 4)


def by_age(dataset: Path, cases: Sequence[CaseScores], protocol: Protocol) -> Iterator[tuple[str, dict[str, float]]]:
    """The nuclei, white matter, cortex and ventricles by age."""
    table = find_table(dataset)
    ages = {} if table is None else {name: facts.age_years for name, facts in read_participants(table).items()}
    for low, high in AGES:
        there = [case for case in cases if (age := ages.get(case.subject)) is not None and low <= age < high]
        if there:
            figures = means(there, protocol)
            yield (
                f"malc, {low} to {high} years" if high < 200 else f"malc, from {low} years",
                {name: figures[name] for name in HEADLINE},
            )


def show(table: Table) -> None:
    """Print the groups of structures and tissues, one line a set of scans; then each structure on native ``malc``."""
    columns = (*HEADLINE, "other_structures", *TISSUES)
    print(f"{'':28}" + "".join(f"{name:>24}" for name in columns))
    for name, row in table.items():
        print(f"{name:28}" + "".join(f"{row.get(key, math.nan):24.3f}" for key in columns))
    print(f"worst person, 12 nuclei: {table['malc, native']['worst_person_nuclei']:.3f}")
    print("\nmalc, native, 12 nuclei and 16 other structures")
    protocol = load_protocol("aseg")
    names = {structure.id: structure.name for structure in protocol.structures}
    for value in (*protocol.groups["nuclei"], *SIXTEEN):
        if names[value] in table["malc, native"]:
            print(f"{names[value]:28}{table['malc, native'][names[value]]:24.3f}")


def worse(shipped: Table, candidate: Table) -> list[str]:
    """Reasons not to ship a candidate; empty if there are none. What has no figure is worse."""
    reasons = []
    old, new = (np.mean([table["malc, native"][name] for name in HEADLINE]) for table in (shipped, candidate))
    if not new >= old:
        reasons.append(f"the mean of {', '.join(HEADLINE)} on native malc falls from {old:.4f} to {new:.4f}")
    for name, row in shipped.items():
        for key, value in ((key, value) for key, value in row.items() if key in JUDGED):
            if not candidate[name][key] >= value - WORST_FALL:
                reasons.append(f"{name}, {key}: {value:.3f} falls to {candidate[name][key]:.3f}")
    return reasons


if __name__ == "__main__":
    main()
