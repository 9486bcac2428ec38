"""What a user might say about a structure of a synthetic scan: a label that is wrong, clicks on the errors, a box."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from spanseg.clicks import CHANNELS, Click, channels, next_click
from spanseg.deform import Canvas, Draw, blur
from spanseg.interfaces import Sample, Source


@dataclass(frozen=True)
class ClickOptions:
    """How labels are spoilt and clicked on.

    Args:
        empty: how often the label is empty at first.
        boxed: how often a box is drawn round the structure.
        most: clicks at most that are placed before the network answers for the first time.
        rarity: how much more often small structures are chosen: the chance of one of n voxels is n to minus this.
        few_voxels: structures with fewer voxels near the middle of the canvas are not chosen.
    """

    empty: float = 0.5
    boxed: float = 0.1
    most: int = 3
    rarity: float = 0.3
    few_voxels: int = 60


class Unprompted:
    """Adds empty channels to a source's images: nobody has said anything yet.

    Args:
        source: draws images of one channel.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    def draw(self, seed: int, index: int) -> Sample:
        """Draw a sample, its image (1, 5, i, j, k)."""
        sample = self.source.draw(seed, index)
        silence = sample.image.new_zeros((1, len(CHANNELS), *sample.image.shape[2:]))
        return sample._replace(image=torch.cat([sample.image, silence], 1))


def chosen(classes: Int[Tensor, "i j k"], options: ClickOptions, rng: np.random.Generator) -> int:
    """A structure that has some voxels in the middle half of the canvas, small ones more often; 0 if there is none."""
    middle = classes[tuple(slice(n // 4, n - n // 4) for n in classes.shape)]
    counts = torch.bincount(middle.clamp(min=0).flatten()).cpu().numpy()
    counts[0] = 0
    enough = np.flatnonzero(counts >= options.few_voxels)
    if not len(enough):
        return int(counts.argmax())
    chances = counts[enough].astype(float) ** -options.rarity
    return int(rng.choice(enough, p=chances / chances.sum()))


def said(
    truth: Bool[Tensor, "i j k"], brain: Bool[Tensor, "i j k"], options: ClickOptions, draw: tuple[int, int]
) -> Float[Tensor, "channel i j k"]:
    """A wrong label of a structure and prompts that say so, as :data:`spanseg.clicks.CHANNELS`.

    Args:
        truth: where the structure is.
        brain: where any structure is.
        options: how wrong, and how often what is said.
        draw: seed and index, which decide all random choices.
    """
    state = Draw(*draw, Canvas((truth.shape[0], truth.shape[1], truth.shape[2]), 1.0), truth.device)
    rng, where = state.rng, truth.cpu().numpy()
    label = np.zeros_like(where)
    if rng.random() >= options.empty:
        label = spoilt(truth, brain, state).cpu().numpy()
    if where.any() and rng.random() < options.boxed:
        return torch.from_numpy(channels(label, [], _box(where, rng))).to(truth.device)
    clicks = _clicks(where, label, int(rng.integers(1, options.most + 1)), rng)
    return torch.from_numpy(channels(label, clicks)).to(truth.device)


def _clicks(truth: np.ndarray, label: np.ndarray, count: int, rng: np.random.Generator) -> list[Click]:
    """Clicks into the largest errors; each counts as settled near by, so that the next goes elsewhere."""
    clicks: list[Click] = []
    for _ in range(count):
        click = next_click(truth, label, rng)
        if click is None:
            break
        clicks.append(click)
        near = tuple(slice(max(0, index - 12), index + 13) for index in click.voxel)
        label = label.copy()
        label[near] = truth[near]
    return clicks


def _box(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A box round a structure, each side up to four voxels off."""
    box = np.zeros_like(truth)
    inside = np.argwhere(truth)
    low = np.maximum(inside.min(0) - rng.integers(-1, 5, 3), 0)
    high = inside.max(0) + 1 + rng.integers(-1, 5, 3)
    box[tuple(slice(int(a), max(int(a) + 1, int(b))) for a, b in zip(low, high, strict=True))] = True
    return box


def spoilt(truth: Bool[Tensor, "i j k"], brain: Bool[Tensor, "i j k"], draw: Draw) -> Bool[Tensor, "i j k"]:
    """A label as networks and people get it wrong: borders off, a piece missing, a piece of something else taken in.

    Args:
        truth: where the structure is.
        brain: where any structure is; only there is too much taken in.
        draw: random state of the sample.
    """
    rng = draw.rng
    wandering = float(rng.uniform(0.1, 0.5)) * draw.smooth_field((8.0, 20.0), (0.6, 0.8), 1)[0]
    soft = blur(truth.float(), np.full(3, rng.uniform(0.6, 1.6)))
    label = (soft + wandering > rng.uniform(0.3, 0.7)) & (soft > 0.02) & brain
    if rng.random() < 0.4:
        label = label & ~_ball(truth, rng, (5, 16))
    if rng.random() < 0.4:
        label = label | (_ball(truth, rng, (3, 9)) & brain)
    return label


def _ball(truth: Tensor, rng: np.random.Generator, radii_voxels: tuple[float, float]) -> Tensor:
    """A ball round a voxel of the structure; empty if there is none."""
    inside = torch.nonzero(truth)
    if not len(inside):
        return torch.zeros_like(truth)
    centre = inside[int(rng.integers(len(inside)))]
    far = torch.zeros((), device=truth.device)
    for axis, n in enumerate(truth.shape):
        line = (torch.arange(n, device=truth.device) - centre[axis]).float() ** 2
        far = far + line.reshape([-1 if axis == other else 1 for other in range(3)])
    return far < float(rng.uniform(*radii_voxels)) ** 2
