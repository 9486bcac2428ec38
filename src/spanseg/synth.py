"""Generator of synthetic scans from label maps: deformation, contrast, scanner artefacts, skull-stripping.

Reference: Billot et al., Medical Image Analysis 2023 (SynthSeg), for training on scans of random contrast drawn from
label maps. Here most scans have T1-like contrast, partial volume is drawn by averaging displaced reads of the labels,
and half or more of the scans are skull-stripped.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from spanseg.deform import Canvas, Deformation, Draw, blur, resize
from spanseg.fading import Fading
from spanseg.generation import GenerationClasses, PackedMap
from spanseg.growth import Growth
from spanseg.interfaces import Sample
from spanseg.lesions import Lesions
from spanseg.parts import require_bounds
from spanseg.surface import Surface

OFFSETS = ((-0.25, -0.25, -0.25), (0.25, 0.25, -0.25), (0.25, -0.25, 0.25), (-0.25, 0.25, 0.25))
"""Where in a voxel the labels are read for its partial volume, in voxels from its middle."""
FAMILIES = ("t1", "t2", "flair", "random", "infant")
_BOUNDS = dict.fromkeys((*FAMILIES, "rotation", "shift_mm", "elastic_mm", "growth_mm", "atrophy_mm"), (0, math.inf))
_BOUNDS |= dict.fromkeys(("contrast_jitter", "bias", "gamma", "noise", "thickness_mm", "blur_mm"), (0, math.inf))
_BOUNDS |= dict.fromkeys(("scaling", "shear", "thick", "ghost", "lesions", "surface", "fading"), (0, 1))
_BOUNDS |= dict.fromkeys(("strip", "sloppy", "cut"), (0, 1))


@dataclass(frozen=True)
class SynthOptions:
    """How far the generator goes. Lengths in mm, angles in degrees, probabilities from 0 to 1.

    Args:
        t1, t2, flair, random, infant: relative frequency of each family of contrasts.
        t1_contrast: how far grey lies below white matter on T1-like scans, lowest and highest share of the prior's.
        t1_csf: how bright CSF is on T1-like scans, lowest and highest multiple of the prior's.
        t2_contrast: lowest and highest contrast of T2-like scans, before CSF is made brighter.
        t2_csf: how bright CSF is on T2-like scans, lowest and highest multiple of what the contrast makes of it.
        flair_contrast: lowest and highest contrast of FLAIR-like scans; at 0.2 grey is 8 % above white, at 0.75 77 %.
        infant_contrast: how far grey lies below white matter on infants' scans, lowest and highest share of an adult's.
        rotation, scaling, shear, shift_mm: largest affine changes; pitch goes up to twice ``rotation``.
        elastic_mm: standard deviation of the smooth displacement.
        growth_mm, atrophy_mm: how far structures grow or shrink, and ventricles widen (see :mod:`spanseg.growth`).
        flips: left and right are exchanged in half of the draws.
        contrast_jitter: standard deviation of each structure's intensity around its prior.
        bias: largest standard deviation of the logarithm of the bias field.
        gamma: largest logarithm of the gamma exponent.
        noise: largest standard deviation of noise, white matter = 1.
        thick, thickness_mm: probability and largest thickness of thick slices.
        blur_mm: largest standard deviation of blur.
        ghost: probability of motion-like ghosts.
        lesions: probability of lesions and caps in white matter (see :mod:`spanseg.lesions`).
        surface: largest share of the way to CSF that the surface of cortex moves (see :mod:`spanseg.surface`).
        fading: largest share of the grey to white contrast that the occipital pole loses (see :mod:`spanseg.fading`).
        strip, sloppy: probability of skull-stripping, and of a careless mask among the stripped.
        cut: probability that the field of view cuts something off.
    """

    t1: float = 0.70
    t2: float = 0.08
    flair: float = 0.05
    random: float = 0.12
    infant: float = 0.05
    t1_contrast: tuple[float, float] = (0.7, 1.35)
    t1_csf: tuple[float, float] = (0.3, 1.5)
    t2_contrast: tuple[float, float] = (0.55, 0.85)
    t2_csf: tuple[float, float] = (1.0, 1.0)
    flair_contrast: tuple[float, float] = (0.55, 0.85)
    infant_contrast: tuple[float, float] = (-0.5, 0.3)
    rotation: float = 12.0
    scaling: float = 0.15
    shear: float = 0.02
    shift_mm: float = 12.0
    elastic_mm: float = 3.0
    growth_mm: float = 0.0
    atrophy_mm: float = 0.0
    flips: bool = True
    contrast_jitter: float = 0.04
    bias: float = 0.3
    gamma: float = 0.25
    noise: float = 0.08
    thick: float = 0.2
    thickness_mm: float = 6.0
    blur_mm: float = 0.8
    ghost: float = 0.1
    lesions: float = 0.0
    surface: float = 0.0
    fading: float = 0.0
    strip: float = 0.6
    sloppy: float = 0.3
    cut: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what no scan could be drawn with.

        Raises:
            SpansegError: a number that is too small, too large or none.
        """
        require_bounds(self, _BOUNDS, "synth")


