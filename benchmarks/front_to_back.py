"""How far white matter and cortex stand apart from the back of the head to its front, and how well they are told apart.

    python benchmarks/front_to_back.py SCAN OTHER [--model wide] [--truth wide] [--painted | --evened MM] [--flip]

OTHER is another contrast of the same person in the same position (such as T2w beside FLAIR); its labels by the model
``--truth`` are taken for the truth. For each sixth of the cerebrum: the contrast on SCAN (cortex just beyond the border
of white matter against white matter away from it, in the plane of the slices), how much white matter varies there, and
the Dice of SCAN's own labels with those of OTHER. With ``--painted`` SCAN is first painted anew from OTHER's labels,
with its own intensities and noise: what a model misses there too, the scan does not hold. With ``--evened`` the scan's
contrast is first made alike everywhere in the cerebrum.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from scipy import ndimage

from spanseg.images import Scan, read_scan
from spanseg.segmenter import SegmentOptions, load_model, segment_scan
from spanseg.volume import Volume, canonical

WHITE, CORTEX = (2, 41), (3, 42)
PLACES = 6
DEEP_MM, RIBBON_MM = (1.5, 4.0), (0.7, 1.8)
"""How far from their border white matter and cortex are measured."""
BLUR_VOXELS = 0.5
"""Partial volume of a painted scan, in the plane of the slices."""
MOST_GAIN = 3.0
"""By how much contrast is raised at most where a scan is evened."""


def onto(labels: Volume, like: Volume) -> np.ndarray:
    """Labels at the voxels of another image of the same person, by the nearest voxel; 0 outside."""
    matrix = np.linalg.inv(labels.affine) @ like.affine
    return ndimage.affine_transform(
        labels.data, matrix[:3, :3], matrix[:3, 3], like.data.shape, order=0, mode="grid-constant"
    )


def from_border_mm(white: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance to the border of white matter in the plane of the slices, negative inside; far where there is none."""
    across = int(np.argmax(spacing))
    flat = np.delete(spacing, across)
    planes = [
        ndimage.distance_transform_edt(~plane, sampling=flat) - ndimage.distance_transform_edt(plane, sampling=flat)
        if plane.any()
        else np.full(plane.shape, np.inf)
        for plane in np.moveaxis(white, across, 0)
    ]
    return np.moveaxis(np.stack(planes), 0, across)


def places(cerebrum: np.ndarray) -> list[np.ndarray]:
    """Which voxels lie in each sixth of the cerebrum's length, from back to front; the second axis points forward."""
    planes = np.flatnonzero(cerebrum.any((0, 2)))
    share = (np.arange(cerebrum.shape[1]) - planes[0]) / (planes[-1] - planes[0])
    which = np.floor(share * PLACES).clip(0, PLACES - 1)
    return [np.broadcast_to((which == place)[None, :, None], cerebrum.shape) for place in range(PLACES)]


def painted(image: Volume, truth: np.ndarray, noise: float, seed: int = 0) -> Volume:
    """A scan painted anew: each structure with its median in that sixth of the head; what has no label stays.

    Args:
        image: the scan.
        truth: its labels.
        noise: standard deviation of what is added to labelled voxels, in the scan's unit.
        seed: seed of the noise.
    """
    clean = image.data.astype(np.float32)
    for place in places(truth > 0):
        for label in np.unique(truth[place & (truth > 0)]):
            here = place & (truth == label)
            clean[here] = np.median(image.data[here])
    width = np.where(np.arange(3) == np.argmax(image.voxel_size_mm), 0, BLUR_VOXELS)
    blurred = ndimage.gaussian_filter(clean, width)
    noisy = blurred + np.random.default_rng(seed).normal(0, noise, clean.shape)
    return Volume(np.where(truth > 0, noisy, clean).astype(np.float32), image.affine)


