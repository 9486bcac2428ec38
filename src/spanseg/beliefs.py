"""How much the default model believes in labels, where it doubts most, and what it would put there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Typing

import numpy as np

from spanseg.files import writing
from spanseg.geometry import Slices, bounding_box
from spanseg.images import Scan
from spanseg.labels import Protocol
from spanseg.runtime import open_model
from spanseg.segmenter import SegmentOptions, load_model, segment_scan

DOUBTED = 0.5
"""Voxels with more doubt than this are worth a look."""
LEAST_MM3 = 20.0
"""Pieces of doubted voxels that are smaller than this are not worth a jump."""


@dataclass(frozen=True, eq=False)
class Belief:
    """Class probabilities of a scan, inside the box outside of which all is background.

    Args:
        box: where they lie on the scan's grid.
        probabilities: uint8, 0 to 255, shape (i, j, k, class) of the box.
        shape: of the scan.
        model_sha256: hash of the model that they come from.
    """

    box: Slices
    probabilities: np.ndarray
    shape: tuple[int, int, int]
    model_sha256: str

    def doubt(self, labels: np.ndarray, protocol: Protocol, settled: np.ndarray) -> np.ndarray:
        """One less the probability of each voxel's label, float32; 0 where the user has said what is right.

        Args:
            labels: ids of the protocol, on the scan's grid.
            protocol: of the model.
            settled: bool, where the user has.
        """
        found = (labels != 0).astype(np.float32)  # outside the box the model is sure of background
        classes = _class_table(protocol)[labels[self.box]]
        believed = np.take_along_axis(self.probabilities, classes[..., None], axis=-1)[..., 0]
        found[self.box] = 1 - believed / np.float32(255)
        found[settled] = 0
        return found

    def suggestion(self, voxel: tuple[int, int, int], label: int, protocol: Protocol) -> int:
        """Id of the structure in question at a voxel: what the model would put there.

        Where the model would put background it is the structure that is there now, which may be too large, and where
        background is there already, the likeliest structure.
        """
        inside = [index - part.start for index, part in zip(voxel, self.box, strict=True)]
        if any(not 0 <= index < size for index, size in zip(inside, self.probabilities.shape, strict=False)):
            return label
        likely = self.probabilities[tuple(inside)].astype(np.int64)
        best = int(likely.argmax())
        if best == 0:
            best = protocol.class_of(label) or 1 + int(likely[1:].argmax())
        return protocol.structures[best].id

    def write(self, path: Path) -> None:
        """Keep it in a file."""
        corners = [[part.start, part.stop] for part in self.box]
        with writing(path) as temporary, temporary.open("xb") as stream:
            np.savez_compressed(
                stream,
                corners=np.array(corners),
                probabilities=self.probabilities,
                shape=np.array(self.shape),
                model_sha256=np.array(self.model_sha256),
            )


@dataclass(frozen=True)
class Piece:
    """Where to look next.

    Args:
        voxel: the one that lies deepest in the piece.
        doubt: there, 0 to 1.
        mm3: size of the piece.
    """

    voxel: tuple[int, int, int]
    doubt: float
    mm3: float


def read_belief(path: Path, shape: tuple[int, int, int], model_sha256: str) -> Belief | None:
    """Read what was kept; ``None`` if there is nothing, or it is damaged, of another image or of another model."""
    kept = _arrays(path)
    try:
        (a, b), (c, d), (e, f) = kept["corners"].tolist()
        probabilities = kept["probabilities"]
        known = Belief((slice(a, b), slice(c, d), slice(e, f)), probabilities, shape, str(kept["model_sha256"]))
        fits = tuple(kept["shape"].tolist()) == shape and probabilities.shape[:3] == (b - a, d - c, f - e)
    except (KeyError, ValueError, TypeError):
        return None
    return known if fits and known.model_sha256 == model_sha256 and probabilities.dtype == np.uint8 else None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Everything in a file of arrays; nothing if it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as kept:
            return dict(kept)
    except Exception:  # damage shows in as many ways as the system, zip, zlib, Python's tokenizer and NumPy have
        return {}


def next_piece(
    doubt: np.ndarray, prompted: np.ndarray, voxel_mm: np.ndarray, least_mm3: float = LEAST_MM3
) -> Piece | None:
    """Find the largest connected piece of doubted voxels that no prompt lies in; ``None`` if all are small.

    Borders between structures are doubted everywhere by nature and hang together as one web. One layer of voxels is
    therefore peeled off first; what lies in the web alone comes last.

    Args:
        doubt: shape (i, j, k), 0 to 1.
        prompted: voxels (n, 3) that the user pointed at: their pieces have been looked at.
        voxel_mm: edge lengths of a voxel.
        least_mm3: smallest size of a piece.
    """
    from scipy import ndimage

    doubted = doubt > DOUBTED
    box = bounding_box(doubted)
    if box is None:
        return None
    here = doubted[box]
    seen = prompted - [part.start for part in box]
    seen = seen[((seen >= 0) & (seen < here.shape)).all(axis=1)]
    here[tuple(seen.T)] = True  # what was pointed at has no doubt left, but belongs to the piece round it
    for mask in (ndimage.binary_erosion(here), here):
        pieces, count = ndimage.label(mask)
        sizes = np.bincount(pieces.ravel(), minlength=count + 1)
        sizes[0] = 0
        for step in np.argwhere(np.ones((3, 3, 3))) - 1:  # a piece without its outermost layer is only near
            sizes[pieces[tuple(np.clip(seen + step, 0, np.array(here.shape) - 1).T)]] = 0
        largest = int(sizes.argmax())
        mm3 = float(sizes[largest] * np.prod(voxel_mm))
        if mm3 >= least_mm3:
            i, j, k = (n + part.start for n, part in zip(_deepest(pieces, largest), box, strict=True))
            return Piece((i, j, k), float(doubt[i, j, k]), mm3)
    return None


def _deepest(pieces: np.ndarray, number: int) -> list[int]:
    """The voxel of a piece that lies farthest from its border."""
    from scipy import ndimage

    box = ndimage.find_objects(pieces, number)[number - 1]
    depth = ndimage.distance_transform_cdt(np.pad(pieces[box] == number, 1))[1:-1, 1:-1, 1:-1]
    deepest = np.unravel_index(int(depth.argmax()), depth.shape)
    return [int(n) + part.start for n, part in zip(deepest, box, strict=True)]


class Believes(Typing):
    """What can say what it believes of a scan."""

    name: str
    sha256: str

    def __call__(self, scan: Scan) -> tuple[np.ndarray, Belief]:
        """Labels of a scan, and how far to believe them."""
        ...


class ModelBelief:
    """The labels of a shipped model with its probabilities; the model is loaded for each scan, and let go after it.

    Args:
        model: its name.
    """

    def __init__(self, model: str = "default") -> None:
        folder = open_model(model)
        self.name = f"{folder.table['model']['name']} {folder.table['model']['version']}"
        self.sha256 = folder.sha256()
        self._options = SegmentOptions(model=model, probabilities=True)

    def __call__(self, scan: Scan) -> tuple[np.ndarray, Belief]:
        """Segment a scan.

        Raises:
            SpansegError: the scan cannot be segmented.
        """
        result = segment_scan(scan, load_model(self._options), self._options)
        return result.labels.data, belief_of(result.probabilities.data, self.sha256)  # type: ignore[union-attr]


def belief_of(probabilities: np.ndarray, model_sha256: str) -> Belief:
    """Cut probabilities, (i, j, k, class), to the box outside of which all is background."""
    i, j, k = probabilities.shape[:3]
    box = bounding_box(probabilities[..., 0] < 255) or (slice(0, 1), slice(0, 1), slice(0, 1))
    return Belief(box, np.ascontiguousarray(probabilities[box]), (i, j, k), model_sha256)


def _class_table(protocol: Protocol) -> np.ndarray:
    """Class index of every id up to the largest one."""
    table = np.zeros(int(protocol.ids.max()) + 1, dtype=np.int64)
    table[protocol.ids] = np.arange(len(protocol))
    return table
