"""How bright structures are on real scans beside white matter, by a model's own labels: what the generator should draw.

    python benchmarks/contrast.py SCAN [SCAN ...] [--model wide]

For each scan the medians of a few structures (white matter = 1), away from their borders in the plane of the slices.
For scans with bright fluid also the share of the cortex's labels that lie on fluid, and of the fluid inside the skull
that is labelled cortex; fluid is what is nearer to the ventricles than to cortex. Nothing is compared with a truth.
"""

import argparse
from pathlib import Path

import numpy as np
from scipy import ndimage

from spanseg.images import read_scan
from spanseg.result import Segmentation
from spanseg.segmenter import SegmentOptions, load_model, segment_scan

WHITE, CORTEX, VENTRICLES = (2, 41), (3, 42), (4, 43)
SHOWN = {
    "cortex": CORTEX,
    "thalamus": (10, 49),
    "putamen": (12, 51),
    "pallidum": (13, 52),
    "hippocampus": (17, 53),
    "ventricles": VENTRICLES,
}


def median(image: np.ndarray, labels: np.ndarray, ids: tuple[int, ...]) -> float:
    """Median of a structure without its rim in the plane of the slices."""
    inside = np.isin(labels, ids)
    return float(np.median(image[ndimage.binary_erosion(inside, np.ones((3, 3, 1)))]))


def on_fluid(image: np.ndarray, result: Segmentation) -> tuple[float, float]:
    """Share of cortex on fluid, and of fluid inside the skull that is labelled cortex."""
    labels = result.labels.data
    cortex, inside = np.isin(labels, CORTEX), result.mask.data > 0
    fluid = image > (median(image, labels, CORTEX) + median(image, labels, VENTRICLES)) / 2
    return float(fluid[cortex].mean()), float(cortex[inside & fluid].mean())


def main() -> None:
    """Measure each scan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--model", default="default")
    given = parser.parse_args()
    options = SegmentOptions(model=given.model)
    predictor = load_model(options)
    for path in given.scans:
        scan = read_scan(path)
        result = segment_scan(scan, predictor, options)
        image, labels = scan.volume.data.astype(float), result.labels.data
        white = median(image, labels, WHITE)
        found = {name: median(image, labels, ids) / white for name, ids in SHOWN.items()}
        line = ", ".join(f"{name} {value:.2f}" for name, value in found.items())
        if found["ventricles"] > found["cortex"]:
            of_cortex, of_fluid = on_fluid(image, result)
            line += f"; cortex on fluid {of_cortex:.1%}, fluid labelled cortex {of_fluid:.1%}"
        print(f"{path.name}: {line}")


if __name__ == "__main__":
    main()
