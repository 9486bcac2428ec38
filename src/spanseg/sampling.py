"""Where training pairs come from beside the generator: real scans with labels, and mixtures of sources."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from spanseg.deform import Canvas, Deformation, Draw
from spanseg.interfaces import Source
from spanseg.labels import UNKNOWN, Protocol
from spanseg.synth import SynthOptions, normalise, scanner


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """A real scan with its labels, both in RAS+ order.

    Args:
        name: whose scan it is.
        image: float32, shape (i, j, k).
        classes: class indices of the protocol, ``UNKNOWN`` where unknown, same shape.
        voxel_mm: edge lengths of the voxels, shape (3,).
    """

    name: str
    image: np.ndarray
    classes: np.ndarray
    voxel_mm: np.ndarray


class RealScans:
    """Draws deformed real scans with the generator's bias field, blur and noise; sides are exchanged with their ids.

    Args:
        scans: what to draw from.
        protocol: says which classes mirror each other.
        canvas: grid of what is drawn.
        options: how far to deform and degrade; contrasts and skull-stripping do not apply.
    """

    def __init__(
        self, scans: Sequence[LabelledScan], protocol: Protocol, canvas: Canvas, options: SynthOptions
    ) -> None:
        self.canvas, self.options = canvas, options
        mirrored = np.append(protocol.mirrored_classes, UNKNOWN)  # index -1 is UNKNOWN, and stays so
        self.mirror = torch.from_numpy(mirrored)
        self.scans = [self._ready(scan) for scan in scans]

    @staticmethod
    def _ready(scan: LabelledScan) -> tuple[Tensor, Tensor, np.ndarray, np.ndarray]:
        centre = np.argwhere(scan.classes > 0).mean(0)
        bright = float(np.quantile(scan.image, 0.99))
        image = torch.from_numpy((scan.image / max(bright, 1e-6)).astype(np.float32))
        return image, torch.from_numpy(scan.classes.astype(np.int16)), centre, scan.voxel_mm

    def draw(self, seed: int, index: int) -> tuple[Float[Tensor, "1 1 i j k"], Int[Tensor, "1 i j k"]]:
        """Draw one normalised scan and the class of each voxel."""
        draw, options = Draw(seed, index, self.canvas, torch.device("cpu")), self.options
        image, classes, centre, voxel_mm = self.scans[int(draw.rng.integers(len(self.scans)))]
        how = Deformation(draw, options.rotation, options.scaling, options.shear, options.shift_mm, options.elastic_mm)
        place = how.through(centre, voxel_mm)
        target = place.nearest(classes).long()
        if how.flip:
            target = self.mirror[target]
        return normalise(scanner(place.linear(image), draw, options))[None, None], target[None]


class Mixture:
    """Draws each sample from one of several sources; which one follows from seed and index.

    Args:
        sources: where samples come from.
        shares: how often each is asked, in any unit.
    """

    def __init__(self, sources: Sequence[Source], shares: Sequence[float]) -> None:
        self.sources = list(sources)
        self.shares = np.array(shares, dtype=float) / sum(shares)

    def draw(self, seed: int, index: int) -> tuple[Tensor, Tensor]:
        """Draw from the source whose turn it is."""
        rng = np.random.default_rng([seed, index, 1])
        return self.sources[int(rng.choice(len(self.sources), p=self.shares))].draw(seed, index)
