"""What a prompt may change, and what it may not, with a real engine and with one that answers what a test wants."""

import nibabel as nib
import numpy as np
import pytest
import torch

import tiny
from spanseg import checkpoint, correcting, export, model
from spanseg import recipe as recipes
from spanseg.correcting import REACH_MM, Corrector, relabelled
from spanseg.errors import SpansegError
from spanseg.labels import load_protocol
from spanseg.prompts import Prompt
from spanseg.runtime import open_model
from spanseg.segmenter import SegmentOptions, load_model
from spanseg.volume import Volume, canonical

HIPPOCAMPUS, AMYGDALA, WHITE = 17, 18, 2
ASEG = load_protocol("aseg")
SHAPE = (40, 44, 36)
MM = 2.0


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """An untrained click network on a canvas of 32 voxels of 3 mm."""
    folder = tmp_path_factory.mktemp("click")
    recipe = recipes.load("click")
    recipe["canvas"] = {"shape": [32, 32, 32], "voxel_mm": 3.0}
    recipe["backbone"] = {"name": "res_unet", "widths": [8, 16], "head_channels": 8}
    torch.manual_seed(0)
    checkpoint.save(folder / "run", model.build(recipe).state_dict(), recipe)
    nib.save(nib.Nifti1Image(tiny.label_map().astype(np.float32), np.diag([4.0, 4, 4, 1])), folder / "scan.nii.gz")
    canvas = export.scan_canvas(folder / "scan.nii.gz", folder / "run")
    assert canvas.shape == (5, 32, 32, 32)
    export.export(folder / "run", folder / "model", export.Description("click", "1", "Apache-2.0", "nothing"), [canvas])
    return str(folder / "model")


