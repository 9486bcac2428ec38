"""A scan of a ball-shaped brain with its result, plausible in every number, for tests of what people are shown."""

import dataclasses
from typing import Any

import numpy as np

from spanseg.images import Scan, scan_of
from spanseg.labels import load_protocol
from spanseg.result import Segmentation, StructureVolume
from spanseg.volume import Orientation, Volume

ADULT_MM3 = {
    2: 240e3, 3: 260e3, 4: 9e3, 5: 400, 7: 15e3, 8: 52e3, 10: 7800, 11: 3500, 12: 5000, 13: 1700, 17: 4000, 18: 1600,
    26: 500, 28: 4200, 14: 1100, 15: 1800, 16: 21e3, 24: 250e3,
}  # fmt: skip
INTENSITY = {"WM": 110.0, "GM": 75.0, "CSF": 30.0}


def ball_labels(voxel_mm: tuple[float, float, float] = (3.0, 3.0, 3.0)) -> Volume:
    """Ids of a ball of 65 mm: cortex round white matter, CSF round both, thalamus and hippocampus; RAS+."""
    shape = tuple(int(228 / size) for size in voxel_mm)
    x, y, z = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * size for n, size in zip(shape, voxel_mm, strict=True)), indexing="ij"
    )
    labels = np.zeros(shape, np.int32)
    left = x < 0
    for radius, ids in ((71, (24, 24)), (65, (3, 42)), (52, (2, 41))):
        inside = x**2 + y**2 + z**2 < radius**2
        labels[inside] = np.where(left, *ids)[inside]
    for forward, up, ids in ((0, 5, (10, 49)), (-4, -22, (17, 53))):
        inside = (np.abs(x) - 16) ** 2 + (y - forward) ** 2 + (z - up) ** 2 < 12**2
        labels[inside] = np.where(left, *ids)[inside]
    affine = np.diag([*voxel_mm, 1.0])
    affine[:3, 3] = -np.array(voxel_mm) * (np.array(shape) - 1) / 2
    return Volume(labels, affine)


def scan_like(labels: Volume, noise: float = 3.0, **changes: Any) -> Scan:
    """A T1-like scan of labels, of magnitudes, as scanners give them."""
    protocol = load_protocol("aseg")
    image = np.random.default_rng(1).normal(2, noise, labels.shape)
    for structure in protocol.structures[1:]:
        image[labels.data == structure.id] += INTENSITY[structure.tissue]
    return dataclasses.replace(scan_of(labels.with_data(np.abs(image).astype(np.float32))), **changes)


def result_of(labels: Volume, **changes: Any) -> Segmentation:
    """A result with these labels and the volumes of an adult."""
    protocol = load_protocol("aseg")
    classes = np.zeros(labels.data.max() + 1, np.uint8)
    classes[[structure.id for structure in protocol.structures if structure.id < len(classes)]] = [
        index for index, structure in enumerate(protocol.structures) if structure.id < len(classes)
    ]
    rows = [
        StructureVolume(row.id, row.name, mm3 * 1.02, mm3)
        for row in protocol.structures[1:]
        for mm3 in [ADULT_MM3.get(row.id) or ADULT_MM3[row.mirror]]
    ]
    rows += [StructureVolume(0, f"Total-{name}", 5e5, 5e5) for name in protocol.tissues]
    rows.append(StructureVolume(0, "IntraCranialVol", 1.5e6, 1.5e6))
    result = Segmentation(
        labels=labels,
        tissue=labels.with_data(protocol.tissue_of_class[classes[labels.data]]),
        mask=labels.with_data((labels.data > 0).astype(np.uint8)),
        probabilities=None,
        volumes=tuple(rows),
        protocol="aseg",
        details={"model": "default", "precision": "f32", "timings_s": {"network": 2.5}},
    )
    return dataclasses.replace(result, **changes)


def with_volume(result: Segmentation, name: str, **changes: Any) -> Segmentation:
    """The same result with another value in the row of one structure."""
    rows = tuple(dataclasses.replace(row, **changes) if row.name == name else row for row in result.volumes)
    return dataclasses.replace(result, volumes=rows)


def turned(volume: Volume, orientation: Orientation) -> Volume:
    """The same voxels at the same places, stored in another order."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1.0
    for world, axis in enumerate(orientation.axes):
        matrix[axis, world] = -1.0 if orientation.flips[world] else 1.0
        matrix[axis, 3] = volume.shape[world] - 1 if orientation.flips[world] else 0.0
    return Volume(orientation.to_original(volume.data), volume.affine @ np.linalg.inv(matrix))
