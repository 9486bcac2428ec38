"""Where samples come from beside the generator (real scans with labels, mixtures), and batches of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from spanseg.deform import Canvas, Draw
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.intensity import clipped
from spanseg.interfaces import Batch, Sample, Source, Told
from spanseg.labels import UNKNOWN, Protocol
from spanseg.synth import SynthOptions, deformation, normalise, scanner
from spanseg.told import Teller

GENTLE = SynthOptions(
    rotation=8.0, scaling=0.08, shear=0.01, elastic_mm=2.0, bias=0.15, gamma=0.15, noise=0.04, thick=0.0, ghost=0.0
)
"""How far the scans of a centre are deformed and degraded when a model is adapted to them."""


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """A real scan with its labels, both in RAS+ order.

    Args:
        name: whose scan it is.
        image: float32, shape (i, j, k).
        classes: class indices of the protocol, ``UNKNOWN`` where unknown, same shape.
        voxel_mm: edge lengths of the voxels, shape (3,).
        unlabelled: classes that the labels leave out, so that their 0 means "background or one of these".
        facts: what is known about the person.
        centre: row of a table of centres, -1 for none.
    """

    name: str
    image: np.ndarray
    classes: np.ndarray
    voxel_mm: np.ndarray
    unlabelled: tuple[int, ...] = ()
    facts: Facts = field(default_factory=Facts)
    centre: int = -1


STILL = SynthOptions(
    rotation=0,
    scaling=0,
    shear=0,
    shift_mm=0,
    elastic_mm=0,
    flips=False,
    bias=0,
    gamma=0,
    noise=0,
    thick=0,
    blur_mm=0,
    ghost=0,
)
"""Scans are looked at as they are."""


class RealScans:
    """Draws deformed real scans with the generator's bias field, blur and noise; sides are exchanged with their ids.

    Args:
        scans: what to draw from.
        protocol: says which classes mirror each other.
        canvas: grid of what is drawn.
        options: how far to deform and degrade; contrasts and skull-stripping do not apply.
        tell: makes what the network is told about a person; ``None`` for a network that is told nothing.
    """

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        protocol: Protocol,
        canvas: Canvas,
        options: SynthOptions,
        tell: Teller | None = None,
    ) -> None:
        self.canvas, self.options, self.tell = canvas, options, tell
        mirrored = np.append(protocol.mirrored_classes, UNKNOWN)  # index -1 is UNKNOWN, and stays so
        self.mirror = torch.from_numpy(mirrored)
        self.scans = [self._ready(scan) for scan in scans]
        self.unlabelled = [scan.unlabelled for scan in scans]
        self.names = [scan.name for scan in scans]
        self.people = [(scan.facts, scan.centre) for scan in scans]

    @staticmethod
    def _ready(scan: LabelledScan) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
        centre = np.argwhere(scan.classes > 0).mean(0)
        seen = clipped(scan.image, scan.classes > 0, scan.voxel_mm)
        bright = float(np.quantile(seen, 0.99))
        image = torch.from_numpy((seen / max(bright, 1e-6)).astype(np.float32))
        return image, torch.from_numpy(scan.classes.astype(np.int16)), centre, scan.voxel_mm

    def draw(self, seed: int, index: int) -> Sample:
        """Draw one normalised scan and the class of each voxel."""
        draw, options = Draw(seed, index, self.canvas, torch.device("cpu")), self.options
        which = int(draw.rng.integers(len(self.scans)))
        image, classes, centre, voxel_mm = self.scans[which]
        how = deformation(draw, options)
        place = how.through(centre, voxel_mm)
        target, unlabelled = place.nearest(classes).long(), self.unlabelled[which]
        if how.flip:
            target = self.mirror[target]
            unlabelled = tuple(int(self.mirror[one]) for one in unlabelled)
        seen = normalise(scanner(place.linear(image), draw, options))
        told = None if self.tell is None else self.tell(*self.people[which], rng=draw.rng)
        return Sample(seen[None, None], target[None], told, unlabelled, self.names[which])


class Mixture:
    """Draws each sample from one of several sources; which one follows from seed and index.

    Args:
        sources: where samples come from.
        shares: how often each is asked, in any unit.
    """

    def __init__(self, sources: Sequence[Source], shares: Sequence[float]) -> None:
        self.sources = list(sources)
        self.shares = np.array(shares, dtype=float) / sum(shares)

    def draw(self, seed: int, index: int) -> Sample:
        """Draw from the source whose turn it is."""
        rng = np.random.default_rng([seed, index, 1])
        return self.sources[int(rng.choice(len(self.sources), p=self.shares))].draw(seed, index)


def batch_of(samples: Sequence[Sample], index: int) -> Batch:
    """Stack samples to the batch of one step.

    Raises:
        SpansegError: some samples are told something and others nothing.
    """
    told = [sample.told for sample in samples if sample.told is not None]
    if told and len(told) < len(samples):
        raise SpansegError("a batch mixes samples that are told something with samples told nothing; tell all or none.")
    images = torch.cat([sample.image for sample in samples]).contiguous(memory_format=torch.channels_last_3d)
    unlabelled = tuple(sample.unlabelled for sample in samples)
    return Batch(
        images,
        torch.cat([sample.target for sample in samples]),
        index,
        stack_told(told) if told else None,
        unlabelled if any(unlabelled) else (),
    )


def stack_told(told: Sequence[Told]) -> Told:
    """Stack what several subjects are told; shorter sentences are padded with masked words."""
    longest = max(one.mask.shape[1] for one in told)
    embeddings, masks = [], []
    for one in told:
        missing = longest - one.mask.shape[1]
        embeddings.append(torch.nn.functional.pad(one.embedding, (0, 0, 0, missing)))
        masks.append(torch.nn.functional.pad(one.mask, (0, missing)))
    return Told(torch.cat(embeddings), torch.cat(masks), torch.cat([one.centre for one in told]))
