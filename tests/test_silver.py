"""Silver labels: nothing at level 0, more wrong with the level, and the same each time."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from spanseg import generation, runs
from spanseg.errors import SpansegError
from spanseg.interfaces import Sample
from spanseg.labels import UNKNOWN, load_protocol
from spanseg.silver import Silver, degrade, smoothed
from spanseg.train import dice_per_class

ASEG = load_protocol("aseg")
CLASSES = len(ASEG)
TRUTH = torch.from_numpy(ASEG.crosswalk("synthseg").apply(tiny.label_map(), "map").astype(np.int64))
LEVELS = (0.0, 1.0, 2.0, 3.0)


class _Truth:
    """The tiny head's classes as image and as target."""

    def draw(self, seed: int, index: int) -> Sample:
        return Sample(TRUTH[None, None].float(), TRUTH[None], unlabelled=(3,), case="head")


def mean_dice(silver: Tensor) -> float:
    return float(dice_per_class(silver, TRUTH, CLASSES)[1:].nanmean())


def test_level_0_changes_nothing() -> None:
    assert torch.equal(Silver(_Truth(), 0, 4.0).draw(0, 0).target[0], TRUTH)


def test_only_the_target_changes() -> None:
    before, after = _Truth().draw(0, 0), Silver(_Truth(), 2, 4.0).draw(0, 0)
    assert torch.equal(before.image, after.image)
    assert (before.told, before.unlabelled, before.case) == (after.told, after.unlabelled, after.case)
    assert after.target.shape == before.target.shape and after.target.dtype == before.target.dtype
    assert not torch.equal(before.target, after.target)


def test_seed_and_index_decide_everything() -> None:
    source = Silver(_Truth(), 2, 2.0)
    first = source.draw(3, 7).target
    source.draw(0, 0)
    assert torch.equal(first, source.draw(3, 7).target)
    assert not torch.equal(first, source.draw(3, 8).target)
    assert not torch.equal(first, source.draw(4, 7).target)


@pytest.mark.parametrize("voxel_mm", [1.0, 2.0])
def test_labels_get_worse_with_the_level(voxel_mm: float) -> None:
    means = [np.mean([mean_dice(degrade(TRUTH, level, voxel_mm, (0, n))) for n in range(2)]) for level in LEVELS]
    assert means[0] == 1
    assert all(a > b + 0.01 for a, b in itertools.pairwise(means)), means
    assert means[-1] > 0.4, "still labels, not noise"


def test_borders_wander_a_voxel_or_so_and_the_inside_stays() -> None:
    """Far from every border nothing changes."""
    cube = torch.zeros(40, 40, 40, dtype=torch.int64)
    cube[8:32, 8:32, 8:32] = 1
    silver = degrade(cube, 1.0, 1.0, (0, 0))
    changed = torch.argwhere(silver != cube)
    assert len(changed) > 100
    outside = (changed - 19.5).abs().max(1).values - 12.0
    assert outside.abs().max() < 6
    assert outside.min() < 0 < outside.max(), "borders move in and out"


def test_small_pieces_are_missed_and_go_to_their_neighbour() -> None:
    """60 draws of a small and a large structure inside white matter."""
    truth = torch.ones(24, 24, 24, dtype=torch.int64)
    truth[2:8, 2:8, 2:8] = 2  # 216 mm³
    truth[10:22, 10:22, 10:22] = 3  # 1728 mm³
    missed = 0
    for n in range(60):
        silver = degrade(truth, 3.0, 1.0, (0, n))
        assert (silver == 3).sum() > 800
        assert set(silver.unique().tolist()) <= {1, 2, 3}, "nothing falls to background"
        missed += int(not (silver == 2).any())
    assert 8 <= missed <= 30  # 3 × 10 % expected


def test_unknown_voxels_stay_unknown() -> None:
    truth = TRUTH.clone()
    truth[20:24] = UNKNOWN
    assert (degrade(truth, 3.0, 2.0, (0, 0))[20:24] == UNKNOWN).all()


def test_smoothing_takes_the_majority() -> None:
    truth = torch.zeros(7, 7, 7, dtype=torch.int64)
    truth[3, 3, 3] = 5
    assert smoothed(truth).max() == 0
    halves = torch.zeros(6, 6, 6, dtype=torch.int64)
    halves[3:] = 2
    assert torch.equal(smoothed(halves), halves), "a flat border stays where it is"


@pytest.mark.parametrize("level", [-1, 3.5])
def test_levels_out_of_range_are_refused(level: float) -> None:
    with pytest.raises(SpansegError, match="from 0"):
        Silver(_Truth(), level, 1.0)


def test_a_recipe_asks_for_silver_labels(tmp_path: Path) -> None:
    """In training and in looking at the left-out maps; the scans themselves stay the same."""
    recipe = tiny.recipe()
    recipe["synth"] |= {"left_out": 1}
    tiny.write_map(tmp_path / "head.nii.gz")
    maps = generation.read_maps(tmp_path, generation.load_classes(ASEG)) * 2
    for gold, silver in zip(
        runs.sources(recipe, maps, "cpu"),
        runs.sources(recipe | {"synth": recipe["synth"] | {"silver": 2}}, maps, "cpu"),
        strict=True,
    ):
        assert gold is not None and silver is not None
        before, after = gold.draw(0, 0), silver.draw(0, 0)
        assert torch.equal(before.image, after.image)
        assert 0.3 < dice_per_class(after.target, before.target, CLASSES)[1:].nanmean() < 0.97
