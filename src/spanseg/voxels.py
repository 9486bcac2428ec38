"""From stored voxels to values: scaled, finite and not constant for scans, whole numbers for label maps."""

from __future__ import annotations

import numpy as np

from spanseg.findings import Findings
from spanseg.headers import Declared

LARGEST_VALUE = 1e30  # single precision ends at 3e38; sums of such values must not overflow
_WHOLE = 1e-3  # how far from a whole number a label may be stored
_LABEL_RANGE = (-(2**31), 2**31 - 1)


def scan_values(stored: np.ndarray, declared: Declared, findings: Findings) -> np.ndarray:
    """Scale a scan to float32, in place where that is possible.

    Raises:
        SpansegError: nothing finite in it, or one and the same value everywhere.
    """
    with np.errstate(all="ignore"):  # what overflows is found and replaced below
        data = stored.astype(np.float32, copy=False)
        if declared.slope != 1:
            data *= np.float32(declared.slope)
        if declared.inter != 0:
            data += np.float32(declared.inter)
    return checked(data, findings)


def checked(data: np.ndarray, findings: Findings) -> np.ndarray:
    """Replace what is not finite by 0, in place; refuse an image without contrast.

    Args:
        data: float32 scan.
        findings: takes the note.

    Raises:
        SpansegError: nothing finite in it, or one and the same value everywhere.
    """
    low, high = float(data.min()), float(data.max())
    if not (abs(low) < LARGEST_VALUE and abs(high) < LARGEST_VALUE):
        bad = ~(np.abs(data) < LARGEST_VALUE)
        if bad.all():
            raise findings.refusal("no voxel holds a finite value (all are NaN or infinite); export the scan again.")
        low, high = float(data[~bad].min()), float(data[~bad].max())
        data[bad] = 0
        share = 100 * float(np.count_nonzero(bad)) / bad.size
        findings.note(
            f"{np.count_nonzero(bad)} voxels ({share:.2g} %) were NaN, infinite or beyond {LARGEST_VALUE:g} and were "
            "set to 0."
        )
    if low == high:
        raise findings.refusal(f"every voxel has the same value ({low:g}); expected a scan: export or copy it again.")
    return data


def label_values(stored: np.ndarray, declared: Declared, findings: Findings) -> np.ndarray:
    """Bring labels to int32, whatever they were stored as.

    Raises:
        SpansegError: a value is not a whole number or needs more than 32 bits.
    """
    labels = np.empty(stored.shape, dtype=np.int32, order="F")
    scaled = (declared.slope, declared.inter) != (1, 0)
    for index in range(stored.shape[2]):  # slice by slice: double precision of a whole image would be a lot
        values = stored[..., index]
        if scaled or stored.dtype.kind == "f":
            values = _whole(values.astype(np.float64) * declared.slope + declared.inter, findings)
        low, high = values.min(), values.max()
        if low < _LABEL_RANGE[0] or high > _LABEL_RANGE[1]:
            raise findings.refusal(f"the values {low} to {high} are no labels; expected whole numbers of 32 bits.")
        labels[..., index] = values
    return labels


def _whole(values: np.ndarray, findings: Findings) -> np.ndarray:
    rounded = np.rint(values)
    off = ~(np.abs(values - rounded) <= _WHOLE)  # written so that NaN is off
    if off.any():
        raise findings.refusal(
            f"expected labels, found the value {values[off][0]:g}, which is no whole number; give a label map, not "
            "an image or probabilities."
        )
    return rounded
