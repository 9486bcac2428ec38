"""Generator of synthetic scans from label maps: deformation, contrast, scanner artefacts, skull-stripping.

Reference: Billot et al., Medical Image Analysis 2023 (SynthSeg), for training on scans of random contrast drawn from
label maps. Here most scans have T1-like contrast, partial volume is drawn by averaging displaced reads of the labels,
and half or more of the scans are skull-stripped.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from spanseg.generation import GenerationClasses, PackedMap

_OFFSETS = ((-0.25, -0.25, -0.25), (0.25, 0.25, -0.25), (0.25, -0.25, 0.25), (-0.25, 0.25, 0.25))


@dataclass(frozen=True)
class SynthOptions:
    """How far the generator goes. Lengths in mm, angles in degrees, probabilities from 0 to 1.

    Args:
        t1, t2, flair, random, infant: relative frequency of each family of contrasts.
        rotation, scaling, shear, shift_mm: largest affine changes; pitch goes up to twice ``rotation``.
        elastic_mm: standard deviation of the smooth displacement.
        contrast_jitter: standard deviation of each structure's intensity around its prior.
        bias: largest standard deviation of the logarithm of the bias field.
        gamma: largest logarithm of the gamma exponent.
        noise: largest standard deviation of noise, white matter = 1.
        thick, thickness_mm: probability and largest thickness of thick slices.
        blur_mm: largest standard deviation of blur.
        ghost: probability of motion-like ghosts.
        strip, sloppy: probability of skull-stripping, and of a careless mask among the stripped.
        cut: probability that the field of view cuts something off.
    """

    t1: float = 0.70
    t2: float = 0.08
    flair: float = 0.05
    random: float = 0.12
    infant: float = 0.05
    rotation: float = 12.0
    scaling: float = 0.15
    shear: float = 0.02
    shift_mm: float = 12.0
    elastic_mm: float = 3.0
    contrast_jitter: float = 0.04
    bias: float = 0.3
    gamma: float = 0.25
    noise: float = 0.08
    thick: float = 0.2
    thickness_mm: float = 6.0
    blur_mm: float = 0.8
    ghost: float = 0.1
    strip: float = 0.6
    sloppy: float = 0.3
    cut: float = 0.1


@dataclass(frozen=True)
class Canvas:
    """The fixed grid that a model is trained on and used on.

    Args:
        shape: voxels along right, anterior, superior.
        voxel_mm: edge length of a voxel in mm.
    """

    shape: tuple[int, int, int]
    voxel_mm: float


class Generator:
    """Draws (image, target) pairs from packed label maps; the same seed and index give the same pair.

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

    def draw(self, seed: int, index: int) -> tuple[Float[Tensor, "1 1 i j k"], Int[Tensor, "1 i j k"]]:
        """Draw one normalised scan and the protocol's class of each voxel."""
        rng = np.random.default_rng([seed, index])
        noise = torch.Generator(device=self.device).manual_seed(int(rng.integers(2**62)))
        draw = _Draw(rng, noise, self.canvas, self.device)
        classes, offsets = self._deformed(draw, int(rng.integers(len(self.maps))))
        means, deviations = self.contrasts.draw(rng)
        image = _paint(classes, offsets, means.to(self.device), deviations.to(self.device), draw)
        image = _scanner(image, draw, self.options)
        target = self.target[classes.int()]
        keep = self._mask(classes, draw)
        image = torch.where(keep, image, 0.0)
        target = torch.where(keep, target, 0)
        return normalise(image)[None, None], target.long()[None]

    def _deformed(self, draw: "_Draw", which: int) -> tuple[Tensor, list[Tensor]]:
        """Read a label map through a random deformation: once at voxel centres, four times off them."""
        labels, centre, voxel_mm = self.maps[which]
        matrix = _affine(draw.rng, self.options)
        flip = draw.rng.random() < 0.5
        if flip:
            matrix = matrix @ np.diag([-1.0, 1.0, 1.0])
        shift = draw.rng.uniform(-1, 1, 3) * self.options.shift_mm
        displacement = draw.smooth_field((40.0, 16.0), (self.options.elastic_mm, 0.4 * self.options.elastic_mm), 3)
        to_voxels = np.diag(1 / voxel_mm) @ matrix
        coordinates = _grid(self.canvas, shift, device=self.device)
        moved = [
            sum(
                (float(to_voxels[row, axis]) * coordinates[axis] for axis in range(3)),
                start=displacement[row] / float(voxel_mm[row]),
            )
            + float(centre[row])
            for row in range(3)
        ]
        steps = to_voxels @ (np.array(_OFFSETS).T * self.canvas.voxel_mm)
        reads = [_read(labels, moved, np.zeros(3))] + [_read(labels, moved, steps[:, k]) for k in range(len(_OFFSETS))]
        if flip:
            reads = [self.mirror[read.int()] for read in reads]
        return reads[0], reads[1:]

    def _mask(self, classes: Tensor, draw: "_Draw") -> Tensor:
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

    def _strip(self, classes: Tensor, draw: "_Draw") -> Tensor:
        brain = self.brain[classes.int()]
        rim_mm = draw.rng.choice([0.0, 1.5, 3.0, 6.0, 12.0], p=[0.2, 0.25, 0.25, 0.15, 0.15])
        grown = _grow(brain, round(rim_mm / self.canvas.voxel_mm))
        if draw.rng.random() < self.options.sloppy:
            ragged = draw.smooth_field((25.0,), (1.0,), 1)[0] > 0.3
            return grown | (_grow(brain, round(6.0 / self.canvas.voxel_mm)) & ragged)
        return brain | (grown & self.csf[classes.int()])