class Generator:
    """Draws samples from packed label maps; the same seed and index give the same sample.

    Args:
        maps: packed label maps.
        table: generation classes of the maps.
        canvas: grid of what is drawn.
        options: how far the generator goes.
        device: where the work is done.
    """

    def __init__(
        self,
        maps: list[PackedMap],
        table: GenerationClasses,
        canvas: Canvas,
        options: SynthOptions,
        device: torch.device | str = "cpu",
    ) -> None:
        self.canvas, self.options, self.device = canvas, options, torch.device(device)
        self.maps = [(torch.from_numpy(m.classes).to(self.device), m.centre, m.voxel_mm) for m in maps]
        self.mirror = torch.from_numpy(table.mirror.astype(np.uint8)).to(self.device)
        self.target = torch.from_numpy(table.target).to(self.device)
        self.brain = torch.from_numpy(table.brain).to(self.device)
        self.csf = torch.from_numpy(table.csf).to(self.device)
        self.contrasts = _Contrasts(table, options)
        self.lesions = Lesions(table, options.lesions, self.device)
        self.growth = Growth(table, options.growth_mm, options.atrophy_mm, self.device)
        self.surface = Surface(table, options.surface, self.device)
        self.fading = Fading(table, options.fading, self.device)

    def draw(self, seed: int, index: int) -> Sample:
        """Draw one normalised scan and the protocol's class of each voxel."""
        draw = Draw(seed, index, self.canvas, self.device)
        classes, offsets = self._deformed(draw, int(draw.rng.integers(len(self.maps))))
        return self._scanned(draw, classes, offsets, classes)

    def _scanned(self, draw: Draw, classes: Tensor, offsets: list[Tensor], truth: Tensor) -> Sample:
        """Paint, scan and mask: the image follows from the classes and their displaced reads, the target from truth."""
        means, deviations = self.contrasts.draw(draw.rng)
        image = _paint(classes, offsets, means.to(self.device), deviations.to(self.device), draw)
        image = self.surface.paint(image, offsets, means, draw)
        image = self.fading.paint(image, offsets, means, draw)
        image = self.lesions.paint(image, classes, means, draw)
        image = scanner(image, draw, self.options)
        target = self.target[truth.int()]
        keep = self._mask(classes, draw)
        image = torch.where(keep, image, 0.0)
        target = torch.where(keep, target, 0)
        return Sample(normalise(image)[None, None], target.long()[None])

    def _deformed(self, draw: Draw, which: int) -> tuple[Tensor, list[Tensor]]:
        """Read a label map through a random deformation: once at voxel centres, four times off them."""
        labels, _, voxel_mm = self.maps[which]
        how = deformation(draw, self.options)
        place = self.growth.moved(how.through(self._centre(draw, which), voxel_mm), labels, draw)
        reads = [place.nearest(labels), *(place.nearest(labels, offset) for offset in OFFSETS)]
        if how.flip:
            reads = [self.mirror[read.int()] for read in reads]
        return reads[0], reads[1:]

    def _centre(self, draw: Draw, which: int) -> np.ndarray:
        """Voxel of a label map that the canvas is centred on: the middle of its brain."""
        return self.maps[which][1]

    def _mask(self, classes: Tensor, draw: Draw) -> Tensor:
        """Which voxels stay: the field of view, and for stripped scans the brain with some of its surroundings."""
        keep = torch.ones_like(classes, dtype=torch.bool)
        if draw.rng.random() < self.options.strip:
            keep = self._strip(classes, draw)
        if draw.rng.random() < self.options.cut:
            axis, low = int(draw.rng.integers(3)), bool(draw.rng.random() < 0.7)
            length = keep.shape[axis]
            cut = int(length * draw.rng.uniform(0.05, 0.25))
            keep.narrow(axis, 0 if low else length - cut, cut).fill_(False)
        return keep

    def _strip(self, classes: Tensor, draw: Draw) -> Tensor:
        brain = self.brain[classes.int()]
        rim_mm = draw.rng.choice([0.0, 1.5, 3.0, 6.0, 12.0], p=[0.2, 0.25, 0.25, 0.15, 0.15])
        grown = _grow(brain, round(rim_mm / self.canvas.voxel_mm))
        if draw.rng.random() < self.options.sloppy:
            ragged = draw.smooth_field((25.0,), (1.0,), 1)[0] > 0.3
            return grown | (_grow(brain, round(6.0 / self.canvas.voxel_mm)) & ragged)
        return brain | (grown & self.csf[classes.int()])


