"""Which matrix places a file's voxels in the world: sform or qform, repaired where that is safe, refused where not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spanseg.findings import Findings
from spanseg.headers import GRID_FIELDS
from spanseg.volume import SAME_GRID_MM, farthest_mm

ROUNDING_SHEAR = 1e-5  # what single precision, or a matrix typed with five digits, leaves behind
LARGEST_SHEAR = 1e-3  # repaired up to here: less than 0.2 mm at the far corner of a head
UNCERTAIN_SIDES = "left and right are not certain"
_MM_OF_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # NIfTI: unknown, metre, millimetre, micrometre
_UNIT_NAMES = {1: "metres", 3: "micrometres"}
_FARTHEST_MM = 1e5
_LONGEST_QUATERNION = 1.002  # squared length; beyond it is not rounding
_VOXEL_TESTED_MM = (0.49, 3.01)
_SLICE_TESTED_MM = 6.01
_VOXEL_POSSIBLE_MM = (0.05, 15.0)
_FIELD_POSSIBLE_MM = (60.0, 600.0)


@dataclass(frozen=True, eq=False)
class _Form:
    """A usable matrix, and the name and code of the header fields that gave it."""

    name: str
    code: int
    affine: np.ndarray


@np.errstate(all="ignore")  # what overflows or is not finite is found by _is_usable, and said there
def place(
    grid: Any, findings: Findings, trust: str | None = None, is_only_matrix: bool = False
) -> tuple[np.ndarray, Any]:
    """Choose and repair the matrix from voxels to the world.

    Args:
        grid: NIfTI-1 header with the fields that place the grid; left as it is.
        findings: takes notes and warnings.
        trust: ``sform`` or ``qform``, the form that the user says is right.
        is_only_matrix: the sform is all there is (MGH, arrays): without it nothing is guessed, and results get both.

    Returns:
        The affine (voxels to RAS+ mm, float64), and the header for results: ``grid`` itself if nothing was repaired.

    Raises:
        SpansegError: no usable matrix and no voxel size, shear, or forms that disagree about left and right.
    """
    scale, shape = _mm_of_unit(grid, findings), _shape(grid)
    sform, sform_repaired = _sform(grid, scale, findings)
    qform, qform_repaired = _qform(grid, scale, findings)
    usable = [form for form in (sform, qform) if form is not None]
    if is_only_matrix and not usable:
        raise findings.refusal(
            "the matrix that places the voxels is singular, not finite or far out of range; convert the scan again."
        )
    chosen, repaired = _choose(usable, trust, shape, findings) if usable else _from_voxel_size(grid, scale, findings)
    repaired = repaired or is_only_matrix or sform_repaired or qform_repaired
    if usable == [sform] and not is_only_matrix:  # a qform would hold the voxel size, and have been compared
        repaired = _check_voxel_size(grid, scale, chosen.affine, findings) or repaired
    if chosen is qform and grid["pixdim"][0] not in (-1, 0, 1):
        findings.warn(f"Programs read the handedness of this header (pixdim[0]) differently: {UNCERTAIN_SIDES}.")
    affine, straightened = _without_shear(chosen, [form for form in usable if form is not chosen], shape, findings)
    if not (repaired or straightened):
        return affine, grid
    written = _rewritten(grid, affine, chosen.code)
    return written.get_best_affine().astype(np.float64), written


def check_size(affine: np.ndarray, shape: tuple[int, int, int], findings: Findings) -> None:
    """Warn about voxel sizes that were not tested; refuse those that no scan of a head has.

    Raises:
        SpansegError: voxels or a field of view that cannot be those of a head.
    """
    voxel = _sizes(affine)
    field = voxel * shape
    sizes, extents = _times(voxel), _times(field)
    if voxel.min() < _VOXEL_POSSIBLE_MM[0] or voxel.max() > _VOXEL_POSSIBLE_MM[1]:
        raise findings.refusal(
            f"voxels of {sizes} mm cannot be those of a head; if the unit is micrometres or metres, say so in the "
            "header (xyzt_units)."
        )
    if field.min() < _FIELD_POSSIBLE_MM[0] or field.max() > _FIELD_POSSIBLE_MM[1]:
        raise findings.refusal(
            f"a field of view of {extents} mm is not that of a head or a brain (expected 60 to 600 mm along each "
            "axis); is the unit micrometres or metres, or is this a part of a scan?"
        )
    smallest, middle, largest = np.sort(voxel)
    if smallest < _VOXEL_TESTED_MM[0] or middle > _VOXEL_TESTED_MM[1] or largest > _SLICE_TESTED_MM:
        findings.warn(f"The voxels measure {sizes} mm; tested are 0.5 to 3 mm, and slices up to 6 mm thick.")


def _shape(grid: Any) -> tuple[int, int, int]:
    i, j, k = (int(n) for n in grid["dim"][1:4])
    return i, j, k


def _sizes(affine: np.ndarray) -> np.ndarray:
    """Edge lengths of a voxel, shape (3,)."""
    return np.sqrt((affine[:3, :3] ** 2).sum(axis=0))


def _times(values: np.ndarray) -> str:
    return " × ".join(f"{value:.3g}" for value in values)


def _mm_of_unit(grid: Any, findings: Findings) -> float:
    unit = int(grid["xyzt_units"]) & 7
    if unit not in _MM_OF_UNIT:
        findings.note(f"The header's unit of length has the unknown code {unit}; millimetres were taken.")
        return 1.0
    if unit in _UNIT_NAMES:
        findings.note(f"The header gives lengths in {_UNIT_NAMES[unit]}; they were converted to millimetres.")
    return _MM_OF_UNIT[unit]


def _code(grid: Any, name: str, findings: Findings) -> tuple[int, bool]:
    """Code of a form, and whether it had to be repaired."""
    code = int(grid[f"{name}_code"])
    if 0 <= code <= 5:
        return code, False
    repaired = 2 if code > 5 else 0
    findings.note(f"The {name} code {code} does not exist; it was read as {repaired}.")
    return repaired, True


def _sform(grid: Any, scale: float, findings: Findings) -> tuple[_Form | None, bool]:
    """The sform if it is set and usable, and whether something had to be repaired."""
    code, repaired = _code(grid, "sform", findings)
    if code == 0:
        return None, repaired
    affine = _scaled(grid.get_sform(), scale)
    if _is_usable(affine):
        return _Form("sform", code, affine), repaired
    findings.note("The sform is singular, not finite or far out of range and was not used.")
    return None, True


def _qform(grid: Any, scale: float, findings: Findings) -> tuple[_Form | None, bool]:
    """The qform if it is set and usable, and whether something had to be repaired."""
    code, repaired = _code(grid, "qform", findings)
    if code == 0:
        return None, repaired
    mended = grid.copy()
    repaired = _mend_pixdim(mended, findings) or repaired
    quaternion = np.array([mended[f"quatern_{axis}"] for axis in "bcd"], dtype=np.float64)
    squared = float((quaternion**2).sum())
    if 1 + 3e-7 < squared < _LONGEST_QUATERNION:
        findings.note("The qform's quaternion was slightly too long and was shortened.")
        mended["quatern_b"], mended["quatern_c"], mended["quatern_d"] = quaternion / np.sqrt(squared)
        repaired = True
    if squared < _LONGEST_QUATERNION and (mended["pixdim"][1:4] > 0).all():
        affine = _scaled(mended.get_qform(), scale)
        if _is_usable(affine):
            return _Form("qform", code, affine), repaired
    findings.note("The qform is singular, not finite or far out of range and was not used.")
    return None, True


def _mend_pixdim(header: Any, findings: Findings) -> bool:
    """Bring the handedness and the signs of the voxel size to what a qform allows; whether results must say so."""
    pixdim, repaired = header["pixdim"], False
    if pixdim[0] not in (-1, 0, 1):
        findings.note(f"The qform's handedness was {pixdim[0]:g} (pixdim[0]) instead of 1 or -1; its sign was taken.")
        repaired = True
    pixdim[0] = -1 if pixdim[0] < 0 else 1
    return _mend_signs(header, findings) or repaired


def _mend_signs(header: Any, findings: Findings) -> bool:
    sizes = header["pixdim"][1:4]
    if not (sizes < 0).any():
        return False
    findings.note("The header's voxel size was negative; it was read as positive.")
    sizes[:] = np.abs(sizes)
    return True


def _scaled(affine: np.ndarray, scale: float) -> np.ndarray:
    scaled = affine.astype(np.float64)
    scaled[:3] *= scale
    return scaled


def _is_usable(affine: np.ndarray) -> bool:
    """Whether a matrix is finite, not singular, and places the scan somewhere near the scanner."""
    if not np.isfinite(affine).all() or np.abs(affine).max() > _FARTHEST_MM:
        return False
    sizes = _sizes(affine)
    return bool(sizes.min() > 1e-6 and abs(np.linalg.det(affine[:3, :3] / sizes)) > 1e-6)


def _choose(
    usable: list[_Form], trust: str | None, shape: tuple[int, int, int], findings: Findings
) -> tuple[_Form, bool]:
    """Pick one of the usable forms (sform first); also whether results must not carry on what the other one says."""
    trusted = [form for form in usable if form.name == trust]
    chosen = (trusted or usable)[0]
    if trust and not trusted:
        findings.note(f"The {trust} is not set or not usable; the {chosen.name} was used.")
    if len(usable) == 1:
        return chosen, False
    sform, qform = usable
    if _sides_differ(sform.affine, qform.affine):
        if trust is None:
            raise findings.refusal(
                "sform and qform disagree about left and right; find out which is right and say --trust sform or "
                "--trust qform."
            )
        findings.note(
            f"Sform and qform disagree about left and right; the {trust} was trusted, as asked, and results carry it "
            "in both."
        )
        return chosen, True
    apart_mm = farthest_mm(sform.affine, qform.affine, shape)
    if apart_mm <= SAME_GRID_MM:
        return chosen, False
    findings.note(f"Sform and qform place the scan up to {apart_mm:.3g} mm apart; the {chosen.name} was used.")
    return chosen, chosen is qform


def _sides_differ(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two matrices call different sides left, or one is the other's mirror image."""
    mirrored = np.linalg.det(first[:3, :3]) * np.linalg.det(second[:3, :3]) < 0
    rightwards = [affine[0, :3] / _sizes(affine) for affine in (first, second)]
    lengths = np.linalg.norm(rightwards[0]) * np.linalg.norm(rightwards[1])
    return bool(mirrored or rightwards[0] @ rightwards[1] < np.sqrt(0.5) * lengths)


