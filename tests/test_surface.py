"""Cortex fades towards its outer surface, where a recipe asks for it."""

import numpy as np
import pytest
import torch

from spanseg.deform import Canvas, Draw
from spanseg.generation import load_classes, pack
from spanseg.labels import load_protocol
from spanseg.surface import Surface
from spanseg.synth import Generator, SynthOptions
from spanseg.volume import Volume

TABLE = load_classes(load_protocol("aseg"))
WHITE, GREY, CSF, RIGHT = (int(np.flatnonzero(TABLE.ids == which)[0]) for which in (2, 3, 24, 42))


def moved(most: float, csf: float, index: int = 0, voxel_mm: float = 1.0, grey: int = GREY) -> torch.Tensor:
    """Change along 10 mm of CSF, 4 mm of cortex and 10 mm of white matter, in shares of the way to CSF."""
    sizes = [round(mm / voxel_mm) for mm in (10, 4, 10)]
    classes = torch.cat([torch.full((n, 16, 16), what) for n, what in zip(sizes, (CSF, grey, WHITE), strict=True)])
    classes = classes.to(torch.uint8)
    means = torch.zeros(len(TABLE.ids))
    means[WHITE], means[GREY], means[RIGHT], means[CSF] = 1.0, 0.6, 0.6, csf
    image = means[classes.int()]
    draw = Draw(0, index, Canvas((sum(sizes), 16, 16), voxel_mm), torch.device("cpu"))
    after = Surface(TABLE, most).paint(image, [classes], means, draw)
    change = ((after - image) / (csf - 0.6))[:, 8, 8]
    assert not change[: sizes[0]].any() and not change[-sizes[2] :].any()
    return change[sizes[0] : sizes[0] + sizes[1]]


@pytest.mark.parametrize("csf", [0.2, 1.2])
def test_cortex_nears_csf_at_its_surface_and_not_at_white_matter(csf: float) -> None:
    at_surface = []
    for index in range(20):
        change = moved(0.8, csf, index)
        assert (change.diff() <= 1e-6).all() and float(change[-1]) < 0.001 <= float(change[0])
        at_surface.append(float(change[0]))
    assert 0.15 < max(at_surface) < 0.4 and min(at_surface) < 0.06


def test_both_sides_are_alike() -> None:
    assert torch.equal(moved(0.8, 0.2), moved(0.8, 0.2, grey=RIGHT))


def test_the_depth_is_in_mm() -> None:
    fine, coarse = moved(1.0, 0.2, 3, 0.5), moved(1.0, 0.2, 3, 1.0)
    torch.testing.assert_close(fine.reshape(-1, 2).mean(1), coarse, rtol=0.1, atol=0.01)


def test_without_it_nothing_is_drawn_so_that_scans_stay_as_they_were() -> None:
    draw = Draw(0, 0, Canvas((8, 8, 8), 1.0), torch.device("cpu"))
    before, image = draw.rng.bit_generator.state, torch.ones(8, 8, 8)
    classes = torch.full((8, 8, 8), GREY, dtype=torch.uint8)
    assert Surface(TABLE, 0.0).paint(image, [classes], torch.ones(len(TABLE.ids)), draw) is image
    assert draw.rng.bit_generator.state == before


def test_the_generator_fades_cortex_and_leaves_the_truth(tiny_labels: Volume) -> None:
    maps = [pack(tiny_labels, TABLE, "map")]
    only = {"t1": 1.0, "t2": 0.0, "flair": 0.0, "random": 0.0, "infant": 0.0, "strip": 0.0, "cut": 0.0}
    drawn = [
        Generator(maps, TABLE, Canvas((36, 44, 36), 5.0), SynthOptions(**only, surface=most)).draw(0, 0)
        for most in (1e-9, 1.0)
    ]
    assert torch.equal(drawn[0].target, drawn[1].target)
    assert not torch.equal(drawn[0].image, drawn[1].image)
