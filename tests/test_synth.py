"""The generator: reproducible, left stays left, and nothing is labelled that is not in the image."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spanseg.errors import SpansegError
from spanseg.generation import PackedMap, load_classes, pack
from spanseg.labels import load_protocol
from spanseg.sources import synth_options
from spanseg.synth import Canvas, Draw, Generator, NearStructures, SynthOptions, blur, scanner
from spanseg.volume import Volume

ASEG = load_protocol("aseg")
TABLE = load_classes(ASEG)
CANVAS = Canvas((36, 44, 36), 5.0)
WHOLE = SynthOptions(strip=0.0, cut=0.0)


def generator(labels: Volume, options: SynthOptions = SynthOptions(), canvas: Canvas = CANVAS) -> Generator:  # noqa: B008
    return Generator([pack(labels, TABLE, "map")], TABLE, canvas, options)


def test_seed_and_index_decide_everything(tiny_labels: Volume) -> None:
    first, again = generator(tiny_labels), generator(tiny_labels)
    first.draw(3, 0)
    for index in (7, 8):
        for a, b in zip(first.draw(3, index)[:2], again.draw(3, index)[:2], strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize(("seed", "index"), [(3, 8), (4, 7)])
def test_another_seed_or_index_is_another_scan(tiny_labels: Volume, seed: int, index: int) -> None:
    source = generator(tiny_labels)
    for a, b in zip(source.draw(3, 7)[:2], source.draw(seed, index)[:2], strict=True):
        assert not torch.equal(a, b)


def test_shapes_and_range(tiny_labels: Volume) -> None:
    for index in range(6):
        image, target, *_ = generator(tiny_labels).draw(0, index)
        assert image.shape == (1, 1, *CANVAS.shape) and image.dtype == torch.float32
        assert target.shape == (1, *CANVAS.shape) and target.dtype == torch.int64
        assert image.isfinite().all() and image.min() >= 0 and image.max() <= 1.5


def test_targets_are_the_classes_of_the_map_and_no_others(tiny_labels: Volume) -> None:
    source = generator(tiny_labels, WHOLE)
    drawn = {int(value) for index in range(8) for value in source.draw(0, index)[1].unique()}
    expected = {ASEG.class_of(int(i)) for i in np.unique(tiny_labels.data) if i < 500}
    assert drawn == expected


def test_left_structures_lie_left_flipped_or_not(tiny_labels: Volume) -> None:
    """Without the exchange of ids half of the draws would fail here; without flips, the last line."""
    lopsided = tiny_labels.data.copy()
    lopsided[lopsided == 53] = 41  # no right hippocampus: it tells flipped draws from others
    source = generator(tiny_labels.with_data(lopsided), WHOLE)
    left, right = ASEG.class_of(17), ASEG.class_of(53)
    sides = []
    for index in range(10):
        target = source.draw(1, index)[1][0]
        for a, b in ((3, 42), (2, 41), (4, 43), (8, 47)):
            where = [torch.argwhere(target == ASEG.class_of(i))[:, 0].float().mean() for i in (a, b)]
            assert where[0] < where[1], f"draw {index}: id {a} lies right of id {b}"
        sides.append((bool((target == left).any()), bool((target == right).any())))
    assert set(sides) == {(True, False), (False, True)}


def middles(kind: type[Generator], labels: Volume) -> set[int]:
    """Classes in the middle of small canvases that are not moved."""
    options = replace(WHOLE, shift_mm=0.0, elastic_mm=0.0)
    source = kind([pack(labels, TABLE, "map")], TABLE, Canvas((9, 9, 9), 4.0), options)
    return {int(source.draw(0, index).target[0, 4, 4, 4]) for index in range(24)}


def test_neighbourhoods_are_centred_on_structures_and_whole_heads_on_the_brain(tiny_labels: Volume) -> None:
    assert len(middles(Generator, tiny_labels)) <= 2, "the middle of the brain, flipped or not"
    found = middles(NearStructures, tiny_labels)
    assert 0 not in found and len(found) > 8


def test_the_middle_of_the_brain_is_looked_up_and_not_drawn(tiny_labels: Volume) -> None:
    """Else all that is drawn after it would be another scan than the one that shipped networks were trained on."""
    source, draw = generator(tiny_labels), Draw(0, 0, CANVAS, torch.device("cpu"))
    before = draw.rng.bit_generator.state
    assert np.array_equal(source._centre(draw, 0), source.maps[0][1])
    assert draw.rng.bit_generator.state == before


def test_ghosts_fall_on_few_thick_slices_too() -> None:
    options = replace(WHOLE, thick=1.0, thickness_mm=12.0, ghost=1.0)
    for index in range(12):
        draw = Draw(0, index, Canvas((16, 16, 16), 1.0), torch.device("cpu"))
        assert scanner(torch.rand(16, 16, 16), draw, options).isfinite().all()


def test_stripped_scans_are_empty_outside_and_keep_the_brain(tiny_labels: Volume) -> None:
    still = SynthOptions(strip=1.0, sloppy=0.0, cut=0.0)
    whole, stripped = generator(tiny_labels, replace(still, strip=0.0)), generator(tiny_labels, still)
    brain_classes = {ASEG.class_of(int(i)) for i in np.unique(tiny_labels.data) if i < 500 and i != 24}
    for index in range(6):
        image, target, *_ = stripped.draw(2, index)
        before = whole.draw(2, index)[1]
        brain = torch.isin(before, torch.tensor(sorted(brain_classes)))
        assert torch.equal(target[brain], before[brain])
        removed = (before > 0) & (target == 0)
        outside = image[0][target == 0]
        assert outside.unique().numel() == 1, "outside a good mask there is one value, that of air"
        assert outside[0] < 0.1
        assert removed.float().mean() < 0.2


def test_a_cut_field_of_view_is_empty_in_image_and_target(tiny_labels: Volume) -> None:
    source = generator(tiny_labels, SynthOptions(strip=0.0, cut=1.0))
    whole = generator(tiny_labels, WHOLE)
    lost = 0
    for index in range(6):
        image, target, *_ = source.draw(5, index)
        gone = (whole.draw(5, index)[1] > 0) & (target == 0)
        lost += int(gone.sum())
        assert not gone.any() or image[0][gone].unique().numel() == 1
    assert lost > 0


def test_the_voxel_size_of_a_map_does_not_matter(tiny_labels: Volume) -> None:
    fine = tiny_labels.data.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    affine = tiny_labels.affine @ np.array([[0.5, 0, 0, -0.25], [0, 0.5, 0, -0.25], [0, 0, 0.5, -0.25], [0, 0, 0, 1]])
    for index in range(3):
        coarse_target = generator(tiny_labels, WHOLE).draw(0, index)[1]
        fine_target = generator(Volume(fine, affine), WHOLE).draw(0, index)[1]
        both = (coarse_target > 0) | (fine_target > 0)
        assert (coarse_target == fine_target)[both].float().mean() > 0.9


def test_contrast_follows_the_tissue_on_t1_like_scans(tiny_labels: Volume) -> None:
    plain = SynthOptions(t1=1, t2=0, flair=0, random=0, infant=0, strip=0, cut=0, bias=0, thick=0, ghost=0, blur_mm=0)
    for index in range(5):
        image, target, *_ = generator(tiny_labels, replace(plain, contrast_jitter=0.0)).draw(0, index)
        median = {i: float(image[0][target == ASEG.class_of(i)].median()) for i in (2, 3, 4)}
        assert median[4] < median[3] < median[2]


def test_both_sides_get_one_intensity(tiny_labels: Volume) -> None:
    plain = replace(WHOLE, random=1, t1=0, t2=0, flair=0, infant=0, bias=0, thick=0, ghost=0, noise=0, blur_mm=0)
    image, target, *_ = generator(tiny_labels, plain).draw(0, 0)
    for left, right in ((2, 41), (10, 49), (8, 47)):
        pair = [float(image[0][target == ASEG.class_of(i)].median()) for i in (left, right)]
        assert pair[0] == pytest.approx(pair[1], abs=0.05)


def test_blur_keeps_the_mean_and_the_centre() -> None:
    image = torch.zeros(21, 21, 21)
    image[10, 10, 10] = 1.0
    blurred = blur(image, np.array([1.5, 0.0, 0.8]))
    assert blurred.sum() == pytest.approx(1.0, abs=1e-5)
    assert blurred[:, 9].abs().sum() == 0, "a width of 0 leaves an axis alone"
    spread = (blurred.sum((1, 2)) * (torch.arange(21) - 10.0) ** 2).sum()
    assert float(spread) == pytest.approx(1.5**2, rel=0.05)
    assert torch.equal(blurred, blurred.flip(0))


def real_map(path: Path) -> list[PackedMap]:
    import nibabel

    image = nibabel.load(path)
    return [pack(Volume(np.asarray(image.dataobj).astype(np.int32), image.affine), TABLE, path.name)]


def test_a_real_label_map_gives_every_structure(shared_data: Path) -> None:
    path = min((shared_data / "labelmaps" / "synthseg").glob("*.nii.gz"))
    image, target, *_ = Generator(real_map(path), TABLE, Canvas((80, 112, 80), 2.0), WHOLE).draw(0, 0)
    assert {*target.unique().tolist()} == set(range(len(ASEG)))
    assert float(image[0][target == 0].median()) < float(image[0][target > 0].median())


def test_our_own_result_can_be_drawn_from(demo_labels: Path) -> None:
    image, target, *_ = Generator(real_map(demo_labels), TABLE, Canvas((80, 112, 80), 2.0), WHOLE).draw(0, 0)
    assert target.unique().numel() > 20
    assert image.isfinite().all()


CLEAN = replace(
    SynthOptions(t1=0, t2=0, flair=0, random=0, infant=0, strip=0, cut=0, bias=0, thick=0, ghost=0, blur_mm=0, noise=0),
    contrast_jitter=0.0,
    gamma=0.0,
)


def ratio(labels: Volume, options: SynthOptions) -> float:
    """How bright the deep voxels of cortex are beside those of white matter, mean of four draws."""
    source, found = generator(labels, options), []
    for index in range(4):
        sample = source.draw(5, index)
        image, classes = sample.image[0, 0].numpy(), sample.target[0].numpy()
        cortex, white = ([ASEG.class_of(one) for one in ids] for ids in ((3, 42), (2, 41)))
        found.append(np.median(image[np.isin(classes, cortex)]) / np.median(image[np.isin(classes, white)]))
    return float(np.mean(found))


def test_grey_comes_nearer_to_white_with_less_t1_contrast(tiny_labels: Volume) -> None:
    found = [ratio(tiny_labels, replace(CLEAN, t1=1, t1_contrast=(one, one))) for one in (1.3, 0.7, 0.1)]
    assert found[0] < found[1] < found[2] < 1.1


def test_grey_is_nearly_white_with_little_flair_contrast(tiny_labels: Volume) -> None:
    found = [ratio(tiny_labels, replace(CLEAN, flair=1, flair_contrast=(one, one))) for one in (0.85, 0.5, 0.2)]
    assert found[0] > found[1] > found[2] > 0.95


def test_csf_is_brighter_on_t2_and_nothing_else_is(tiny_labels: Volume) -> None:
    def fluid(csf: float) -> tuple[float, float]:
        """How bright CSF and cortex are beside white matter."""
        sample = generator(tiny_labels, replace(CLEAN, t2=1, t2_contrast=(0.5, 0.5), t2_csf=(csf, csf))).draw(5, 0)
        image, classes = sample.image[0, 0].numpy(), sample.target[0].numpy()
        white, cortex, ventricle = (
            np.median(image[np.isin(classes, [ASEG.class_of(one) for one in ids])])
            for ids in ((2, 41), (3, 42), (4, 43))
        )
        return float(ventricle / white), float(cortex / white)

    (dim, grey), (bright, same_grey) = fluid(1.0), fluid(2.0)
    assert bright > 1.6 * dim
    assert same_grey == pytest.approx(grey, rel=0.05)


@pytest.mark.parametrize("value", [5, "weak", [1.35, 0.7], [0.7], [0.7, 1.0, 2.0], [0.0, float("inf")]])
@pytest.mark.parametrize("key", ["t1_contrast", "t1_csf", "t2_contrast", "t2_csf", "flair_contrast", "infant_contrast"])
def test_a_range_that_is_none_is_refused(key: str, value: object) -> None:
    with pytest.raises(SpansegError, match=f"{key} is a lowest and a highest number"):
        synth_options({"synth": {key: value}})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("growth_mm", float("nan")), ("atrophy_mm", -3.0), ("surface", 5.0), ("fading", -1.0), ("noise", -1.0)),
        *(("lesions", float("nan")), ("t1", -1.0), ("strip", 2.0), ("rotation", float("inf"))),
        *(("left_out", "two"), ("left_out", -1), ("left_out", 1.9), ("silver", "x"), ("lifespan", "False")),
    ],
)
def test_numbers_that_cannot_be_are_refused(key: str, value: object) -> None:
    with pytest.raises(SpansegError, match=rf"\[synth\] .*{key}"):
        synth_options({"synth": {key: value}})


def test_a_generator_without_any_contrast_is_refused() -> None:
    with pytest.raises(SpansegError, match="needs one of t1, t2"):
        synth_options({"synth": dict.fromkeys(("t1", "t2", "flair", "random", "infant"), 0.0)})
