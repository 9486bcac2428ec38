"""What can be wrong with a scan: each corruption takes voxels and gives worse ones, the same for the same generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from spanseg.volume import Volume

FOREGROUND = 0.15
"""Voxels above this share of the bright end of the histogram are head, below it air."""


@dataclass(frozen=True)
class Corruption:
    """One way to spoil a scan.

    Args:
        name: what it is and how strong.
        kind: family of corruptions it belongs to.
        spoil: voxels in canonical order, shape (i, j, k), and a random generator, to other voxels of that shape.
        scale: factor on the voxel size in the header.
        is_brain: whether what is left can be called a scan of a brain.
    """

    name: str
    kind: str
    spoil: Callable[[np.ndarray, np.random.Generator], np.ndarray]
    scale: float = 1.0
    is_brain: bool = True

    def __call__(self, scan: Volume, rng: np.random.Generator) -> Volume:
        """The spoilt scan, on a grid of the same shape."""
        spoilt = self.spoil(scan.data.astype(np.float32), rng).astype(np.float32)
        affine = scan.affine.copy()
        affine[:3] *= self.scale
        return Volume(spoilt, affine)


def motion(image: np.ndarray, rng: np.random.Generator, shift_voxels: float, moves: int) -> np.ndarray:
    """The head jumps between blocks of k-space lines along one axis; the middle of k-space keeps its place."""
    axis = int(rng.integers(3))
    length = image.shape[axis]
    lines = np.fft.fftfreq(length)
    starts = np.sort(rng.integers(0, length, moves))
    order = np.argsort(np.argsort(lines))
    block = np.searchsorted(starts, order, side="right")
    shifts = rng.normal(0, shift_voxels, (moves + 1, 3))
    moved = shifts[block]
    moved[np.abs(lines) < 0.04] = 0
    phase = np.zeros(image.shape, np.float32)
    for other in range(3):
        frequency = np.fft.fftfreq(image.shape[other]).astype(np.float32)
        along = np.expand_dims(frequency, [one for one in range(3) if one != other])
        phase += along * np.expand_dims(moved[:, other].astype(np.float32), [one for one in range(3) if one != axis])
    return np.abs(np.fft.ifftn(np.fft.fftn(image) * np.exp(-2j * np.pi * phase)))


def truncated(image: np.ndarray, rng: np.random.Generator, axis: int, share: float, low: bool) -> np.ndarray:
    """Nothing in part of the head, ``share`` of its extent along an axis from one end."""
    inside = np.flatnonzero(_head(image).any(axis=tuple(other for other in range(3) if other != axis)))
    first, last = int(inside[0]), int(inside[-1]) + 1
    cut = round((last - first) * share)
    gone = slice(0, first + cut) if low else slice(last - cut, image.shape[axis])
    kept = image.copy()
    kept[(slice(None),) * axis + (gone,)] = image.min()
    return kept


def inverted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Dark becomes bright inside the head, as on T2-weighted scans."""
    top = np.quantile(image, 0.999)
    return np.where(_head(image), np.clip(1.05 * top - image, 0, None), image)


