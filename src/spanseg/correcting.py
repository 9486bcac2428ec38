"""A prompt corrects one structure of a segmentation: the click network answers, and a bounded part of it is taken over.

What a prompt may change is bounded by rule, not by trust in a network:

- a positive point or scribble adds one connected piece that holds it, a negative one removes such a piece, and neither
  reaches farther than :data:`REACH_MM` from the prompt, or a share of its own size where it has a label already;
- a box round nearly all of a label removes what sticks out of it; inside it is decided anew (as far as the network sees
  it) where less than half of what it finds is labelled, or if the network was trained with boxes; a network that sees
  nothing of the structure there decides nothing;
- every voxel has one label: what is added is taken from its neighbours, what is removed goes to the nearest of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol as Contract

import numpy as np

from spanseg.clicks import Click, channels
from spanseg.errors import SpansegError
from spanseg.geometry import Placement, bounding_box, give_to_nearest, grown
from spanseg.intensity import clipped, normalise
from spanseg.labels import Protocol
from spanseg.prompts import Prompt
from spanseg.runtime import Engine, open_model
from spanseg.volume import Volume, canonical

REACH_MM = 30.0
"""How far from a point or scribble the labels may change."""
MENDED_SHARE, MENDED_MM = 0.6, (2.5, 6.0)
"""How far they may where the structure has a label within :data:`REACH_MM` already, which is mended, not made anew: a
share of the radius of a ball of its size, and the least and the most. Of small structures the network knows less."""
POOR_SHARE = 0.5
"""A label inside a box that is smaller than this share of what the network finds there gives way to it."""
BOXED_SHARE = 0.95
"""A box that holds this share of a label is round the whole structure: what sticks out, up to :data:`REACH_MM`, is too
much. Less is a box over a part, or one that was drawn in a plane and is less deep than the structure."""
FAINT = -200.0
"""Where a structure trails the likeliest one by more than this (of 255), a positive prompt takes up no more than its
own voxels."""


class Corrects(Contract):
    """What answers prompts: the shipped click network, or another model on the same contract."""

    @property
    def name(self) -> str:
        """What the record of a correction says answered it."""
        ...

    def correct(self, labels: np.ndarray, structure: int, prompts: Sequence[Prompt]) -> np.ndarray:
        """Return corrected labels; see :meth:`Corrector.correct`."""
        ...


class BoundedCorrector(ABC):
    """Takes over of a network's answer what a prompt may change; whose answer that is, is a matter of its subclasses.

    Args:
        scan: the image.
        protocol: names the structures.
        name: the network, its version and hash, and the engine.
    """

    knows_boxes = False
    """Whether the network was trained with boxes: its answer goes before a label then, not only where there is none."""

    def __init__(self, scan: Volume, protocol: Protocol, name: str) -> None:
        self.protocol, self.shape = protocol, scan.shape
        self.image, self.orientation = canonical(scan)
        self._outside = float(np.quantile(self.image.data, 0.005))
        self._name = name

    @property
    def name(self) -> str:
        """The network, its version and hash, and the engine."""
        return self._name

    def correct(self, labels: np.ndarray, structure: int, prompts: Sequence[Prompt]) -> np.ndarray:
        """Correct one structure.

        Args:
            labels: FreeSurfer ids on the scan's grid, int32, shape (i, j, k); not changed.
            structure: id of the structure that the prompts are about.
            prompts: all prompts about it that count, the newest last; the newest says where something changes.

        Returns:
            Corrected labels, int32, same shape.

        Raises:
            SpansegError: labels of another grid, a structure that the protocol does not have, or a prompt that lies
                outside the image.
        """
        if labels.shape != self.shape:
            raise SpansegError(f"the labels have the shape {labels.shape}, the scan {self.shape}; use its own grid.")
        if not prompts or structure == 0:
            raise SpansegError("a correction needs a prompt and a structure other than the background.")
        self.protocol.class_of(structure)
        for prompt in prompts:
            prompt.checked(self.shape)
        turned = self.orientation.to_canonical(labels)
        said = [Said(prompt.kind, prompt.positive, self._turned(prompt)) for prompt in prompts]
        answer, where = self._answer(turned, structure, said)
        before = turned == structure
        after = self._allowed(before, answer, where, said[-1])
        corrected = relabelled(turned, after, structure)
        return np.ascontiguousarray(self.orientation.to_original(corrected))

    def _turned(self, prompt: Prompt) -> np.ndarray:
        """Voxels of a prompt in canonical order, shape (voxel, 3)."""
        turned = np.array(prompt.voxels)[:, list(self.orientation.axes)]
        last = np.array(self.image.shape) - 1
        return np.where(self.orientation.flips, last - turned, turned)

    @abstractmethod
    def _answer(
        self, labels: np.ndarray, structure: int, said: Sequence[Said]
    ) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
        """Where the network sees the structure: boolean voxels, and the part of the scan that they fill."""

    def _allowed(
        self, before: np.ndarray, answer: np.ndarray, where: tuple[slice, slice, slice], newest: Said
    ) -> np.ndarray:
        """The structure after the prompt: the part of the answer that the prompt asked for."""
        seen = np.zeros_like(before)
        seen[where] = answer
        if newest.kind == "box":
            return self._boxed(before, seen, where, newest)
        size = self.image.voxel_size_mm
        near = _near(before.shape, newest.voxels, size, REACH_MM)
        volume_mm3 = float((before & near).sum() * size.prod())
        if volume_mm3:
            radius_mm = (3 * volume_mm3 / (4 * np.pi)) ** (1 / 3)
            near = _near(before.shape, newest.voxels, size, float(np.clip(MENDED_SHARE * radius_mm, *MENDED_MM)))
        box = bounding_box(near)
        wanted = ((seen & ~before) if newest.positive else (before & ~seen)) & near
        pointed = np.zeros_like(before)
        pointed[tuple(newest.voxels.T)] = True
        wanted |= pointed & (before != newest.positive)
        after = before.copy()
        after[box] ^= _pieces_with(wanted[box], pointed[box])
        return after

    def _boxed(
        self, before: np.ndarray, seen: np.ndarray, where: tuple[slice, slice, slice], newest: Said
    ) -> np.ndarray:
        """The structure after a box: what is inside, and without what sticks out if the box is round all of it."""
        low, high = newest.voxels.min(0), newest.voxels.max(0) + 1
        inside = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        covered = zip(low, high, where, strict=True)
        looked_at = tuple(slice(max(int(a), s.start), min(int(b), s.stop)) for a, b, s in covered)
        after = before.copy()
        labelled, found = int(before[looked_at].sum()), int(seen[looked_at].sum())
        if found and (self.knows_boxes or labelled < POOR_SHARE * found):
            after[looked_at] = seen[looked_at]
        if before[inside].sum() >= BOXED_SHARE * before.sum():
            reach = np.ceil(REACH_MM / self.image.voxel_size_mm).astype(int)
            round_it = tuple(slice(max(int(a), 0), int(b)) for a, b in zip(low - reach, high + reach, strict=True))
            kept = after[inside].copy()
            after[round_it] = False
            after[inside] = kept
        return after


class Said:
    """A prompt in canonical order.

    Args:
        kind, positive: as in :class:`spanseg.prompts.Prompt`.
        voxels: shape (voxel, 3).
    """

    def __init__(self, kind: str, positive: bool, voxels: np.ndarray) -> None:
        self.kind, self.positive, self.voxels = kind, positive, voxels


class Corrector(BoundedCorrector):
    """Answers prompts on one scan with a click network.

    Args:
        scan: the image.
        protocol: names the structures.
        model: name of a shipped click network, or a folder.
        threads: threads of the network; ``None`` takes all cores.

    Raises:
        SpansegError: the model is not a click network.
    """

    def __init__(self, scan: Volume, protocol: Protocol, model: str = "click", threads: int | None = None) -> None:
        folder = open_model(model)
        if not folder.answers_prompts:
            raise SpansegError(
                f"{folder.path}: expected a network that answers clicks, such as the shipped 'click'; this one "
                f"segments by itself: use it with 'spanseg segment --model {model}'."
            )
        if folder.protocol != protocol.name:
            raise SpansegError(
                f"{folder.path}: this click network knows the structures of '{folder.protocol}', and the labels are of "
                f"'{protocol.name}'; take one that was trained on theirs."
            )
        self.engine = Engine(folder, "f32", threads)
        version = folder.table["model"]["version"]
        super().__init__(scan, protocol, f"{folder.title} {version} ({folder.sha256()[:12]}), {self.engine.name}")

    def _answer(
        self, labels: np.ndarray, structure: int, said: Sequence[Said]
    ) -> tuple[np.ndarray, tuple[slice, slice, slice]]:
        size, newest = self.image.voxel_size_mm, said[-1].voxels
        centre = (newest.min(0) + newest.max(0)) / 2 * size
        folder = self.engine.model
        placement = Placement(self.image.shape, size, folder.canvas_shape, folder.voxel_mm, centre)
        brain = placement.to_canvas(labels > 0, 0.0) >= 0.5
        image = normalise(clipped(placement.to_canvas(self.image.data, self._outside), brain, folder.voxel_mm))
        label = placement.to_canvas(labels == structure, 0.0) >= 0.5
        clicks = [
            Click((int(i), int(j), int(k)), one.positive)
            for one in said
            if one.kind != "box"
            for i, j, k in on_canvas(placement, one.voxels)
        ]
        # A box bounds what may change; told to this network, it made it find less of what is inside.
        answer = self.engine(np.concatenate([image[None], channels(label, clicks)])).astype(np.int16)
        index = self.protocol.class_of(structure)
        lead = answer[index] - np.delete(answer, index, axis=0).max(0)  # by how much it is the likeliest structure
        lead, where = placement.from_canvas(lead, (slice(None), slice(None), slice(None)))
        return lead >= _level(lead, said[-1], where), where


def _level(lead: np.ndarray, newest: Said, where: tuple[slice, slice, slice]) -> float:
    """How far a structure must lead to be seen: where a network misses it, it is asked for what is as likely as there.

    A positive prompt on a place that the network gives to something else takes up what is no less likely than that
    place; a negative prompt on a place that it gives to the structure removes what is no likelier.

    Args:
        lead: by how much the structure is the likeliest, -255 to 255, on the part of the scan that was looked at.
        newest: the prompt.
        where: that part of the scan.
    """
    start, stop = np.array([(side.start, side.stop) for side in where]).T
    inside = newest.voxels[((newest.voxels >= start) & (newest.voxels < stop)).all(1)] - start
    if newest.kind == "box" or not len(inside):
        return 0.5
    there = float(np.median(lead[tuple(inside.T)]))
    if newest.positive:
        return min(0.5, there) if there >= FAINT else 0.5
    return max(0.5, there + 0.5)


def relabelled(labels: np.ndarray, after: np.ndarray, structure: int) -> np.ndarray:
    """Labels in which a structure lies where it is said to lie; what it leaves goes to the nearest other label.

    Args:
        labels: ids, shape (i, j, k); not changed.
        after: where the structure lies now, boolean, same shape.
        structure: its id.
    """
    result: np.ndarray = np.where(after, structure, labels).astype(np.int32)
    box = bounding_box((labels == structure) & ~after)
    if box is None:
        return result
    wide = grown(box, (labels.shape[0], labels.shape[1], labels.shape[2]), 20)
    part = result[wide]
    others = part != structure
    if not others.any():
        part[~after[wide]] = 0
        return result
    give_to_nearest(part, ~others & ~after[wide], others)
    return result


def on_canvas(placement: Placement, voxels: np.ndarray) -> np.ndarray:
    """Scan voxels as the nearest voxels of the canvas, each once, shape (voxel, 3)."""
    middle = (np.array(placement.canvas_shape) - 1) / 2
    at_mm = voxels * placement.scan_voxel_mm
    return np.unique(np.rint((at_mm - placement.centre_mm) / placement.canvas_voxel_mm + middle).astype(int), axis=0)


def _near(shape: tuple[int, ...], voxels: np.ndarray, voxel_mm: np.ndarray, reach_mm: float) -> np.ndarray:
    """Voxels within a distance of a prompt, boolean."""
    from scipy import ndimage

    near = np.zeros(shape, dtype=bool)
    reach = np.ceil(reach_mm / voxel_mm).astype(int)
    low = np.maximum(voxels.min(0) - reach, 0)
    high = np.minimum(voxels.max(0) + reach + 1, shape)
    part = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    away = np.ones(tuple(high - low), dtype=bool)
    away[tuple((voxels - low).T)] = False
    near[part] = ndimage.distance_transform_edt(away, sampling=voxel_mm) <= reach_mm
    return near


def _pieces_with(mask: np.ndarray, pointed: np.ndarray) -> np.ndarray:
    """Connected pieces of a mask, diagonals included, that hold a voxel which was pointed at."""
    from scipy import ndimage

    pieces, count = ndimage.label(mask, np.ones((3, 3, 3)))
    chosen = np.zeros(count + 1, dtype=bool)
    chosen[pieces[pointed & mask]] = True
    chosen[0] = False
    return chosen[pieces]
