"""A promptable network of slices on a canvas: labels of all slices, prompts made from them, answers carried onwards.

Nobody needs to prompt it. What it labels by itself can prompt it again, structure by structure: with a box round what
was found or, failing that, with a point inside; an answer is taken if the network expects it to overlap at least as
well. A user's prompt in one slice is carried to its neighbours, for as long as the network trusts what it sees there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spanseg.clicks import Click
from spanseg.errors import SpansegError
from spanseg.slice_prompts import PLANES, SlicePrompts, around, simulated_point

POLICIES = ("none", "box", "point", "adaptive")
"""What may prompt the network beside a user: nothing, boxes, points, or boxes and then points."""
FEW_PIXELS, LEAST_OVERLAP = 5, 0.5
"""An answer is carried on to the next slice unless it is smaller, or expected to overlap less."""
STABILITY = 0.1
"""Weight of an answer's stability beside the overlap that the network expects of it."""
_SLICES_AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class Answer:
    """Answers about one structure, one a slice.

    Args:
        probability: float32, shape (slice, row, column).
        overlap: how well the network expects each to overlap with the truth, shape (slice,).
        stability: overlap of each with itself, drawn a little wider and a little narrower, shape (slice,).
        logits: on the network's own grid, (slice, 1, row, column); prompts may hold them.
    """

    probability: np.ndarray
    overlap: np.ndarray
    stability: np.ndarray
    logits: Tensor


class SeenCanvas:
    """A canvas through the eyes of a network of slices; each slice is looked at once, when it is first needed.

    Args:
        network: of ``nets.sam``, in evaluation mode; of its planes the first is used.
        canvas: normalised, float32, shape (i, j, k).
    """

    def __init__(self, network: Any, canvas: np.ndarray) -> None:
        self.network, self.plane = network, network.planes[0]
        self.axis = PLANES[self.plane]
        self.depth = canvas.shape[self.axis]
        device = next(network.parameters()).device
        self._image = torch.from_numpy(np.ascontiguousarray(canvas))[None, None].to(device)
        self._features: dict[int, Tensor] = {}

    @torch.no_grad()
    def features(self, numbers: Sequence[int]) -> Tensor:
        """Features of some slices, (slice, channel, row, column)."""
        missing = [number for number in numbers if number not in self._features]
        for first in range(0, len(missing), _SLICES_AT_ONCE):
            part = missing[first : first + _SLICES_AT_ONCE]
            rows = torch.tensor([part], device=self._image.device)
            self._features |= dict(zip(part, self.network.embed(self._image, self.plane, rows), strict=True))
        return torch.stack([self._features[number] for number in numbers])

    @torch.no_grad()
    def labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Unprompted: probabilities, float32 (class, slice, row, column), and expected overlaps, (slice, class)."""
        found, expected = [], []
        for part in torch.arange(self.depth).split(_SLICES_AT_ONCE):
            masks, overlap = self.network.ask(self.features(part.tolist()), plane=self.plane)
            found.append(self.network.on_slices(masks[:, 0], self.plane).float().softmax(1))
            expected.append(overlap[:, 0].float())
        return torch.cat(found).movedim(1, 0).cpu().numpy(), torch.cat(expected).cpu().numpy()

    @torch.no_grad()
    def answer(self, numbers: Sequence[int], index: int, prompts: SlicePrompts) -> Answer:
        """Answer prompts about one structure, one set of them a slice."""
        device = self._image.device
        masks, overlap = self.network.ask(self.features(numbers), prompts.to(device), self.plane)
        coarse = masks[:, :, index].float()
        logits = self.network.on_slices(coarse, self.plane)[:, 0]
        wide, narrow = ((logits > level).sum((1, 2)).float() for level in (-1, 1))
        stability = (narrow / wide.clamp(min=1)).cpu().numpy()
        return Answer(logits.sigmoid().cpu().numpy(), overlap[:, 0, index].float().cpu().numpy(), stability, coarse)

    def logits_of(self, masks: np.ndarray) -> Tensor:
        """Masks (slice, row, column) as an earlier answer that was fairly certain, for :class:`SlicePrompts`."""
        maps = torch.from_numpy(masks.astype(np.float32))[:, None] * 12 - 6
        return self.network.from_slices(maps, self.plane).cpu()

    def carried(self, index: int, seeds: dict[int, SlicePrompts]) -> dict[int, np.ndarray]:
        """Answer prompts and carry each answer on, slice by slice, until it ends or meets another one.

        Args:
            index: class of the structure.
            seeds: prompts, by the number of their slice, for one structure.

        Returns:
            Probabilities (row, column) of each slice that was reached.
        """
        reached, fronts = {}, []
        self.features(list(seeds))  # several at once take less time
        for number, prompts in seeds.items():
            answer = self.answer([number], index, prompts)
            reached[number] = answer.probability[0]
            fronts += [(number, step, answer) for step in (-1, 1)]
        while fronts:
            onwards = []
            for number, step, before in fronts:
                there, mask = number + step, before.probability[0] > 0.5
                if there in reached or not 0 <= there < self.depth or mask.sum() < FEW_PIXELS:
                    continue
                box = torch.from_numpy(around(mask, 1.0))[None, None]
                answer = self.answer([there], index, SlicePrompts(boxes=box, logits=before.logits))
                if answer.overlap[0] >= LEAST_OVERLAP and (answer.probability[0] > 0.5).sum() >= FEW_PIXELS:
                    reached[there] = answer.probability[0]
                    onwards.append((there, step, answer))
            fronts = onwards
        return reached


def require_policy(policy: str) -> None:
    """Refuse what is none of :data:`POLICIES`.

    Raises:
        SpansegError: an unknown policy.
    """
    if policy not in POLICIES:
        raise SpansegError(f"a policy is one of {', '.join(POLICIES)}, not '{policy}'.")


def labelled(seen: SeenCanvas, policy: str = "none") -> tuple[np.ndarray, dict[int, str]]:
    """Label a canvas, each structure with the policy that its labels came from.

    Args:
        seen: the canvas.
        policy: one of :data:`POLICIES`.

    Returns:
        Probabilities, uint8 (class, i, j, k), and for each class but the background the policy that was used:
        ``none``, ``box`` or ``point``.

    Raises:
        SpansegError: an unknown policy.
    """
    require_policy(policy)
    probabilities, expected = seen.labels()
    tried = {"none": (), "adaptive": ("box", "point")}.get(policy, (policy,))
    result, used = probabilities.copy(), {}
    for index in range(1, len(probabilities)):
        used[index] = "none"
        for kind in tried:
            accepted = _asked_again(seen, probabilities, expected, index, kind)
            if accepted is not None:
                fuse(result, index, accepted)
                used[index] = kind
                break
    return np.rint(np.moveaxis(result, 1, 1 + seen.axis) * 255).astype(np.uint8), used


def _asked_again(
    seen: SeenCanvas, probabilities: np.ndarray, expected: np.ndarray, index: int, kind: str
) -> dict[int, np.ndarray] | None:
    """Prompt with what was found of a structure; ``None`` if nothing was, or if the answer promises less."""
    from scipy import ndimage

    pieces, count = ndimage.label(probabilities[index] > 0.5)
    if not count:
        return None
    piece = pieces == 1 + np.bincount(pieces.ravel())[1:].argmax()
    numbers = np.flatnonzero(piece.any((1, 2))).tolist()
    if kind == "box":
        boxes = np.array([[_wide_box(piece[number])] for number in numbers])
        prompts = SlicePrompts(boxes=torch.from_numpy(boxes))
    else:
        found = probabilities[:, numbers].argmax(0)
        rows = zip(piece[numbers], probabilities[index][numbers], found, strict=True)
        prompts = _padded([_points(*row, index) for row in rows])
    answer = seen.answer(numbers, index, prompts)
    promised = float((answer.overlap + STABILITY * answer.stability).mean())
    if promised < float(expected[numbers, index].mean()):
        return None
    return dict(zip(numbers, answer.probability, strict=True))


def _wide_box(mask: np.ndarray) -> np.ndarray:
    """Box round a mask with a margin of a voxel or, for large ones, a twentieth of its side."""
    box = around(mask)
    return around(mask, max(1.0, 0.05 * float((box[2:] - box[:2]).max())))


def _points(mask: np.ndarray, probability: np.ndarray, found: np.ndarray, index: int) -> list[Click]:
    """A point where a structure is deep and certain, and up to two off it, in the middle of its nearest neighbours."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] * probability
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    points = [Click((int(row), int(column)), True)]
    away = ndimage.distance_transform_edt(~mask)
    near = {int(other): float(away[found == other].min()) for other in np.unique(found) if other not in (0, index)}
    for other in sorted((one for one in near if near[one] <= 8), key=near.__getitem__)[:2]:
        middle = simulated_point(found == other)
        points += [] if middle is None else [Click(middle.voxel, False)]
    return points