def evened(image: Volume, cerebrum: np.ndarray, width_mm: float) -> Volume:
    """A scan whose brightness and contrast are alike everywhere in the cerebrum.

    Args:
        image: the scan.
        cerebrum: which voxels are white matter or cortex.
        width_mm: standard deviation of the Gaussian in which mean and spread are taken.
    """

    def mean(values: np.ndarray) -> np.ndarray:
        return ndimage.gaussian_filter(values * cerebrum, width) / weight

    voxels = image.data.astype(np.float32)
    width = width_mm / image.voxel_size_mm
    weight = np.maximum(ndimage.gaussian_filter(cerebrum.astype(np.float32), width), 1e-3)
    middle = mean(voxels)
    spread = np.sqrt(np.maximum(mean((voxels - middle) ** 2), 1e-6))
    gain = np.clip(np.median(spread[cerebrum]) / spread, 1 / MOST_GAIN, MOST_GAIN)
    even = np.median(middle[cerebrum]) + (voxels - middle) * gain
    return Volume(np.where(cerebrum, np.maximum(even, 0), voxels).astype(np.float32), image.affine)


def noise_of(image: Volume, deep: np.ndarray) -> float:
    """Standard deviation of a scan's noise, from neighbours within white matter along the finest axis."""
    axis = int(np.argmin(image.voxel_size_mm))
    step = np.diff(image.data.astype(np.float64), axis=axis)
    both = np.delete(deep, 0, axis) & np.delete(deep, -1, axis)
    return float(np.std(step[both]) / np.sqrt(2))


def labelled(scan: Scan, model: str, like: Volume, flip: bool = False) -> np.ndarray:
    """A scan's labels by a model, at the voxels of another image of the same person."""
    options = SegmentOptions(model=model, flip=flip)
    return onto(canonical(segment_scan(scan, load_model(options), options).labels)[0], like)


def between(values: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    return (values > limits[0]) & (values < limits[1])


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * float((first & second).sum()) / max(1, int(first.sum() + second.sum()))


def main() -> None:
    """Measure one scan by the labels of another one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scan", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--model", default="wide")
    parser.add_argument("--truth", default="wide", help="the model that labels OTHER")
    change = parser.add_mutually_exclusive_group()
    change.add_argument("--painted", action="store_true", help="paint SCAN from OTHER's labels first")
    change.add_argument("--evened", type=float, metavar="MM", help="even SCAN's contrast in such a Gaussian first")
    parser.add_argument("--flip", action="store_true", help="label SCAN and its mirror image, averaged")
    given = parser.parse_args()
    scan = read_scan(given.scan)
    image, _ = canonical(scan.volume)
    truth = labelled(read_scan(given.other), given.truth, image)
    if given.painted:
        deep = between(-from_border_mm(np.isin(truth, WHITE), image.voxel_size_mm), DEEP_MM)
        image = painted(image, truth, noise_of(image, deep))
    elif given.evened:
        found = labelled(scan, given.model, image)
        image = evened(image, np.isin(found, WHITE + CORTEX), given.evened)
    own = labelled(dataclasses.replace(scan, volume=image), given.model, image, given.flip)
    white, cortex = np.isin(truth, WHITE), np.isin(truth, CORTEX)
    distance = from_border_mm(white, image.voxel_size_mm)
    print("from back to front: contrast, spread of white matter, Dice of white matter, Dice of cortex")
    for place in places(white | cortex):
        deep = image.data[place & white & between(-distance, DEEP_MM)]
        ribbon = image.data[place & cortex & between(distance, RIBBON_MM)]
        low, middle, high = np.percentile(deep, (16, 50, 84))
        pairs = ((np.isin(own, WHITE), white), (np.isin(own, CORTEX), cortex))
        scores = (dice(found & place, there & place) for found, there in pairs)
        figures = (np.median(ribbon) / middle - 1, (high - low) / 2 / middle, *scores)
        print("{:+.3f} {:.3f} {:.3f} {:.3f}".format(*figures))


if __name__ == "__main__":
    main()
