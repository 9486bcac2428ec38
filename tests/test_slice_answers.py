"""Slices that are prompted by what was found, or by a user and carried on: taken only where it promises more."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spanseg import checkpoint, files, model
from spanseg.clicks import Click
from spanseg.correcting import REACH_MM
from spanseg.correcting_sam import SamCorrector
from spanseg.errors import SpansegError
from spanseg.labels import load_protocol
from spanseg.prompts import Prompt
from spanseg.slice_answers import SeenCanvas, fuse, labelled, prompts_of
from spanseg.slice_prompts import SlicePrompts
from spanseg.volume import Volume

pytest.importorskip("transformers")
SHAPE = (16, 12, 20)


def canvas() -> np.ndarray:
    """Class 1 in slices 2 to 8, class 2 in slices 3 to 9 of the coronal plane; the values are the classes."""
    values = np.zeros(SHAPE, dtype=np.float32)
    values[3:7, 2:9, 4:12] = 1
    values[9:14, 3:10, 6:15] = 2
    return values


class Seeing(nn.Module):
    """Reads classes off its image: all of them when prompted, without rows below ``blind`` when not.

    ``promises`` are the overlaps that it expects without a prompt, with a box and with points.
    """

    planes = ("coronal",)

    def __init__(self, blind: int = 0, classes: int = 4, **promises: float) -> None:
        super().__init__()
        self.weight, self.blind, self.classes = nn.Parameter(torch.zeros(1)), blind, classes
        self.promises = {"none": 0.5, "box": 0.9, "points": 0.9} | promises
        self.seen: list[int] = []

    def embed(self, image: Tensor, plane: str, which: Tensor) -> Tensor:
        self.seen += which[0].tolist()
        return image[0, 0].movedim(1, 0)[which[0]]

    def ask(self, features: Tensor, prompts: SlicePrompts | None = None, plane: str = "") -> tuple[Tensor, Tensor]:
        kind = "none" if prompts is None else "box" if prompts.boxes is not None else "points"
        tokens = torch.stack([features == c for c in range(self.classes)], 1).float() * 40 - 20
        if kind == "none":
            tokens[:, 1:, : self.blind], tokens[:, 0, : self.blind] = -20, 20
        return tokens[:, None], torch.full((len(features), 1, self.classes), self.promises[kind])

    def on_slices(self, masks: Tensor, plane: str) -> Tensor:
        return masks

    from_slices = on_slices


def found(network: Seeing, policy: str) -> tuple[np.ndarray, dict[int, str]]:
    probabilities, used = labelled(SeenCanvas(network, canvas()), policy)
    assert probabilities.shape == (4, *SHAPE)
    assert np.abs(probabilities.sum(0, dtype=int) - 255).max() <= 2, "labels share their voxels"
    return probabilities.argmax(0), used


def blind_below(rows: int) -> np.ndarray:
    values = canvas()
    values[:rows] = 0
    return values


def test_without_a_policy_nobody_is_asked_twice() -> None:
    network = Seeing(blind=5)
    classes, used = found(network, "none")
    np.testing.assert_array_equal(classes, blind_below(5))
    assert used == {1: "none", 2: "none", 3: "none"}
    assert sorted(network.seen) == list(range(12)), "each slice is looked at once"


@pytest.mark.parametrize(("policy", "expected"), [("box", "box"), ("point", "point"), ("adaptive", "box")])
def test_what_was_found_prompts_for_the_rest(policy: str, expected: str) -> None:
    network = Seeing(blind=5)
    classes, used = found(network, policy)
    np.testing.assert_array_equal(classes, canvas())
    assert used == {1: expected, 2: expected, 3: "none"}, "of class 3 nothing was found"
    assert sorted(network.seen) == list(range(12))


@pytest.mark.parametrize(("promises", "expected"), [({"box": 0.2}, "point"), ({"box": 0.2, "points": 0.2}, "none")])
def test_an_answer_that_promises_less_is_not_taken(promises: dict[str, float], expected: str) -> None:
    classes, used = found(Seeing(blind=5, **promises), "adaptive")
    assert used == {1: expected, 2: expected, 3: "none"}
    np.testing.assert_array_equal(classes, blind_below(5) if expected == "none" else canvas())


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(SpansegError, match="none, box, point, adaptive, not 'atlas'"):
        labelled(SeenCanvas(Seeing(), canvas()), "atlas")


def test_fused_classes_share_what_is_left() -> None:
    probabilities = np.array([0.5, 0.3, 0.2]).reshape(3, 1, 1, 1)
    fuse(probabilities, 1, {0: np.full((1, 1), 0.8)})
    np.testing.assert_allclose(probabilities.ravel(), [0.2 * 5 / 7, 0.8, 0.2 * 2 / 7])


def test_a_no_where_a_class_was_certain_leaves_the_voxel_to_the_others() -> None:
    probabilities = np.array([0.0, 1.0, 0.0]).reshape(3, 1, 1, 1)
    fuse(probabilities, 1, {0: np.full((1, 1), 0.01)})
    np.testing.assert_allclose(probabilities.ravel(), [0.495, 0.01, 0.495])


def test_a_prompt_is_carried_as_far_as_the_structure_goes() -> None:
    seen = SeenCanvas(Seeing(), canvas())
    reached = seen.carried(1, {5: prompts_of([Click((4, 6), True)])})
    assert sorted(reached) == list(range(2, 9))
    for number, probability in reached.items():
        np.testing.assert_array_equal(probability > 0.5, canvas()[:, number] == 1)
    assert sorted(seen.carried(2, {4: prompts_of([Click((10, 8), True)]), 7: prompts_of([])})) == list(range(3, 10))


def test_it_is_carried_no_farther_than_it_is_trusted() -> None:
    seen = SeenCanvas(Seeing(box=0.4), canvas())
    assert sorted(seen.carried(1, {5: prompts_of([Click((4, 6), True)])})) == [5]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny network, as it began."""
    recipe: dict[str, Any] = {
        "recipe": {"protocol": "subcortical", "title": "tiny"},
        "canvas": {"shape": [16, 16, 16], "voxel_mm": 4.0},
        "backbone": {"name": "sam", "size": "tiny", "side": 32},
        "adapt": {"name": "full"},
    }
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    checkpoint.save(folder, dict(model.build(recipe).named_parameters()), recipe)
    return folder


