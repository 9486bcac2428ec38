"""Reading scans and label maps, and writing results on the same grid."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spanseg.affines import check_size, place
from spanseg.files import writing
from spanseg.findings import Findings
from spanseg.headers import clean_header, grid_of
from spanseg.loading import load, refusing
from spanseg.volume import Volume
from spanseg.voxels import checked, label_values, scan_values

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")
_GZIP_LEVEL = 6


@dataclass(frozen=True, eq=False)
class Scan:
    """An image as it was read.

    Args:
        volume: voxels in the order of the file, float32 for scans and int32 for labels, and their place in the world.
        header: NIfTI-1 header that holds what places the grid and nothing else; results are written with it.
        notes: what was repaired or guessed, one sentence each.
        warnings: what the user must know before trusting the result, one sentence each.
        sha256: of the file's bytes, hex.
    """

    volume: Volume
    header: Any
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    sha256: str


def read_scan(path: str | Path, trust: str | None = None, max_memory_bytes: int | None = None) -> Scan:
    """Read a scan of a head or a brain.

    Args:
        path: a NIfTI-1, NIfTI-2 or MGH file, gzip or not, whatever its name.
        trust: ``sform`` or ``qform``: which to believe if they disagree.
        max_memory_bytes: refuse, before memory is taken, what needs more; ``None`` for what this computer has left.

    Example:
        >>> scan = read_scan("sub-01_T1w.nii.gz")  # doctest: +SKIP
        >>> scan.volume.voxel_size_mm, scan.notes  # doctest: +SKIP

    Raises:
        SpansegError: the file cannot be read, or what is in it cannot be a scan.
    """
    findings = Findings(str(path))
    with refusing(findings):
        declared, affine, raw, sha256 = load(Path(path), trust, max_memory_bytes, findings, is_scan=True)
        data = scan_values(raw, declared, findings)
        return _scan(data, affine, declared.grid, sha256, findings)


def read_labels(path: str | Path, trust: str | None = None, max_memory_bytes: int | None = None) -> Scan:
    """Read a label map or a mask, of any size, whose values are whole numbers (stored as floats or not).

    Args:
        path: a NIfTI-1, NIfTI-2 or MGH file, gzip or not, whatever its name.
        trust: ``sform`` or ``qform``: which to believe if they disagree.
        max_memory_bytes: refuse, before memory is taken, what needs more; ``None`` for what this computer has left.

    Returns:
        The labels as int32.

    Raises:
        SpansegError: the file cannot be read, or a value is not a whole number.
    """
    findings = Findings(str(path))
    with refusing(findings):
        declared, affine, raw, sha256 = load(Path(path), trust, max_memory_bytes, findings, is_scan=False)
        data = label_values(raw, declared, findings)
        return _scan(data, affine, declared.grid, sha256, findings)


def scan_of(volume: Volume) -> Scan:
    """Check voxels that are in memory as if they had been read from a file.

    Args:
        volume: a 3-D array (further axes of length one are dropped) and its affine.

    Raises:
        SpansegError: the volume cannot be a scan.
    """
    findings = Findings("volume")
    data, affine = np.asarray(volume.data), np.asarray(volume.affine, dtype=np.float64)
    if data.ndim > 3 and data.shape[3:] == (1,) * (data.ndim - 3):
        data = data.reshape(data.shape[:3])
    if data.ndim != 3 or min(data.shape) < 2 or data.dtype.kind not in "buif":
        raise findings.refusal(f"expected a 3-D array of numbers, got {data.dtype} of shape {data.shape}.")
    if affine.shape != (4, 4):
        raise findings.refusal(f"expected an affine of shape (4, 4), got {affine.shape}.")
    placed, grid = place(grid_of(data.shape, affine), findings, is_only_matrix=True)
    if not findings.notes:  # then nothing but the header's rounding lies between the two
        placed = affine
    shape = data.shape[0], data.shape[1], data.shape[2]
    check_size(placed, shape, findings)
    hashed = hashlib.sha256(np.ascontiguousarray(data).tobytes() + affine.tobytes())
    values = checked(data.astype(np.float32), findings)
    return _scan(values, placed, grid, hashed.hexdigest(), findings)


def _scan(data: np.ndarray, affine: np.ndarray, grid: Any, sha256: str, findings: Findings) -> Scan:
    return Scan(Volume(data, affine), grid, tuple(findings.notes), tuple(findings.warnings), sha256)


def is_nifti_or_mgh(path: Path) -> bool:
    """Whether a file is named like an image that can be read; hidden files are not, for macOS leaves stand-ins there.

    Example:
        >>> is_nifti_or_mgh(Path("sub-01_T1w.nii.gz")), is_nifti_or_mgh(Path("._sub-01_T1w.nii.gz"))
        (True, False)
    """
    return path.name.lower().endswith(SUFFIXES) and not path.name.startswith(".")


def write_labels(path: Path, data: np.ndarray, like: Scan) -> None:
    """Write a label map or a mask on a scan's own grid, as .nii.gz.

    Args:
        path: where to; missing folders are made.
        data: whole numbers, shape (i, j, k) of the scan; uint8 and bool are stored as uint8, others as int16 or int32.
        like: the scan.

    Raises:
        SpansegError: the folder cannot be written to, or the disk is full.
    """
    if data.dtype.kind not in "bui":
        raise TypeError(f"labels are whole numbers, not {data.dtype}")
    if data.dtype in (np.bool_, np.uint8):
        stored: Any = np.uint8
    else:
        low, high = (int(data.min()), int(data.max())) if data.size else (0, 0)
        stored = np.int16 if low >= -(2**15) and high < 2**15 else np.int32
        if low < -(2**31) or high >= 2**31:
            raise ValueError(f"labels from {low} to {high} do not fit into 32 bits")
    _write(path, data.astype(stored, copy=False), like, slope=1.0)


def write_image(path: Path, data: np.ndarray, like: Scan, slope: float = 1.0) -> None:
    """Write values, such as a skull-stripped scan or probabilities, on a scan's own grid, as .nii.gz.

    Args:
        path: where to; missing folders are made.
        data: shape (i, j, k) of the scan, or (i, j, k, class); float64 is stored as float32.
        like: the scan.
        slope: value = slope × what is stored; 1/255 for probabilities held as uint8.

    Raises:
        SpansegError: the folder cannot be written to, or the disk is full.
    """
    stored: Any = {"f": np.float32, "b": np.uint8}.get(data.dtype.kind, data.dtype.newbyteorder("="))
    _write(path, data.astype(stored, copy=False), like, slope)


def _write(path: Path, data: np.ndarray, like: Scan, slope: float) -> None:
    if data.shape[:3] != like.volume.shape or data.ndim > 4:
        raise ValueError(f"data of shape {data.shape} do not lie on a grid of shape {like.volume.shape}")
    header = like.header.copy()
    header["dim"] = clean_header(data.shape)["dim"]
    header.set_data_dtype(data.dtype)
    header["scl_slope"], header["scl_inter"] = slope, 0.0
    with (
        writing(path) as temporary,
        temporary.open("xb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0) as packed,
    ):
        header.write_to(packed)
        for index in range(data.shape[-1]):
            packed.write(data[..., index].tobytes(order="F"))
