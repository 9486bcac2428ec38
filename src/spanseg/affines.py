"""Which matrix places a file's voxels in the world: sform or qform, repaired where that is safe, refused where not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from spanseg.findings import Findings

ROUNDING_SHEAR = 1e-5  # what single precision, or a matrix typed with five digits, leaves behind
LARGEST_SHEAR = 1e-3  # repaired up to here: less than 0.2 mm at the far corner of a head
SAME_PLACE_MM = 0.05
UNCERTAIN_SIDES = "left and right are not certain"
_MM_OF_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # NIfTI: unknown, metre, millimetre, micrometre
_UNIT_NAMES = {1: "metres", 3: "micrometres"}
_FARTHEST_MM = 1e5
_VOXEL_TESTED_MM = (0.49, 3.01)
_SLICE_TESTED_MM = 6.01
_VOXEL_POSSIBLE_MM = (0.05, 15.0)
_FIELD_POSSIBLE_MM = (60.0, 600.0)


@dataclass(frozen=True, eq=False)
class _Form:
    """One of the two matrices of a NIfTI header; ``affine`` is ``None`` where it is unset or unusable."""

    name: str
    code: int
    affine: np.ndarray | None
    repaired: bool = False


def place(grid: Any, findings: Findings, trust: str | None = None, rewrite: bool = False) -> tuple[np.ndarray, Any]:
    """Choose and repair the matrix from voxels to the world.

    Args:
        grid: NIfTI-1 header with the fields that place the grid; left as it is.
        findings: takes notes and warnings.
        trust: ``sform`` or ``qform``, the form that the user says is right.
        rewrite: write both forms anew even if nothing was repaired.

    Returns:
        The affine (voxels to RAS+ mm, float64), and the header for results: ``grid`` itself if nothing was repaired.

    Raises:
        SpansegError: no usable matrix and no voxel size, shear, or forms that disagree about left and right.
    """
    scale = _mm_of_unit(grid, findings)
    sform, qform = _sform(grid, scale, findings), _qform(grid, scale, findings)
    repaired = rewrite or sform.repaired or qform.repaired
    chosen, overruled = _choose(sform, qform, trust, grid, findings)
    if chosen is None or chosen.affine is None:
        chosen, rebuilt = _from_voxel_size(grid, scale, findings)
        repaired = repaired or rebuilt
    elif chosen is sform:
        repaired = _check_voxel_size(grid, scale, sform, qform, findings) or repaired
    other = qform if chosen is sform else sform
    affine, sheared = _without_shear(chosen, other, _shape(grid), findings)
    if not (repaired or sheared or overruled):
        return affine, grid
    written = _rewritten(grid, affine, chosen.code)
    return written.get_best_affine().astype(np.float64), written


def check_size(affine: np.ndarray, shape: tuple[int, int, int], findings: Findings) -> None:
    """Warn about voxel sizes that were not tested; refuse those that no scan of a head has.

    Raises:
        SpansegError: voxels or a field of view that cannot be those of a head.
    """
    voxel = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    field = voxel * shape
    sizes = " × ".join(f"{size:.3g}" for size in voxel)
    extents = " × ".join(f"{size:.3g}" for size in field)
    if voxel.min() < _VOXEL_POSSIBLE_MM[0] or voxel.max() > _VOXEL_POSSIBLE_MM[1]:
        raise findings.refusal(
            f"voxels of {sizes} mm cannot be those of a head; if the unit is not millimetres, say so in the header "
            "(xyzt_units)."
        )
    if field.min() < _FIELD_POSSIBLE_MM[0] or field.max() > _FIELD_POSSIBLE_MM[1]:
        raise findings.refusal(
            f"a field of view of {extents} mm cannot hold a brain or is no head scan (expected 60 to 600 mm along each "
            "axis); is the unit millimetres, and is the scan whole?"
        )
    smallest, middle, largest = np.sort(voxel)
    if smallest < _VOXEL_TESTED_MM[0] or middle > _VOXEL_TESTED_MM[1] or largest > _SLICE_TESTED_MM:
        findings.warn(f"The voxels measure {sizes} mm; tested are 0.5 to 3 mm, and slices up to 6 mm thick.")


def _shape(grid: Any) -> tuple[int, int, int]:
    i, j, k = (int(n) for n in grid["dim"][1:4])
    return i, j, k


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


def _sform(grid: Any, scale: float, findings: Findings) -> _Form:
    code, repaired = _code(grid, "sform", findings)
    if code == 0:
        return _Form("sform", 0, None, repaired)
    affine = _scaled(grid.get_sform(), scale)
    if _is_usable(affine):
        return _Form("sform", code, affine, repaired)
    findings.note("The sform is singular, not finite or far out of range and was not used.")
    return _Form("sform", 0, None, repaired=True)


def _qform(grid: Any, scale: float, findings: Findings) -> _Form:
    code, repaired = _code(grid, "qform", findings)
    if code == 0:
        return _Form("qform", 0, None, repaired)
    mended = grid.copy()
    pixdim = mended["pixdim"]
    if pixdim[0] not in (-1, 0, 1):
        findings.warn(
            f"The qform's handedness is {pixdim[0]:g} (pixdim[0]) instead of 1 or -1; its sign was taken as the NIfTI "
            f"library does, but {UNCERTAIN_SIDES}."
        )
        repaired = True
    pixdim[0] = -1 if pixdim[0] < 0 else 1
    if (pixdim[1:4] < 0).any():
        findings.note("The header's voxel size was negative; it was read as positive.")
        pixdim[1:4] = np.abs(pixdim[1:4])
        repaired = True
    quaternion = np.array([mended[f"quatern_{axis}"] for axis in "bcd"], dtype=np.float64)
    squared = float((quaternion**2).sum())
    if 1 + 3e-7 < squared < 1.002:  # rounded: longer than a unit quaternion can be
        findings.note("The qform's quaternion was slightly too long and was shortened.")
        mended["quatern_b"], mended["quatern_c"], mended["quatern_d"] = quaternion / np.sqrt(squared)
        repaired = True
    if np.isfinite(squared) and squared < 1.002 and (pixdim[1:4] > 0).all():
        affine = _scaled(mended.get_qform(), scale)
        if _is_usable(affine):
            return _Form("qform", code, affine, repaired)
    findings.note("The qform is singular, not finite or far out of range and was not used.")
    return _Form("qform", 0, None, repaired=True)


def _scaled(affine: np.ndarray, scale: float) -> np.ndarray:
    scaled = affine.astype(np.float64)
    scaled[:3] *= scale
    return scaled


def _is_usable(affine: np.ndarray) -> bool:
    """Whether a matrix is finite, not singular, and places the scan somewhere near the scanner."""
    if not np.isfinite(affine).all() or np.abs(affine).max() > _FARTHEST_MM:
        return False
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return bool(sizes.min() > 1e-6 and abs(np.linalg.det(affine[:3, :3] / sizes)) > 1e-6)


def _choose(
    sform: _Form, qform: _Form, trust: str | None, grid: Any, findings: Findings
) -> tuple[_Form | None, bool]:
    """Pick a form; also whether the user's word overruled a contradiction, which results must not carry on."""
    usable = [form for form in (sform, qform) if form.affine is not None]
    trusted = [form for form in usable if form.name == trust]
    if trust and usable and not trusted:
        findings.note(f"The {trust} is not set or not usable; the {usable[0].name} was used.")
    if sform.affine is None or qform.affine is None:
        return (usable[0] if usable else None), False
    chosen = trusted[0] if trusted else sform
    if _sides_differ(sform.affine, qform.affine):
        if not trusted:
            raise findings.refusal(
                "sform and qform disagree about left and right; find out which is right and say --trust sform or "
                "--trust qform."
            )
        findings.note(
            f"Sform and qform disagree about left and right; the {trust} was trusted, as asked, and results carry it "
            "in both."
        )
        return chosen, True
    apart_mm = _farthest_mm(sform.affine, qform.affine, _shape(grid))
    if apart_mm > SAME_PLACE_MM:
        findings.note(f"Sform and qform place the scan up to {apart_mm:.3g} mm apart; the {chosen.name} was used.")
    return chosen, False