def ball(radius_mm: float, centre: tuple[int, int, int], shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    axes = np.meshgrid(*((np.arange(n) - c) * MM for n, c in zip(shape, centre, strict=True)), indexing="ij")
    return sum(a**2 for a in axes) <= radius_mm**2


def volume(affine: np.ndarray | None = None) -> Volume:
    rng = np.random.default_rng(0)
    return Volume(rng.random(SHAPE).astype(np.float32), np.diag([MM, MM, MM, 1.0]) if affine is None else affine)


class Sees:
    """An engine that sees the structure where a test says, on the scan's own grid in canonical order."""

    def __init__(self, engine, where: np.ndarray) -> None:
        self.model, self.name, self.where = engine.model, engine.name, where.astype(np.float32) * 255

    def on(self, corrector: Corrector, monkeypatch) -> Corrector:
        placed = []
        original = correcting.Placement
        monkeypatch.setattr(correcting, "Placement", lambda *given: placed.append(original(*given)) or placed[-1])

        def answer(seen: np.ndarray) -> np.ndarray:
            assert seen.shape == (5, 32, 32, 32)
            found = np.zeros((len(ASEG), 32, 32, 32), dtype=np.uint8)
            found[ASEG.class_of(HIPPOCAMPUS)] = placed[-1].to_canvas(self.where, 0.0)
            found[0] = 255 - found[ASEG.class_of(HIPPOCAMPUS)]
            return found

        answer.model, answer.name = self.model, self.name
        corrector.engine = answer
        return corrector


@pytest.fixture
def corrector(network):
    return Corrector(volume(), ASEG, network, threads=1)


def point(*voxel: int, positive: bool = True) -> Prompt:
    return Prompt("point", positive, (voxel,))


def test_a_real_network_changes_nothing_beyond_its_reach_and_repeats(corrector):
    labels = np.full(SHAPE, WHITE, dtype=np.int32)
    before = labels.copy()
    after = corrector.correct(labels, HIPPOCAMPUS, [point(10, 20, 18)])
    np.testing.assert_array_equal(labels, before)
    changed = np.argwhere(after != before)
    assert len(changed) >= 1
    assert (np.sqrt((((changed - [10, 20, 18]) * MM) ** 2).sum(1)) <= REACH_MM).all()
    assert after[10, 20, 18] == HIPPOCAMPUS
    np.testing.assert_array_equal(after, corrector.correct(labels, HIPPOCAMPUS, [point(10, 20, 18)]))


def test_a_positive_click_adds_the_piece_that_holds_it_and_no_other(corrector, monkeypatch):
    here, there = ball(8, (12, 20, 18)), ball(6, (24, 20, 18))
    Sees(corrector.engine, here | there).on(corrector, monkeypatch)
    labels = np.full(SHAPE, WHITE, dtype=np.int32)
    labels[ball(6, (30, 30, 18))] = HIPPOCAMPUS  # not seen by the network: a positive click must leave it
    after = corrector.correct(labels, HIPPOCAMPUS, [point(12, 20, 18)])
    added = (after == HIPPOCAMPUS) & (labels != HIPPOCAMPUS)
    assert added.sum() == pytest.approx(here.sum(), rel=0.25)
    assert not (added & there).any()
    assert (after[labels == HIPPOCAMPUS] == HIPPOCAMPUS).all()
    assert set(np.unique(after)) == {WHITE, HIPPOCAMPUS}


def test_nothing_beyond_the_reach_changes_however_far_the_network_sees(corrector, monkeypatch):
    Sees(corrector.engine, np.ones(SHAPE, dtype=bool)).on(corrector, monkeypatch)
    after = corrector.correct(np.zeros(SHAPE, dtype=np.int32), HIPPOCAMPUS, [point(5, 22, 18)])
    far = np.sqrt((((np.argwhere(after > 0) - [5, 22, 18]) * MM) ** 2).sum(1))
    assert far.max() <= REACH_MM
    assert far.max() > REACH_MM - 2 * MM


@pytest.mark.parametrize(("radius_mm", "reach_mm"), [(3.0, 2.5), (7.0, 4.2), (14.0, 6.0)])
def test_a_label_is_mended_no_farther_than_its_size_allows(corrector, monkeypatch, radius_mm, reach_mm):
    Sees(corrector.engine, np.ones(SHAPE, dtype=bool)).on(corrector, monkeypatch)
    labels = np.zeros(SHAPE, dtype=np.int32)
    labels[ball(radius_mm, (12, 20, 18))] = HIPPOCAMPUS
    voxel = (12 + round((radius_mm + 1) / MM), 20, 18)
    added = np.argwhere(corrector.correct(labels, HIPPOCAMPUS, [point(*voxel)]) != labels)
    far = np.sqrt((((added - voxel) * MM) ** 2).sum(1))
    assert far.max() <= reach_mm + 0.2, "the volume of a ball of voxels is not quite that of a ball"
    assert far.max() > reach_mm - MM


def test_a_negative_click_removes_its_piece_and_the_neighbours_take_it(corrector, monkeypatch):
    true, leaked = ball(8, (12, 20, 18)), ball(5, (18, 20, 18))
    Sees(corrector.engine, true).on(corrector, monkeypatch)
    labels = np.full(SHAPE, WHITE, dtype=np.int32)
    labels[:, 26:] = AMYGDALA
    labels[true | leaked] = HIPPOCAMPUS
    after = corrector.correct(labels, HIPPOCAMPUS, [point(12, 20, 18), point(19, 20, 18, positive=False)])
    removed = (labels == HIPPOCAMPUS) & (after != HIPPOCAMPUS)
    assert removed[19, 20, 18]
    assert not removed[ball(4, (12, 20, 18))].any()
    assert removed.sum() > 0.5 * (leaked & ~true).sum()
    assert set(np.unique(after[removed])) <= {WHITE, AMYGDALA}
    assert (after[labels != HIPPOCAMPUS] == labels[labels != HIPPOCAMPUS]).all()


def test_the_clicked_voxel_follows_even_where_the_network_disagrees(corrector, monkeypatch):
    Sees(corrector.engine, np.zeros(SHAPE, dtype=bool)).on(corrector, monkeypatch)
    labels = np.full(SHAPE, WHITE, dtype=np.int32)
    added = corrector.correct(labels, HIPPOCAMPUS, [point(12, 20, 18)])
    assert np.argwhere(added != labels).tolist() == [[12, 20, 18]]
    Sees(corrector.engine, np.ones(SHAPE, dtype=bool)).on(corrector, monkeypatch)
    taken = corrector.correct(added, HIPPOCAMPUS, [point(12, 20, 18, positive=False)])
    np.testing.assert_array_equal(taken, labels)


def test_a_box_away_from_a_label_fills_its_inside_alone(corrector, monkeypatch):
    Sees(corrector.engine, ball(8, (12, 20, 18)) | ball(8, (20, 20, 18))).on(corrector, monkeypatch)
    labels = np.full(SHAPE, WHITE, dtype=np.int32)
    labels[ball(4, (30, 20, 18))] = HIPPOCAMPUS
    box = Prompt("box", True, ((16, 23, 21), (8, 16, 14)))
    after = corrector.correct(labels, HIPPOCAMPUS, [box])
    inside = np.zeros(SHAPE, dtype=bool)
    inside[8:17, 16:24, 14:22] = True
    assert (after[~inside] == labels[~inside]).all()
    assert after[12, 20, 18] == HIPPOCAMPUS


ROUND_THE_BALL = Prompt("box", True, ((16, 24, 22), (8, 16, 14)))


def test_a_box_in_which_the_network_sees_nothing_leaves_the_label(corrector, monkeypatch):
    Sees(corrector.engine, ball(4, (30, 20, 18))).on(corrector, monkeypatch)
    labels = np.full(SHAPE, WHITE, dtype=np.int32)
    labels[ball(4, (12, 20, 18))] = HIPPOCAMPUS
    np.testing.assert_array_equal(corrector.correct(labels, HIPPOCAMPUS, [ROUND_THE_BALL]), labels)


def test_a_box_round_a_label_removes_what_sticks_out_and_keeps_the_rest(corrector, monkeypatch):
    Sees(corrector.engine, ball(3, (12, 20, 18))).on(corrector, monkeypatch)
    labels = np.full(SHAPE, WHITE, dtype=np.int32)
    labels[ball(4, (12, 20, 18))] = HIPPOCAMPUS
    right = labels.copy()
    labels[17, 20, 18] = HIPPOCAMPUS
    np.testing.assert_array_equal(corrector.correct(labels, HIPPOCAMPUS, [ROUND_THE_BALL]), right)


def test_a_box_round_a_part_of_a_label_leaves_the_rest(corrector, monkeypatch):
    Sees(corrector.engine, ball(4, (12, 20, 18))).on(corrector, monkeypatch)
    labels = np.full(SHAPE, WHITE, dtype=np.int32)
    labels[ball(4, (12, 20, 18)) | ball(4, (21, 20, 18))] = HIPPOCAMPUS
    np.testing.assert_array_equal(corrector.correct(labels, HIPPOCAMPUS, [ROUND_THE_BALL]), labels)


def test_a_box_that_is_less_deep_than_the_structure_takes_nothing_from_it(corrector, monkeypatch):
    Sees(corrector.engine, ball(4, (12, 20, 18))).on(corrector, monkeypatch)
    labels = np.full(SHAPE, WHITE, dtype=np.int32)
    labels[ball(4, (12, 20, 18))] = HIPPOCAMPUS
    shallow = Prompt("box", True, ((16, 24, 20), (8, 16, 16)))
    np.testing.assert_array_equal(corrector.correct(labels, HIPPOCAMPUS, [shallow]), labels)


def test_a_scrap_of_a_label_in_a_box_gives_way_to_the_network(corrector, monkeypatch):
    Sees(corrector.engine, ball(4, (12, 20, 18))).on(corrector, monkeypatch)
    labels = np.full(SHAPE, WHITE, dtype=np.int32)
    labels[8:10, 16:18, 14:16] = HIPPOCAMPUS
    after = corrector.correct(labels, HIPPOCAMPUS, [ROUND_THE_BALL])
    assert after[12, 20, 18] == HIPPOCAMPUS and after[8, 16, 14] == WHITE


def test_a_network_that_was_trained_with_boxes_goes_before_a_label(corrector, monkeypatch):
    Sees(corrector.engine, ball(3, (12, 20, 18))).on(corrector, monkeypatch)
    monkeypatch.setattr(corrector, "knows_boxes", True)
    labels = np.full(SHAPE, WHITE, dtype=np.int32)
    labels[ball(4, (12, 20, 18))] = HIPPOCAMPUS
    after = corrector.correct(labels, HIPPOCAMPUS, [ROUND_THE_BALL])
    assert after[12, 20, 18] == HIPPOCAMPUS and after[8, 20, 18] == WHITE


def test_a_scribble_adds_every_piece_that_it_touches(corrector, monkeypatch):
    first, second, third = ball(5, (10, 20, 18)), ball(5, (20, 20, 18)), ball(5, (30, 20, 18))
    Sees(corrector.engine, first | second | third).on(corrector, monkeypatch)
    scribble = Prompt("scribble", True, ((10, 20, 18), (20, 20, 18)))
    after = corrector.correct(np.zeros(SHAPE, dtype=np.int32), HIPPOCAMPUS, [scribble])
    assert (after[ball(3, (10, 20, 18)) | ball(3, (20, 20, 18))] == HIPPOCAMPUS).all()
    assert not after[third].any()


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_voxels_are_those_of_the_file_in_any_orientation(network, monkeypatch, axes):
    affine = np.zeros((4, 4))
    for world, (axis, sign) in enumerate(zip(axes, (-1, 1, -1), strict=True)):
        affine[world, axis] = sign * MM
    affine[3, 3] = 1
    turned = Corrector(volume(affine), ASEG, network, threads=1)
    where = ball(6, (14, 20, 18))
    _, orientation = canonical(volume(affine))
    Sees(turned.engine, orientation.to_canonical(where)).on(turned, monkeypatch)
    after = turned.correct(np.zeros(SHAPE, dtype=np.int32), HIPPOCAMPUS, [point(14, 20, 18)])
    assert after[14, 20, 18] == HIPPOCAMPUS
    assert 2 * ((after > 0) & where).sum() / ((after > 0).sum() + where.sum()) > 0.8


def test_what_is_left_of_a_removed_structure_is_background_where_nothing_else_is():
    labels = np.full((8, 8, 8), HIPPOCAMPUS, dtype=np.int32)
    assert not relabelled(labels, np.zeros((8, 8, 8), dtype=bool), HIPPOCAMPUS).any()


def test_bad_requests_are_refused_in_one_sentence(corrector, network):
    labels = np.zeros(SHAPE, dtype=np.int32)
    for given, says in (
        ((labels, 9999, [point(1, 1, 1)]), "no structure with the id 9999"),
        ((labels[1:], HIPPOCAMPUS, [point(1, 1, 1)]), "use its own grid"),
        ((labels, HIPPOCAMPUS, [point(40, 1, 1)]), "outside the image"),
        ((labels, HIPPOCAMPUS, []), "needs a prompt"),
        ((labels, 0, [point(1, 1, 1)]), "other than the background"),
    ):
        with pytest.raises(SpansegError, match=says):
            corrector.correct(*given)
    with pytest.raises(SpansegError, match="answers clicks"):
        Corrector(volume(), ASEG, "default")
    with pytest.raises(SpansegError, match="of 'tissue'"):
        Corrector(volume(), load_protocol("tissue"), network)
    with pytest.raises(SpansegError, match="spanseg serve"):
        load_model(SegmentOptions(model=network))
    assert "spanseg click" in corrector.name


def test_the_shipped_click_network_is_small():
    assert open_model("click").table["model"]["parameters"] <= 2_000_000
