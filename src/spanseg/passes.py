"""Where a network looks at a scan: round a guess, then round the brain that was found, scaled if it does not fit."""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spanseg import centring
from spanseg.averaging import Averaged, averaged
from spanseg.geometry import Placement, Slices
from spanseg.intensity import ceiling, normalise, well_inside
from spanseg.labels import Protocol
from spanseg.runtime import ModelFolder, Words
from spanseg.volume import Volume
from spanseg.windows import blended

MARGIN_MM = 8.0
"""A canvas must be longer than the brain by this much, both ends together."""
MOST_SCALING = 1.25
"""Voxels of the canvas are enlarged by this factor at most to make a brain fit."""
FIELD_MM = 192.0
"""Edge of the box that a network of windows covers."""
CLIPPED = (
    "What lies round the brain is far brighter than the brain (fat?): the scan was clipped before it was labelled."
)


class Network(typing.Protocol):
    """A loaded model: its folder, the protocol of its classes, and what answers about a canvas."""

    folder: ModelFolder
    protocol: Protocol
    engine: Any


@dataclass(frozen=True, eq=False)
class View:
    """What a network says about one place.

    Args:
        placement: where the canvas lies.
        answer: probabilities, and how they depend on what the network was told.
        brain: canvas voxels that are more probably brain (without CSF) than anything else, boolean, shape (i, j, k).
        prompted: what a network that prompts itself used for each class.
    """

    placement: Placement
    answer: Averaged
    brain: np.ndarray
    prompted: dict[int, str]

    @property
    def cut_off(self) -> bool:
        """Whether the brain goes on where the canvas ends."""
        return centring.touches_border(self.brain, self.placement.covered())


@dataclass(frozen=True, eq=False)
class Looking:
    """A network, the scan that it looks at, and what it is told.

    Args:
        network: a loaded model.
        image: the scan in canonical order.
        lesion: voxels of the scan that take no part in the normalisation, float32, or ``None``.
        words: sentences whose answers are averaged; none for a model that is told nothing.
        flip: ask about the mirror image too, and take the mean of both answers.
    """

    network: Network
    image: Volume
    lesion: np.ndarray | None = None
    words: Sequence[Words] = ()
    flip: bool = False

    def around(self, centre_mm: np.ndarray, scale: float = 1.0) -> Placement:
        """Lay the canvas round a point in mm along the scan's axes, its voxels enlarged by a factor."""
        folder = self.network.folder
        size = self.image.voxel_size_mm
        return Placement(self.image.shape, size, field_shape(folder), folder.voxel_mm * scale, centre_mm)

    def canvas(self, placement: Placement) -> np.ndarray:
        """The image on a canvas, float32; what lies outside the scan is as dark as its darkest voxels."""
        darkest = float(np.quantile(self.image.data[::4, ::4, ::4], 0.005))
        return placement.to_canvas(self.image.data, outside=darkest)

    def at(self, placement: Placement) -> View:
        """Ask the network, once for each sentence."""
        canvas = self.canvas(placement)
        exclude = None if self.lesion is None else placement.to_canvas(self.lesion, outside=0.0) > 0.5
        covered = placement.covered()
        told: list[tuple[Words, ...]] = [(one,) for one in self.words] or [()]
        answer = averaged(self._answer(canvas, exclude, covered, words) for words in told)
        brain = _brain(answer.probabilities, self.network.protocol)
        return View(placement, answer, brain, dict(self.network.engine.used))

    def _answer(
        self, canvas: np.ndarray, exclude: np.ndarray | None, covered: np.ndarray, words: tuple[Words, ...]
    ) -> np.ndarray:
        """Probabilities of a canvas; each part that the network sees is normalised by itself, as in training."""
        folder = self.network.folder

        def ask(box: Slices) -> np.ndarray:
            part = normalise(canvas[box], None if exclude is None else exclude[box])
            answer = np.asarray(self.network.engine(part, *words))
            if not self.flip:
                return answer
            mirrored = np.asarray(self.network.engine(np.ascontiguousarray(part[::-1]), *words))
            mean = np.empty_like(answer)
            for index, other in enumerate(self.network.protocol.mirrored_classes):  # class after class to save memory
                mean[index] = (answer[index] + mirrored[other, ::-1].astype(np.uint16) + 1) // 2
            return mean

        if folder.windows:
            return blended(ask, covered, folder.canvas_shape, len(self.network.protocol))
        return ask((slice(None), slice(None), slice(None)))


@dataclass(frozen=True, eq=False)
class Found:
    """The last view, and how it came about.

    Args:
        view: round the brain.
        steps: the passes, for the record.
        notes: what the user should know, one sentence each.
    """

    view: View
    steps: tuple[str, ...]
    notes: tuple[str, ...] = ()


def field_shape(folder: ModelFolder) -> tuple[int, int, int]:
    """Voxels of the canvas that a model answers about: its own, or the box that its windows cover."""
    if not folder.windows:
        return folder.canvas_shape
    i, j, k = (max(n, round(FIELD_MM / folder.voxel_mm)) for n in folder.canvas_shape)
    return i, j, k