def _sides_differ(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two matrices call different sides left, or one is the other's mirror image."""
    mirrored = np.linalg.det(first[:3, :3]) * np.linalg.det(second[:3, :3]) < 0
    rightwards = [m[0, :3] / np.sqrt((m[:3, :3] ** 2).sum(axis=0)) for m in (first, second)]
    cosine = rightwards[0] @ rightwards[1] / max(float(np.prod([np.linalg.norm(r) for r in rightwards])), 1e-12)
    return bool(mirrored or cosine < np.sqrt(0.5))


def _farthest_mm(first: np.ndarray, second: np.ndarray, shape: tuple[int, int, int]) -> float:
    """Largest distance between the places that two matrices give to a corner of the grid."""
    corners = np.array([(i, j, k, 1) for i in (0, shape[0] - 1) for j in (0, shape[1] - 1) for k in (0, shape[2] - 1)])
    return float(np.linalg.norm(corners @ (first - second)[:3].T, axis=1).max())


def _from_voxel_size(grid: Any, scale: float, findings: Findings) -> tuple[_Form, bool]:
    """Place the grid as nibabel does when neither form is usable: axes along the world's, x flipped, centred."""
    sizes = np.abs(grid["pixdim"][1:4].astype(np.float64))
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise findings.refusal(
            f"the voxel size is {' × '.join(f'{s:g}' for s in sizes)} (pixdim) and neither sform nor qform is usable; "
            "write the right one into the header or convert the scan again."
        )
    findings.warn(f"Neither sform nor qform says how the scan lies, so a default was taken: {UNCERTAIN_SIDES}.")
    mended = grid.copy()
    mended["pixdim"][1:4] = np.abs(mended["pixdim"][1:4])
    negative = bool((grid["pixdim"][1:4] < 0).any())
    if negative:
        findings.note("The header's voxel size was negative; it was read as positive.")
    affine = _scaled(mended.get_base_affine(), scale)
    if not _is_usable(affine):
        raise findings.refusal("the header's voxel size is out of range; convert the scan again.")
    return _Form("default", 0, affine), negative


def _check_voxel_size(grid: Any, scale: float, sform: _Form, qform: _Form, findings: Findings) -> bool:
    """Note where the header's voxel size is not the sform's; whether it has to be repaired in results."""
    if sform.affine is None or qform.affine is not None:
        return False  # a qform holds the voxel size, and was compared as a whole
    stated = grid["pixdim"][1:4].astype(np.float64) * scale
    sizes = np.sqrt((sform.affine[:3, :3] ** 2).sum(axis=0))
    if np.allclose(stated, sizes, rtol=0.01):
        return False
    written = [" × ".join(f"{size:.3g}" for size in row) for row in (stated, sizes)]
    findings.note(f"The header's voxel size ({written[0]} mm) is not the sform's ({written[1]} mm), which was used.")
    return not (np.isfinite(stated).all() and (stated > 0).all())


def _without_shear(
    form: _Form, other: _Form, shape: tuple[int, int, int], findings: Findings
) -> tuple[np.ndarray, bool]:
    """Make the axes of a matrix orthogonal, round the middle of the grid, if they nearly are."""
    affine = form.affine
    if affine is None:
        raise TypeError("a form without a matrix has no shear")
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    cosines = affine[:3, :3] / sizes
    shear = _shear(affine)
    if shear <= ROUNDING_SHEAR:
        return affine, False
    if shear > LARGEST_SHEAR:
        straight = other.affine is not None and _shear(other.affine) <= LARGEST_SHEAR
        advice = f"or, if the {other.name} is right, say --trust {other.name}" if straight else "and try again"
        raise findings.refusal(
            f"the {form.name}'s axes are not at right angles (shear {shear:.2g}); resample the scan to a grid without "
            f"shear, {advice}."
        )
    left, _, right = np.linalg.svd(cosines)
    straight = affine.copy()
    straight[:3, :3] = left @ right * sizes
    straight[:3, 3] += (affine - straight)[:3, :3] @ ((np.array(shape) - 1) / 2)
    findings.note(f"The {form.name}'s axes were not quite at right angles (shear {shear:.1g}); they were straightened.")
    return straight, True


def _shear(affine: np.ndarray) -> float:
    """Largest cosine between two different axes of a grid."""
    cosines = affine[:3, :3] / np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    return float(np.abs(cosines.T @ cosines - np.diag((cosines**2).sum(axis=0))).max())


def _rewritten(grid: Any, affine: np.ndarray, code: int) -> Any:
    """A header whose two forms say the same, in millimetres; with code 0, one that leaves them unset."""
    written = grid.copy()
    written["xyzt_units"] = 2 | (int(grid["xyzt_units"]) & 0x38)
    written.set_sform(affine, code)
    written.set_qform(affine, code)
    if code == 0:
        for name in ("quatern_b", "quatern_c", "quatern_d", "srow_x", "srow_y", "srow_z"):
            written[name] = 0
    return written
