"""Prompts, the maps that a network sees of them, and simulated clicks."""

import numpy as np
import pytest
import torch

from spanseg.clicked import ClickedScans, ClickOptions, spoilt
from spanseg.clicks import REACH_VOXELS, Click, channels, click_map, next_click
from spanseg.deform import Canvas, Draw
from spanseg.errors import SpansegError
from spanseg.interfaces import Batch, Sample
from spanseg.objectives.clicked import Clicked, clicked_again
from spanseg.prompts import Prompt, prompt_from


def ball(radius: float, centre: tuple[int, int, int] = (16, 16, 16), n: int = 32) -> np.ndarray:
    axes = np.meshgrid(*(np.arange(n) - c for c in centre), indexing="ij")
    return sum(a**2 for a in axes) <= radius**2


class Balls:
    """A source whose every sample holds one ball of class 2 in brain of class 1."""

    def draw(self, seed: int, index: int) -> Sample:
        classes = np.where(ball(6), 2, ball(14)).astype(np.int64)
        return Sample(torch.from_numpy(classes)[None, None].float() / 2, torch.from_numpy(classes)[None])


class Always(torch.nn.Module):
    """Answers one mask whatever it sees."""

    def __init__(self, mask: np.ndarray) -> None:
        super().__init__()
        self.mask = torch.from_numpy(mask)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.stack([(~self.mask).float(), self.mask.float()])[None].expand(len(image), -1, -1, -1, -1)


def test_a_click_is_a_cone_that_ends_where_it_should():
    drawn = click_map([(10, 11, 12)], (32, 32, 32))
    assert drawn[10, 11, 12] == 1
    assert drawn[10, 11, 13] == pytest.approx(1 - 1 / REACH_VOXELS)
    distance = np.sqrt(((np.indices(drawn.shape) - np.array([10, 11, 12])[:, None, None, None]) ** 2).sum(0))
    np.testing.assert_allclose(drawn, np.clip(1 - distance / REACH_VOXELS, 0, 1), atol=1e-6)


def test_clicks_beside_the_canvas_reach_into_it_and_far_ones_do_not():
    beside = click_map([(-2, 5, 5)], (16, 16, 16))
    assert beside[0, 5, 5] == pytest.approx(1 - 2 / REACH_VOXELS)
    assert not click_map([(-6, 5, 5), (5, 5, 40)], (16, 16, 16)).any()
    assert click_map([(15, 15, 15)], (16, 16, 16)).max() == 1


def test_channels_lie_in_their_order():
    label, box = ball(4), ball(8)
    stacked = channels(label, [Click((3, 3, 3), True), Click((28, 28, 28), False)], box)
    assert stacked.shape == (4, 32, 32, 32)
    np.testing.assert_array_equal(stacked[0], label)
    assert stacked[1].argmax() == np.ravel_multi_index((3, 3, 3), label.shape)
    assert stacked[2].argmax() == np.ravel_multi_index((28, 28, 28), label.shape)
    np.testing.assert_array_equal(stacked[3], box)


def test_the_next_click_goes_into_the_depth_of_the_largest_error():
    truth = ball(6)
    assert next_click(truth, np.zeros_like(truth)) == Click((16, 16, 16), True)
    far = ball(4, (6, 6, 6))
    assert next_click(truth, truth | far) == Click((6, 6, 6), False)
    small_missing = truth & ~ball(2)
    assert next_click(truth, small_missing | far) == Click((6, 6, 6), False)
    assert next_click(truth, truth) is None


def test_random_clicks_lie_in_the_largest_error_too():
    truth, rng = ball(6), np.random.default_rng(0)
    clicks = {next_click(truth, np.zeros_like(truth), rng).voxel for _ in range(20)}
    assert len(clicks) > 5
    assert all(truth[voxel] for voxel in clicks)


def test_spoilt_labels_are_wrong_but_not_beyond_the_brain():
    truth, brain = torch.from_numpy(ball(6)), torch.from_numpy(ball(14))
    differing = []
    for index in range(12):
        label = spoilt(truth, brain, Draw(0, index, Canvas((32, 32, 32), 1.0), torch.device("cpu")))
        differing.append(int((label ^ truth).sum()))
        assert not (label & ~brain).any()
    assert min(differing) > 0
    assert max(differing) > 4 * min(differing)


