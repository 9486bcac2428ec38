"""The files of a correction: labels, their table, volumes, and a record of every click that led to them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from spanseg import __version__, files, sidecar
from spanseg.affines import UNCERTAIN_SIDES
from spanseg.cases import Case
from spanseg.events import Event
from spanseg.images import write_labels
from spanseg.labels import Protocol
from spanseg.outputs import label_table, volume_rows
from spanseg.result import StructureVolume
from spanseg.session import Session

FORMAT = "spanseg correction 1"
_MOST_VOXELS_NAMED = 2


def save(session: Session) -> list[str]:
    """Write what a session has come to, over what was saved before, and return the names of the files.

    Raises:
        SpansegError: the folder cannot be written to, or the disk is full.
    """
    labels, table, volumes, record = session.case.saved
    write_labels(labels, session.labels.astype(np.int32), session.scan)
    files.write_text(table, label_table(session.protocol, ()))
    uncertain = any(UNCERTAIN_SIDES in warning for warning in session.scan.warnings)
    files.write_text(volumes, volume_rows(_volumes(session), session.protocol, uncertain))
    files.write_text(record, sidecar.dumps(_record(session)))
    return [path.name for path in session.case.saved]


def is_saved(session: Session) -> bool:
    """Whether the files hold what the session has come to, with all that led to it."""
    try:
        record = json.loads(session.case.saved[-1].read_text(encoding="utf-8"))
        hashed, count = record["labels_sha256"], len(record["events"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False
    current = session.events[-1].labels_sha256 if session.events else sidecar.labels_sha256(session.labels)
    return bool(hashed == current and count == len(session.events) and has_labels(session.case))


def has_labels(case: Case) -> bool:
    """Whether corrected labels of a case were saved, with their record."""
    return case.saved[0].is_file() and case.saved[-1].is_file()


def _volumes(session: Session) -> list[StructureVolume]:
    """One row a structure, then the tissues, counted from labels: there are no probabilities of corrected ones."""
    protocol, voxel_mm3 = session.protocol, session.scan.volume.voxel_volume_mm3
    sizes = [session.voxels_of(structure.id) * voxel_mm3 for structure in protocol.structures]
    rows = [
        StructureVolume(structure.id, structure.name, None, size)
        for structure, size in zip(protocol.structures[1:], sizes[1:], strict=True)
    ]
    for tissue, value in protocol.tissues.items():
        total = float(np.array(sizes)[protocol.tissue_of_class == value].sum())
        rows.append(StructureVolume(0, f"Total-{tissue}", None, total))
    return rows


def _record(session: Session) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "spanseg": __version__,
        "scan": session.case.scan.name,
        "input_sha256": session.scan.sha256,
        "input_shape": list(session.scan.volume.shape),
        "input_voxel_size_mm": [round(float(size), 4) for size in session.scan.volume.voxel_size_mm],
        "protocol": session.protocol.name,
        "start": session.origin,
        "labels_sha256": sidecar.labels_sha256(session.labels),
        "in_force": [event.number for event in session.in_force],
        "events": [_trail(event, session.protocol) for event in session.events],
        "notes": session.notes,
        "outputs": [path.name for path in session.case.saved],
    }


def _trail(event: Event, protocol: Protocol) -> dict[str, Any]:
    """One line of the audit trail: what, where, when, by which corrector, and how much it changed."""
    structure = protocol.structures[protocol.class_of(event.structure)]
    voxels = event.prompt.voxels
    corners = [[pick(axis) for axis in zip(*voxels, strict=True)] for pick in (min, max)]
    where = [list(voxel) for voxel in voxels] if len(voxels) <= _MOST_VOXELS_NAMED else corners
    return {
        "number": event.number,
        "kind": event.kind,
        "of": event.of,
        "structure": structure.id,
        "name": structure.name,
        "prompt": event.prompt.kind,
        "positive": event.prompt.positive,
        "where": where,
        "prompt_voxels": len(voxels),
        "time": event.time,
        "corrector": event.corrector,
        "changed_voxels": event.change.voxels,
        "changed_box": list(event.change.box),
    }
