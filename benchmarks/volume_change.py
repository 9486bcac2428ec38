"""How much an adapted model changes volumes of people that it was not adapted to, such as of what nobody labelled.

    python benchmarks/volume_change.py ../shared/data/malc ADAPTER --ids 24 --without 1000,1006,1014,1036,1116

Sulcal CSF (24) is not labelled in ``malc``: a model adapted to its labels should go on finding as much of it as before.
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
    parser.add_argument("--ids", type=int, nargs="+", default=[24], help="FreeSurfer ids")
    parser.add_argument("--without", default="", help="people that were trained on, comma-separated")
    arguments = parser.parse_args()
    left_out = set(arguments.without.split(","))
    scans = [job.path for job in find_jobs([arguments.dataset], arguments.dataset / "derivatives")]
    tested = [scan for scan in scans if case_key(scan).get("sub") not in left_out]
    before, after = (volumes(tested, model, arguments.ids) for model in (arguments.base, arguments.adapter))
    change = 100 * (after / before - 1)
    for column, structure in enumerate(arguments.ids):
        total = 100 * (after[:, column].sum() / before[:, column].sum() - 1)
        print(
            f"id {structure}: {before[:, column].mean() / 1000:.1f} → {after[:, column].mean() / 1000:.1f} ml in the mean of "
            f"{len(tested)} people, {total:+.1f} %; person by person {change[:, column].min():+.1f} to "
            f"{change[:, column].max():+.1f} %, median {np.median(change[:, column]):+.1f} %"
        )


def volumes(scans: list[Path], model: str, ids: list[int]) -> np.ndarray:
    """Volumes from probabilities in mm³, shape (scan, id)."""
    options = SegmentOptions(model=model)
    predictor = load_model(options)
    found = []
    for scan in scans:
        rows = {row.id: row.mm3 or 0.0 for row in segment_scan(read_scan(scan), predictor, options).volumes}
        found.append([rows[one] for one in ids])
    return np.array(found)


if __name__ == "__main__":
    main()