def _padded(rows: Sequence[Sequence[Click]]) -> SlicePrompts:
    """Points of several slices, one structure each, as one set of prompts."""
    prompts = SlicePrompts()
    for place in range(max(map(len, rows))):
        prompts = prompts.with_points([[row[place] if place < len(row) else None] for row in rows])
    return prompts


def prompts_of(points: Iterable[Click], box: np.ndarray | None = None, logits: Tensor | None = None) -> SlicePrompts:
    """What a user says about one structure of one slice.

    Args:
        points: where was pointed at.
        box: shape (4,); ``None`` for none.
        logits: of :meth:`SeenCanvas.logits_of`; ``None`` for none.
    """
    clicks = list(points)
    prompts = _padded([clicks]) if clicks else SlicePrompts()
    return replace(prompts, boxes=None if box is None else torch.from_numpy(box)[None, None], logits=logits)


def fuse(probabilities: np.ndarray, index: int, answers: dict[int, np.ndarray]) -> None:
    """Put answers about one class into probabilities (class, slice, row, column); the others share the rest (in place).

    Args:
        probabilities: sum to 1 over classes.
        index: the class.
        answers: its probabilities (row, column) by slice.
    """
    for number, answer in answers.items():
        row = probabilities[:, number]
        np.maximum(row, 1e-6, out=row)  # where the class was certain, the others share evenly
        row[index] = 0
        row *= (1 - answer) / row.sum(0)
        row[index] = answer