def test_samples_hold_the_scan_its_label_and_clicks_on_errors_and_repeat():
    source = ClickedScans(Balls(), ClickOptions(boxed=0.0), 1.0)
    for index in range(8):
        image, target, *_ = source.draw(3, index)
        assert image.shape == (1, 5, 32, 32, 32)
        assert set(torch.unique(target).tolist()) == {0, 1}
        label, positive, negative = (image[0, channel].numpy() for channel in (1, 2, 3))
        truth = target[0].numpy() == 1
        assert (positive == 1).sum() + (negative == 1).sum() >= 1
        assert truth[positive == 1].all()
        assert not truth[negative == 1].any()
        assert label[negative == 1].all()
    again = source.draw(3, 7)
    assert torch.equal(again.image, source.draw(3, 7).image)
    assert not torch.equal(again.image, source.draw(3, 6).image)


def test_boxes_hold_most_of_the_structure_and_come_without_clicks():
    source = ClickedScans(Balls(), ClickOptions(boxed=1.0), 1.0)
    image, target, *_ = source.draw(0, 0)
    assert not image[0, 2:4].any()
    inside = image[0, 4] > 0
    assert (target[0] == 1)[inside].sum() > 0.7 * (target[0] == 1).sum()


def test_a_further_click_corrects_the_answer_before_and_keeps_the_clicks():
    source = ClickedScans(Balls(), ClickOptions(boxed=0.0, empty=1.0, most=1, few_voxels=1), 1.0)
    image, target, *_ = source.draw(0, 0)
    truth = target[0].numpy() == 1
    answer = truth | ball(5, (26, 16, 16))
    after = clicked_again(Always(answer), image, target, None)
    np.testing.assert_array_equal(after[0, 1].numpy() > 0, answer)
    assert torch.equal(after[:, 0], image[:, 0])
    assert (after[0, 2] >= image[0, 2]).all()
    fresh = next_click(truth, answer)
    assert fresh is not None
    assert not fresh.positive
    assert after[0, 3][fresh.voxel] == 1


def test_the_objective_rewards_the_last_answer():
    torch.manual_seed(0)
    network = torch.nn.Conv3d(5, 2, 3, padding=1)
    image, target, *_ = ClickedScans(Balls(), ClickOptions(), 1.0).draw(0, 0)
    losses = Clicked(rounds=2, phases=0)(network, Batch(image, target, 1))
    sum(losses.values()).backward()
    assert network.weight.grad is not None
    assert network.weight.grad.abs().sum() > 0
    assert set(losses) == {"dice", "cross_entropy"}


@pytest.mark.parametrize(
    ("prompt", "says"),
    [
        (Prompt("point", True, ((32, 0, 0),)), "outside the image"),
        (Prompt("point", True, ((-1, 0, 0),)), "outside the image"),
        (Prompt("point", True, ((1, 1, 1), (2, 2, 2))), "1 voxel, this one has 2"),
        (Prompt("box", False, ((1, 1, 1), (2, 2, 2))), "cannot be negative"),
        (Prompt("scribble", True, ()), "1 to 10,000 voxels"),
        (Prompt("lasso", True, ((1, 1, 1),)), "point, box, scribble"),
    ],
)
def test_prompts_that_make_no_sense_are_refused_in_one_sentence(prompt, says):
    with pytest.raises(SpansegError, match=says):
        prompt.checked((32, 32, 32))


def test_prompts_go_through_json_and_back():
    prompt = Prompt("box", True, ((1, 2, 3), (4, 5, 6)))
    assert prompt_from(prompt.to_dict()) == prompt
    for broken in (
        {"kind": "point"},
        {"kind": "point", "voxels": [[1, 2]]},
        {"kind": "point", "voxels": [[1, 2, True]]},
    ):
        with pytest.raises(SpansegError):
            prompt_from(broken)
