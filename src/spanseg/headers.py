"""Headers of NIfTI-1, NIfTI-2 and MGH files: what they declare, checked before a voxel is read or memory is taken."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from spanseg.findings import Findings
from spanseg.streams import ByteStream

GRID_FIELDS = (
    "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z",
)  # fmt: skip
"""Header fields that place a grid in the world; outputs carry them bit for bit."""
_NIFTI_DTYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8",
}  # fmt: skip
_UNREADABLE = {
    1: "1-bit voxels", 32: "complex numbers", 128: "colours (RGB)", 1536: "128-bit floats",
    1792: "complex numbers", 2048: "complex numbers", 2304: "colours (RGBA)",
}  # fmt: skip
_MGH_DTYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}
_MGH_BYTES = 284
_NIFTI_FIRST_VOXEL = {348: 352, 540: 544}
_LARGEST_OFFSET = 2**26  # extensions before the voxels; the largest seen in use are a few MB
_MOST_VOXELS_ALONG_AN_AXIS = 2**15 - 1  # NIfTI-1, in which results are written, cannot say more
_EXPORT, _CONVERT, _UNPACK = "export the scan itself as NIfTI", "convert it to NIfTI first", "unpack it first"
_ANNEX, _LFS = "get the file first, with: git annex get", "get the file first, with: git lfs pull"
_NOT_IMAGES = (
    (0, b"\x89PNG", "a PNG picture", _EXPORT),
    (0, b"\xff\xd8\xff", "a JPEG picture", _EXPORT),
    (0, b"II*\0", "a TIFF picture", _EXPORT),
    (0, b"MM\0*", "a TIFF picture", _EXPORT),
    (0, b"%PDF", "a PDF", _EXPORT),
    (0, b"PK\3\4", "a ZIP archive", _UNPACK),
    (0, b"NRRD", "NRRD", _CONVERT),
    (0, b"\x89HDF", "HDF5 or MINC-2", _CONVERT),
    (0, b"CDF", "MINC-1", _CONVERT),
    (0, b"\x1f\x8b", "gzip inside gzip", _UNPACK),
    (257, b"ustar", "a TAR archive", _UNPACK),
    (0, b"/annex/objects/", "the stand-in of a file that git-annex has not fetched yet", _ANNEX),
    (0, b"version https://git-lfs", "the stand-in of a file that git-lfs has not fetched yet", _LFS),
)
"""Where a file of another kind has which bytes, what it is, and what to do with it."""
DICOM = "this is DICOM; convert it first, for example with: dcm2niix -z y -o nifti FOLDER"
"""Why a DICOM file or folder is refused, and what to do."""


@dataclass(frozen=True, eq=False)
class Declared:
    """What a header says about the voxels that follow it.

    Args:
        shape: voxels along the three axes.
        dtype: how a voxel is stored, byte order included.
        offset: bytes before the first voxel.
        slope, inter: value = slope × stored + inter.
        grid: NIfTI-1 header that holds the fields that place the grid, and nothing else of the file.
        is_nifti: whether those fields are the file's own, to be kept as they are.
    """

    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    offset: int
    slope: float
    inter: float
    grid: Any
    is_nifti: bool

    @property
    def voxel_count(self) -> int:
        """Number of voxels, as a Python integer that cannot overflow."""
        i, j, k = self.shape
        return i * j * k

    @property
    def voxel_bytes(self) -> int:
        """Bytes that the voxels take in the (unpacked) file."""
        return self.voxel_count * self.dtype.itemsize


def read_header(stream: ByteStream, findings: Findings) -> Declared:
    """Read the header at the beginning of a file.

    Raises:
        SpansegError: not an image, not one that is read, or a header that contradicts itself.
    """
    start = stream.read(_MGH_BYTES)
    if not start:
        raise findings.refusal("the file is empty; download or copy it again.")
    for order in "<>":
        size = struct.unpack(f"{order}i", start[:4].ljust(4, b"\0"))[0]
        if size in _NIFTI_FIRST_VOXEL:
            block = start + stream.read(size - len(start))
            _refuse_cut_header(block, size, findings)
            return _nifti(block, order, findings)
    if start[:2] == b"\0\0" and start[3:4] == b"\1":  # byte 2 holds an intent since FreeSurfer 7.2
        _refuse_cut_header(start, _MGH_BYTES, findings)
        return _mgh(start, findings)
    raise findings.refusal(_what_else(start))


def _refuse_cut_header(block: bytes, size: int, findings: Findings) -> None:
    if len(block) < size:
        raise findings.refusal(
            f"the file ends after {len(block)} bytes, inside its header; it is truncated: download or copy it again."
        )


def is_dicom(start: bytes) -> bool:
    """Whether a file begins as DICOM does, with or without the preamble.

    Args:
        start: its first 132 bytes or more.
    """
    return start[128:132] == b"DICM" or start[:4] in (b"\x08\0\0\0", b"\x08\0\x05\0", b"\x08\0\x08\0", b"\x02\0\0\0")


def _what_else(start: bytes) -> str:
    """Say what a file is that is neither NIfTI nor MGH."""
    if is_dicom(start):
        return DICOM
    expected = "expected a NIfTI or MGH image"
    for offset, magic, name, advice in _NOT_IMAGES:
        if start[offset:].startswith(magic):
            return f"{expected}, but this is {name}; {advice}."
    if not any(byte < 9 or byte > 126 for byte in start):
        return f"{expected}, but this is text; give the image, or get it again if a download went wrong."
    return (
        f"{expected}, but the file begins like neither (wrong magic number): it is damaged or another format; copy it "
        f"again, or {_CONVERT}."
    )


def _nifti(block: bytes, order: str, findings: Findings) -> Declared:
    import nibabel

    kind = nibabel.Nifti1Header if len(block) == 348 else nibabel.Nifti2Header
    raw = kind(block, endianness=order, check=False)
    _check_magic(raw, findings)
    code = int(raw["datatype"])
    if code not in _NIFTI_DTYPES:
        held = _UNREADABLE.get(code, f"voxels of the unknown type {code}")
        raise findings.refusal(f"the file holds {held}; expected one number a voxel: convert it to a grey-scale image.")
    dtype = np.dtype(_NIFTI_DTYPES[code]).newbyteorder("<" if order == "<" else ">")
    if int(raw["bitpix"]) != 8 * dtype.itemsize:
        findings.note(f"The header's bitpix contradicted its data type and was ignored ({dtype.name} was read).")
    shape = _nifti_shape(raw, findings)
    slope, inter = _scaling(raw, findings)
    return Declared(shape, dtype, _offset(raw, findings), slope, inter, _grid(raw, shape), is_nifti=True)


def _check_magic(raw: Any, findings: Findings) -> None:
    magic = bytes(raw["magic"]).rstrip(b"\0")
    if magic == raw.pair_magic:
        raise findings.refusal(
            "this is half of a NIfTI pair (.hdr and .img); convert the pair to one .nii.gz file first."
        )
    if magic != raw.single_magic:
        raise findings.refusal(
            f"expected the magic word {raw.single_magic.decode()} of NIfTI, found {magic!r}; the header is damaged, or "
            "this is Analyze 7.5: convert it to NIfTI."
        )
    if raw.sizeof_hdr == 540 and tuple(raw["eol_check"].tolist()) not in ((13, 10, 26, 10), (0, 0, 0, 0)):
        raise findings.refusal("the line-end check of NIfTI-2 fails, so a transfer as text damaged it; copy it again.")


def _nifti_shape(raw: Any, findings: Findings) -> tuple[int, int, int]:
    dims = [int(n) for n in raw["dim"]]
    if not 1 <= dims[0] <= 7:
        raise findings.refusal(f"the header declares {dims[0]} dimensions; expected 3: it is damaged.")
    return _three_axes(dims[1 : 1 + dims[0]], findings)


def _three_axes(dims: list[int], findings: Findings) -> tuple[int, int, int]:
    """Refuse what is not one 3-D volume; drop further axes of length one."""
    written = " × ".join(map(str, dims))
    if any(n < 1 or n > _MOST_VOXELS_ALONG_AN_AXIS for n in dims):
        raise findings.refusal(
            f"the header declares {written} voxels; expected 1 to {_MOST_VOXELS_ALONG_AN_AXIS} along each axis: it is "
            "damaged."
        )
    if max(dims[3:], default=1) > 1:
        raise findings.refusal(
            f"the image has several frames ({written}); expected one 3-D volume: give one frame, or their mean."
        )
    if len(dims) < 3 or min(dims[:3]) == 1:
        raise findings.refusal(f"the image is one slice ({written}); expected a 3-D volume.")
    if len(dims) > 3:
        findings.note(f"An image of {len(dims)} dimensions with one frame ({written}) was read as 3-D.")
    return dims[0], dims[1], dims[2]


def _offset(raw: Any, findings: Findings) -> int:
    offset, first = float(raw["vox_offset"]), _NIFTI_FIRST_VOXEL[raw.sizeof_hdr]
    if offset == 0:
        findings.note(f"The header did not say where the voxels begin (vox_offset 0); byte {first} was taken.")
        return first
    if not first <= offset <= _LARGEST_OFFSET:
        raise findings.refusal(
            f"the header puts the first voxel at byte {offset:g} (vox_offset); expected {first} or somewhat more: it "
            "is damaged."
        )
    return int(offset)


def _scaling(raw: Any, findings: Findings) -> tuple[float, float]:
    slope, inter = float(raw["scl_slope"]), float(raw["scl_inter"])
    if not np.isfinite(slope) or slope == 0:
        findings.note(f"The header's scale was {slope:g} (scl_slope); values were read unscaled.")
        return 1.0, 0.0
    if not np.isfinite(inter):
        findings.note(f"The header's offset of the values was {inter:g} (scl_inter); 0 was taken.")
        return slope, 0.0
    return slope, inter


def _grid(raw: Any, shape: tuple[int, int, int]) -> Any:
    """A clean NIfTI-1 header with the fields that place the grid."""
    grid = clean_header(shape)
    with np.errstate(over="ignore", invalid="ignore"):
        for name in GRID_FIELDS:
            value = np.clip(raw[name], -(2**15), 2**15 - 1) if name.endswith("_code") else raw[name]
            grid[name] = value
    grid["xyzt_units"] = int(raw["xyzt_units"]) & 0x3F
    return grid


def clean_header(shape: tuple[int, ...]) -> Any:
    """A NIfTI-1 header for a grid, with nothing else in it.

    Args:
        shape: three or four axis lengths.
    """
    import nibabel

    header = nibabel.Nifti1Header()
    header["dim"] = [len(shape), *shape, *[1] * (7 - len(shape))]
    return header


def grid_of(shape: tuple[int, ...], affine: np.ndarray) -> Any:
    """A clean header whose sform is a matrix.

    Args:
        shape: three axis lengths.
        affine: (4, 4) voxels to RAS+ mm.
    """
    grid = clean_header(shape)
    grid["sform_code"], grid["xyzt_units"] = 1, 2
    grid["srow_x"], grid["srow_y"], grid["srow_z"] = affine[:3]
    return grid


def _mgh(block: bytes, findings: Findings) -> Declared:
    from nibabel.freesurfer.mghformat import MGHHeader

    raw = MGHHeader(block, check=False)
    code = int(raw["type"])
    if code not in _MGH_DTYPES:
        raise findings.refusal(f"the MGH data type is {code}; expected one of uint8, int16, uint16, int32, float.")
    dims = [int(n) for n in raw["dims"]]
    shape = _three_axes(dims if dims[3] != 1 else dims[:3], findings)
    if struct.unpack(">h", block[28:30])[0] == 0:
        findings.warn(
            "The header says that it does not know the orientation (goodRASFlag 0), so that of FreeSurfer's conformed "
            "scans was taken: left and right are not certain."
        )
    with np.errstate(all="ignore"):
        grid = grid_of(shape, raw.get_affine())
    return Declared(shape, np.dtype(_MGH_DTYPES[code]), _MGH_BYTES, 1.0, 0.0, grid, is_nifti=False)