class _Contrasts:
    """Draws mean and standard deviation of every generation class."""

    def __init__(self, table: GenerationClasses, options: SynthOptions) -> None:
        self.t1, self.mirror = table.t1, table.mirror
        self.kind = np.array(table.kind)
        self.families = [(name, getattr(options, name)) for name in ("t1", "t2", "flair", "random", "infant")]
        self.jitter = options.contrast_jitter

    def draw(self, rng: np.random.Generator) -> tuple[Float[Tensor, " class"], Float[Tensor, " class"]]:
        """Means (white matter about 1 on T1-like scans) and standard deviations, the same on both sides."""
        names, weights = zip(*self.families, strict=True)
        family = rng.choice(names, p=np.array(weights) / sum(weights))
        means = np.array(getattr(self, f"_{family}")(rng), dtype=np.float64)
        means += rng.normal(0, self.jitter, means.shape)
        head = self.kind == "head"
        means[head] *= rng.lognormal(0, 0.3, int(head.sum()))
        deviations = rng.uniform(0.01, 0.05) * rng.uniform(0.6, 1.6, means.shape)
        first = np.minimum(np.arange(len(means)), self.mirror)
        means, deviations = means[first], deviations[first]
        means[self.kind == "air"] = rng.choice([0.0, rng.uniform(0, 0.1)])
        return torch.from_numpy(means.clip(0).astype(np.float32)), torch.from_numpy(deviations.astype(np.float32))

    def _t1(self, rng: np.random.Generator) -> np.ndarray:
        """Grey to white contrast from weak to strong, CSF from dark to grey."""
        means = 1 - (1 - self.t1) * rng.uniform(0.7, 1.35)
        csf = self.kind == "CSF"
        means[csf] = self.t1[csf] * rng.uniform(0.3, 1.5)
        means[self.kind == "head"] = self.t1[self.kind == "head"]
        return means

    def _t2(self, rng: np.random.Generator) -> np.ndarray:
        """Contrast turned over: CSF bright, white matter dark."""
        means = 1.1 - rng.uniform(0.55, 0.85) * self.t1
        head = self.kind == "head"
        means[head] = np.where(self.t1[head] < 0.2, self.t1[head], rng.uniform(0.1, 0.8, int(head.sum())))
        return means

    def _flair(self, rng: np.random.Generator) -> np.ndarray:
        """As T2, with dark CSF."""
        means = self._t2(rng)
        csf = self.kind == "CSF"
        means[csf] = rng.uniform(0.05, 0.3) * (0.5 + self.t1[csf])
        return means

    def _random(self, rng: np.random.Generator) -> np.ndarray:
        """Any intensity for any structure."""
        return rng.uniform(0.05, 1.1, self.t1.shape)

    def _infant(self, rng: np.random.Generator) -> np.ndarray:
        """Grey and white matter inverted or nearly equal, as on T1-weighted scans of the first year."""
        means = 1 - (1 - self.t1) * rng.uniform(-0.5, 0.3)
        csf = self.kind == "CSF"
        means[csf] = self.t1[csf]
        means[self.kind == "head"] = self.t1[self.kind == "head"]
        return means


