"""What a segmentation gives back: labels, tissue, mask and volumes, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from spanseg.volume import Volume

OFF_CANVAS = "The brain touches the border of the canvas: parts of it may be missing from the result."


@dataclass(frozen=True)
class StructureVolume:
    """Volume of one structure.

    Args:
        id: FreeSurfer id; 0 for sums such as a tissue or the intracranial volume.
        name: FreeSurfer name, or the name of the sum.
        mm3: from class probabilities (partial volume counted), in mm³; ``None`` where it is not defined.
        mm3_labels: number of labelled voxels times the voxel's volume, in mm³; ``None`` where it is not defined.
        note: why a volume is missing; empty otherwise.
        low_mm3: lower end of the 90 % interval round ``mm3``; ``None`` where the model has none.
        high_mm3: its upper end.
    """

    id: int
    name: str
    mm3: float | None
    mm3_labels: float | None
    note: str = ""
    low_mm3: float | None = None
    high_mm3: float | None = None


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Result of one scan, on the scan's own grid.

    Args:
        labels: int32 FreeSurfer ids.
        tissue: uint8, 1 CSF, 2 grey, 3 white matter; derived from ``labels`` through the protocol.
        mask: uint8, 1 inside the skull.
        probabilities: class probabilities, uint8 0 to 255, shape (i, j, k, class), or ``None`` if not asked for.
        volumes: one row a structure, then the tissues and the intracranial volume.
        protocol: name of the protocol.
        notes: what was repaired or guessed, one sentence each.
        warnings: what the user must know before trusting the result, one sentence each.
        details: what the sidecar records beside this (model, precision, timings …); JSON values only.
        facts_std: standard deviation of the probabilities over the ages that were averaged, float32; ``None`` if there
            was one answer or probabilities were not asked for.
    """

    labels: Volume
    tissue: Volume
    mask: Volume
    probabilities: Volume | None
    volumes: tuple[StructureVolume, ...]
    protocol: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    facts_std: Volume | None = None
