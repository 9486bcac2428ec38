"""The promptable network's objective: asked in every way, at the voxels of the scan, about what the truth labels."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import tiny
from spanseg import parts
from spanseg.clicks import Click
from spanseg.deform import Canvas
from spanseg.errors import SpansegError
from spanseg.generation import load_classes, pack
from spanseg.interfaces import Batch
from spanseg.labels import UNKNOWN, load_protocol
from spanseg.objectives.prompted import Prompted
from spanseg.slice_prompts import NO_POINT, SlicePrompts, around, simulated_box, simulated_point
from spanseg.synth import Generator, SynthOptions
from spanseg.volume import Volume

KINDS = {"none": (1, 0, 0, 0), "box": (0, 1, 0, 0), "points": (0, 0, 1, 0), "both": (0, 0, 0, 1)}
SHAPE = (16, 12, 20)


def truth() -> Tensor:
    """Two structures side by side, and slices without any; (1, i, j, k)."""
    target = torch.zeros(1, *SHAPE, dtype=torch.long)
    target[0, 3:7, 2:9, 4:12] = 1
    target[0, 9:14, 3:10, 6:15] = 2
    return target


class Knowing(nn.Module):
    """Sees the truth as its image; token c answers where class c lies, if ``wrong`` does not say otherwise."""

    planes = ("coronal",)

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.classes, self.asked, self.wrong = classes, [], {}

    def embed(self, image: Tensor, plane: str, which: Tensor) -> Tensor:
        return torch.stack([image[b, 0, :, int(j)] for b, row in enumerate(which) for j in row])

    def ask(self, features: Tensor, prompts: SlicePrompts | None = None, plane: str = "") -> tuple[Tensor, Tensor]:
        self.asked.append(prompts)
        given = None if prompts is None else next(p for p in (prompts.boxes, prompts.points) if p is not None)
        structures = 1 if given is None else given.shape[1]
        tokens = torch.stack([features == self.wrong.get(c, c) for c in range(self.classes)], 1).float() * 40 - 20
        masks = tokens[:, None].expand(-1, structures, -1, -1, -1)
        return masks, torch.ones(masks.shape[:3])

    def on_slices(self, masks: Tensor, plane: str) -> Tensor:
        return masks


@pytest.mark.parametrize("kind", KINDS)
def test_who_knows_the_truth_loses_nothing(kind: str) -> None:
    batch = Batch(truth()[:, None].float(), truth(), 0)
    losses = Prompted(mix=KINDS[kind])(Knowing(), batch)
    assert set(losses) == {"dice", "cross_entropy", "overlap"}
    assert all(float(value) < 1e-3 for value in losses.values()), losses


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_voxels_do_not_matter(kind: str) -> None:
    target = truth()
    target[0, :, :, :3] = UNKNOWN  # where the network sees nothing
    target[0, 4:6, :, 5:9] = UNKNOWN  # and where it sees a structure
    losses = Prompted(mix=KINDS[kind])(Knowing(), Batch(truth()[:, None].float(), target, 0))
    assert all(float(value) < 1e-3 for value in losses.values()), losses


def test_the_token_of_the_structure_answers() -> None:
    network = Knowing()
    network.wrong = {1: 2, 2: 1}
    losses = Prompted(mix=KINDS["points"], rounds=0)(network, Batch(truth()[:, None].float(), truth(), 0))
    assert float(losses["dice"]) > 0.9 and float(losses["overlap"]) > 0.9, "an overlap of 0 that is guessed as 1"


def test_a_correction_points_at_the_error_and_brings_the_answer_along() -> None:
    image = truth().float()
    image[0, 3:5] = 0  # half of structure 1 is not seen
    network, index = Knowing(), 0
    while len(network.asked) < 3:  # a batch in which at least two corrections are made
        network.asked, index = [], index + 1
        Prompted(slices=2, mix=KINDS["box"], rounds=2)(network, Batch(image[:, None], truth(), index))
    first, second = network.asked[0], network.asked[1]
    assert first.points is None and first.logits is None and first.boxes is not None
    assert second.boxes is first.boxes and second.logits.shape == (2, 4, 16, 20)
    for points, labels, box in zip(
        second.points[:, :, 0].flatten(0, 1), second.labels.flatten(), first.boxes.flatten(0, 1), strict=True
    ):
        is_first_structure = float(box[0]) < 7.5
        assert int(labels) == (1 if is_first_structure else NO_POINT), "nothing is wrong with the other structure"
        assert not is_first_structure or float(points[0]) in (3, 4)


def test_structures_that_the_truth_does_not_label_are_not_asked_for() -> None:
    target = truth()
    target[target == 2] = 0
    network = Knowing()
    batch = Batch(truth()[:, None].float(), target, 0, unlabelled=((2,),))
    assert all(float(value) < 1e-3 for value in Prompted(mix=KINDS["none"])(network, batch).values())
    Prompted(mix=KINDS["box"], rounds=0)(network, batch)
    assert float(network.asked[-1].boxes[..., 2].max()) < 12, "boxes lie round structure 1"


def test_a_scan_without_structures_is_labelled() -> None:
    network = Knowing()
    empty = torch.zeros(1, *SHAPE, dtype=torch.long)
    losses = Prompted(mix=KINDS["points"])(network, Batch(empty[:, None].float(), empty, 0))
    assert network.asked == [None] and all(torch.isfinite(value) for value in losses.values())


def test_a_batch_is_always_asked_in_the_same_way() -> None:
    torch.manual_seed(0)
    network = parts.find("nets", "sam")(in_channels=1, out_channels=3, image_shape=SHAPE, side=32, size="tiny")
    image, target = torch.rand(2, 1, *SHAPE), truth().expand(2, -1, -1, -1)
    objective = Prompted(slices=2, structures=2, rounds=2)
    one, other = ([float(v) for v in objective(network, Batch(image, target, 5)).values()] for _ in range(2))
    assert one == other
    assert one != [float(v) for v in objective(network, Batch(image, target, 6)).values()]


def test_every_way_of_asking_teaches_what_it_uses() -> None:
    torch.manual_seed(0)
    network = parts.find("nets", "sam")(in_channels=1, out_channels=3, image_shape=SHAPE, side=32, size="tiny")
    image, touched = torch.rand(1, 1, *SHAPE), {}
    for kind, mix in KINDS.items():
        for index in range(4):
            network.zero_grad()
            losses = Prompted(slices=2, structures=2, rounds=2, mix=mix)(network, Batch(image, truth(), index))
            torch.stack(list(losses.values())).sum().backward()
            moved = {n for n, p in network.named_parameters() if p.grad is not None and p.grad.any()}
            touched.setdefault(kind, set()).update(moved)
    every = {name for name, _ in network.named_parameters()}
    assert set.union(*touched.values()) == every
    points = {f"prompt_encoder.point_embed.{n}.weight" for n in range(4)}
    assert touched["none"] & points == set()
    assert {f"prompt_encoder.point_embed.{n}.weight" for n in (2, 3)} <= touched["box"]
    assert all(any("iou_prediction_head" in name for name in touched[kind]) for kind in KINDS)


@pytest.mark.parametrize("mix", [(1, 0, 0), (0, 0, 0, 0), (1, -1, 0, 1)])
def test_a_mix_that_makes_no_sense_is_refused(mix: tuple[float, ...]) -> None:
    with pytest.raises(SpansegError, match="shares of none, box, points, both"):
        Prompted(mix=mix)


def test_boxes_are_drawn_round_structures_within_the_slice() -> None:
    mask = np.zeros((30, 40), dtype=bool)
    mask[2:12, 20:38] = True
    assert around(mask).tolist() == [2, 20, 11, 37] and around(mask, 3).tolist() == [0, 17, 14, 39]
    rng = np.random.default_rng(0)
    boxes = np.array([simulated_box(mask, rng) for _ in range(300)])
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2] <= 29).all() and (boxes[:, 3] <= 39).all()
    assert (boxes[:, :2] <= boxes[:, 2:]).all()
    assert (np.abs(boxes - around(mask)) <= 4 + 3).all() and boxes.std(0).min() > 0.5
    assert boxes[:, 0].mean() < 2 and boxes[:, 2].mean() > 11, "margins go outwards"


def test_points_go_where_it_is_wrong() -> None:
    mask, answer = np.zeros((2, 20, 20), dtype=bool)
    mask[5:16, 5:16] = True
    assert simulated_point(mask) == Click((10, 10), True)
    assert simulated_point(mask, mask) is None
    answer[5:16, 5:20] = True
    wrong = simulated_point(mask, answer, np.random.default_rng(0))
    assert not wrong.positive and not mask[wrong.voxel] and answer[wrong.voxel]


def test_the_sides_are_kept_when_a_scan_is_mirrored() -> None:
    protocol = load_protocol("subcortical")
    table = load_classes(protocol)
    packed = pack(Volume(tiny.label_map(), np.diag([4.0, 4.0, 4.0, 1.0])), table, "tiny")
    source = Generator([packed], table, Canvas((32, 32, 32), 6.0), SynthOptions(cut=0.0, rotation=2.0, thick=0.0))
    left, right = protocol.class_of(10), protocol.class_of(49)
    for index in range(6):  # every second one is a mirror image
        target = source.draw(0, index).target[0]
        sides = [float(torch.nonzero(target == c)[:, 0].float().mean()) for c in (left, right)]
        assert sides[0] < sides[1]