class _Draw:
    """The random state of one sample and smooth random fields on the canvas."""

    def __init__(self, rng: np.random.Generator, noise: torch.Generator, canvas: Canvas, device: torch.device) -> None:
        self.rng, self.noise, self.canvas, self.device = rng, noise, canvas, device

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers of the sample's own stream."""
        return torch.randn(shape, generator=self.noise, device=self.device)

    def smooth_field(
        self, spacings_mm: tuple[float, ...], deviations: tuple[float, ...], channels: int
    ) -> Float[Tensor, "channel i j k"]:
        """Sum of smooth Gaussian fields, one for each spacing of its control points."""
        coarse_shape = [-(-n // 4) for n in self.canvas.shape]
        total = torch.zeros(channels, *coarse_shape, device=self.device)
        for spacing, deviation in zip(spacings_mm, deviations, strict=True):
            knots = [max(2, round(n * self.canvas.voxel_mm / spacing) + 1) for n in self.canvas.shape]
            total += deviation * _resize(self.normal((channels, *knots)), coarse_shape)
        return _resize(total, list(self.canvas.shape))


def _resize(field: Float[Tensor, "channel i j k"], shape: list[int]) -> Float[Tensor, "channel i2 j2 k2"]:
    return F.interpolate(field[None], size=shape, mode="trilinear", align_corners=True)[0]


def _affine(rng: np.random.Generator, options: SynthOptions) -> Float[np.ndarray, "3 3"]:
    """Random rotation (pitch is widest), anisotropic scaling and shear."""
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * options.rotation * np.array([2.0, 1.0, 1.0]))
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    size = np.exp(rng.uniform(-1, 1) * options.scaling) * np.exp(rng.uniform(-1, 1, 3) * options.scaling / 3)
    shear = np.eye(3) + np.triu(rng.uniform(-1, 1, (3, 3)) * options.shear, 1)
    return matrix @ shear @ np.diag(1 / size)


def _grid(canvas: Canvas, shift_mm: np.ndarray, device: torch.device) -> list[Tensor]:
    """Coordinates of the canvas in mm from its middle, one broadcastable tensor for each axis."""
    axes = []
    for axis, n in enumerate(canvas.shape):
        line = (torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2) * canvas.voxel_mm
        axes.append((line + float(shift_mm[axis])).reshape([-1 if axis == other else 1 for other in range(3)]))
    return axes


def _read(labels: Tensor, coordinates: list[Tensor], offset: np.ndarray) -> Tensor:
    """Nearest label at each coordinate; outside the map lies air."""
    index: Tensor | None = None
    inside: Tensor | None = None
    for axis, n in enumerate(labels.shape):
        voxel = (coordinates[axis] + float(offset[axis] + 0.5)).floor_().to(torch.int32)
        within = (voxel >= 0) & (voxel < n)
        inside = within if inside is None else inside & within
        voxel.clamp_(0, n - 1)
        index = voxel if index is None else index * n + voxel
    assert index is not None and inside is not None
    return labels.reshape(-1)[index.reshape(-1)].reshape(index.shape) * inside


def _paint(classes: Tensor, offsets: list[Tensor], means: Tensor, deviations: Tensor, draw: _Draw) -> Tensor:
    """Mean intensity over the displaced reads (partial volume) plus texture of each structure."""
    image = torch.stack([means[read.int()] for read in offsets]).mean(0)
    texture = 0.6 * draw.normal(tuple(image.shape)) + draw.smooth_field((8.0,), (1.0,), 1)[0]
    return (image + deviations[classes.int()] * texture).clamp_(min=0)


def _scanner(image: Tensor, draw: _Draw, options: SynthOptions) -> Tensor:
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
        image = _resize(image[None], shape)[0]
    image = image + rng.uniform(0, options.noise) * rng.random() * draw.normal(tuple(shape))
    if rng.random() < options.ghost:
        along = int(rng.integers(3))
        image = image + rng.uniform(0.02, 0.12) * image.roll(int(rng.integers(5, shape[along] // 2)), along)
    return _resize(image[None], list(draw.canvas.shape))[0] if thick else image


def blur(image: Float[Tensor, "i j k"], sigma_voxels: np.ndarray) -> Float[Tensor, "i j k"]:
    """Gaussian blur with its own width along each axis; widths under 0.2 voxels are left out."""
    for axis, sigma in enumerate(sigma_voxels):
        if sigma < 0.2:
            continue
        radius = int(np.ceil(3 * sigma))
        line = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
        kernel = torch.exp(-0.5 * (line / float(sigma)) ** 2)
        shape = [1, 1, 1, 1, 1]
        shape[2 + axis] = -1
        padding = [radius if axis == other else 0 for other in range(3)]
        image = F.conv3d(image[None, None], (kernel / kernel.sum()).reshape(shape), padding=padding)[0, 0]
    return image


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
