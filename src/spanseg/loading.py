"""From a file to stored voxels and the matrix that places them.

Nothing in a file is trusted: what its header declares is checked against the file and the memory before voxels are
read. Whatever is wrong is repaired with a note, or refused with one sentence.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from spanseg.affines import check_size, place
from spanseg.findings import Findings
from spanseg.headers import DICOM, Declared, is_dicom, read_header
from spanseg.machine import memory_bytes
from spanseg.streams import LARGEST_GZIP_RATIO, SLACK_BYTES, ByteStream

_DICOM_LOOKED_AT = 50
_WORKING_BYTES = 5  # a voxel as float32 or int32, and a mask


@contextmanager
def refusing(findings: Findings) -> Iterator[None]:
    """Turn what the system says about a file into one sentence."""
    try:
        yield
    except PermissionError as error:
        raise findings.refusal("no permission to read this file; ask its owner, or copy it.") from error
    except OSError as error:
        raise findings.refusal(f"the file could not be read ({error.strerror or error}).") from error
    except MemoryError as error:
        raise findings.refusal("the memory of this computer is not enough for this image; close programs.") from error


def load(
    path: Path, trust: str | None, max_memory_bytes: int | None, findings: Findings, is_scan: bool
) -> tuple[Declared, np.ndarray, np.ndarray, str]:
    """Read header and voxels; nothing is allocated before the header has been checked.

    Returns:
        The header (its grid repaired), the affine, the stored voxels of shape (i, j, k), and the file's SHA-256.
    """
    if trust not in (None, "sform", "qform"):
        raise findings.refusal(f"trust is 'sform' or 'qform', not '{trust}'.")
    _refuse_what_is_no_file(path, findings)
    with ByteStream(path, findings) as stream:
        declared = read_header(stream, findings)
        affine, grid = place(declared.grid, findings, trust, is_only_matrix=not declared.is_nifti)
        if is_scan:
            check_size(affine, declared.shape, findings)
        _check_bytes(declared, stream, max_memory_bytes, findings)
        stream.skip_to(declared.offset)
        raw = np.empty(declared.voxel_bytes, dtype=np.uint8)
        if stream.read_into(raw.data) < declared.voxel_bytes:
            raise findings.refusal(_too_short(declared, stream.position))
        sha256 = stream.finish()
    voxels = raw.view(declared.dtype).reshape(declared.shape, order="F")
    return dataclasses.replace(declared, grid=grid), affine, voxels, sha256


def _refuse_what_is_no_file(path: Path, findings: Findings) -> None:
    """Refuse what cannot be opened, or would never end (a device, a pipe)."""
    if path.is_dir():
        raise findings.refusal(DICOM if _holds_dicom(path) else "this is a folder; expected an image file.")
    if path.is_symlink() and not path.exists():
        raise findings.refusal("this link leads nowhere; get the file first (for example with: git annex get).")
    if not path.exists():
        raise findings.refusal("there is no such file.")
    if not path.is_file():
        raise findings.refusal("this is a device or a pipe; expected an image file.")


def _holds_dicom(folder: Path) -> bool:
    """Whether one of the first files in a folder, or below it, is DICOM."""
    files = (Path(parent) / name for parent, _, names in os.walk(folder) for name in sorted(names))
    for path in itertools.islice(files, _DICOM_LOOKED_AT):
        if path.is_file():
            with path.open("rb") as file:
                if is_dicom(file.read(132)):
                    return True
    return False


def _check_bytes(declared: Declared, stream: ByteStream, max_memory_bytes: int | None, findings: Findings) -> None:
    """Compare what the header declares with the size of the file and with the memory, before either is used."""
    needed = declared.offset + declared.voxel_bytes
    held = stream.file_bytes * (LARGEST_GZIP_RATIO if stream.is_gzip else 1)
    if held < needed:
        raise findings.refusal(_too_short(declared, held))
    if stream.file_bytes > 2 * needed + SLACK_BYTES:
        raise findings.refusal(stream.too_long)
    memory = declared.voxel_bytes + _WORKING_BYTES * declared.voxel_count
    allowed = memory_bytes()[1] if max_memory_bytes is None else max_memory_bytes
    if allowed is not None and memory > allowed:
        raise findings.refusal(
            f"its {_times(declared)} voxels need {memory / 2**20:.0f} MiB of memory, and {allowed / 2**20:.0f} MiB are "
            "allowed or left; close programs, allow more, or resample the scan."
        )


def _too_short(declared: Declared, held: int) -> str:
    return (
        f"the header declares {_times(declared)} voxels ({declared.voxel_bytes} bytes), but the file cannot hold more "
        f"than {max(0, held - declared.offset)} bytes of them; it is truncated or its header is damaged: copy it again."
    )


def _times(declared: Declared) -> str:
    return " × ".join(map(str, declared.shape))
