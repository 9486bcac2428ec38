"""Contrast between white matter and cortex fades from the frontal to the occipital pole, where a recipe asks for it."""

import numpy as np
import pytest
import torch

from spanseg.deform import Canvas, Draw
from spanseg.fading import ON_T1, Fading
from spanseg.generation import load_classes, pack
from spanseg.labels import load_protocol
from spanseg.synth import Generator, SynthOptions
from spanseg.volume import Volume

ASEG = load_protocol("aseg")
TABLE = load_classes(ASEG)
CANVAS = Canvas((32, 48, 32), 2.0)
WHITE, GREY, RIGHT = (int(np.flatnonzero(TABLE.ids == which)[0]) for which in (2, 3, 41))


def change(
    most: float, grey: float, index: int = 0, white: bool = True, which: int = WHITE
) -> tuple[torch.Tensor, torch.Tensor]:
    """Change of every voxel of a block of white matter in a shell of grey matter, and the classes."""
    classes = torch.full(CANVAS.shape, GREY, dtype=torch.uint8)
    if white:
        classes[4:28, 10:40, 4:28] = which
    means = torch.zeros(len(TABLE.ids))
    means[WHITE], means[RIGHT], means[GREY] = 1.0, 1.0, grey
    image = means[classes.int()]
    after = Fading(TABLE, most).paint(image, [classes], means, Draw(0, index, CANVAS, torch.device("cpu")))
    return after - image, classes


@pytest.mark.parametrize(("grey", "share"), [(1.4, 1.0), (0.6, ON_T1)])
def test_white_matter_nears_cortex_towards_the_back(grey: float, share: float) -> None:
    lost = []
    for index in range(20):
        moved, classes = change(0.8, grey, index)
        assert (moved[classes != WHITE] == 0).all()
        along = moved[16, 10:40, 16] / (grey - 1)
        assert along[-1] == pytest.approx(0, abs=1e-6)  # the frontal pole
        assert (along.diff() < 1e-6).all()
        lost.append(float(along[0]))
    assert 0.6 * share < max(lost) <= 0.8 * share and min(lost) < 0.3 * share


def test_both_sides_are_alike() -> None:
    left, right = change(0.8, 1.4)[0], change(0.8, 1.4, which=RIGHT)[0]
    assert left.any() and torch.equal(left, right)


def test_a_border_between_voxels_fades_without_a_rim() -> None:
    shape = torch.full(CANVAS.shape, GREY, dtype=torch.uint8)
    reads = [shape.clone() for _ in range(4)]
    for places, read in enumerate(reads):
        read[: 14 + places, 10:40] = WHITE  # 14 planes are white in all reads, the next three in 75, 50 and 25 %
    means = torch.zeros(len(TABLE.ids))
    means[WHITE], means[GREY] = 1.0, 1.4
    image = torch.stack([means[read.int()] for read in reads]).mean(0)
    for index in range(10):
        after = Fading(TABLE, 0.9).paint(image, reads, means, Draw(0, index, CANVAS, torch.device("cpu")))
        assert (after[:, 10:40].diff(dim=0) >= -1e-6).all()  # from white to grey it never falls


def test_without_fading_nothing_is_drawn_so_that_scans_stay_as_they_were() -> None:
    classes, means = torch.full(CANVAS.shape, WHITE, dtype=torch.uint8), torch.ones(len(TABLE.ids))
    draw = Draw(0, 0, CANVAS, torch.device("cpu"))
    before = draw.rng.bit_generator.state
    image = means[classes.int()]
    assert torch.equal(Fading(TABLE, 0.0).paint(image, [classes], means, draw), image)
    assert draw.rng.bit_generator.state == before


def test_a_head_without_cerebral_white_matter_stays_as_it_is() -> None:
    assert not change(0.8, 1.4, white=False)[0].any()


def test_the_generator_fades_the_image_and_leaves_the_truth(tiny_labels: Volume) -> None:
    maps = [pack(tiny_labels, TABLE, "map")]
    how = {"strip": 0.0, "cut": 0.0, "bias": 0.0, "noise": 0.0, "rotation": 0.0, "ghost": 0.0, "thick": 0.0, "t1": 0.0}
    how |= {"t2": 0.0, "random": 0.0, "infant": 0.0, "flair": 1.0}
    drawn = [
        Generator(maps, TABLE, Canvas((36, 44, 36), 5.0), SynthOptions(**how, fading=fading)) for fading in (1e-9, 1.0)
    ]
    plain, faded = (source.draw(0, 0) for source in drawn)
    white = torch.isin(plain.target[0], torch.tensor([ASEG.class_of(2), ASEG.class_of(41)]))
    assert torch.equal(plain.target, faded.target)
    planes = torch.nonzero(white.any(2).any(0))[:, 0]
    moved, third = (faded.image - plain.image)[0, 0], len(planes) // 3
    back, front = (moved[:, where][white[:, where]].mean() for where in (planes[:third], planes[-third:]))
    assert back > front + 0.02
