"""How much brighter fat may be: whole heads in which it is made brighter, with and without clipping of the scan.

    python benchmarks/bright_fat.py DATA/ixi/sub-*/anat/*_T1w.nii.gz

What lies outside the brain and is brighter than half of it is multiplied. Dice is with the labels of the scan as it is.
"""

import argparse
import statistics
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
from scipy import ndimage

from spanseg import passes
from spanseg.images import Scan, read_scan
from spanseg.segmenter import Predictor, SegmentOptions, load_model, segment_scan

FACTORS = (2, 3, 4)
GROUPS = {
    "nuclei": (10, 11, 12, 13, 17, 18, 49, 50, 51, 52, 53, 54),
    "white matter": (2, 41),
    "cortex": (3, 42),
    "lateral ventricles": (4, 43),
}


def brightened(scan: Scan, labels: np.ndarray, factor: float) -> Scan:
    """The scan with what is bright outside its brain multiplied."""
    outside = ~ndimage.binary_dilation(labels > 0, iterations=2)
    data = scan.volume.data
    fat = outside & (data > np.median(data[labels > 0]))
    return replace(scan, volume=scan.volume.with_data(np.where(fat, factor * data, data).astype(np.float32)))


def dice(before: np.ndarray, after: np.ndarray, ids: tuple[int, ...]) -> float:
    """Mean Dice of some structures."""
    pairs = [((before == one), (after == one)) for one in ids]
    return statistics.mean(2 * float((a & b).sum()) / max(1, int(a.sum() + b.sum())) for a, b in pairs)


def measure(path: Path, predictor: Predictor) -> None:
    """Print one line a factor, without clipping and with it."""
    scan, options = read_scan(path), SegmentOptions()
    usual = segment_scan(scan, predictor, options).labels.data
    for factor in FACTORS:
        bright = brightened(scan, usual, factor)
        for how, ceiling in (("as it is", lambda image, inside: None), ("clipped", passes.ceiling)):
            with mock.patch.object(passes, "ceiling", ceiling):
                found = segment_scan(bright, predictor, options).labels.data
            figures = "  ".join(f"{name} {dice(usual, found, ids):.3f}" for name, ids in GROUPS.items())
            print(f"{path.name}  fat × {factor}  {how:8s}  {figures}", flush=True)


def main() -> None:
    """Measure all scans."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scans", nargs="+", type=Path)
    predictor = load_model(SegmentOptions())
    for path in parser.parse_args().scans:
        measure(path, predictor)


if __name__ == "__main__":
    main()
