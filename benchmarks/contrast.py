"""How bright structures are on real scans beside white matter, by a model's own labels: what the generator should draw.

    python benchmarks/contrast.py SCAN [SCAN ...] [--model wide]

For each scan the medians of a few structures (white matter = 1), away from their borders in the plane of the slices,
and how uneven white matter is: near the surface beside the depth, in the backmost beside the foremost fifth.
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


def unevenness(image: np.ndarray, result: Segmentation) -> tuple[float, float]:
    """White matter 3 to 8 mm below the surface beside that below 28 mm, and at the back beside the front."""
    mask, affine = result.mask.data > 0, result.mask.affine
    depth = ndimage.distance_transform_edt(mask, sampling=np.linalg.norm(affine[:3, :3], axis=0))
    white = ndimage.binary_erosion(np.isin(result.labels.data, WHITE), np.ones((3, 3, 1)))
    forward = np.einsum("a,aijk->ijk", affine[1, :3], np.indices(mask.shape)) + affine[1, 3]
    first, last = forward[mask].min(), forward[mask].max()
    fifth = 0.2 * (last - first)
    places = ((depth >= 3) & (depth < 8), depth >= 28, forward < first + fifth, forward > last - fifth)
    shell, deep, back, front = (np.median(image[white & where]) for where in places)
    return float(shell / deep), float(back / front)


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
        shell, back = unevenness(image, result)
        line += f"; white matter at the surface {shell:.2f} of the depth, at the back {back:.2f} of the front"
        if found["ventricles"] > found["cortex"]:
            of_cortex, of_fluid = on_fluid(image, result)
            line += f"; cortex on fluid {of_cortex:.1%}, fluid labelled cortex {of_fluid:.1%}"
        print(f"{path.name}: {line}")


if __name__ == "__main__":
    main()
