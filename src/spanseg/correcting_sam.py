"""A trained network of slices answers prompts, on the contract of the click network and within the same bounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from spanseg import checkpoint, files, model
from spanseg.centring import first_guess
from spanseg.clicks import Click
from spanseg.correcting import BoundedCorrector, Said, on_canvas
from spanseg.errors import SpansegError
from spanseg.geometry import Placement, Slices
from spanseg.intensity import normalise
from spanseg.labels import Protocol
from spanseg.slice_answers import SeenCanvas, prompts_of
from spanseg.slice_prompts import SlicePrompts
from spanseg.volume import Volume

CERTAIN = 128
"""Probability, 0 to 255, from which a voxel belongs to the structure."""
MOST_POINTS = 8
"""Points of a scribble that one slice is asked with."""
_WHOLE: Slices = (slice(None), slice(None), slice(None))


class SamCorrector(BoundedCorrector):
    """Answers prompts on one scan with a network of ``nets.sam`` that was trained here.

    Its canvas is laid once: round the structures that it knows if the first labels have half of them, else round those
    that it finds itself. A point or scribble is answered in its slices and carried to their neighbours; a box says
    where the structure lies in each slice that it covers.

    Args:
        scan: the image.
        protocol: names the structures of the labels.
        recipe: of the network.
        network: in evaluation mode.
        version: of its weights, for the record.
    """

    knows_boxes = True

    def __init__(
        self,
        scan: Volume,
        protocol: Protocol,
        recipe: dict[str, Any],
        network: nn.Module,
        version: str = "in training",
    ) -> None:
        title = recipe.get("recipe", {}).get("title", "SAM")
        super().__init__(scan, protocol, f"{title} ({version}), PyTorch")
        self.known, self.frame, self._network = model.protocol_of(recipe), model.canvas_of(recipe), network
        self._seen: tuple[Placement, SeenCanvas] | None = None

    @classmethod
    def of_run(cls, scan: Volume, protocol: Protocol, run: Path) -> SamCorrector:
        """Answer with a finished training run.

        Raises:
            SpansegError: no such run, or one of another network.
        """
        recipe, network = checkpoint.restore(run)
        if recipe["backbone"]["name"] != "sam":
            raise SpansegError(
                f"{run}: expected a trained network that answers prompts (backbone sam), this one is "
                f"{recipe['backbone']['name']}; export it and segment with it."
            )
        return cls(scan, protocol, recipe, network.eval(), files.file_sha256(run / checkpoint.DELTA)[:12])

    def _answer(self, labels: np.ndarray, structure: int, said: Sequence[Said]) -> tuple[np.ndarray, Slices]:
        if structure not in self.known.ids:
            names = ", ".join(one.name for one in self.known.structures[1:])
            raise SpansegError(f"this network knows {names}; correct other structures with --model click.")
        placement, seen = self._looked(labels)
        if not self._reaches(on_canvas(placement, said[-1].voxels), said[-1].kind):
            edges = " × ".join(f"{n * self.frame.voxel_mm:.0f}" for n in self.frame.shape)
            raise SpansegError(f"this network looks at {edges} mm round the structures it knows; point inside them.")
        label = placement.to_canvas(labels == structure, 0.0) >= 0.5
        slices = np.moveaxis(label, seen.axis, 0)
        answers = np.where(slices, 255.0, 0.0)
        seeds = self._seeds(placement, seen, slices, said)
        for number, probability in seen.carried(self.known.class_of(structure), seeds).items():
            answers[number] = 255 * probability
        found, where = placement.from_canvas(np.moveaxis(answers, 0, seen.axis), _WHOLE)
        return found >= CERTAIN, where

    def _looked(self, labels: np.ndarray) -> tuple[Placement, SeenCanvas]:
        """Where the canvas lies, and the canvas as the network sees it."""
        if self._seen is None:
            size = self.image.voxel_size_mm
            inside = np.isin(labels, self.known.ids[1:])
            if 2 * len(np.unique(labels[inside])) >= len(self.known) - 1:
                self._seen = self._at(np.argwhere(inside).mean(0) * size)
            else:
                placement, seen = self._at(first_guess(self.image.data, size))
                found = np.argwhere(np.moveaxis(seen.labels()[0][0] < 0.5, 0, seen.axis))
                self._seen = self._at(placement.to_scan_mm(found.mean(0))) if len(found) else (placement, seen)
        return self._seen

    def _at(self, centre_mm: np.ndarray) -> tuple[Placement, SeenCanvas]:
        size = self.image.voxel_size_mm
        placement = Placement(self.image.shape, size, self.frame.shape, self.frame.voxel_mm, centre_mm)
        canvas = normalise(placement.to_canvas(self.image.data, self._outside))
        return placement, SeenCanvas(self._network, canvas)

    def _seeds(
        self, placement: Placement, seen: SeenCanvas, slices: np.ndarray, said: Sequence[Said]
    ) -> dict[int, SlicePrompts]:
        """Prompts by slice: of a newest box those of all slices that it covers, else all points and scribbles."""
        if said[-1].kind == "box":
            corners = on_canvas(placement, said[-1].voxels)
            across, along = np.delete(corners, seen.axis, 1), corners[:, seen.axis]
            box = np.concatenate([across.min(0), across.max(0)]).astype(np.float32)
            covered = range(max(0, int(along.min())), min(seen.depth, int(along.max()) + 1))
            return {number: prompts_of([], box) for number in covered}
        clicks: dict[int, list[Click]] = {}
        for one in said:
            for voxel in self._inside(on_canvas(placement, one.voxels)) if one.kind != "box" else ():
                place = tuple(int(n) for n in np.delete(voxel, seen.axis))
                clicks.setdefault(int(voxel[seen.axis]), []).append(Click(place, one.positive))
        seeds = {}
        for number, points in clicks.items():
            few = points[:: -len(points) // MOST_POINTS]  # from the newest backwards
            now = slices[number]
            seeds[number] = prompts_of(few, None, seen.logits_of(now[None]) if now.any() else None)
        return seeds

    def _reaches(self, voxels: np.ndarray, kind: str) -> bool:
        """Whether any voxel of a prompt lies on the canvas; a box holds all that lies between its corners."""
        if kind == "box":
            return bool(((voxels.max(0) >= 0) & (voxels.min(0) < np.array(self.frame.shape))).all())
        return len(self._inside(voxels)) > 0

    def _inside(self, voxels: np.ndarray) -> np.ndarray:
        """Those of some voxels that lie on the canvas, shape (voxel, 3)."""
        return voxels[((voxels >= 0) & (voxels < np.array(self.frame.shape))).all(1)]
