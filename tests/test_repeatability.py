"""The changes that ``benchmarks/repeatability.py`` makes to a scan: what they move, what they leave, what is judged."""

from types import ModuleType

import numpy as np
import pytest

import tiny
from spanseg.volume import Volume, canonical, voxel_to_world

AFFINE = np.array([[-1.0, 0, 0, 20.5], [0, 0, 1.0, -15], [0, -1.0, 0, 30], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return tiny.benchmark("repeatability")


@pytest.fixture(scope="module")
def blob() -> Volume:
    """A smooth ellipsoid off the middle, empty at the edges."""
    i, j, k = np.meshgrid(*(np.arange(n, dtype=float) for n in (40, 44, 36)), indexing="ij")
    squared = ((i - 18) / 7) ** 2 + ((j - 24) / 9) ** 2 + ((k - 17) / 6) ** 2
    return Volume((100 * np.exp(-(squared**2))).astype(np.float32), AFFINE)


def middle_mm(scan: Volume) -> np.ndarray:
    """Centre of mass in world coordinates."""
    voxels = np.stack(np.nonzero(scan.data > -1), axis=1)
    return voxel_to_world(scan.affine, np.average(voxels, axis=0, weights=scan.data.ravel()))


def content(scan: Volume) -> float:
    """Sum of intensity times volume."""
    return float(scan.data.sum(dtype=float)) * scan.voxel_volume_mm3


@pytest.mark.parametrize("voxels", [0.3, 0.5, 1.0])
def test_moved_moves_the_content_and_not_the_grid(benchmark, blob, voxels):
    after = benchmark.moved(blob, voxels)
    np.testing.assert_array_equal(after.affine, blob.affine)
    expected = middle_mm(blob) + AFFINE[:3, :3] @ np.full(3, voxels)
    np.testing.assert_allclose(middle_mm(after), expected, atol=0.01)
    if voxels == 1:
        np.testing.assert_allclose(after.data[1:, 1:, 1:], blob.data[:-1, :-1, :-1], atol=1e-3)


def test_turned_leaves_everything_where_it_was(benchmark, blob):
    after = benchmark.turned(blob, 5.0)
    np.testing.assert_allclose(middle_mm(after), middle_mm(blob), atol=0.01)
    assert content(after) == pytest.approx(content(blob), rel=1e-3)
    steps = np.linalg.inv(blob.affine[:3, :3]) @ after.affine[:3, :3]
    assert np.rad2deg(np.arccos((np.trace(steps) - 1) / 2)) == pytest.approx(5)
    assert all(new > old for new, old in zip(after.shape, blob.shape, strict=True)), "no corner is cut off"


def test_stored_otherwise_is_the_same_scan(benchmark, blob):
    after = benchmark.stored_otherwise(blob)
    assert after.shape != blob.shape
    old, new = canonical(blob)[0], canonical(after)[0]
    np.testing.assert_array_equal(new.data, old.data)
    np.testing.assert_allclose(new.affine, old.affine, atol=1e-12)


def test_coarser_keeps_place_and_content(benchmark, blob):
    after = benchmark.coarser(blob, 1.5)
    np.testing.assert_allclose(after.voxel_size_mm, 1.5)
    np.testing.assert_allclose(middle_mm(after), middle_mm(blob), atol=0.02)
    assert content(after) == pytest.approx(content(blob), rel=5e-3)


def test_noise_is_what_was_asked_for_and_the_same_each_time(benchmark):
    flat = Volume(np.full((40, 40, 40), 100, np.float32), np.eye(4))
    flat.data[:10] = 0  # stripped
    after = benchmark.noisy(flat, 5.0)
    assert after.data[10:].std() == pytest.approx(5, rel=0.03)
    assert not after.data[:10].any()
    np.testing.assert_array_equal(after.data, benchmark.noisy(flat, 5.0).data)


def changes(benchmark: ModuleType, moved: float, noise: float, stored: float, coarser: float) -> dict:
    """Left grows and right shrinks by the same percentage; the accumbens, which is not judged, nearly doubles."""
    named = {"moved": moved, "noise": noise, benchmark.STORED: stored, benchmark.COARSER: coarser}
    sides = {name: [value, -value] for name, value in named.items()}
    return {name: dict.fromkeys(benchmark.NUCLEI, sides[name]) | {"Accumbens": [90.0]} for name in named}


@pytest.mark.parametrize(
    ("percent", "words"),
    [
        ((3.5, 2.4, 0.0, 5.9), []),
        ((3.5, 2.6, 0.0, 5.9), ["moved, noise, turned"]),
        ((1.0, 1.0, 0.1, 6.1), ["stored in another order", "voxels 1.5 times as long"]),
        ((float("nan"), 1.0, 0.0, 1.0), ["moved, noise, turned"]),
    ],
)
def test_what_misses_its_bar_is_named(benchmark, percent, words):
    assert [reason.partition(":")[0] for reason in benchmark.missed(changes(benchmark, *percent))] == words