class NearStructures(Generator):
    """Draws neighbourhoods: the canvas is centred on any voxel of any structure, each structure as likely."""

    def _centre(self, draw: Draw, which: int) -> np.ndarray:
        labels = self.maps[which][0]
        there = self.target[torch.bincount(labels.flatten(), minlength=len(self.target)) > 0]
        present = torch.unique(there[there > 0])
        chosen = present[int(draw.rng.integers(len(present)))]
        inside = torch.nonzero((self.target == chosen)[labels.int()])
        return inside[int(draw.rng.integers(len(inside)))].cpu().numpy().astype(float)


class _Contrasts:
    """Draws mean and standard deviation of every generation class."""

    def __init__(self, table: GenerationClasses, options: SynthOptions) -> None:
        self.t1, self.mirror = table.t1, table.mirror
        self.kind = np.array(table.kind)
        self.families = [(name, getattr(options, name)) for name in FAMILIES]
        self.options = options

    def draw(self, rng: np.random.Generator) -> tuple[Float[Tensor, " class"], Float[Tensor, " class"]]:
        """Means (white matter about 1 on T1-like scans) and standard deviations, the same on both sides."""
        names, weights = zip(*self.families, strict=True)
        family = rng.choice(names, p=np.array(weights) / sum(weights))
        means = np.array(getattr(self, f"_{family}")(rng), dtype=np.float64)
        means += rng.normal(0, self.options.contrast_jitter, means.shape)
        head = self.kind == "head"
        means[head] *= rng.lognormal(0, 0.3, int(head.sum()))
        deviations = rng.uniform(0.01, 0.05) * rng.uniform(0.6, 1.6, means.shape)
        first = np.minimum(np.arange(len(means)), self.mirror)
        means, deviations = means[first], deviations[first]
        means[self.kind == "air"] = rng.choice([0.0, rng.uniform(0, 0.1)])
        return torch.from_numpy(means.clip(0).astype(np.float32)), torch.from_numpy(deviations.astype(np.float32))

    def _t1(self, rng: np.random.Generator) -> np.ndarray:
        """Grey to white contrast from weak to strong, CSF from dark to grey."""
        means = 1 - (1 - self.t1) * rng.uniform(*self.options.t1_contrast)
        csf = self.kind == "CSF"
        means[csf] = self.t1[csf] * rng.uniform(*self.options.t1_csf)
        means[self.kind == "head"] = self.t1[self.kind == "head"]
        return means

    def _t2(self, rng: np.random.Generator) -> np.ndarray:
        """Contrast turned over: CSF bright, white matter dark."""
        means, (low, high) = self._turned_over(rng, self.options.t2_contrast), self.options.t2_csf
        means[self.kind == "CSF"] *= rng.uniform(low, high) if low < high else low  # what is fixed is not drawn
        return means

    def _turned_over(self, rng: np.random.Generator, contrast: tuple[float, float]) -> np.ndarray:
        """Means of a contrast in which what is bright on T1 is dark."""
        means = 1.1 - rng.uniform(*contrast) * self.t1
        head = self.kind == "head"
        means[head] = np.where(self.t1[head] < 0.2, self.t1[head], rng.uniform(0.1, 0.8, int(head.sum())))
        return means

    def _flair(self, rng: np.random.Generator) -> np.ndarray:
        """As T2, with dark CSF."""
        means = self._turned_over(rng, self.options.flair_contrast)
        csf = self.kind == "CSF"
        means[csf] = rng.uniform(0.05, 0.3) * (0.5 + self.t1[csf])
        return means

    def _random(self, rng: np.random.Generator) -> np.ndarray:
        """Any intensity for any structure."""
        return rng.uniform(0.05, 1.1, self.t1.shape)

    def _infant(self, rng: np.random.Generator) -> np.ndarray:
        """Grey and white matter inverted or nearly equal, as on T1-weighted scans of the first year."""
        means = 1 - (1 - self.t1) * rng.uniform(*self.options.infant_contrast)
        csf = self.kind == "CSF"
        means[csf] = self.t1[csf]
        means[self.kind == "head"] = self.t1[self.kind == "head"]
        return means