def scan() -> Volume:
    """A bright block in a grey head, in voxels of 2 mm; the first axis of the file runs from right to left."""
    values = np.zeros((40, 44, 36), dtype=np.float32)
    values[6:34, 6:38, 6:30] = 50
    values[14:20, 16:26, 12:22] = 100
    return Volume(values, np.diag([-2.0, 2.0, 2.0, 1.0]))


HIPPOCAMPUS, PALLIDUM = 17, 13


class Bright(Seeing):
    """Sees whatever is bright as the class that it is asked about."""

    def ask(self, features: Tensor, prompts: SlicePrompts | None = None, plane: str = "") -> tuple[Tensor, Tensor]:
        tokens = ((features > 0.75).float() * 40 - 20)[:, None, None].expand(-1, 1, 13, -1, -1)
        return tokens, torch.ones(len(features), 1, 13)


def corrector(run: Path) -> SamCorrector:
    made = SamCorrector.of_run(scan(), load_protocol("aseg"), run)
    made._network = Bright(classes=13)
    return made


def test_a_click_on_an_empty_label_finds_the_whole_structure(run: Path) -> None:
    labels = np.zeros(scan().shape, dtype=np.int32)
    after = corrector(run).correct(labels, HIPPOCAMPUS, [Prompt("point", True, ((16, 20, 16),))])
    block = scan().data == 100
    assert set(np.unique(after)) == {0, HIPPOCAMPUS} and not labels.any()
    both = (after == HIPPOCAMPUS) & block
    assert 2 * both.sum() / ((after == HIPPOCAMPUS).sum() + block.sum()) > 0.8  # its canvas has voxels of 4 mm
    np.testing.assert_array_equal(after[30:], 0)


def test_a_negative_point_and_a_box_change_what_they_may(run: Path) -> None:
    labels = np.where(scan().data == 100, HIPPOCAMPUS, 0).astype(np.int32)
    labels[22:28, 16:26, 12:22] = HIPPOCAMPUS  # too much, where it is grey
    labels[30, 30, 25] = PALLIDUM
    made = corrector(run)
    without = made.correct(labels, HIPPOCAMPUS, [Prompt("point", False, ((25, 20, 16),))])
    assert without[25, 20, 16] == 0 and without[16, 20, 16] == HIPPOCAMPUS
    changed = np.argwhere(without != labels)
    assert (np.linalg.norm((changed - [25, 20, 16]) * 2.0, axis=1) <= REACH_MM).all()
    boxed = made.correct(labels, HIPPOCAMPUS, [Prompt("box", True, ((14, 10, 10), (29, 30, 24)))])
    assert not (boxed[23:27, 17:25, 13:21] == HIPPOCAMPUS).any() and (boxed[30, 30, 25] == PALLIDUM)
    np.testing.assert_array_equal(boxed[:14], labels[:14])
    everywhere = made.correct(labels, HIPPOCAMPUS, [Prompt("box", True, ((0, 0, 0), (39, 43, 35)))])
    assert (everywhere == HIPPOCAMPUS).any(), "a box may be larger than the canvas"


def test_the_real_network_answers_within_the_bounds(run: Path) -> None:
    labels = np.where(scan().data == 100, HIPPOCAMPUS, 0).astype(np.int32)
    made = SamCorrector.of_run(scan(), load_protocol("aseg"), run)
    prompts = [Prompt("scribble", True, tuple((k, 20, 16) for k in range(15, 26)))]
    after = made.correct(labels, HIPPOCAMPUS, prompts)
    assert (after != labels).any() and set(np.unique(after[after != labels])) <= {0, HIPPOCAMPUS}
    np.testing.assert_array_equal(
        after, SamCorrector.of_run(scan(), load_protocol("aseg"), run).correct(labels, 17, prompts)
    )
    digest = files.file_sha256(run / checkpoint.DELTA)[:12]
    assert made.name == f"tiny ({digest}), PyTorch"


def test_what_it_cannot_answer_is_said_in_one_sentence(run: Path, tmp_path: Path) -> None:
    labels = np.zeros(scan().shape, dtype=np.int32)
    labels[16, 20, 16] = HIPPOCAMPUS
    made = corrector(run)
    with pytest.raises(SpansegError, match=r"knows Left-Thalamus, .*with --model click"):
        made.correct(labels, 2, [Prompt("point", True, ((16, 20, 16),))])
    with pytest.raises(SpansegError, match="outside the image"):
        made.correct(labels, HIPPOCAMPUS, [Prompt("point", True, ((99, 20, 16),))])
    with pytest.raises(SpansegError, match="looks at 64 × 64 × 64 mm"):
        made.correct(labels, HIPPOCAMPUS, [Prompt("point", True, ((39, 43, 35),))])
    other = {
        "canvas": {"shape": [16, 16, 16], "voxel_mm": 4.0},
        "backbone": {"name": "unet", "widths": [4, 8]},
    }
    checkpoint.save(tmp_path, dict(model.build(other).named_parameters()), other)
    with pytest.raises(SpansegError, match="backbone sam"):
        SamCorrector.of_run(scan(), load_protocol("aseg"), tmp_path)
