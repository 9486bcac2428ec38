"""Left and right of a structure side by side, and how much they differ."""

from __future__ import annotations

from dataclasses import dataclass

from spanseg.labels import load_protocol
from spanseg.plain_names import plain_name
from spanseg.result import Segmentation, StructureVolume


@dataclass(frozen=True)
class Pair:
    """The two sides of one structure.

    Args:
        name: name without its side, in plain words (``Cerebral white matter``).
        left: volume on the person's left.
        right: volume on the person's right.
    """

    name: str
    left: StructureVolume
    right: StructureVolume

    @property
    def asymmetry_percent(self) -> float | None:
        """Left minus right in percent of the mean of both sides; ``None`` if both are empty or not defined.

        Example:
            >>> pair = Pair("Caudate", StructureVolume(11, "", 3300.0, None), StructureVolume(50, "", 2700.0, None))
            >>> round(pair.asymmetry_percent)
            20
        """
        left, right = volume_mm3(self.left), volume_mm3(self.right)
        if left is None or right is None or left + right <= 0:
            return None
        return 200 * (left - right) / (left + right)


def volume_mm3(row: StructureVolume) -> float | None:
    """Volume from the probabilities, or from the labels where there is none."""
    return row.mm3 if row.mm3 is not None else row.mm3_labels


def lateral_pairs(result: Segmentation) -> list[Pair]:
    """Pair the volumes of the structures that exist on both sides, in the order of the protocol."""
    protocol = load_protocol(result.protocol)
    rows = {row.id: row for row in result.volumes}
    pairs = []
    for left_class, right_class in protocol.lateral_pairs:
        left, right = protocol.structures[left_class], protocol.structures[right_class]
        if left.id in rows and right.id in rows:
            pairs.append(Pair(plain_name(left.name), rows[left.id], rows[right.id]))
    return pairs
