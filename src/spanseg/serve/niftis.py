"""Images as the page fetches them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from spanseg.images import Scan, write_image

_INT16 = np.iinfo(np.int16)


def as_stored(data: np.ndarray) -> np.ndarray:
    """Voxels as 16-bit numbers where nothing is lost by that, for it halves what travels."""
    if data.min() < _INT16.min or data.max() > _INT16.max:
        return data
    whole = data.astype(np.int16)
    return whole if np.array_equal(whole, data) else data


def nifti(data: np.ndarray, like: Scan) -> bytes:
    """Voxels on the grid of a scan, as the bytes of a .nii.gz file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.nii.gz"
        write_image(path, data, like)
        return path.read_bytes()
