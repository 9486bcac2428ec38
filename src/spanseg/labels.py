"""Protocols: which structures exist, how they nest, which mirror each other, and how other schemes map to them."""

from __future__ import annotations

import functools
import tomllib
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from spanseg.errors import SpansegError

UNKNOWN = -1
"""Class index of voxels whose truth is not known: they enter no loss and no score."""
_MOST_LISTED = 10


@dataclass(frozen=True)
class Structure:
    """One structure of a protocol.

    Args:
        id: FreeSurfer id, written into label images.
        name: FreeSurfer name.
        tissue: name of the tissue group it belongs to (``CSF``, ``GM`` or ``WM``); empty for background.
        mirror: id of the same structure on the other side; its own id on the midline.
        colour: red, green, blue, 0 to 255.
    """

    id: int
    name: str
    tissue: str
    mirror: int
    colour: tuple[int, int, int]


@dataclass(frozen=True)
class Crosswalk:
    """How the ids of another label scheme map to a protocol.

    Args:
        name: name of the scheme.
        classes: source id to class index of the protocol, or ``UNKNOWN``.
        unlabelled: class indices that the scheme does not label, or not everywhere (the CSF of ventricles, but not that
            of sulci): its 0 means "background or one of these", and none of them is scored.
    """

    name: str
    classes: dict[int, int]
    unlabelled: tuple[int, ...] = ()

    def apply(self, labels: np.ndarray, where: str) -> np.ndarray:
        """Translate an integer label array to class indices (int16, ``UNKNOWN`` where unknown).

        Raises:
            SpansegError: an id has no entry; the ids are listed.
        """
        present = np.unique(labels)
        missing = [int(value) for value in present if int(value) not in self.classes]
        if missing:
            more = f" and {len(missing) - _MOST_LISTED} more" if len(missing) > _MOST_LISTED else ""
            raise SpansegError(
                f"{where}: labels hold the ids {missing[:_MOST_LISTED]}{more}, which the scheme '{self.name}' does not "
                "map; name the scheme that they follow (spanseg info lists the shipped ones), or add them to it "
                "(maps_to an id of the protocol, or 'unknown')."
            )
        table = np.array([self.classes[int(value)] for value in present], dtype=np.int16)
        return table[np.searchsorted(present, labels)]


