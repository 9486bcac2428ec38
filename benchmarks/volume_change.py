"""What becomes of a structure that nobody labelled when a model is adapted, in people that it was not adapted to.

    python benchmarks/volume_change.py DATA/malc ADAPTER --id 24 --without 1000,1006,1014,1036,1116

Sulcal CSF (24) is not labelled in ``malc``: a model adapted to its labels should go on finding what is left of it when
cortex, which is labelled, has taken its own. So beside the change of volume this prints where the voxels of the
structure went: to the same structure, to the background (it was unlearned), or to labelled structures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from spanseg.images import read_scan
from spanseg.inputs import find_jobs
from spanseg.pairing import case_key
from spanseg.segmenter import SegmentOptions, load_model, segment_scan


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="BIDS folder of scans")
    parser.add_argument("adapter", help="model folder of the adapted model")
    parser.add_argument("--base", default="default", help="model that it was adapted from")
    parser.add_argument("--id", type=int, default=24, help="FreeSurfer id")
    parser.add_argument("--without", default="", help="people that were trained on, comma-separated")
    arguments = parser.parse_args()
    left_out = set(arguments.without.split(","))
    scans = [job.path for job in find_jobs([arguments.dataset], arguments.dataset / "derivatives")]
    tested = [scan for scan in scans if case_key(scan).get("sub") not in left_out]
    options = [SegmentOptions(model=model) for model in (arguments.base, arguments.adapter)]
    loaded = [load_model(one) for one in options]
    rows = []
    for scan in tested:
        read = read_scan(scan)
        found = [segment_scan(read, *pair) for pair in zip(loaded, options, strict=True)]
        volumes = [next(row.mm3 or 0.0 for row in one.volumes if row.id == arguments.id) for one in found]
        before, after = (one.labels.data for one in found)
        went = after[before == arguments.id]
        rows.append([*volumes, (went == arguments.id).mean(), (went == 0).mean()])
    show(np.array(rows))


def show(rows: np.ndarray) -> None:
    """Print means over people; columns: volume before and after in mm³, shares that stayed and became background."""
    before, after, same, background = rows.T
    change = 100 * (after / before - 1)
    print(f"{len(rows)} people: {before.mean() / 1000:.1f} → {after.mean() / 1000:.1f} ml, {change.mean():+.1f} %")
    print(f"person by person {change.min():+.1f} to {change.max():+.1f} %")
    print(f"of the voxels before, {same.mean():.1%} are the same, {background.mean():.1%} became background")
    print(f"at most {background.max():.1%} became background; the rest became labelled structures")


if __name__ == "__main__":
    main()
