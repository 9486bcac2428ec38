"""Random deformations on a canvas: the state of one sample, smooth fields, and reading images through them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Canvas:
    """The fixed grid that a model is trained on and used on.

    Args:
        shape: voxels along right, anterior, superior.
        voxel_mm: edge length of a voxel in mm.
    """

    shape: tuple[int, int, int]
    voxel_mm: float


class Draw:
    """The random state of one sample and smooth random fields on the canvas.

    Args:
        seed, index: the same pair gives the same sample.
        canvas: grid of the sample.
        device: where the work is done.
    """

    def __init__(self, seed: int, index: int, canvas: Canvas, device: torch.device) -> None:
        self.rng = np.random.default_rng([seed, index])
        self.noise = torch.Generator(device=device).manual_seed(int(self.rng.integers(2**62)))
        self.canvas, self.device = canvas, device

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
            total += deviation * resize(self.normal((channels, *knots)), coarse_shape)
        return resize(total, list(self.canvas.shape))


class Deformation:
    """A random affine and smooth displacement of the canvas, with or without exchange of left and right.

    Args:
        draw: random state of the sample.
        rotation: largest rotation in degrees; pitch goes up to twice as far.
        scaling: largest logarithm of the size.
        shear: largest shear.
        shift_mm: largest shift of the centre along each axis.
        elastic_mm: standard deviation of the smooth displacement.
        flips: exchange left and right in half of the draws.
    """

    def __init__(
        self,
        draw: Draw,
        rotation: float,
        scaling: float,
        shear: float,
        shift_mm: float,
        elastic_mm: float,
        flips: bool = True,
    ) -> None:
        self.draw = draw
        self.matrix = _affine(draw.rng, rotation, scaling, shear)
        self.flip = bool(draw.rng.random() < 0.5) and flips  # drawn in any case, so that the rest stays the same
        if self.flip:
            self.matrix = self.matrix @ np.diag([-1.0, 1.0, 1.0])
        self.shift_mm = draw.rng.uniform(-1, 1, 3) * shift_mm
        self.displacement_mm = draw.smooth_field((40.0, 16.0), (elastic_mm, 0.4 * elastic_mm), 3)

    def through(self, centre: np.ndarray, voxel_mm: np.ndarray) -> "Place":
        """Where the canvas's voxels lie on an image in RAS+ order.

        Args:
            centre: voxel of the image that the canvas is centred on, shape (3,).
            voxel_mm: edge lengths of the image's voxels, shape (3,).
        """
        to_voxels = np.diag(1 / voxel_mm) @ self.matrix
        grid = _grid(self.draw.canvas, self.shift_mm, self.draw.device)
        coordinates = []
        for row in range(3):
            moved = self.displacement_mm[row] / float(voxel_mm[row])
            for axis in range(3):
                moved = moved + float(to_voxels[row, axis]) * grid[axis]
            coordinates.append(moved + float(centre[row]))
        return Place(coordinates, to_voxels * self.draw.canvas.voxel_mm)


@dataclass(frozen=True, eq=False)
class Place:
    """Fractional voxel indices of the canvas on an image.

    Args:
        coordinates: one tensor (i, j, k) for each axis of the image.
        step: matrix from canvas voxels to image voxels, shape (3, 3).
    """

    coordinates: list[Tensor]
    step: np.ndarray

    def coarser(self) -> "Place":
        """Every second voxel of the canvas along each axis."""
        return Place([c[::2, ::2, ::2] for c in self.coordinates], 2 * self.step)

    def displaced(self, voxels: Float[Tensor, "3 i j k"]) -> "Place":
        """The same place with each voxel of the canvas moved by a number of its voxels along each axis."""
        moved = [
            c + sum(float(self.step[row, axis]) * voxels[axis] for axis in range(3))
            for row, c in enumerate(self.coordinates)
        ]
        return Place(moved, self.step)

    def nearest(self, labels: Tensor, offset: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Tensor:
        """Nearest label at each canvas voxel, moved by ``offset`` canvas voxels; outside the image lies 0."""
        return _read(labels, self.coordinates, self.step @ np.array(offset))

    def linear(self, image: Tensor) -> Tensor:
        """Linearly interpolated intensity at each canvas voxel; outside the image lies 0."""
        scaled = [2 * c / (n - 1) - 1 for c, n in zip(self.coordinates, image.shape, strict=True)]
        grid = torch.stack(scaled[::-1], dim=-1)[None]
        return F.grid_sample(image[None, None], grid, mode="bilinear", align_corners=True)[0, 0]


def resize(field: Float[Tensor, "channel i j k"], shape: list[int]) -> Float[Tensor, "channel i2 j2 k2"]:
    """Resample a field linearly to another number of voxels, corners on corners."""
    return F.interpolate(field[None], size=shape, mode="trilinear", align_corners=True)[0]


def share_of(which: Bool[Tensor, " class"], reads: Sequence[Tensor]) -> Float[Tensor, "i j k"]:
    """Share of each voxel that some classes have, 0 to 1, by reads of the classes at displaced places of it."""
    return torch.stack([which[read.int()] for read in reads]).float().mean(0)


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


def _affine(rng: np.random.Generator, rotation: float, scaling: float, shear: float) -> np.ndarray:
    """Random rotation (pitch is widest), anisotropic scaling and shear."""
    angles = np.deg2rad(rng.uniform(-1, 1, 3) * rotation * np.array([2.0, 1.0, 1.0]))
    matrix = np.eye(3)
    for axis, angle in enumerate(angles):
        a, b = [other for other in range(3) if other != axis]
        turn = np.eye(3)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    size = np.exp(rng.uniform(-1, 1) * scaling) * np.exp(rng.uniform(-1, 1, 3) * scaling / 3)
    skew = np.eye(3) + np.triu(rng.uniform(-1, 1, (3, 3)) * shear, 1)
    return matrix @ skew @ np.diag(1 / size)


def _grid(canvas: Canvas, shift_mm: np.ndarray, device: torch.device) -> list[Tensor]:
    """Coordinates of the canvas in mm from its middle, one broadcastable tensor for each axis."""
    axes = []
    for axis, n in enumerate(canvas.shape):
        line = (torch.arange(n, device=device, dtype=torch.float32) - (n - 1) / 2) * canvas.voxel_mm
        axes.append((line + float(shift_mm[axis])).reshape([-1 if axis == other else 1 for other in range(3)]))
    return axes


def _read(labels: Tensor, coordinates: list[Tensor], offset: np.ndarray) -> Tensor:
    """Nearest label at each coordinate; outside the map lies 0."""
    index = torch.zeros((), dtype=torch.int32, device=labels.device)
    inside = torch.ones((), dtype=torch.bool, device=labels.device)
    for axis, n in enumerate(labels.shape):
        voxel = (coordinates[axis] + float(offset[axis] + 0.5)).floor_().to(torch.int32)
        inside = inside & (voxel >= 0) & (voxel < n)
        index = index * n + voxel.clamp_(0, n - 1)
    return labels.reshape(-1)[index.reshape(-1)].reshape(index.shape) * inside