def _from_voxel_size(grid: Any, scale: float, findings: Findings) -> tuple[_Form, bool]:
    """Place the grid as nibabel does when neither form is usable: along the world's axes, x flipped, centred."""
    mended = grid.copy()
    repaired = _mend_signs(mended, findings)
    sizes = mended["pixdim"][1:4]
    affine = _scaled(mended.get_base_affine(), scale)
    if not _is_usable(affine):
        raise findings.refusal(
            f"the voxel size is {_times(sizes)} (pixdim) and neither sform nor qform is usable; write the right one "
            "into the header or convert the scan again."
        )
    findings.warn(f"Neither sform nor qform says how the scan lies, so a default was taken: {UNCERTAIN_SIDES}.")
    return _Form("default", 0, affine), repaired


def _check_voxel_size(grid: Any, scale: float, affine: np.ndarray, findings: Findings) -> bool:
    """Note where the header's voxel size is not the matrix's; whether it must not stay so in results."""
    stated, sizes = grid["pixdim"][1:4].astype(np.float64) * scale, _sizes(affine)
    if np.allclose(stated, sizes, rtol=0.01):
        return False
    findings.note(
        f"The header's voxel size ({_times(stated)} mm) is not the sform's ({_times(sizes)} mm), which was used."
    )
    return not (np.isfinite(stated).all() and (stated > 0).all())


