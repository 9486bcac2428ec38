"""Intensity normalisation of a canvas; ``synth.normalise`` does the same to tensors, and a test holds the two equal."""

import numpy as np

DIM = 0.6
"""A brain whose brightest tissue stays below this share of the range is dim. Of 10 scans, T1, T2 and FLAIR, whole and
stripped, a spin-echo T1 with bright fat had 0.39, all others 0.88 (T2) or more."""
DEEP_MM = 6.0
"""How far inside a brain it is certain."""
HEADROOM = 1.08
"""Where an image with a dim brain is clipped, as a multiple of its brightest tissue."""


def normalise(image: np.ndarray, exclude: np.ndarray | None = None) -> np.ndarray:
    """Scale a canvas so that air is 0 and bright tissue 1, clipped to 0 … 1.5.

    The lower end is the 0.5th percentile of every second voxel along each axis, the upper end the 99th percentile of
    those of them that are brighter than the mean.

    Args:
        image: float32 canvas, shape (i, j, k).
        exclude: voxels that take no part in the percentiles (a lesion), same shape.

    Returns:
        float32 array of the same shape.
    """
    low, high = _ends(image, exclude)
    span = high - low if high > low else 1.0  # of any size: relaxation rates in 1/ms are far below 1
    return np.clip((image - low) / span, 0, 1.5).astype(np.float32)


def clipped(image: np.ndarray, brain: np.ndarray, voxel_mm: np.ndarray | float) -> np.ndarray:
    """An image in which nothing is much brighter than the brain if the brain was dim; else the image itself.

    Args:
        image: scan or canvas, float32, shape (i, j, k).
        brain: where the brain is, boolean, same shape.
        voxel_mm: edge lengths of its voxels.
    """
    top = ceiling(image, well_inside(brain, voxel_mm))
    return image if top is None else np.minimum(image, np.float32(top))


def well_inside(brain: np.ndarray, voxel_mm: np.ndarray | float) -> np.ndarray:
    """Voxels of a brain that are far from its surface, where nothing was taken for brain by mistake; boolean."""
    from scipy import ndimage

    sides = 2 * np.rint(DEEP_MM / np.broadcast_to(voxel_mm, 3)).astype(int) + 1
    return np.asarray(ndimage.minimum_filter(brain, size=tuple(sides), mode="constant"))


def ceiling(image: np.ndarray, inside: np.ndarray) -> float | None:
    """Where to clip an image whose brain is dim beside what lies round it, as it is where fat is not suppressed.

    Such an image leaves the brain a small part of the range that :func:`normalise` gives it. Clipped a little above the
    brain's brightest tissue, it gets all of it.

    Args:
        image: scan or canvas, shape (i, j, k).
        inside: voxels well inside the brain, boolean, same shape.

    Returns:
        Intensity, or ``None`` for an image that is fine.
    """
    if not inside.any():
        return None
    low, high = _ends(image)
    bright = float(np.quantile(image[inside], 0.99)) - low
    return low + HEADROOM * bright if 0 < bright < DIM * (high - low) else None


def _ends(image: np.ndarray, exclude: np.ndarray | None = None) -> tuple[float, float]:
    """Intensities that become 0 and 1."""
    sample = image[::2, ::2, ::2]
    sample = sample[~exclude[::2, ::2, ::2]] if exclude is not None else sample.reshape(-1)
    low = np.quantile(sample, 0.005)
    bright = sample[sample > sample.mean()]
    return low, np.quantile(bright, 0.99) if bright.size else low + 1
