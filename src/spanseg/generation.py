"""Generation classes: what the generator of synthetic scans can draw, and packed label maps made of them."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from spanseg import files
from spanseg.errors import SpansegError
from spanseg.labels import Protocol
from spanseg.volume import Volume, canonical

BELOW = 1
"""Generation class of CSF that lies more than 10 mm below the brain: drawn like CSF, labelled background."""
BELOW_MM = 10.0
MIDLINE_IDS = (14, 15, 16)
"""FreeSurfer ids of the third and fourth ventricle and the brain stem."""


@dataclass(frozen=True)
class GenerationClasses:
    """Tables over generation classes; class 0 is air, class 1 CSF below the brain.

    Args:
        ids: id in the label maps, -1 for ``BELOW``; shape (class,).
        mirror: generation class of the other side; shape (class,).
        kind: ``CSF``, ``GM``, ``WM``, ``head`` or ``air`` for each class.
        t1: T1-weighted intensity, cerebral white matter = 1; shape (class,).
        target: class index of the protocol, ``UNKNOWN`` where it cannot tell; shape (class,).
    """

    ids: np.ndarray
    mirror: np.ndarray
    kind: tuple[str, ...]
    t1: np.ndarray
    target: np.ndarray

    @property
    def brain(self) -> np.ndarray:
        """Whether a class is brain tissue or ventricle (CSF around the brain is not); shape (class,)."""
        return np.array([kind in ("CSF", "GM", "WM") for kind in self.kind]) & (self.ids != 24) & (self.ids != -1)

    @property
    def csf(self) -> np.ndarray:
        """Whether a class is CSF around the brain; shape (class,)."""
        return self.ids == 24


def load_classes(protocol: Protocol) -> GenerationClasses:
    """Read the priors of the label maps and attach the classes of a protocol as training targets."""
    text = (resources.files("spanseg") / "priors" / "head.toml").read_text(encoding="utf-8")
    rows = [(0, 0, "air", 0.0), (-1, -1, "CSF", 0.26)]
    for entry in tomllib.loads(text)["classes"]:
        rows.append((entry["id"], entry["mirror"], entry["kind"], entry["t1"]))
        if entry["mirror"] != entry["id"]:
            rows.append((entry["mirror"], entry["id"], entry["kind"], entry["t1"]))
    class_of = {row[0]: index for index, row in enumerate(rows)}
    targets = protocol.crosswalk("freesurfer").classes | protocol.crosswalk("synthseg").classes | {-1: 0}
    return GenerationClasses(
        ids=np.array([row[0] for row in rows]),
        mirror=np.array([class_of[row[1]] for row in rows]),
        kind=tuple(row[2] for row in rows),
        t1=np.array([row[3] for row in rows], dtype=np.float32),
        target=np.array([targets.get(row[0], 0) for row in rows], dtype=np.int16),
    )


@dataclass(frozen=True)
class PackedMap:
    """A label map ready for the generator.

    Args:
        name: where it came from.
        classes: uint8 generation classes in RAS+ order, shape (i, j, k).
        centre: voxel index of the middle of the brain, shape (3,).
        voxel_mm: edge length of its voxels along each axis, shape (3,).
    """

    name: str
    classes: np.ndarray
    centre: np.ndarray
    voxel_mm: np.ndarray


def pack(labels: Volume, table: GenerationClasses, name: str) -> PackedMap:
    """Translate a label map of FreeSurfer-like ids into generation classes, turned to RAS+ and cropped to the head.

    Raises:
        SpansegError: the map holds an id that cannot be drawn, or no brain.
    """
    turned, _ = canonical(labels)
    present = np.unique(turned.data)
    class_of = {int(value): index for index, value in enumerate(table.ids)}
    missing = [int(value) for value in present if int(value) not in class_of]
    if missing:
        raise SpansegError(
            f"{name}: the generator cannot draw the ids {missing}; map them to FreeSurfer aseg ids first."
        )
    lookup = np.array([class_of[int(value)] for value in present], dtype=np.uint8)
    classes = lookup[np.searchsorted(present, turned.data)]
    brain = np.argwhere(table.brain[classes])
    if not len(brain):
        raise SpansegError(
            f"{name}: this label map holds no brain structure; expected FreeSurfer ids such as 2, 3, 10."
        )
    _give_sides(classes, table)
    _mark_below(classes, table, float(turned.voxel_size_mm[2]))
    first, last = (lambda inside: (inside.min(0), inside.max(0) + 1))(np.argwhere(classes > 0))
    cropped = classes[tuple(slice(a, b) for a, b in zip(first, last, strict=True))]
    return PackedMap(name, np.ascontiguousarray(cropped), brain.mean(0) - first, turned.voxel_size_mm)


def _give_sides(classes: np.ndarray, table: GenerationClasses) -> None:
    """Tell left from right in a map that uses the left ids on both sides, as SynthSR's do (in place).

    The plane between the hemispheres is fitted through the midline structures: third and fourth ventricle, brain stem.
    """
    lateral = table.mirror != np.arange(len(table.ids))
    right = lateral & (np.arange(len(table.ids)) > table.mirror)  # the mirrored class is listed after the left one
    if right[classes].any():
        return
    x, y, z = np.nonzero(np.isin(table.ids[classes], MIDLINE_IDS))
    if not len(x):
        return
    plane, *_ = np.linalg.lstsq(np.stack([np.ones_like(y), y, z], axis=1).astype(float), x.astype(float), rcond=None)
    i, j, k = (np.arange(n) for n in classes.shape)
    middle = plane[0] + plane[1] * j[:, None] + plane[2] * k[None, :]
    beyond = (i[:, None, None] > middle[None]) & lateral[classes]
    classes[beyond] = table.mirror[classes[beyond]]


def _mark_below(classes: np.ndarray, table: GenerationClasses, height_mm: float) -> None:
    """Relabel CSF more than 10 mm below the lowest voxel of brain stem, cerebellum or cerebrum (in place)."""
    lowest = np.flatnonzero(table.brain[classes].any(axis=(0, 1)))[0]
    below = classes[:, :, : max(0, int(lowest - BELOW_MM / height_mm))]
    below[table.csf[below]] = BELOW


def read_maps(folder: Path, table: GenerationClasses) -> list[PackedMap]:
    """Pack every label map under a folder, in the order of their names; hidden files are none.

    Raises:
        SpansegError: the folder holds no label map, or one that cannot be drawn.
    """
    from spanseg.images import SUFFIXES, is_nifti_or_mgh, read_labels

    paths = sorted(filter(is_nifti_or_mgh, folder.rglob("*")))
    if not paths:
        raise SpansegError(f"{folder}: expected label maps ({', '.join(SUFFIXES)}), found none.")
    return [pack(read_labels(path).volume, table, path.name) for path in paths]


def save_packed(maps: list[PackedMap], path: Path) -> None:
    """Write packed maps into one compressed file, for machines that have no nibabel.

    Raises:
        SpansegError: the name does not end in .npz, the folder cannot be written to, or the disk is full.
    """
    if path.suffix != ".npz":
        raise SpansegError(f"{path}: packed label maps go into a file whose name ends in .npz; give such a name.")
    arrays: dict[str, Any] = {"names": np.array([m.name for m in maps])}
    for index, packed in enumerate(maps):
        arrays |= {f"classes{index}": packed.classes, f"centre{index}": packed.centre, f"voxel{index}": packed.voxel_mm}
    with files.writing(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def load_packed(path: Path) -> list[PackedMap]:
    """Read what :func:`save_packed` wrote.

    Raises:
        SpansegError: there is no such file, it is damaged, or it holds something else.
    """
    if not path.is_file():
        raise SpansegError(f"{path}: there is no such file; expected label maps that 'spanseg train --pack' wrote.")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return [
                PackedMap(str(name), stored[f"classes{i}"], stored[f"centre{i}"], stored[f"voxel{i}"])
                for i, name in enumerate(stored["names"])
            ]
    except Exception as error:  # damage shows in as many ways as the system, zip, zlib and NumPy have
        raise SpansegError(
            f"{path}: expected label maps that 'spanseg train --pack' wrote, found a damaged file or another one "
            f"({type(error).__name__}); pack them again."
        ) from error