def _without_shear(
    form: _Form, others: list[_Form], shape: tuple[int, int, int], findings: Findings
) -> tuple[np.ndarray, bool]:
    """Make the axes of a matrix orthogonal, round the middle of the grid, if they nearly are."""
    shear = _shear(form.affine)
    if shear <= ROUNDING_SHEAR:
        return form.affine, False
    if shear > LARGEST_SHEAR:
        straight_ones = [other.name for other in others if _shear(other.affine) <= LARGEST_SHEAR]
        advice = f", or say --trust {straight_ones[0]} if that one is right" if straight_ones else ""
        raise findings.refusal(
            f"the axes of the voxels are not at right angles (shear {shear:.2g}); resample the scan to a grid without "
            f"shear{advice}."
        )
    sizes = _sizes(form.affine)
    left, _, right = np.linalg.svd(form.affine[:3, :3] / sizes)
    straight = form.affine.copy()
    straight[:3, :3] = left @ right * sizes
    straight[:3, 3] += (form.affine - straight)[:3, :3] @ ((np.array(shape) - 1) / 2)
    findings.note(f"The axes of the voxels were not quite at right angles (shear {shear:.1g}); they were straightened.")
    return straight, True


def _shear(affine: np.ndarray) -> float:
    """Largest cosine between two different axes of a grid."""
    cosines = affine[:3, :3] / _sizes(affine)
    return float(np.abs(cosines.T @ cosines)[~np.eye(3, dtype=bool)].max())


def _rewritten(grid: Any, affine: np.ndarray, code: int) -> Any:
    """A header in millimetres whose two forms say the same; with code 0, one that leaves them unset."""
    written = grid.copy()
    written["xyzt_units"] = 2 | (int(grid["xyzt_units"]) & 0x38)
    written.set_sform(affine, code)
    written.set_qform(affine, code)
    if code == 0:
        written["pixdim"][0] = 1
        for name in GRID_FIELDS[3:]:
            written[name] = 0
    return written
