"""Training samples for a click network: a structure on a synthetic scan, a label that is wrong, and clicks on it."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from spanseg.clicks import Click, channels, next_click
from spanseg.deform import Canvas, Draw
from spanseg.interfaces import Sample, Source
from spanseg.synth import blur

_STREAM = 2_000_003  # added to the seed, so that clicks do not follow from the numbers that the scan was drawn with


@dataclass(frozen=True)
class ClickOptions:
    """How the labels are spoilt and clicked on.

    Args:
        structures: protocol whose structures are clicked on.
        empty: how often the label is empty at first.
        boxed: how often a box is drawn round the structure.
        most: clicks at most that are placed before the network answers for the first time.
        few_voxels: structures with fewer voxels near the middle of the canvas are not chosen.
    """

    structures: str = "aseg"
    empty: float = 0.4
    boxed: float = 0.1
    most: int = 3
    few_voxels: int = 60


class ClickedScans:
    """Chooses one structure of each sample, spoils its label and clicks on the errors.

    Args:
        source: draws images (1, 1, i, j, k) and the classes of all structures.
        options: how.
        voxel_mm: edge length of a voxel of what is drawn.
    """

    def __init__(self, source: Source, options: ClickOptions, voxel_mm: float) -> None:
        self.source, self.options, self.voxel_mm = source, options, voxel_mm

    def draw(self, seed: int, index: int) -> Sample:
        """Draw image, label and click channels, (1, 5, i, j, k), and where the structure is, 0 or 1."""
        sample = self.source.draw(seed, index)
        classes = sample.target[0]
        shape = (classes.shape[0], classes.shape[1], classes.shape[2])
        draw = Draw(seed + _STREAM, index, Canvas(shape, self.voxel_mm), classes.device)
        truth = classes == self._structure(classes, draw.rng)
        label, clicks, box = self._said(truth, classes > 0, draw)
        seen = torch.from_numpy(channels(label, clicks, box)).to(classes.device)
        return sample._replace(image=torch.cat([sample.image, seen[None]], 1), target=truth.long()[None])

    def _structure(self, classes: Tensor, rng: np.random.Generator) -> int:
        """A structure that has some voxels in the middle half of the canvas, each as likely as the others."""
        middle = classes[tuple(slice(n // 4, n - n // 4) for n in classes.shape)]
        counts = torch.bincount(middle.clamp(min=0).flatten())
        counts[0] = 0
        enough = torch.nonzero(counts >= self.options.few_voxels).flatten().tolist()
        return int(rng.choice(enough)) if enough else int(counts.argmax())

    def _said(self, truth: Tensor, brain: Tensor, draw: Draw) -> tuple[np.ndarray, list[Click], np.ndarray | None]:
        """The label as it is now, the clicks so far, and a box."""
        rng, where = draw.rng, truth.cpu().numpy()
        label = np.zeros_like(where)
        if rng.random() >= self.options.empty:
            label = spoilt(truth, brain, draw).cpu().numpy()
        if where.any() and rng.random() < self.options.boxed:
            return label, [], _box(where, rng)
        clicks: list[Click] = []
        believed = label
        for _ in range(int(rng.integers(1, self.options.most + 1))):
            click = next_click(where, believed, rng)
            if click is None:
                break
            clicks.append(click)
            believed = _settled(believed, where, click)
        return label, clicks, None


def _settled(label: np.ndarray, truth: np.ndarray, click: Click) -> np.ndarray:
    """A label in which the truth holds within some voxels of a click, so that the next click goes elsewhere."""
    near = tuple(slice(max(0, index - 12), index + 13) for index in click.voxel)
    settled = label.copy()
    settled[near] = truth[near]
    return settled


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
    label = (soft + wandering > rng.uniform(0.3, 0.7)) & (soft > 0.02)
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
