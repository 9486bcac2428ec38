"""Objective of a promptable network of slices: labels without a prompt, answers to boxes, points and corrections."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from spanseg.errors import SpansegError
from spanseg.interfaces import Batch
from spanseg.labels import UNKNOWN
from spanseg.losses import dice_and_cross_entropy
from spanseg.slice_prompts import EMPTY, PLANES, SlicePrompts, drawn_slices, simulated_box, simulated_point

_KINDS = ("none", "box", "points", "both")
_FEW_VOXELS = 4  # structures with fewer voxels in a slice are not asked for


class Prompted:
    """Asks about some slices of each scan, in one way a step, and rewards the last answer at the voxels of the scan.

    Without a prompt all classes are labelled: Dice and cross-entropy over classes. With prompts, each about one
    structure, the structure's token answers: Dice and binary cross-entropy. Corrections are points where the answer
    before was most wrong; the network is told that answer too. It also learns how well its masks overlap.

    Args:
        slices: of each scan, most of them with structures.
        structures: asked for in each slice.
        rounds: corrections at most.
        mix: how often the network is asked without a prompt, with boxes, with points, and with both.
        cross_entropy: weight of the cross-entropy beside Dice, 0 to 1, where nothing is prompted.
        rarity: how strongly that cross-entropy weighs rare classes up.
        overlap: weight of the squared error of the guessed overlap.

    Reference: Zhang and Liu 2023 (SAMed) for the weights without a prompt; Kirillov et al., ICCV 2023, for corrections.

    Raises:
        SpansegError: a mix that is not four shares.
    """

    def __init__(
        self,
        slices: int = 8,
        structures: int = 4,
        rounds: int = 4,
        mix: Sequence[float] = (0.4, 0.25, 0.25, 0.1),
        cross_entropy: float = 0.2,
        rarity: float = 0.0,
        overlap: float = 1.0,
    ) -> None:
        if len(mix) != len(_KINDS) or min(mix) < 0 or not sum(mix):
            raise SpansegError(f"objectives.Prompted takes mix = shares of {', '.join(_KINDS)}, not {list(mix)}.")
        self.slices, self.structures, self.rounds = slices, structures, rounds
        self.mix = np.array(mix, dtype=float) / sum(mix)
        self.cross_entropy, self.rarity, self.overlap = cross_entropy, rarity, overlap

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return the named losses of one batch; all that is chosen at random follows from its number."""
        network: Any = model
        rng = np.random.default_rng([batch.index, 4])
        plane = str(rng.choice(network.planes))
        kind = str(rng.choice(_KINDS, p=self.mix))
        is_asked = kind != "none" and bool((batch.target > 0).any((1, 2, 3)).all())
        which = drawn_slices(batch.target, PLANES[plane], self.slices, rng, 0.0 if is_asked else EMPTY)
        subject = torch.arange(len(which), device=which.device)[:, None]
        truth = batch.target.movedim(1 + PLANES[plane], 1)[subject, which].flatten(0, 1)
        features = network.embed(batch.image, plane, which)
        if not is_asked:
            unlabelled = tuple(one for one in batch.unlabelled for _ in range(self.slices))
            return self._labelled(network.ask(features, plane=plane), network, plane, truth, unlabelled)
        return self._asked(_Questions(network, features, plane, truth, self.structures, rng), kind, rng)

    def _labelled(
        self, answer: tuple[Tensor, Tensor], network: Any, plane: str, truth: Tensor, unlabelled: tuple[Any, ...]
    ) -> dict[str, Tensor]:
        logits = network.on_slices(answer[0][:, 0], plane)
        dice, entropy = dice_and_cross_entropy(logits[:, :, None], truth[:, None], self.rarity, unlabelled)
        classes = torch.arange(logits.shape[1], device=truth.device)[:, None, None]
        found, there = logits.argmax(1)[:, None] == classes, truth[:, None] == classes
        asked = there.any((2, 3))
        asked[:, 0] = False
        off = (answer[1][:, 0].float() - _overlap(found, there, truth)).square()
        loss = (off * asked).sum() / asked.sum().clamp(min=1)
        return self._named((1 - self.cross_entropy) * dice, self.cross_entropy * entropy, loss)

    def _asked(self, questions: "_Questions", kind: str, rng: np.random.Generator) -> dict[str, Tensor]:
        prompts = questions.first(kind)
        for _ in range(int(rng.integers(self.rounds + 1))):
            prompts = questions.corrected(prompts)
        logits, guess, _ = questions.answer(prompts)
        known, there = questions.known.float(), questions.there.float()
        entropy = F.binary_cross_entropy_with_logits(logits.float(), there, reduction="none")
        p, there = torch.sigmoid(logits.float()) * known, there * known
        both, sizes = (p * there).sum((2, 3)), p.sum((2, 3)) + there.sum((2, 3))
        dice = 1 - ((2 * both + 1) / (sizes + 1)).mean()
        off = guess.float() - _overlap(logits > 0, questions.there, questions.truth)
        return self._named(dice, (entropy * known).sum() / (known.sum() * len(logits[0])), off.square().mean())

    def _named(self, dice: Tensor, entropy: Tensor, overlap: Tensor) -> dict[str, Tensor]:
        return {"dice": dice, "cross_entropy": entropy, "overlap": self.overlap * overlap}


