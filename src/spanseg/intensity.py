"""Intensity normalisation of a canvas: the one definition that training and use share."""

import numpy as np


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
    sample = image[::2, ::2, ::2]
    sample = sample[~exclude[::2, ::2, ::2]] if exclude is not None else sample.reshape(-1)
    low = np.quantile(sample, 0.005)
    bright = sample[sample > sample.mean()]
    high = np.quantile(bright, 0.99) if bright.size else low + 1
    span = high - low if high > low else 1.0  # of any size: relaxation rates in 1/ms are far below 1
    return np.clip((image - low) / span, 0, 1.5).astype(np.float32)
