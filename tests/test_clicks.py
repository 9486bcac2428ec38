"""Prompts, the maps that a network sees of them, and simulated clicks."""

import numpy as np
import pytest
import torch

from spanseg.clicked import ClickOptions, Unprompted, chosen, said, spoilt
from spanseg.clicks import REACH_VOXELS, Click, channels, click_map, next_click
from spanseg.deform import Canvas, Draw
from spanseg.errors import SpansegError
from spanseg.interfaces import Batch, Sample
from spanseg.objectives.clicked import Clicked, clicked_again
from spanseg.objectives.supervised import Supervised
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
    """Answers class 2 in one mask whatever it sees."""

    def __init__(self, mask: np.ndarray) -> None:
        super().__init__()
        self.mask = torch.from_numpy(mask)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        classes = [(~self.mask).float(), torch.zeros(self.mask.shape), self.mask.float()]
        return torch.stack(classes)[None].expand(len(image), -1, -1, -1, -1)


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


def test_what_is_said_names_errors_and_repeats():
    truth, brain = torch.from_numpy(ball(6)), torch.from_numpy(ball(14))
    options = ClickOptions(boxed=0.0)
    for index in range(8):
        label, positive, negative, box = (channel.numpy() for channel in said(truth, brain, options, (3, index)))
        assert (positive == 1).sum() + (negative == 1).sum() >= 1
        assert truth.numpy()[positive == 1].all()
        assert not truth.numpy()[negative == 1].any()
        assert label[negative == 1].all()
        assert not box.any()
    assert torch.equal(said(truth, brain, options, (3, 7)), said(truth, brain, options, (3, 7)))
    assert not torch.equal(said(truth, brain, options, (3, 7)), said(truth, brain, options, (3, 6)))


def test_boxes_hold_most_of_the_structure_and_come_without_clicks():
    truth = torch.from_numpy(ball(6))
    channel = said(truth, torch.from_numpy(ball(14)), ClickOptions(boxed=1.0), (0, 0))
    assert not channel[1:3].any()
    assert truth[channel[3] > 0].sum() > 0.7 * truth.sum()


def test_small_structures_are_chosen_more_often_and_tiny_ones_never():
    classes = torch.zeros(32, 32, 32, dtype=torch.long)
    classes[8:24, 8:24, 8:20] = 1
    classes[10:14, 10:14, 20:24] = 2
    classes[20, 20, 20] = 3
    rng = np.random.default_rng(0)
    even = np.bincount([chosen(classes, ClickOptions(rarity=0.0), rng) for _ in range(200)], minlength=4)
    rare = np.bincount([chosen(classes, ClickOptions(rarity=1.0), rng) for _ in range(200)], minlength=4)
    assert even[1] > 60 and even[2] > 60
    assert rare[2] > 180
    assert even[3] == rare[3] == 0
    assert chosen(torch.zeros(8, 8, 8, dtype=torch.long), ClickOptions(), rng) == 0


def test_a_further_click_corrects_the_answer_before_and_keeps_the_clicks():
    image, target, *_ = Unprompted(Balls()).draw(0, 0)
    assert image.shape == (1, 5, 32, 32, 32)
    assert not image[:, 1:].any()
    truth = target[0].numpy() == 2
    image[0, 1:] = said(target[0] == 2, target[0] > 0, ClickOptions(boxed=0.0, empty=1.0), (0, 0))
    answer = truth | ball(5, (26, 16, 16))
    after = clicked_again(Always(answer), image, target, [2], None)
    np.testing.assert_array_equal(after[0, 1].numpy() > 0, answer)
    assert torch.equal(after[:, 0], image[:, 0])
    assert (after[0, 2] >= image[0, 2]).all()
    fresh = next_click(truth, answer)
    assert fresh is not None
    assert not fresh.positive
    assert after[0, 3][fresh.voxel] == 1


class Remembers(torch.nn.Conv3d):
    """A network that keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__(5, 3, 3, padding=1)
        self.shown = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.shown.append(image)
        return super().forward(image)


def test_the_objective_says_something_and_rewards_the_last_answer():
    torch.manual_seed(0)
    network = Remembers()
    image, target, *_ = Unprompted(Balls()).draw(0, 0)
    rounds = []
    for index in range(6):
        network.shown.clear()
        losses = Clicked(rounds=2, silent=0.0, phases=0, clicks={"boxed": 0.0})(network, Batch(image, target, index))
        rounds.append(len(network.shown))
        assert network.shown[-1][:, 1:].any()
    assert set(rounds) == {1, 2, 3}
    sum(losses.values()).backward()
    assert network.weight.grad is not None
    assert network.weight.grad.abs().sum() > 0
    Clicked(silent=1.0, phases=0)(network, Batch(image, target, 0))
    assert torch.equal(network.shown[-1], image)
    assert not image[:, 1:].any()


def test_what_a_truth_leaves_out_is_left_out_with_clicks_too():
    torch.manual_seed(0)
    network, (image, target, *_) = Remembers(), Unprompted(Balls()).draw(0, 0)
    everything, all_but_one = (
        Clicked(silent=1.0, phases=0)(network, Batch(image, target, 0, unlabelled=left_out))
        for left_out in ((), ((1,),))
    )
    expected = Supervised(phases=0, rarity=0.1)(network, Batch(image, target, 0, unlabelled=((1,),)))
    assert all_but_one == expected != everything


def test_an_unknown_option_of_clicks_is_refused_with_the_nearest():
    with pytest.raises(SpansegError, match=r"\[objective.clicks\] has no option 'emptyy' \(did you mean 'empty'\?\)"):
        Clicked(clicks={"emptyy": 1.0})


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