class _Questions:
    """Structures that are asked for in some slices, each present in its slice, and what the network answers."""

    def __init__(
        self, network: Any, features: Tensor, plane: str, truth: Tensor, structures: int, rng: np.random.Generator
    ) -> None:
        self.network, self.features, self.plane, self.truth, self.rng = network, features, plane, truth, rng
        self.wanted = torch.tensor([_present(one, structures, rng) for one in truth], device=truth.device)
        self.there = truth[:, None] == self.wanted[:, :, None, None]
        self.known = truth[:, None] != UNKNOWN
        self._masks = self.there.cpu().numpy()

    def first(self, kind: str) -> SlicePrompts:
        """Prompts as a user begins with."""
        prompts = SlicePrompts()
        if kind in ("box", "both"):
            boxes = [[simulated_box(mask, self.rng) for mask in row] for row in self._masks]
            prompts = SlicePrompts(boxes=torch.from_numpy(np.array(boxes)))
        if kind in ("points", "both"):
            prompts = prompts.with_points([[simulated_point(m, rng=self.rng) for m in row] for row in self._masks])
        return prompts.to(self.truth.device)

    def answer(self, prompts: SlicePrompts) -> tuple[Tensor, Tensor, Tensor]:
        """Of each structure's own token: logits at the slices' voxels, guessed overlaps, and logits as they come."""
        masks, guess = self.network.ask(self.features, prompts, self.plane)
        chosen = self.wanted[:, :, None]
        coarse = masks.take_along_dim(chosen[..., None, None], 2)[:, :, 0]
        return self.network.on_slices(coarse, self.plane), guess.take_along_dim(chosen, 2)[:, :, 0], coarse

    @torch.no_grad()
    def corrected(self, prompts: SlicePrompts) -> SlicePrompts:
        """Let the network answer, and point where each answer is most wrong."""
        logits, _, coarse = self.answer(prompts)
        answers = ((logits > 0) & self.known).cpu().numpy()
        rows = zip(self._masks, answers, strict=True)
        more = [[simulated_point(*one, rng=self.rng) for one in zip(*row, strict=True)] for row in rows]
        return replace(prompts.with_points(more).to(self.truth.device), logits=coarse.float())


def _present(truth: Tensor, count: int, rng: np.random.Generator) -> list[int]:
    """Classes of a slice that shows some, small ones only if there are no others; repeated if there are too few."""
    sizes = torch.bincount(truth[truth > 0])
    large = torch.nonzero(sizes >= min(_FEW_VOXELS, int(sizes.max()))).flatten().tolist()
    large = [index for index in large if sizes[index] > 0]
    return [int(one) for one in rng.choice(large, count, replace=len(large) < count)]


def _overlap(found: Tensor, there: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of masks (slice, mask, row, column) where the truth is known; 0 for two empty ones."""
    known = (truth != UNKNOWN)[:, None]
    both, either = (found & there & known).sum((2, 3)), ((found | there) & known).sum((2, 3))
    return both / either.clamp(min=1)
