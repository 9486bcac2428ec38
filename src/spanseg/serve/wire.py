"""What the page is told, as JSON values."""

from __future__ import annotations

import base64
from typing import Any

from spanseg.changes import Change
from spanseg.corrected import is_saved
from spanseg.session import Session

API = 1
"""Number of the contract between page and server; a page that expects another one says so."""


def state_of(session: Session, corrector: str) -> dict[str, Any]:
    """All that the page shows beside the images.

    Args:
        session: the open one.
        corrector: name of what answers the prompts.
    """
    voxel_mm3 = session.scan.volume.voxel_volume_mm3
    return {
        "case": session.case.name,
        "protocol": session.protocol.name,
        "shape": list(session.scan.volume.shape),
        "structures": [
            {
                "id": structure.id,
                "name": structure.name,
                "colour": list(structure.colour),
                "mm3": round(session.voxels_of(structure.id) * voxel_mm3, 2),
            }
            for structure in session.protocol.structures[1:]
        ],
        "events": len(session.events),
        "can_undo": session.can_undo,
        "can_redo": session.can_redo,
        "saved": is_saved(session),
        "next": _next_of(session),
        "corrector": corrector,
        "notes": list(session.notes),
    }


def change_of(change: Change) -> dict[str, Any]:
    """What one event did to the labels, for the page's overlay."""
    _, after = change.labels()
    return {
        "changed": change.voxels,
        "box": list(change.box) if change.voxels else None,
        "labels": base64.b64encode(after.tobytes(order="F")).decode("ascii"),
    }


def _next_of(session: Session) -> dict[str, Any] | None:
    found = session.next()
    if found is None:
        return None
    piece, structure = found
    return {"voxel": list(piece.voxel), "structure": structure, "doubt": round(piece.doubt, 3)}
