"""Normalisation: one definition in numpy for use, one in torch for training, and they must agree."""

import numpy as np
import pytest
import torch

from spanseg import intensity, synth

SHAPES = [(16, 20, 18), (15, 21, 17)]


def head_like(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Noisy air with a bright block and a few very bright voxels."""
    rng = np.random.default_rng(seed)
    image = np.abs(rng.normal(0, 3, shape))
    image[4:12, 5:15, 4:14] += rng.normal(100, 20, (8, 10, 10))
    image[5, 5, 5] = 5000
    return image.astype(np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(5))
def test_training_and_use_share_one_definition(shape: tuple[int, int, int], seed: int) -> None:
    image = head_like(shape, seed)
    np.testing.assert_allclose(intensity.normalise(image), synth.normalise(torch.from_numpy(image)).numpy(), atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_constant_image_stays_finite_in_both(value: float) -> None:
    image = np.full((8, 8, 8), value, dtype=np.float32)
    np.testing.assert_array_equal(intensity.normalise(image), 0)
    np.testing.assert_array_equal(synth.normalise(torch.from_numpy(image)).numpy(), 0)


@pytest.mark.parametrize(("slope", "shift"), [(0.01, 0.0), (40.0, -300.0), (1e-9, 0.0), (1e24, 0.0)])
def test_scanner_units_do_not_matter(slope: float, shift: float) -> None:
    image = head_like(SHAPES[0], 0)
    np.testing.assert_allclose(intensity.normalise(image * slope + shift), intensity.normalise(image), atol=2e-4)


def test_air_is_dark_and_tissue_bright_and_outliers_are_cut() -> None:
    image = head_like(SHAPES[0], 0)
    scaled = intensity.normalise(image)
    assert scaled.dtype == np.float32
    assert scaled.min() == 0 and scaled.max() == 1.5
    assert np.median(scaled[:3]) < 0.05 < 0.6 < np.median(scaled[5:11, 6:14, 5:13]) < 1


def test_what_is_excluded_has_no_say() -> None:
    image = head_like(SHAPES[0], 0)
    lesion = np.zeros(image.shape, dtype=bool)
    lesion[6:10, 6:12, 6:12] = True
    brighter = np.where(lesion, image * 50, image)
    outside = ~lesion
    np.testing.assert_array_equal(
        intensity.normalise(brighter, lesion)[outside], intensity.normalise(image, lesion)[outside]
    )
    assert not np.allclose(intensity.normalise(brighter)[outside], intensity.normalise(image)[outside], atol=1e-2)


def head(fat: float, csf: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """A head of 2 mm voxels: a brain of 100 with a ventricle, and fat round it; with where the brain is."""
    places = np.stack(np.meshgrid(*[np.arange(48.0)] * 3, indexing="ij")) - 23.5
    radius = np.linalg.norm(places, axis=0)
    image = np.where(radius < 16, 100, np.where((radius > 18) & (radius < 22), fat, 0.0))
    image[radius < 4] = csf
    return image.astype(np.float32), radius < 16


@pytest.mark.parametrize(("fat", "csf"), [(90, 20), (130, 20), (400, 500)])
def test_an_image_is_left_alone_whose_brain_has_bright_tissue(fat: float, csf: float) -> None:
    image, brain = head(fat, csf)
    assert intensity.clipped(image, brain, 2.0) is image


@pytest.mark.parametrize("fat", [200, 300, 1000])
def test_a_brain_that_is_dim_beside_its_fat_gets_the_whole_range(fat: float) -> None:
    image, brain = head(fat)
    assert np.median(intensity.normalise(image)[brain]) <= 0.55
    seen = intensity.normalise(intensity.clipped(image, brain, 2.0))
    assert np.median(seen[brain]) == pytest.approx(1 / intensity.HEADROOM, abs=0.01)
    assert seen.max() == pytest.approx(1, abs=0.01) and image.max() == fat


def test_without_a_brain_nothing_is_clipped() -> None:
    image, _ = head(1000)
    assert intensity.clipped(image, np.zeros(image.shape, dtype=bool), 2.0) is image
    speck = np.zeros(image.shape, dtype=bool)
    speck[20, 20, 20] = True
    assert intensity.clipped(image, speck, 2.0) is image


def test_fat_that_was_taken_for_brain_does_not_hide_that_the_brain_is_dim() -> None:
    image, brain = head(300)
    leaked = brain | (image == 300)
    np.testing.assert_allclose(intensity.clipped(image, leaked, 2.0).max(), 100 * intensity.HEADROOM, rtol=0.01)


@pytest.mark.parametrize("voxel_mm", [2.0, np.array([0.75, 0.75, 3.0])])
def test_well_inside_is_six_millimetres_from_the_surface(voxel_mm: np.ndarray | float) -> None:
    brain = np.zeros((40, 40, 40), dtype=bool)
    brain[5:35, 5:35, 5:35] = True
    deep = np.argwhere(intensity.well_inside(brain, voxel_mm))
    away = (deep.min(0) - 5) * voxel_mm
    np.testing.assert_allclose(away, 6.0)
