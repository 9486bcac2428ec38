"""Structures grow and shrink by themselves, and as in an ageing brain, where a recipe asks for it."""

import numpy as np
import pytest
import torch

from spanseg.deform import Canvas, Deformation, Draw
from spanseg.generation import load_classes, pack
from spanseg.growth import Growth
from spanseg.labels import load_protocol
from spanseg.synth import Generator, SynthOptions
from spanseg.volume import Volume

TABLE = load_classes(load_protocol("aseg"))
CANVAS = Canvas((64, 64, 64), 1.0)
MIDDLE = np.array([31.5, 31.5, 31.5])


def class_of(freesurfer: int) -> int:
    return int(np.flatnonzero(TABLE.ids == freesurfer)[0])


def labels_with(freesurfer: int, half: int = 12) -> torch.Tensor:
    """White matter with a box of a structure in its middle."""
    labels = torch.full((64, 64, 64), class_of(2), dtype=torch.uint8)
    labels[32 - half : 32 + half, 32 - half : 32 + half, 32 - half : 32 + half] = class_of(freesurfer)
    return labels


def grown(growth: Growth, labels: torch.Tensor, index: int, canvas: Canvas = CANVAS, turn: float = 0.0) -> torch.Tensor:
    draw = Draw(0, index, canvas, torch.device("cpu"))
    place = Deformation(draw, turn, 0.0, 0.0, 0.0, 0.0, flips=False).through(MIDDLE, np.ones(3))
    return growth.moved(place, labels, draw).nearest(labels)


@pytest.mark.parametrize("distance", [-2.0, 1.0, 2.0])
def test_a_flat_border_moves_by_the_distance(distance: float) -> None:
    """Through the middle of a face of the box, away from its edges, on canvases of two resolutions."""
    labels = labels_with(10)
    for canvas in (CANVAS, Canvas((32, 32, 32), 2.0), Canvas((128, 128, 128), 0.5)):
        growth = Growth(TABLE, 1.0, 0.0)
        distances = torch.zeros(len(TABLE.ids))
        distances[class_of(10)] = distance
        growth._distances = lambda draw, distances=distances: distances  # type: ignore[method-assign]
        after = grown(growth, labels, 0, canvas)
        n = canvas.shape[0] // 2
        for axis in range(3):
            line = after[tuple(slice(None) if axis == other else n for other in range(3))]
            length = int((line == class_of(10)).sum()) * canvas.voxel_mm
            assert length == pytest.approx(24 + 2 * distance, abs=max(1.0, canvas.voxel_mm))


def test_growth_follows_the_head_when_it_is_turned() -> None:
    labels, sizes = labels_with(10), []
    for index in range(6):
        growth = Growth(TABLE, 1.0, 0.0)
        distances = torch.zeros(len(TABLE.ids))
        distances[class_of(10)] = 2.0
        growth._distances = lambda draw, distances=distances: distances  # type: ignore[method-assign]
        sizes.append(int((grown(growth, labels, index, turn=40.0) == class_of(10)).sum()))
    assert min(sizes) > 1.3 * 24**3 and max(sizes) < 1.05 * min(sizes)


def test_structures_grow_and_shrink_from_draw_to_draw_alike_on_both_sides() -> None:
    growth = Growth(TABLE, 0.8, 0.0)
    drawn = torch.stack([growth._distances(Draw(0, index, CANVAS, torch.device("cpu"))) for index in range(300)])
    left, right = drawn[:, class_of(17)], drawn[:, class_of(53)]
    assert torch.equal(left, right)
    assert float(left.std()) == pytest.approx(0.8, rel=0.15) and abs(float(left.mean())) < 0.15
    assert not drawn[:, class_of(24)].any() and not drawn[:, 0].any()  # what is no brain has no growth of its own
    assert abs(float(torch.corrcoef(torch.stack([left, drawn[:, class_of(10)]]))[0, 1])) < 0.2


def test_atrophy_widens_ventricles_and_shrinks_hippocampi_together() -> None:
    growth = Growth(TABLE, 0.0, 3.0)
    drawn = torch.stack([growth._distances(Draw(0, index, CANVAS, torch.device("cpu"))) for index in range(200)])
    ventricle, hippocampus = drawn[:, class_of(4)], drawn[:, class_of(17)]
    assert 2.5 < float(ventricle.max()) <= 3.0 and -0.6 <= float(ventricle.min()) < -0.3
    torch.testing.assert_close(hippocampus, -0.3 * ventricle)
    oldest = drawn[ventricle.argmax()]
    growth._distances = lambda draw: oldest  # type: ignore[method-assign]
    wide, thin = (int((grown(growth, labels_with(one), 0) == class_of(one)).sum()) for one in (4, 17))
    assert wide > 1.3 * 24**3 and thin < 0.95 * 24**3


def test_a_canvas_inside_one_structure_is_not_stretched_at_its_faces() -> None:
    classes, distances = torch.full((20, 20, 20), class_of(10), dtype=torch.uint8), torch.full((len(TABLE.ids),), 2.0)
    assert Growth._field(classes, 2.0, distances).abs().max() < 1e-4


def test_without_growth_nothing_is_drawn_so_that_scans_stay_as_they_were() -> None:
    draw = Draw(0, 0, CANVAS, torch.device("cpu"))
    place = Deformation(draw, 0.0, 0.0, 0.0, 0.0, 0.0).through(MIDDLE, np.ones(3))
    before = draw.rng.bit_generator.state
    assert Growth(TABLE, 0.0, 0.0).moved(place, labels_with(10), draw) is place
    assert draw.rng.bit_generator.state == before


def test_nothing_tears_or_folds_where_two_structures_grow_against_each_other() -> None:
    """Along a line through the border each place of the map is passed once and in order."""
    growth = Growth(TABLE, 1.0, 0.0)
    distances = torch.zeros(len(TABLE.ids))
    distances[class_of(10)], distances[class_of(2)] = 2.0, -1.0
    growth._distances = lambda draw: distances  # type: ignore[method-assign]
    draw = Draw(0, 0, CANVAS, torch.device("cpu"))
    place = Deformation(draw, 0.0, 0.0, 0.0, 0.0, 0.0, flips=False).through(MIDDLE, np.ones(3))
    moved = growth.moved(place, labels_with(10), draw)
    for axis in range(3):
        assert (moved.coordinates[axis].diff(dim=axis) > 0).all()


def test_the_generator_moves_the_truth_with_the_image(tiny_labels: Volume) -> None:
    maps = [pack(tiny_labels, TABLE, "map")]
    only = {"t1": 1.0, "t2": 0.0, "flair": 0.0, "random": 0.0, "infant": 0.0, "strip": 0.0, "cut": 0.0}
    plain = dict.fromkeys(("noise", "bias", "gamma", "blur_mm", "ghost", "thick", "contrast_jitter"), 0.0)
    drawn = [
        Generator(maps, TABLE, Canvas((36, 44, 36), 5.0), SynthOptions(**only, **plain, growth_mm=most)).draw(0, 0)
        for most in (1e-9, 12.0)
    ]
    before, after = drawn
    both = (before.target > 0) & (after.target > 0)
    image = after.image[0][both]
    assert spread(image, after.target[both]) < 0.8 * spread(image, before.target[both])


def spread(image: torch.Tensor, target: torch.Tensor) -> float:
    """Mean variance of an image inside the structures of a truth; small where the two belong together."""
    inside = [image[target == one] for one in target.unique()]
    return float(sum(part.var(correction=0) * part.numel() for part in inside) / image.numel())
