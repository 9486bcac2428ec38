"""Lesions lie in cerebral white matter, differ as grey matter does, and leave recipes without them as they were."""

import numpy as np
import pytest
import torch

from spanseg.deform import Canvas, Draw
from spanseg.generation import load_classes, pack
from spanseg.labels import load_protocol
from spanseg.lesions import LOAD, Lesions
from spanseg.synth import Generator, SynthOptions
from spanseg.volume import Volume

ASEG = load_protocol("aseg")
TABLE = load_classes(ASEG)
CANVAS = Canvas((48, 48, 48), 2.0)
AIR, WHITE, GREY, VENTRICLE = (int(np.flatnonzero(TABLE.ids == which)[0]) for which in (0, 2, 3, 4))


def head() -> torch.Tensor:
    """A ventricle in a block of white matter in a shell of grey matter."""
    classes = torch.full(CANVAS.shape, GREY, dtype=torch.uint8)
    classes[4:44, 4:44, 4:44] = WHITE
    classes[20:28, 12:36, 20:28] = VENTRICLE
    return classes


def painted(share: float, grey: float, index: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Change of every voxel, and the classes."""
    classes = head()
    means = torch.zeros(len(TABLE.ids))
    means[WHITE], means[GREY] = 1.0, grey
    image = means[classes.int()]
    after = Lesions(TABLE, share).paint(image, classes, means, Draw(0, index, CANVAS, torch.device("cpu")))
    return after - image, classes


@pytest.mark.parametrize("grey", [0.6, 1.4])
def test_white_matter_alone_changes_and_lesions_go_the_way_of_grey_matter(grey: float) -> None:
    for index in range(6):
        change, classes = painted(1.0, grey, index)
        assert (change[classes != WHITE] == 0).all()
        strongest = change.flatten()[change.abs().argmax()]
        assert np.sign(float(strongest)) == np.sign(grey - 1)


def test_a_small_part_of_the_white_matter_is_lesion() -> None:
    loads = []
    for index in range(20):
        change, classes = painted(1.0, 1.4, index)
        loads.append(float((change[classes == WHITE] > 0.4).float().mean()))
    assert max(loads) <= LOAD[1] * 1.5 and max(loads) > 0.01 and min(loads) < 0.01


def test_lesions_gather_round_the_ventricles() -> None:
    near = torch.zeros(CANVAS.shape, dtype=torch.bool)
    near[16:32, 8:40, 16:32] = True
    inside = whole = 0
    for index in range(20):
        change, classes = painted(1.0, 1.4, index)
        lesion = change > 0.4
        inside, whole = inside + int((lesion & near).sum()), whole + int(lesion.sum())
    share_of_white = float((near & (classes == WHITE)).sum() / (classes == WHITE).sum())
    assert inside / whole > 2 * share_of_white


def test_a_share_of_the_scans_has_them() -> None:
    has = [bool(painted(0.5, 1.4, index)[0].any()) for index in range(40)]
    assert 10 < sum(has) < 30


def test_without_lesions_nothing_is_drawn_so_that_scans_stay_as_they_were() -> None:
    classes, means, draw = head(), torch.ones(len(TABLE.ids)), Draw(0, 0, CANVAS, torch.device("cpu"))
    before, noise = draw.rng.bit_generator.state, draw.noise.get_state()
    image = means[classes.int()]
    assert torch.equal(Lesions(TABLE, 0.0).paint(image, classes, means, draw), image)
    assert draw.rng.bit_generator.state == before and torch.equal(draw.noise.get_state(), noise)


def test_a_head_without_cerebral_white_matter_stays_as_it_is() -> None:
    classes, means = torch.full(CANVAS.shape, GREY, dtype=torch.uint8), torch.ones(len(TABLE.ids))
    image = means[classes.int()]
    after = Lesions(TABLE, 1.0).paint(image, classes, means, Draw(0, 0, CANVAS, torch.device("cpu")))
    assert torch.equal(after, image)


def test_the_generator_paints_into_the_image_and_not_into_the_truth(
    tiny_labels: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = [pack(tiny_labels, TABLE, "map")]
    source = Generator(maps, TABLE, Canvas((36, 44, 36), 5.0), SynthOptions(strip=0.0, cut=0.0))
    _, truth, *_ = source.draw(0, 0)
    monkeypatch.setattr(Lesions, "paint", lambda self, image, classes, *_: image + 9 * self.white[classes.int()])
    image, target, *_ = source.draw(0, 0)
    white = torch.isin(target, torch.tensor([ASEG.class_of(2), ASEG.class_of(41)]))[0]
    assert torch.equal(target, truth) and image[0, 0][white].mean() > 2 * image[0, 0][~white].mean()
