"""What can be measured on a scan and its result: numbers that flags put into words and the quality score weighs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from spanseg.labels import load_protocol
from spanseg.plain_names import plain_name
from spanseg.result import Segmentation
from spanseg.volume import canonical

if TYPE_CHECKING:
    from spanseg.images import Scan

LEAST_VOXELS = 1000
"""Of fewer voxels of a tissue nothing is said about how the scan looks."""
_EDGES = (("left", "right"), ("back", "front"), ("bottom", "top"))
_TINY = float(np.finfo(np.float64).tiny)


class Appearance(NamedTuple):
    """How the scan looks where cerebral white matter and cortex were found.

    Args:
        contrast: white minus grey matter in standard deviations; negative where grey is brighter.
        signal_to_noise: white matter above the darkest of the scan, over the noise between neighbours.
    """

    contrast: float
    signal_to_noise: float


def brain_ml(result: Segmentation) -> float:
    """Volume of grey and white matter."""
    return int(np.count_nonzero(result.tissue.data > 1)) * result.tissue.voxel_volume_mm3 / 1000


def cut_edges_mm2(result: Segmentation) -> dict[str, float]:
    """Area in which each edge of the scan cuts through the brain; the brain stem, which always leaves, is left out."""
    tissue, _ = canonical(result.tissue)
    labels, _ = canonical(result.labels)
    stem = next((row.id for row in result.volumes if plain_name(row.name) == "Brain stem"), -1)
    areas = {}
    for axis, ends in enumerate(_EDGES):
        voxel_mm2 = tissue.voxel_volume_mm3 / tissue.voxel_size_mm[axis]
        for name, index in zip(ends, (0, -1), strict=True):
            face = (slice(None),) * axis + (index,)
            edge = (tissue.data[face] > 1) & (labels.data[face] != stem)
            areas[name] = float(np.count_nonzero(edge) * voxel_mm2)
    return areas


def appearance(scan: Scan, result: Segmentation) -> Appearance | None:
    """Look at the scan where cerebral white matter and cortex were found; ``None`` if there is little of them."""
    groups = load_protocol(result.protocol).groups
    # Every second voxel is plenty, but for noise, which is taken between neighbours along the finest axis.
    axis = int(np.argmin(scan.volume.voxel_size_mm))
    image = np.moveaxis(scan.volume.data, axis, 0)[:, ::2, ::2]
    labels = np.moveaxis(result.labels.data, axis, 0)[:, ::2, ::2]
    is_white = np.isin(labels, groups.get("cerebral_white_matter", []))
    white, grey = image[is_white], image[np.isin(labels, groups.get("cerebral_cortex", []))]
    steps = (image[1:] - image[:-1])[is_white[1:] & is_white[:-1]]
    if min(white.size, grey.size, steps.size) < LEAST_VOXELS:
        return None
    spread = float(np.hypot(_spread(white), _spread(grey))) / np.sqrt(2)
    signal = float(np.median(white) - np.percentile(image[::4], 1))
    noise = _spread(steps) / np.sqrt(2)
    contrast = float(np.median(white) - np.median(grey)) / max(float(spread), _TINY)
    return Appearance(contrast, abs(signal) / max(float(noise), _TINY))


def _spread(values: np.ndarray) -> float:
    """Standard deviation as told by the median, which the borders between tissues do not reach."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))