def saturated(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Grey and white matter cut off at the same brightness."""
    return np.minimum(image, np.quantile(image[_head(image)], 0.25))


def folded(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness folded over in the middle: what is darkest and what is brightest look the same."""
    middle = np.quantile(image[_head(image)], 0.5)
    return np.abs(image - middle)


def noisy(image: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Rician noise, its standard deviation in shares of the bright end of the histogram."""
    deviation = share * np.quantile(image, 0.99)
    real, imaginary = rng.normal(0, deviation, (2, *image.shape))
    return np.hypot(image + real, imaginary)


def biased(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Brightness that changes across the head by e to the power of ``strength`` along a random direction."""
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    places = np.meshgrid(*(np.linspace(-1, 1, n) for n in image.shape), indexing="ij", sparse=True)
    slope = sum(part * place for part, place in zip(direction, places, strict=True))
    return image * np.exp(strength * slope)


def blurred(image: np.ndarray, rng: np.random.Generator, voxels: float) -> np.ndarray:
    """Out of focus."""
    from scipy import ndimage

    return np.asarray(ndimage.gaussian_filter(image, voxels))


def noise_only(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """No head at all."""
    return np.abs(rng.normal(0, 100, image.shape))


def ball(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A bottle of water: an evenly bright ball with some noise."""
    radius = rng.uniform(0.25, 0.42) * min(image.shape)
    places = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in image.shape), indexing="ij", sparse=True)
    inside = sum(place**2 for place in places) < radius**2
    return np.abs(100.0 * inside + rng.normal(0, 3, image.shape))


def ramp(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Brightness that grows from one side to the other."""
    axis = int(rng.integers(3))
    along = np.expand_dims(np.linspace(0, 100, image.shape[axis]), [other for other in range(3) if other != axis])
    return np.broadcast_to(along, image.shape) + rng.normal(0, 1, image.shape)


def label_image(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Segments of the scan's histogram with numbers that mean nothing, as when a label file is given by mistake."""
    edges = np.quantile(image[_head(image)], np.linspace(0.05, 0.95, 8))
    numbers = np.concatenate([[0], rng.permutation(np.arange(1, 60))[: len(edges)]])
    return numbers[np.searchsorted(edges, image)].astype(np.float32)


def shuffled(image: np.ndarray, rng: np.random.Generator, voxels: int = 24) -> np.ndarray:
    """Blocks of the scan in random order."""
    mixed = image.copy()
    corners = [
        (i, j, k)
        for i in range(0, image.shape[0] - voxels + 1, voxels)
        for j in range(0, image.shape[1] - voxels + 1, voxels)
        for k in range(0, image.shape[2] - voxels + 1, voxels)
    ]
    for to, source in zip(corners, rng.permutation(corners).tolist(), strict=True):
        there = tuple(slice(a, a + voxels) for a in to)
        mixed[there] = image[tuple(slice(a, a + voxels) for a in source)]
    return mixed


def unchanged(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same voxels; only the header is wrong."""
    return image


def _head(image: np.ndarray) -> np.ndarray:
    return image > FOREGROUND * np.quantile(image, 0.99)


CORRUPTIONS = (
    Corruption("motion 3", "motion", partial(motion, shift_voxels=3, moves=6)),
    Corruption("motion 1", "motion", partial(motion, shift_voxels=1, moves=6)),
    Corruption("motion 2", "motion", partial(motion, shift_voxels=2, moves=6)),
    Corruption("motion 12", "motion", partial(motion, shift_voxels=12, moves=24)),
    Corruption("upper half gone", "truncation", partial(truncated, axis=2, share=0.5, low=False)),
    Corruption("lower half gone", "truncation", partial(truncated, axis=2, share=0.55, low=True)),
    Corruption("front gone", "truncation", partial(truncated, axis=1, share=0.45, low=False)),
    Corruption("right half gone", "truncation", partial(truncated, axis=0, share=0.5, low=False)),
    Corruption("inverted", "contrast", inverted),
    Corruption("saturated", "contrast", saturated),
    Corruption("folded", "contrast", folded),
    Corruption("half the voxel size", "header", unchanged, scale=0.5),
    Corruption("1.5 times the voxel size", "header", unchanged, scale=1.5),
    Corruption("twice the voxel size", "header", unchanged, scale=2.0),
    Corruption("noise 0.15", "noise", partial(noisy, share=0.15)),
    Corruption("noise 0.35", "noise", partial(noisy, share=0.35)),
    Corruption("noise 0.7", "noise", partial(noisy, share=0.7)),
    Corruption("bias", "bias", partial(biased, strength=2.0)),
    Corruption("blur", "blur", partial(blurred, voxels=3.0)),
    Corruption("only noise", "no brain", noise_only, is_brain=False),
    Corruption("ball", "no brain", ball, is_brain=False),
    Corruption("ramp", "no brain", ramp, is_brain=False),
    Corruption("label image", "no brain", label_image, is_brain=False),
    Corruption("shuffled blocks", "no brain", shuffled, is_brain=False),
)
"""All corruptions, in the order in which people are spoilt with them."""
