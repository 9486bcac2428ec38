"""Names of structures and sums in plain words, for people who read the report."""

from __future__ import annotations

import re

from spanseg.result import StructureVolume

MAY_BE_MISSING = ("Inferior lateral ventricle", "CSF outside the ventricles")
"""Structures that may rightly be invisible: closed horns of the ventricles, CSF of a skull-stripped scan."""
_PARCEL = re.compile("ctx-([lr])h-")
_STRUCTURES = {
    "Inf-Lat-Vent": "Inferior lateral ventricle",
    "VentralDC": "Ventral DC",
    "Accumbens-area": "Accumbens",
    "CSF": "CSF outside the ventricles",
}
_SUMS = {
    "Total-CSF": "CSF, all",
    "Total-GM": "Grey matter",
    "Total-WM": "White matter",
    "IntraCranialVol": "Total intracranial volume",
}


def plain_name(name: str) -> str:
    """Turn a structure's FreeSurfer name into plain words without its side.

    Example:
        >>> plain_name("Left-Cerebral-White-Matter")
        'Cerebral white matter'
    """
    bare = name.partition("-")[2] if name.startswith(("Left-", "Right-")) else _PARCEL.sub("", name)
    return _STRUCTURES.get(bare) or " ".join(
        word if place == 0 or word.isupper() else word.lower() for place, word in enumerate(bare.split("-"))
    )


def row_name(row: StructureVolume) -> str:
    """Name a row of the volume table: a structure with its side, or a sum.

    Example:
        >>> row_name(StructureVolume(60, "Right-VentralDC", 5000.0, 5000.0))
        'Right ventral DC'
    """
    if row.id == 0:
        return _SUMS.get(row.name, row.name)
    side, plain = row.name.partition("-")[0], plain_name(row.name)
    if parcel := _PARCEL.match(row.name):
        side = "Left" if parcel[1] == "l" else "Right"
    return f"{side} {plain[0].lower()}{plain[1:]}" if side in ("Left", "Right") else plain