class Protocol:
    """A label set with its hierarchy, left/right pairs and cross-walks, read from one TOML file.

    Class indices are positions in ``structures``; index 0 is background. A protocol that is ``part_of`` another one has
    the cross-walks of that one too.

    Example:
        >>> aseg = load_protocol("aseg")
        >>> aseg.structures[aseg.class_of(17)].name
        'Left-Hippocampus'
    """

    def __init__(self, name: str, table: dict[str, Any]) -> None:
        self.name = name
        self.title: str = table["title"]
        self.structures: tuple[Structure, ...] = tuple(_structure(row) for row in table["structures"])
        self.tissues: dict[str, int] = dict(table["tissues"])
        self.tissue_colours: dict[str, list[int]] = dict(table["tissue_colours"])
        self.groups: dict[str, list[int]] = dict(table.get("groups", {}))
        self.part_of: str = table.get("part_of", "")
        self._crosswalks: dict[str, dict[str, Any]] = table.get("crosswalks", {})
        self._class_of = {structure.id: index for index, structure in enumerate(self.structures)}

    def __len__(self) -> int:
        return len(self.structures)

    @property
    def ids(self) -> np.ndarray:
        """FreeSurfer ids in class order, shape (class,)."""
        return np.array([structure.id for structure in self.structures], dtype=np.int32)

    @property
    def mirrored_classes(self) -> np.ndarray:
        """For each class the class of the mirrored structure, shape (class,)."""
        return np.array([self._class_of[structure.mirror] for structure in self.structures])

    @property
    def tissue_of_class(self) -> np.ndarray:
        """For each class the label of its tissue (0 for background), shape (class,)."""
        return np.array([self.tissues.get(structure.tissue, 0) for structure in self.structures], dtype=np.uint8)

    @property
    def covers_brain(self) -> bool:
        """Whether its structures make up a brain, with grey and white matter, and not some nuclei of it alone."""
        return {"GM", "WM"} <= {structure.tissue for structure in self.structures}

    @property
    def lateral_pairs(self) -> list[tuple[int, int]]:
        """Class indices (left, right) of the structures that exist on both sides."""
        mirrored = self.mirrored_classes
        return [(left, int(right)) for left, right in enumerate(mirrored) if left < right]

    @property
    def crosswalk_names(self) -> list[str]:
        """Names of the shipped cross-walks to this protocol."""
        whole = load_protocol(self.part_of).crosswalk_names if self.part_of else []
        return sorted({self.name, *self._crosswalks, *whole})

    def class_of(self, structure_id: int) -> int:
        """Class index of a FreeSurfer id.

        Raises:
            SpansegError: the protocol has no such structure.
        """
        if structure_id not in self._class_of:
            raise SpansegError(f"protocol '{self.name}' has no structure with the id {structure_id}.")
        return self._class_of[structure_id]

    def crosswalk(self, scheme: str) -> Crosswalk:
        """Return a shipped cross-walk from ``scheme`` to this protocol.

        Raises:
            SpansegError: there is none of that name.
        """
        if scheme == self.name:
            return Crosswalk(scheme, dict(self._class_of))
        if scheme not in self._crosswalks and self.part_of and scheme in self.crosswalk_names:
            return self._through(load_protocol(self.part_of), scheme)
        if scheme not in self._crosswalks:
            raise SpansegError(
                f"protocol '{self.name}' has no cross-walk from '{scheme}'; it has {', '.join(self.crosswalk_names)}."
            )
        table = self._crosswalks[scheme]
        if "like" in table:
            like = self.crosswalk(table["like"])
            return Crosswalk(scheme, like.classes | self._expand(table), like.unlabelled)
        unlabelled = tuple(self._class_of[value] for value in self._members(table.get("unlabelled", [])))
        return Crosswalk(scheme, self._expand(table), unlabelled)

    def _through(self, whole: Protocol, scheme: str) -> Crosswalk:
        """A cross-walk of the protocol that this one is a part of: what is none of the structures is background."""
        own = {index: self._class_of.get(structure.id, 0) for index, structure in enumerate(whole.structures)}
        own[UNKNOWN] = UNKNOWN
        found = whole.crosswalk(scheme)
        classes = {source: own[index] for source, index in found.classes.items()}
        return Crosswalk(scheme, classes, tuple(own[index] for index in found.unlabelled if own[index]))

    def _members(self, entries: list[int | str]) -> list[int]:
        """Ids of a list in which a name stands for the ids of a group."""
        return [value for entry in entries for value in (self.groups[entry] if isinstance(entry, str) else [entry])]

    def _expand(self, table: dict[str, Any]) -> dict[int, int]:
        """Turn ``ranges``, ``same``, ``map``, ``into`` and ``unknown`` of a TOML cross-walk into one dictionary."""
        class_of, classes = self._class_of, {0: 0}
        for span in table.get("ranges", []):
            for value in range(span["first"], span["last"] + 1, span.get("step", 1)):
                classes[value] = class_of[span["to"]] if span["to"] != "unknown" else UNKNOWN
        classes |= {value: class_of[value] for value in self._members(table.get("same", []))}
        classes |= {int(source): class_of[target] for source, target in table.get("map", {}).items()}
        for target, values in table.get("into", {}).items():
            classes |= dict.fromkeys(values, class_of[int(target)])
        return classes | dict.fromkeys(self._members(table.get("unknown", [])), UNKNOWN)


def _structure(row: dict[str, Any]) -> Structure:
    red, green, blue = row["colour"]
    return Structure(row["id"], row["name"], row["tissue"], row.get("mirror", row["id"]), (red, green, blue))


def protocol_names() -> list[str]:
    """Names of the shipped protocols."""
    folder = resources.files("spanseg") / "protocols"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


@functools.cache
def load_protocol(name: str) -> Protocol:
    """Load a shipped protocol by name.

    Raises:
        SpansegError: there is none of that name.
    """
    if name not in protocol_names():
        raise SpansegError(f"there is no protocol '{name}'; shipped are {', '.join(protocol_names())}.")
    text = (resources.files("spanseg") / "protocols" / f"{name}.toml").read_text(encoding="utf-8")
    return Protocol(name, tomllib.loads(text))
