"""What one correction changed, exactly: the labels before and after inside a box, packed for a line of text."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spanseg.errors import SpansegError
from spanseg.geometry import Slices, bounding_box

NOWHERE = (0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class Change:
    """Labels before and after, within the smallest box that holds all voxels that differ.

    Args:
        box: first voxel and the voxel behind the last one, six indices; ``NOWHERE`` if nothing changed.
        voxels: how many differ.
        packed: zlib of the labels before and then those after, uint16 little endian, first axis fastest.
    """

    box: tuple[int, ...]
    voxels: int
    packed: bytes

    @property
    def where(self) -> Slices:
        """The box as slices."""
        a, b, c = (slice(self.box[axis], self.box[axis + 3]) for axis in range(3))
        return a, b, c

    @property
    def shape(self) -> tuple[int, int, int]:
        """Edge lengths of the box in voxels."""
        i, j, k = (self.box[axis + 3] - self.box[axis] for axis in range(3))
        return i, j, k

    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Labels before and after, uint16 of the box's shape.

        Raises:
            SpansegError: the packed labels are not those of this box.
        """
        count = int(np.prod(self.shape))
        try:
            unpacked = zlib.decompressobj().decompress(self.packed, 4 * count + 1)
        except zlib.error as error:
            raise SpansegError("its labels cannot be unpacked") from error
        if len(unpacked) != 4 * count:
            raise SpansegError("its labels do not fill its box")
        both = np.frombuffer(unpacked, dtype="<u2")
        before, after = (half.reshape(self.shape, order="F") for half in (both[:count], both[count:]))
        return before, after

    def reversed(self) -> Change:
        """The change that takes this one back."""
        before, after = self.labels()
        return Change(self.box, self.voxels, _pack(after, before))

    def apply(self, labels: np.ndarray) -> None:
        """Make the change in place.

        Raises:
            SpansegError: the labels in the box are not those from before the change.
        """
        before, after = self.labels()
        if not np.array_equal(labels[self.where], before):
            raise SpansegError("the labels that it starts from are others")
        labels[self.where] = after

    def to_dict(self) -> dict[str, Any]:
        """The change as JSON values."""
        return {"box": list(self.box), "voxels": self.voxels, "labels": base64.b64encode(self.packed).decode("ascii")}


def between(before: np.ndarray, after: np.ndarray) -> Change:
    """The change from one label array to another of the same shape, whose ids fit into 16 bits."""
    differs = before != after
    where = bounding_box(differs)
    if where is None:
        return Change(NOWHERE, 0, _pack(np.empty(0), np.empty(0)))
    box = (*(part.start for part in where), *(part.stop for part in where))
    return Change(box, int(np.count_nonzero(differs)), _pack(before[where], after[where]))


def change_from(table: dict[str, Any], shape: Sequence[int]) -> Change:
    """Read a change from JSON values.

    Args:
        table: what :meth:`Change.to_dict` gave.
        shape: of the image; the box must lie in it.

    Raises:
        SpansegError: a value is missing, of the wrong type, or out of range.
    """
    box, voxels, text = table.get("box"), table.get("voxels"), table.get("labels")
    if not isinstance(box, list) or len(box) != 6 or not all(type(index) is int for index in box):
        raise SpansegError("its box is not six whole numbers")
    inside = all(0 <= box[axis] <= box[axis + 3] <= shape[axis] for axis in range(3))
    if not inside or type(voxels) is not int or not isinstance(text, str):
        raise SpansegError("its box or its labels make no sense")
    try:
        return Change(tuple(box), voxels, base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise SpansegError("its labels cannot be unpacked") from error


def _pack(before: np.ndarray, after: np.ndarray) -> bytes:
    halves = (half.astype("<u2").tobytes(order="F") for half in (before, after))
    return zlib.compress(b"".join(halves))
