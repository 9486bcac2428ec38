"""Scans that are wrong in one way each, made when the tests run, and what reading each of them must come to."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

SHAPE = (50, 60, 48)
VOXEL_MM = 3.0
AFFINE = np.array([[-3.0, 0, 0, 75], [0, 3, 0, -90], [0, 0, 3, -70], [0, 0, 0, 1]])
IN_METRES = AFFINE * np.array([[1e-3], [1e-3], [1e-3], [1]])
IN_MICROMETRES = AFFINE * np.array([[1e3], [1e3], [1e3], [1]])
MIRRORED = AFFINE * np.array([[-1.0], [1], [1], [1]])


@dataclass(frozen=True)
class Wrong:
    """One file that is wrong in one way.

    Args:
        name: what is wrong with it.
        make: writes it into a folder and returns its path.
        refused: words of the refusal; ``None`` if it must be read.
        noted, warned: words that one of the notes or warnings must hold.
        trust: what the user says to trust.
    """

    name: str
    make: Callable[[Path], Path]
    refused: str | None = None
    noted: str | None = None
    warned: str | None = None
    trust: str | None = None


def head(dtype: Any = np.int16, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """A bright ball in noise, the same every time."""
    noise = np.random.default_rng(1).integers(0, 40, shape)
    middle = [(n - 1) / 2 for n in shape[:3]]
    away = sum(((g - m) / (0.4 * n)) ** 2 for g, m, n in zip(np.indices(shape[:3]), middle, shape[:3], strict=True))
    ball = (away < 1).reshape(away.shape + (1,) * (len(shape) - 3))
    return (noise + 60 * ball).astype(dtype)


def header_of(data: np.ndarray, kind: Any = nibabel.Nifti1Header, order: str = "<") -> Any:
    """A right header for some data: both forms set, scanner coordinates."""
    header = kind(endianness=order)
    header.set_data_shape(data.shape)
    header.set_data_dtype(data.dtype)
    header.set_xyzt_units("mm", "sec")
    header.set_sform(AFFINE, 1)
    header.set_qform(AFFINE, 1)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["vox_offset"] = header.single_vox_offset
    header["descrip"], header["aux_file"], header["db_name" if kind is nibabel.Nifti1Header else "descrip"] = (
        b"Jane Doe 1970-01-01", b"secret", b"patient 7",
    )  # fmt: skip
    return header


def nifti_bytes(
    data: np.ndarray | None = None, order: str = "<", kind: Any = nibabel.Nifti1Header, **fields: Any
) -> bytes:
    """A NIfTI file whose header fields were overwritten after it was made right."""
    voxels = head() if data is None else data
    header = header_of(voxels, kind, order)
    for name, value in fields.items():
        header[name] = value
    body = voxels.astype(voxels.dtype.newbyteorder(order)).tobytes(order="F")
    return header.binaryblock + bytes(4) + body


def mgh_bytes(data: np.ndarray | None = None, **fields: Any) -> bytes:
    """An MGH file whose header fields were overwritten after it was made right."""
    voxels = head() if data is None else data
    header = nibabel.freesurfer.mghformat.MGHHeader()
    header.set_data_dtype(voxels.dtype)
    header.set_data_shape(voxels.shape)
    header.set_zooms([VOXEL_MM] * 3)
    for name, value in fields.items():
        header[name] = value
    block = header.binaryblock[:90].ljust(284, b"\0")
    return block + voxels.astype(voxels.dtype.newbyteorder(">")).tobytes(order="F") + bytes(20)


def mgz(**fields: Any) -> Callable[[Path], Path]:
    """A maker of an MGZ file with some header fields overwritten."""
    return stored("scan.mgz", lambda: gzip.compress(mgh_bytes(**fields), 1))


def stored(name: str, content: Callable[[], bytes]) -> Callable[[Path], Path]:
    """A maker of a file from its bytes."""

    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content())
        return path

    return make


def fields(**overwritten: Any) -> Callable[[Path], Path]:
    """A maker of an uncompressed NIfTI file with some header fields overwritten."""
    return stored("scan.nii", lambda: nifti_bytes(**overwritten))


def of(data: Callable[[], np.ndarray], **overwritten: Any) -> Callable[[Path], Path]:
    """A maker of a NIfTI file with other voxels."""
    return stored("scan.nii", lambda: nifti_bytes(data(), **overwritten))


def packed(cut: Callable[[bytes], bytes], name: str = "scan.nii.gz") -> Callable[[Path], Path]:
    """A maker of a gzip file whose packed bytes were changed."""
    return stored(name, lambda: cut(gzip.compress(nifti_bytes(), 1)))


def forms(sform: np.ndarray | None, qform: np.ndarray | None, **overwritten: Any) -> Callable[[Path], Path]:
    """A maker of a NIfTI file with these two forms; ``None`` unsets a form."""

    def content() -> bytes:
        header = header_of(head())
        header.set_qform(AFFINE if qform is None else qform, 0 if qform is None else 1)
        header.set_sform(np.zeros((4, 4)) if sform is None else sform, 0 if sform is None else 2)
        for name, value in overwritten.items():
            header[name] = value
        return header.binaryblock + bytes(4) + head().tobytes(order="F")

    return stored("scan.nii", content)


def size(i: float, j: float, k: float, handedness: float = 1) -> list[float]:
    """A pixdim field."""
    return [handedness, i, j, k, 0, 0, 0, 0]


def rows(i: float, j: float, k: float) -> dict[str, Any]:
    """Header fields of a plain sform alone, with these voxel sizes."""
    return {"srow_x": [-i, 0, 0, 0], "srow_y": [0, j, 0, 0], "srow_z": [0, 0, k, 0], "qform_code": 0}


def sheared(amount: float) -> np.ndarray:
    """The affine with its second axis leaning towards the first."""
    affine = AFFINE.copy()
    affine[0, 1] += amount * VOXEL_MM
    return affine


def with_values(values: dict[tuple[int, int, int], float]) -> np.ndarray:
    """The head as floats with some voxels replaced."""
    data = head(np.float32)
    for index, value in values.items():
        data[index] = value
    return data


def _link_to_nowhere(folder: Path) -> Path:
    path = folder / "scan.nii.gz"
    path.symlink_to(folder / "annex" / "object")
    return path


def _folder_of(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "series" / "1").mkdir(parents=True)
        (folder / "series" / "1" / name).write_bytes(content)
        return folder / "series"

    return make


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


def _bomb() -> bytes:
    """A right file followed by 64 megabytes of packed zeros."""
    packer = zlib.compressobj(1, wbits=31)
    parts = [packer.compress(nifti_bytes())]
    parts += [packer.compress(bytes(2**24)) for _ in range(4)]
    return b"".join([*parts, packer.flush()])


def _zero_quaternion_long() -> dict[str, float]:
    return {"quatern_b": 0.0, "quatern_c": 1.0000005, "quatern_d": 0.0, "sform_code": 0}


DICOM = bytes(128) + b"DICM" + bytes(400)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(400)
DCM2NIIX = "dcm2niix"
SIDES = "left and right are not certain"
NAN, INF = float("nan"), float("inf")

NOT_IMAGES = [
    Wrong("empty", stored("scan.nii", lambda: b""), refused="empty"),
    Wrong("empty gzip", stored("scan.nii.gz", lambda: gzip.compress(b"")), refused="empty"),
    Wrong("text", stored("scan.nii", lambda: b"subject\tage\n" * 99), refused="text; give the image"),
    Wrong("PNG", stored("scan.nii", lambda: PNG), refused="a PNG picture; export the scan itself"),
    Wrong("random bytes", stored("scan.nii", lambda: bytes(range(200, 256)) * 20), refused="format; copy it again"),
    Wrong(
        "git-lfs pointer",
        stored("s.nii", lambda: b"version https://git-lfs.github.com/spec/v1\n"),
        refused="git lfs pull",
    ),
    Wrong(
        "git-annex pointer", stored("s.nii", lambda: b"/annex/objects/MD5E-s1--0.nii\n"), refused="with: git annex get"
    ),
    Wrong("DICOM file", stored("scan.dcm", lambda: DICOM), refused=DCM2NIIX),
    Wrong(
        "DICOM without preamble", stored("s.dcm", lambda: b"\x08\0\5\0CS\n\0ISO_IR 100" + bytes(400)), refused=DCM2NIIX
    ),
    Wrong("DICOM named NIfTI", stored("scan.nii", lambda: DICOM), refused=DCM2NIIX),
    Wrong("DICOM folder", _folder_of("IM0001", DICOM), refused=DCM2NIIX),
    Wrong("folder", _folder_of("readme.txt", b"hello"), refused="folder"),
    Wrong("missing", lambda folder: folder / "none.nii.gz", refused="no such file"),
    Wrong("broken link", _link_to_nowhere, refused="link leads nowhere"),
    Wrong("gzip in gzip", packed(gzip.compress), refused="gzip inside gzip; unpack it first"),
]

CUT_OR_DAMAGED = [
    Wrong("cut in the header", stored("scan.nii", lambda: nifti_bytes()[:200]), refused="truncated"),
    Wrong("cut in the MGH header", stored("scan.mgh", lambda: mgh_bytes()[:200]), refused="truncated"),
    Wrong("cut in the voxels", stored("scan.nii", lambda: nifti_bytes()[:-1]), refused="truncated"),
    Wrong("cut gzip", packed(lambda content: content[: len(content) // 2]), refused="truncated"),
    Wrong("gzip without its checksum", packed(lambda content: content[:-8]), refused="truncated"),
    Wrong("cut before packing", stored("s.nii.gz", lambda: gzip.compress(nifti_bytes()[:-999])), refused="truncated"),
    Wrong("cut MGH", stored("scan.mgh", lambda: mgh_bytes()[:-999]), refused="truncated"),
    Wrong(
        "wrong gzip checksum",
        packed(lambda content: _flipped(content, len(content) - 6)),
        refused="gzip data are damaged",
    ),
    Wrong("damaged gzip", packed(lambda content: _flipped(content, len(content) // 2)), refused="gzip data"),
    Wrong("a bomb after the voxels", stored("scan.nii.gz", _bomb), refused="goes on long after"),
    Wrong(
        "megabytes after the voxels",
        stored("scan.nii", lambda: nifti_bytes() + bytes(2**22)),
        refused="goes on long after",
    ),
    Wrong("bytes after the gzip data", packed(lambda content: content + b"tail"), noted="after the end of the gzip"),
    Wrong("zeros after the gzip data", packed(lambda content: content + bytes(512))),
    Wrong(
        "two gzip members",
        stored("s.nii.gz", lambda: gzip.compress(nifti_bytes()[:999]) + gzip.compress(nifti_bytes()[999:])),
    ),
    Wrong("gzip of empty members", packed(lambda content: gzip.compress(b"") * 5000 + content), refused="tiny members"),
    Wrong("gzip named .nii", packed(lambda content: content, name="scan.nii")),
    Wrong("plain named .nii.gz", stored("scan.nii.gz", nifti_bytes)),
]

HEADERS = [
    Wrong("wrong magic", fields(magic=b"xyz"), refused="magic word"),
    Wrong("Analyze 7.5", fields(magic=b""), refused="Analyze"),
    Wrong("pair", fields(magic=b"ni1"), refused="pair"),
    Wrong(
        "line ends changed",
        stored("s.nii", lambda: nifti_bytes(kind=nibabel.Nifti2Header, eol_check=[10, 26, 10, 0])),
        refused="line-end",
    ),
    Wrong("0 dimensions", fields(dim=[0, 0, 0, 0, 0, 0, 0, 0]), refused="0 dimensions"),
    Wrong("9 dimensions", fields(dim=[9, 50, 60, 48, 1, 1, 1, 1]), refused="9 dimensions"),
    Wrong("negative dimension", fields(dim=[3, -50, 60, 48, 1, 1, 1, 1]), refused="-50"),
    Wrong("several frames", of(lambda: head(shape=(*SHAPE, 2))), refused="several frames"),
    Wrong(
        "several frames (MGH)", stored("s.mgh", lambda: mgh_bytes(head(shape=(*SHAPE, 2)))), refused="several frames"
    ),
    Wrong("vectors", fields(dim=[5, 50, 60, 16, 1, 3, 1, 1]), refused="several frames"),
    Wrong("one frame in 4-D", fields(dim=[4, *SHAPE, 1, 1, 1, 1]), noted="one frame"),
    Wrong("one frame in 5-D", fields(dim=[5, *SHAPE, 1, 1, 1, 1]), noted="one frame"),
    Wrong("2-D", fields(dim=[2, 50, 60, 1, 1, 1, 1, 1]), refused="one slice"),
    Wrong("one slice", fields(dim=[3, 50, 60, 1, 1, 1, 1, 1]), refused="one slice"),
    Wrong("one slice (MGH)", stored("s.mgh", lambda: mgh_bytes(dims=[50, 60, 1, 1])), refused="one slice"),
    Wrong("larger than the file", fields(dim=[3, 400, 400, 400, 1, 1, 1, 1], **rows(1, 1, 1)), refused="truncated"),
    Wrong(
        "2 TB declared",
        fields(dim=[3, 10000, 10000, 10000, 1, 1, 1, 1], **rows(0.055, 0.055, 0.055)),
        refused="truncated",
    ),
    Wrong("32767 voxels each way", fields(dim=[3, 32767, 32767, 32767, 1, 1, 1, 1]), refused="field of view"),
    Wrong("RGB", fields(datatype=128, bitpix=24), refused="RGB"),
    Wrong("complex", fields(datatype=32, bitpix=64), refused="complex"),
    Wrong("1-bit", fields(datatype=1, bitpix=1), refused="1-bit"),
    Wrong("unknown dtype", fields(datatype=999), refused="unknown type 999"),
    Wrong("unknown dtype (MGH)", mgz(type=77), refused="MGH data type"),
    Wrong("bitpix wrong", fields(bitpix=8), noted="bitpix"),
    Wrong("voxels begin at 0", fields(vox_offset=0), noted="vox_offset"),
    Wrong("voxels begin in the header", fields(vox_offset=100), refused="vox_offset"),
    Wrong("voxels begin at NaN", fields(vox_offset=NAN), refused="vox_offset"),
    Wrong("voxels begin at -352", fields(vox_offset=-352), refused="vox_offset"),
    Wrong("voxels begin a gigabyte later", fields(vox_offset=2**30), refused="vox_offset"),
    Wrong("slope 0", fields(scl_slope=0, scl_inter=7), noted="scl_slope"),
    Wrong("slope NaN", fields(scl_slope=NAN), noted="scl_slope"),
    Wrong("slope infinite", fields(scl_slope=INF), noted="scl_slope"),
    Wrong("intercept NaN", fields(scl_slope=2, scl_inter=NAN), noted="scl_inter"),
]

PLACES = [
    Wrong("both codes 0", fields(sform_code=0, qform_code=0), warned=SIDES),
    Wrong("both codes 0, voxel size 0", fields(sform_code=0, qform_code=0, pixdim=size(0, 3, 3)), refused="voxel size"),
    Wrong("voxel size 0, sform right", fields(pixdim=size(0, 3, 3), qform_code=0), noted="voxel size"),
    Wrong("voxel size NaN, both forms", fields(pixdim=size(NAN, 3, 3)), noted="qform is singular"),
    Wrong("voxel size 0, qform alone", fields(pixdim=size(0, 3, 3), sform_code=0), refused="voxel size"),
    Wrong("voxel size NaN, qform alone", fields(pixdim=size(NAN, 3, 3), sform_code=0), refused="voxel size"),
    Wrong("voxel size infinite, qform alone", fields(pixdim=size(INF, 3, 3), sform_code=0), refused="voxel size"),
    Wrong("voxel size negative, qform alone", fields(pixdim=size(-3, 3, 3, -1), sform_code=0), noted="negative"),
    Wrong(
        "voxel size negative, no form",
        fields(pixdim=size(-3, 3, 3), sform_code=0, qform_code=0),
        noted="negative",
        warned=SIDES,
    ),
    Wrong("voxel size not the sform's", fields(pixdim=size(1, 1, 1), qform_code=0), noted="not the sform's"),
    Wrong("sform zero, qform right", forms(np.zeros((4, 4)), AFFINE), noted="sform is singular"),
    Wrong("sform NaN, qform right", fields(srow_y=[NAN] * 4), noted="sform is singular"),
    Wrong("sform far away, qform right", fields(srow_y=[0, 3, 0, 1e9]), noted="sform is singular"),
    Wrong("sform zero, qform unset", forms(np.zeros((4, 4)), None), noted="sform is singular", warned=SIDES),
    Wrong(
        "sform singular, voxel size 0", fields(srow_x=[0] * 4, qform_code=0, pixdim=size(0, 0, 0)), refused="voxel size"
    ),
    Wrong("qform NaN, sform right", fields(quatern_b=NAN), noted="qform is singular"),
    Wrong("quaternion too long", fields(quatern_b=3, sform_code=0), noted="qform is singular", warned=SIDES),
    Wrong("quaternion a little too long", fields(**_zero_quaternion_long()), noted="shortened"),
    Wrong("qfac 0", fields(pixdim=size(3, 3, 3, 0), sform_code=0)),
    Wrong("qfac -7", fields(pixdim=size(3, 3, 3, -7), sform_code=0), warned=SIDES),
    Wrong("qfac NaN", fields(pixdim=size(3, 3, 3, NAN), sform_code=0), warned=SIDES),
    Wrong("sform code 77", fields(sform_code=77), noted="code 77"),
    Wrong("qform code -4", fields(qform_code=-4), noted="code -4"),
    Wrong("mirrored", forms(AFFINE, MIRRORED), refused="--trust"),
    Wrong("turned by 180°", forms(AFFINE, AFFINE * np.array([[-1.0], [-1], [1], [1]])), refused="--trust"),
    Wrong("mirrored top to bottom", forms(AFFINE, AFFINE * np.array([[1.0], [1], [-1], [1]])), refused="--trust"),
    Wrong("mirrored, sform trusted", forms(AFFINE, MIRRORED), noted="the sform was trusted", trust="sform"),
    Wrong("mirrored, qform trusted", forms(AFFINE, MIRRORED), noted="the qform was trusted", trust="qform"),
    Wrong("qform trusted, but unset", forms(AFFINE, None), noted="qform is not set", trust="qform"),
    Wrong(
        "forms 5 mm apart", forms(AFFINE, AFFINE + np.eye(4)[:, [0]] @ np.array([[0, 0, 0, 5.0]])), noted="5 mm apart"
    ),
    Wrong("trust nonsense", fields(), refused="trust is", trust="both"),
    Wrong("shear 1e-6", forms(sheared(1e-6), None)),
    Wrong("shear 5e-4", forms(sheared(5e-4), None), noted="straightened"),
    Wrong("shear 0.02", forms(sheared(0.02), None), refused="right angles"),
    Wrong("shear 0.02, qform straight", forms(sheared(0.02), AFFINE), refused="--trust qform"),
    Wrong("shear 0.02, qform trusted", forms(sheared(0.02), AFFINE), noted="qform was used", trust="qform"),
    Wrong("metres", forms(IN_METRES, None, xyzt_units=1, pixdim=size(0.003, 0.003, 0.003)), noted="metres"),
    Wrong("micrometres", forms(IN_MICROMETRES, None, xyzt_units=3, pixdim=size(3000, 3000, 3000)), noted="micrometres"),
    Wrong("metres not said", forms(IN_METRES, None), refused="unit"),
    Wrong("micrometres not said", forms(IN_MICROMETRES, None), refused="unit"),
    Wrong("unit code 5", fields(xyzt_units=5), noted="unknown code 5"),
    Wrong("a part of a head", fields(dim=[3, 50, 60, 12, 1, 1, 1, 1]), refused="field of view"),
    Wrong(
        "voxels of 0.3 mm",
        stored("s.nii", lambda: nifti_bytes(head(shape=(210, 20, 16)), **rows(0.3, 6, 6))),
        warned="tested are",
    ),
    Wrong("goodRASFlag 0", mgz(goodRASFlag=0, delta=[1, 1, 1]), refused="field of view"),
    Wrong(
        "goodRASFlag 0, whole head",
        stored("s.mgh", lambda: mgh_bytes(head(np.uint8, (70, 66, 68)), goodRASFlag=0)),
        warned=SIDES,
    ),
    Wrong("MGH voxel size 0", mgz(delta=[0, 3, 3]), refused="singular"),
    Wrong("MGH voxel size NaN", mgz(delta=[NAN, 3, 3]), refused="singular"),
    Wrong("MGH directions zero", mgz(Mdc=np.zeros((3, 3))), refused="singular"),
    Wrong("MGH with an intent (FreeSurfer 7.2)", mgz(version=0x0201)),
    Wrong("MGH version 2", mgz(version=2), refused="magic number"),
]

VALUES = [
    Wrong("all zeros", of(lambda: np.zeros(SHAPE, np.int16)), refused="same value (0)"),
    Wrong("constant", of(lambda: np.full(SHAPE, 7, np.float32)), refused="same value (7)"),
    Wrong("slope makes it constant", fields(scl_slope=1e-45, scl_inter=5), refused="same value"),
    Wrong("all NaN", of(lambda: np.full(SHAPE, NAN, np.float32)), refused="finite"),
    Wrong("one NaN", of(lambda: with_values({(3, 4, 5): NAN})), noted="1 voxels"),
    Wrong("two infinite", of(lambda: with_values({(3, 4, 5): INF, (9, 9, 9): -INF})), noted="2 voxels"),
    Wrong("beyond single precision", of(lambda: head(np.float64) + 1e300 * (head() == 5)), noted="set to 0"),
    Wrong("negative", of(lambda: head() - 500)),
    Wrong("int64", of(lambda: head(np.int64))),
    Wrong("uint32", of(lambda: head(np.uint32))),
    Wrong("int8", of(lambda: head(np.int8))),
    Wrong("big-endian", stored("scan.nii", lambda: nifti_bytes(order=">"))),
    Wrong("odd sizes", of(lambda: head(shape=(51, 61, 47)))),
    Wrong(
        "extension said, none there", stored("s.nii", lambda: nifti_bytes()[:348] + b"\1\0\0\0" + nifti_bytes()[352:])
    ),
    Wrong("long name with spaces and accents", stored("sub 01 – tête ünïcödé " + "x" * 150 + ".nii", nifti_bytes)),
]

CORPUS = [*NOT_IMAGES, *CUT_OR_DAMAGED, *HEADERS, *PLACES, *VALUES]