def field_bytes(folder: ModelFolder, flip: bool = False) -> int:
    """Memory that answers take beside the network.

    The network may be asked a second time while the first answer is kept. Blending windows takes a 16-bit sum more, and
    the mirror image its own answer and the mean.
    """
    answers = 1 + 2 * bool(folder.windows) + 2 * flip
    return answers * len(folder.table["labels"]["ids"]) * math.prod(field_shape(folder))


def find_brain(looking: Looking, mark: Callable[[str], None] = lambda name: None) -> Found:
    """One pass round a first guess and, if the brain lies off the middle, a second round the brain that was found.

    A brain that is dim beside what lies round it is then looked at in a clipped image, and one that is longer than the
    canvas allows with larger voxels.

    Args:
        looking: the network and the scan.
        mark: called with the name of each pass when it is done.
    """
    guess = centring.first_guess(looking.image.data, looking.image.voxel_size_mm)
    steps = ["first pass round the guessed centre"]
    view = _centred(looking, guess, "first_pass", steps, mark)
    inside = well_inside(view.brain, view.placement.canvas_voxel_mm)
    top = ceiling(looking.canvas(view.placement), inside)
    if top is not None:
        looking = replace(looking, image=looking.image.with_data(np.minimum(looking.image.data, np.float32(top))))
        steps.append(f"clipped pass: the scan was clipped at {top:.4g}")
        view = _centred(looking, view.placement.centre_mm, "clipped_pass", steps, mark)
    found = _fitted(looking, view, steps, mark)
    return found if top is None else replace(found, notes=(CLIPPED, *found.notes))


def _centred(looking: Looking, centre_mm: np.ndarray, name: str, steps: list[str], mark: Callable[[str], None]) -> View:
    """Look round a point and, if the brain lies off the middle of the canvas, again round the brain."""
    view = looking.at(looking.around(centre_mm))
    mark(name)
    off = centring.offset_mm(view.brain, view.placement.canvas_voxel_mm)
    far = float(np.abs(off).max())
    if view.brain.any() and (far > centring.FAR_MM or (far > 1 and view.cut_off)):
        steps.append(f"second pass: the brain lay {far:.0f} mm off the middle of the canvas")
        view = looking.at(looking.around(view.placement.centre_mm + off))
        mark("second_pass")
    return view


def _fitted(looking: Looking, view: View, steps: list[str], mark: Callable[[str], None]) -> Found:
    """Look again with larger voxels if the brain is too long for the canvas."""
    room_mm = np.array(field_shape(looking.network.folder)) * looking.network.folder.voxel_mm - MARGIN_MM
    middle_mm, lengths_mm = _extent(view)
    if (lengths_mm <= room_mm).all():
        return Found(view, tuple(steps))
    cut_off = view.cut_off
    if cut_off:  # how long it is can be seen from farther away only
        wide = looking.at(looking.around(middle_mm, MOST_SCALING))
        mark("wide_pass")
        steps.append(f"wide pass: the brain was cut off; voxels of {wide.placement.canvas_voxel_mm:.2f} mm")
        middle_mm, lengths_mm = _extent(wide)
        cut_off = wide.cut_off
    axis = int((lengths_mm / room_mm).argmax())
    percent = math.ceil(round(100 * (lengths_mm[axis] / room_mm[axis] - 1), 6))
    if percent <= 0:
        return Found(view, tuple(steps))
    scale = min(1 + percent / 100, MOST_SCALING)
    view = looking.at(looking.around(middle_mm, scale))
    mark("scaled_pass")
    steps.append(f"scaled pass: voxels of {view.placement.canvas_voxel_mm:.2f} mm")
    note = (
        f"The brain is {'at least ' if cut_off else ''}{lengths_mm[axis]:.1f} mm long, more than the model's canvas "
        f"holds with its margin ({room_mm[axis]:.1f} mm): it was scaled by {100 * (scale - 1):.0f} % to fit."
    )
    return Found(view, tuple(steps), (note,))


def _extent(view: View) -> tuple[np.ndarray, np.ndarray]:
    """Middle and lengths of the brain in mm along the scan's axes, each of shape (3,); lengths are 0 without one."""
    box = centring.largest_piece(view.brain)
    if box is None:
        return view.placement.centre_mm, np.zeros(3)
    first, last = np.array([[one.start, one.stop - 1] for one in box]).T
    return view.placement.to_scan_mm((first + last) / 2), (last - first + 1) * view.placement.canvas_voxel_mm


def _brain(probabilities: np.ndarray, protocol: Protocol) -> np.ndarray:
    """Canvas voxels that are more probably brain (without CSF) than anything else."""
    csf = [index for index, structure in enumerate(protocol.structures) if structure.name == "CSF"]
    return probabilities[[0, *csf]].sum(0, dtype=np.uint16) < 128