def _paint(classes: Tensor, offsets: list[Tensor], means: Tensor, deviations: Tensor, draw: Draw) -> Tensor:
    """Mean intensity over the displaced reads (partial volume) plus texture of each structure."""
    image = torch.stack([means[read.int()] for read in offsets]).mean(0)
    texture = 0.6 * draw.normal(tuple(image.shape)) + draw.smooth_field((8.0,), (1.0,), 1)[0]
    return (image + deviations[classes.int()] * texture).clamp_(min=0)


def deformation(draw: Draw, how: SynthOptions) -> Deformation:
    """Draw a deformation as far as the options go."""
    return Deformation(draw, how.rotation, how.scaling, how.shear, how.shift_mm, how.elastic_mm, how.flips)


def scanner(image: Tensor, draw: Draw, options: SynthOptions) -> Tensor:
    """Bias field, gamma, blur, thick slices, noise and ghosts."""
    rng, voxel = draw.rng, draw.canvas.voxel_mm
    bias = rng.uniform(0, options.bias)
    image = image * torch.exp(draw.smooth_field((80.0,), (bias,), 1)[0])
    top = image.max().clamp(min=1e-6)
    image = top * (image / top) ** float(np.exp(rng.uniform(-1, 1) * options.gamma))
    sigma = np.full(3, rng.uniform(0, options.blur_mm) / voxel)
    thick = rng.random() < options.thick
    axis, thickness = int(rng.integers(3)), rng.uniform(2 * voxel, max(2.1 * voxel, options.thickness_mm))
    if thick:
        sigma[axis] = 0.4 * thickness / voxel
    image = blur(image, sigma)
    shape = list(image.shape)
    if thick:
        shape[axis] = max(2, round(shape[axis] * voxel / thickness))
        image = resize(image[None], shape)[0]
    image = image + rng.uniform(0, options.noise) * rng.random() * draw.normal(tuple(shape))
    if rng.random() < options.ghost:
        along = int(rng.integers(3))
        image = image + rng.uniform(0.02, 0.12) * image.roll(int(rng.integers(5, max(6, shape[along] // 2))), along)
    return resize(image[None], list(draw.canvas.shape))[0] if thick else image


def _grow(mask: Tensor, voxels: int) -> Tensor:
    """Dilate a mask by a number of voxels."""
    grown = mask[None, None].float()
    for _ in range(voxels):
        for axis in range(3):
            kernel = [3 if axis == other else 1 for other in range(3)]
            grown = F.max_pool3d(grown, kernel, stride=1, padding=[size // 2 for size in kernel])
    return grown[0, 0] > 0


def normalise(image: Float[Tensor, "i j k"]) -> Float[Tensor, "i j k"]:
    """Scale a canvas as :func:`spanseg.intensity.normalise` does, on any device."""
    sample = image[::2, ::2, ::2].flatten()
    low = torch.quantile(sample, 0.005)
    bright = sample[sample > sample.mean()]
    high = torch.quantile(bright, 0.99) if len(bright) else low + 1
    return ((image - low) / (high - low).clamp(min=1e-6)).clamp(0, 1.5)
