"""Quality flags: what in a result asks for a second look, in plain words. They never change a result.

The limits are wide on purpose: a flag should mean that something is probably wrong, not that a person is unusual. Where
they were measured, it was on 40 adults: the 20 label maps of SynthSeg, of which some have very large ventricles, the 19
manually labelled people of the MICCAI 2012 challenge, and FreeSurfer's example.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from spanseg.asymmetry import lateral_pairs, volume_mm3
from spanseg.labels import load_protocol
from spanseg.measures import appearance, brain_ml, cut_edges_mm2
from spanseg.plain_names import MAY_BE_MISSING, plain_name, row_name
from spanseg.result import Segmentation, StructureVolume

if TYPE_CHECKING:
    from spanseg.images import Scan


class Limit(NamedTuple):
    """What is plausible for one structure.

    Args:
        asymmetry_percent: largest plausible difference of the sides in percent of their mean; ``None`` for no limit.
        least_percent: smallest plausible volume of one side (or of a midline structure), in percent of the brain.
        most_percent: largest plausible volume, in percent of the brain.
    """

    asymmetry_percent: float | None
    least_percent: float
    most_percent: float


# Asymmetry: beyond the largest value measured, two outliers left aside (a hippocampus with 108, a pallidum with 59).
# 35 % is a left/right ratio of 0.7 or 1.4; in 2082 people the 90th percentile of hippocampal asymmetry was 8.5 %
# (FreeSurfer) and 18 % (FIRST) of the larger side (Dallas Heart Study, PMC7964497). The inferior horns of the
# ventricles differ by more than 100 % in healthy people: no limit there.
# Percent of the brain (grey and white matter): half of the smallest and twice the largest value measured, rounded;
# ventricles may be as narrow as they like.
LIMITS = {
    "Cerebral white matter": Limit(15, 7.5, 42),
    "Cerebral cortex": Limit(15, 9, 52),
    "Lateral ventricle": Limit(100, 0, 10),
    "Inferior lateral ventricle": Limit(None, 0, 0.75),
    "Cerebellum white matter": Limit(35, 0.45, 4),
    "Cerebellum cortex": Limit(20, 1.7, 12),
    "Thalamus": Limit(30, 0.27, 1.6),
    "Caudate": Limit(30, 0.1, 0.9),
    "Putamen": Limit(30, 0.15, 1.3),
    "Pallidum": Limit(45, 0.03, 0.36),
    "Hippocampus": Limit(35, 0.05, 0.9),
    "Amygdala": Limit(45, 0.03, 0.36),
    "Accumbens": Limit(75, 0.007, 0.14),
    "Ventral DC": Limit(30, 0.16, 0.9),
    "3rd ventricle": Limit(None, 0, 0.65),
    "4th ventricle": Limit(None, 0, 0.6),
    "Brain stem": Limit(None, 0.6, 5),
}

# Adults have about 900 to 1700 ml of grey and white matter (798 to 1517 in the 40), newborns 341 ml on average and
# three-month-olds 64 % more (Holland et al., JAMA Neurology 2014, PMC4940157).
BRAIN_ML = (600.0, 2000.0)
# Of slices further apart than this, most small nuclei are seen in three or fewer.
SLICE_MM = 3.0
# Plane that cuts through brain tissue at the edge of the scan. The first 3 mm of a ball of 70 mm radius have this area:
# a brain that was cropped to its bounding box stays below.
CUT_MM2 = 1500.0
# Difference of grey and white matter in standard deviations. At 1, with any threshold, 31 % of the voxels fall on the
# wrong side. T1-weighted scans have 3.5 to 4.0 after bias correction and 1.5 to 1.9 without (10 IXI people).
CONTRAST_SD = 1.0
# White matter signal over noise. At 8, noise is about half the usual T1 difference of grey and white matter, a quarter
# of the white matter's signal. Usual scans have 30 to 55.
SIGNAL_TO_NOISE = 8.0
# Volume from probabilities over volume from labels, or the other way round: at 2, half of the larger one lies in voxels
# that are more probably something else.
UNSURE_RATIO = 2.0
# Structures that are missing, unsure or of an unlikely size. Whole brains have 0 to 2 of them; noise, a ball, a ramp, a
# label map, an image of zeros and half of a brain have 7 to 28.
MOST_DOUBTFUL = 5


def with_flags(scan: Scan, result: Segmentation) -> Segmentation:
    """Return the result with a warning if this may be no brain, and with ``quality_flags`` among its details.

    Args:
        scan: the scan as read.
        result: its segmentation, on the same grid.
    """
    warned = replace(result, warnings=(*result.warnings, *_no_brain(result)))
    return replace(warned, details=warned.details | {"quality_flags": quality_flags(scan, warned)})


def quality_flags(scan: Scan, result: Segmentation) -> list[str]:
    """Say in plain words what asks for a second look; an empty list if nothing does.

    Args:
        scan: the scan as read.
        result: its segmentation, on the same grid.
    """
    flags = list(dict.fromkeys([*scan.warnings, *result.warnings]))
    if not load_protocol(result.protocol).covers_brain:
        partial = "The network knows some structures alone: the mask is of these and not of the brain."
        missing = _named("Not found in this scan", _missing(result))
        return [*flags, partial, *missing, *_asymmetry(result), *_slices(scan)]
    volume_ml = brain_ml(result)
    if volume_ml == 0:
        return list(dict.fromkeys([*flags, *_no_brain(result)]))
    flags += _brain_size(volume_ml)
    flags += _field_of_view(result)
    flags += _doubts(result, volume_ml)
    flags += _asymmetry(result)
    flags += _slices(scan)
    flags += _contrast(scan, result)
    return flags


def _brain_size(volume_ml: float) -> list[str]:
    low, high = BRAIN_ML
    if low <= volume_ml <= high:
        return []
    unless = "unless this is an infant, " if volume_ml < low else ""
    return [
        f"The brain measures {volume_ml:.0f} ml, where adults have about 900 to 1700 and newborns about 350: "
        f"{unless}this may not be a human brain, or the voxel size in the header is wrong."
    ]


def _field_of_view(result: Segmentation) -> list[str]:
    """Name the edges of the scan that cut through the brain."""
    cut = [name for name, mm2 in cut_edges_mm2(result).items() if mm2 > CUT_MM2]
    return [f"The scan cuts off part of the brain ({', '.join(cut)}): volumes are too small there."] if cut else []


def _doubts(result: Segmentation, volume_ml: float) -> list[str]:
    """Name the structures that are missing, unsure, or of an unlikely size."""
    missing, unsure = _missing(result), _unsure(result)
    small, large = _out_of_proportion(result, volume_ml)
    return [
        *_named("Not found in this scan", missing),
        *_named("The network is unsure (volumes from probabilities and from labels disagree)", unsure),
        *_named("Unusually small for this brain", small),
        *_named("Unusually large for this brain", large),
    ]


def _no_brain(result: Segmentation) -> list[str]:
    """Warn if this may be no brain: too many structures are missing, unsure, or of an unlikely size."""
    if brain_ml(result) == 0:
        return ["No brain was found in this scan."]
    if not load_protocol(result.protocol).covers_brain:
        return []
    count = doubtful_structures(result)
    if count <= MOST_DOUBTFUL:
        return []
    return [
        f"{count} of {len(_structures(result))} structures are missing, uncertain or of an unlikely size: this "
        "may not be a scan of a whole human brain, or its header may be wrong."
    ]


def doubtful_structures(result: Segmentation) -> int:
    """Count the structures that are missing, unsure, or of an unlikely size, in a result that holds a brain."""
    small, large = _out_of_proportion(result, brain_ml(result))
    return len({row.id for row in (*_missing(result), *_unsure(result), *small, *large)})


def _missing(result: Segmentation) -> list[StructureVolume]:
    return [row for row in _structures(result) if row.mm3_labels == 0 and plain_name(row.name) not in MAY_BE_MISSING]


def _unsure(result: Segmentation) -> list[StructureVolume]:
    """Structures of whose volume much is spread thinly over voxels that got another label."""
    return [
        row
        for row in _structures(result)
        if row.mm3
        and row.mm3_labels
        and max(row.mm3 / row.mm3_labels, row.mm3_labels / row.mm3) > UNSURE_RATIO
        and plain_name(row.name) not in MAY_BE_MISSING
    ]


def _out_of_proportion(result: Segmentation, volume_ml: float) -> tuple[list[StructureVolume], list[StructureVolume]]:
    """Structures that are too small and too large for the brain, so that small and large heads have the same limits."""
    small, large = [], []
    for row in _structures(result):
        limit, mm3 = LIMITS.get(plain_name(row.name)), volume_mm3(row)
        if limit is None or not mm3:
            continue
        percent = mm3 / (10 * volume_ml)
        if percent < limit.least_percent:
            small.append(row)
        elif percent > limit.most_percent:
            large.append(row)
    return small, large


def _structures(result: Segmentation) -> list[StructureVolume]:
    return [row for row in result.volumes if row.id]


def _named(what: str, rows: list[StructureVolume]) -> list[str]:
    """One sentence for all structures that share a fault, or none."""
    names = [f"{row_name(row)} ({(volume_mm3(row) or 0) / 1000:.2f} ml)" for row in rows]
    return [f"{what}: {', '.join(names)}."] if names else []


def _asymmetry(result: Segmentation) -> list[str]:
    flags = []
    for pair in lateral_pairs(result):
        limit, percent = LIMITS.get(pair.name), pair.asymmetry_percent
        if limit is None or limit.asymmetry_percent is None or percent is None:
            continue
        if abs(percent) > limit.asymmetry_percent:
            larger = "left" if percent > 0 else "right"
            flags.append(
                f"{pair.name}: the {larger} side is larger by {abs(percent):.0f} % of the mean of both "
                f"(more than {limit.asymmetry_percent:g} % is unusual)."
            )
    return flags


def _slices(scan: Scan) -> list[str]:
    thickest_mm = float(scan.volume.voxel_size_mm.max())
    if thickest_mm <= SLICE_MM:
        return []
    return [f"Voxels are up to {thickest_mm:.1f} mm long: volumes of small structures are less certain."]


def _contrast(scan: Scan, result: Segmentation) -> list[str]:
    looks = appearance(scan, result)
    if looks is None:
        return []
    flags = []
    advice = " For T2 and FLAIR there is --model wide." if result.details.get("model") == "default" else ""
    if abs(looks.contrast) < CONTRAST_SD:
        flags.append(f"Grey and white matter look alike in this scan (low contrast, or uneven brightness).{advice}")
    elif looks.contrast < 0:
        flags.append(f"Grey matter is brighter than white: this is no adult T1-weighted scan.{advice}")
    if looks.signal_to_noise < SIGNAL_TO_NOISE:
        flags.append(f"The scan is very noisy (signal to noise {looks.signal_to_noise:.1f} in white matter).")
    return flags
