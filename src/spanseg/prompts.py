"""What a user says about one structure by pointing into the image: a point, a box or a scribble."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spanseg.errors import SpansegError

Voxel = tuple[int, int, int]
KINDS = {"point": (1, 1), "box": (2, 2), "scribble": (1, 10_000)}
"""Kinds of prompts, and how few and how many voxels each has."""


@dataclass(frozen=True)
class Prompt:
    """One prompt, on the scan's own grid as it lies in the file.

    Args:
        kind: ``point``, ``box`` or ``scribble``.
        positive: whether the voxels belong to the structure; a box says where all of it lies, and is positive.
        voxels: one for a point; two opposite corners, both inside, of a box; up to 10,000 of a scribble.
    """

    kind: str
    positive: bool
    voxels: tuple[Voxel, ...]

    def checked(self, shape: Sequence[int]) -> Prompt:
        """Return the prompt if it lies within an image of this shape.

        Raises:
            SpansegError: an unknown kind, a wrong number of voxels, a negative box, or a voxel outside the image.
        """
        if self.kind not in KINDS:
            raise SpansegError(f"a prompt is one of {', '.join(KINDS)}, not '{self.kind}'.")
        few, many = KINDS[self.kind]
        if not few <= len(self.voxels) <= many:
            raise SpansegError(f"a {self.kind} has {_range(few, many)}, this one has {len(self.voxels)}.")
        if self.kind == "box" and not self.positive:
            raise SpansegError("a box says where a structure lies, so it cannot be negative; use a point or scribble.")
        for voxel in self.voxels:
            if not all(0 <= index < size for index, size in zip(voxel, shape, strict=True)):
                raise SpansegError(
                    f"the {self.kind} at voxel {', '.join(map(str, voxel))} lies outside the image, which has "
                    f"{' × '.join(map(str, shape))} voxels; click inside it."
                )
        return self

    def to_dict(self) -> dict[str, Any]:
        """The prompt as JSON values."""
        return {"kind": self.kind, "positive": self.positive, "voxels": [list(voxel) for voxel in self.voxels]}


def prompt_from(table: dict[str, Any]) -> Prompt:
    """Read a prompt from JSON values; other keys are ignored.

    Raises:
        SpansegError: a value is missing or of the wrong type.
    """
    kind, positive, voxels = table.get("kind"), table.get("positive", True), table.get("voxels")
    if not isinstance(kind, str) or not isinstance(positive, bool) or not isinstance(voxels, list):
        raise SpansegError(
            "a prompt needs 'kind' (text), 'positive' (true or false) and 'voxels' (a list of [i, j, k])."
        )
    return Prompt(kind, positive, tuple(_voxel(voxel) for voxel in voxels))


def _voxel(value: Any) -> Voxel:
    if not isinstance(value, list) or len(value) != 3 or not all(type(index) is int for index in value):
        raise SpansegError(f"a voxel is three whole numbers [i, j, k], not {str(value)[:60]}.")
    i, j, k = value
    return i, j, k


def _range(few: int, many: int) -> str:
    if few == many:
        return f"{few} voxel{'s' if few > 1 else ''}"
    return f"{few} to {many:,} voxels"
