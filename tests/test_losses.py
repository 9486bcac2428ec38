"""The quick losses against their formulas written out, and against MONAI where it computes the same."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from spanseg.errors import SpansegError
from spanseg.interfaces import Batch
from spanseg.labels import UNKNOWN
from spanseg.losses import PRESETS, FocalPreset, dice_and_cross_entropy, dice_focal, merged, soft_dice
from spanseg.objectives.supervised import Supervised


def written_out(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Soft Dice and weighted cross-entropy, voxel by voxel, as in a textbook."""
    classes = logits.shape[1]
    known = (target != UNKNOWN)[:, None].double()
    truth = torch.nn.functional.one_hot(target.clamp(min=0), classes).movedim(-1, 1).double() * known
    p = torch.softmax(logits.double(), 1) * known
    axes = (0, 2, 3, 4)
    overlap = (2 * (p * truth).sum(axes) + 1e-3) / (p.sum(axes) + truth.sum(axes) + 1e-3)
    count = truth.sum(axes)
    present = (count > 0) & (torch.arange(classes) > 0)
    weight = torch.where(count > 0, count.clamp(min=1) ** -0.5, 0.0)
    weights = (truth * weight.reshape(1, -1, 1, 1, 1)).sum(1)
    entropy = -(truth * torch.log_softmax(logits.double(), 1)).sum(1)
    return 1 - overlap[present].mean(), (weights * entropy).sum() / weights.sum()


@pytest.mark.parametrize("unknown", [0.0, 0.3])
@pytest.mark.parametrize("highest", [4, 5])  # with 4, class 4 is absent
def test_agrees_with_the_formula(unknown: float, highest: int) -> None:
    torch.manual_seed(highest)
    logits = torch.randn(2, 5, 4, 5, 6)
    target = torch.randint(0, highest, (2, 4, 5, 6))
    target[torch.rand(target.shape) < unknown] = UNKNOWN
    for ours, theirs in zip(dice_and_cross_entropy(logits, target), written_out(logits, target), strict=True):
        assert float(ours) == pytest.approx(float(theirs), abs=1e-5)


def test_unknown_voxels_have_no_say() -> None:
    logits = torch.randn(1, 3, 4, 4, 4, requires_grad=True)
    target = torch.randint(0, 3, (1, 4, 4, 4))
    target[0, :2] = UNKNOWN
    sum(dice_and_cross_entropy(logits, target)).backward()
    assert logits.grad is not None
    assert logits.grad[:, :, :2].abs().max() == 0
    assert (logits.grad[:, :, 2:].abs().sum(1) > 0).all()


def test_the_right_answer_costs_nothing_and_a_wrong_one_much() -> None:
    target = torch.randint(0, 4, (1, 6, 6, 6))
    right = 40.0 * torch.nn.functional.one_hot(target, 4).movedim(-1, 1).float()
    for loss in dice_and_cross_entropy(right, target):
        assert float(loss) == pytest.approx(0, abs=1e-4)
    dice, entropy = dice_and_cross_entropy(right.roll(1, 1), target)
    assert dice > 0.99 and entropy > 10


def test_dice_of_a_million_voxels_is_exact() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.stack([torch.zeros(100, 100, 100), 5 + torch.randn(100, 100, 100, generator=generator)])[None]
    target = torch.ones(1, 100, 100, 100, dtype=torch.int64)
    p = torch.softmax(logits.double(), 1)[0, 1]
    exact = 1 - 2 * p.sum() / (p.sum() + p.numel())
    assert abs(float(soft_dice(logits, target)) - float(exact)) < 1e-5


def test_rare_classes_weigh_as_the_root_of_their_size() -> None:
    target = torch.zeros(1, 10, 10, 1, dtype=torch.int64)
    target[0, 0, 0] = 1  # one voxel against 99
    logits = torch.zeros(1, 2, 10, 10, 1)
    logits[0, 0] = 3.0  # everything is called background
    _, entropy = dice_and_cross_entropy(logits, target)
    missed, right = torch.nn.functional.softplus(torch.tensor([3.0, -3.0]))
    expected = (1.0 * missed + 99 / 99**0.5 * right) / (1 + 99**0.5)
    assert float(entropy) == pytest.approx(float(expected), abs=1e-5)


def test_a_scan_without_any_structure_costs_no_dice() -> None:
    logits = torch.randn(1, 3, 4, 4, 4, requires_grad=True)
    dice, entropy = dice_and_cross_entropy(logits, torch.zeros(1, 4, 4, 4, dtype=torch.int64))
    (dice + entropy).backward()
    assert dice == 0 and logits.grad is not None and logits.grad.isfinite().all()


# Truth that leaves classes out -------------------------------------------------------------------------------------


def case(classes: int = 5, missing: tuple[int, ...] = (2, 4)) -> tuple[Tensor, Tensor]:
    """Two subjects with all classes, and unknown voxels; the second one's truth says 0 for ``missing``."""
    torch.manual_seed(1)
    target = torch.randint(0, classes, (2, 4, 5, 6))
    target[1][torch.isin(target[1], torch.tensor(missing))] = 0
    target[torch.rand(target.shape) < 0.2] = UNKNOWN
    return 2 * torch.randn(2, classes, 4, 5, 6), target


def test_merging_sums_probabilities_where_the_truth_is_background() -> None:
    logits, target = case()
    before = torch.softmax(logits, 1)
    after = torch.softmax(merged(logits, target, ((), (2, 4))), 1)
    torch.testing.assert_close(after[0], before[0])
    is_background = target[1] == 0
    expected = before[1].clone()
    expected[0] = torch.where(is_background, before[1, [0, 2, 4]].sum(0), before[1, 0])
    expected[2:5:2] = torch.where(is_background, 0.0, before[1, 2:5:2])
    torch.testing.assert_close(after[1], expected)


def test_with_every_class_labelled_the_logits_are_untouched() -> None:
    logits, target = case()
    assert merged(logits, target, ()) is logits
    assert merged(logits, target, ((), ())) is logits


LOSSES = {
    "dice_ce": lambda logits, target, left_out: sum(dice_and_cross_entropy(logits, target, 0.5, left_out)),
    "dice": soft_dice,
    **{name: lambda x, y, z, p=preset: sum(dice_focal(x, y, p, z)) for name, preset in PRESETS.items()},
}


@pytest.mark.parametrize("name", LOSSES)
def test_background_and_an_unlabelled_class_are_one_where_the_truth_is_background(name: str) -> None:
    """Moving mass between them changes nothing; it would if all classes were labelled (but for Dice)."""
    logits, target = case()
    logits, target = logits[1:], target[1:]
    p = torch.softmax(logits, 1)
    swapped = p.clone()
    swapped[:, 0], swapped[:, 2] = 0.25 * (p[:, 0] + p[:, 2]), 0.75 * (p[:, 0] + p[:, 2])
    moved = torch.where((target == 0)[:, None], swapped, p).log()
    loss = LOSSES[name]
    known = p.log()
    assert float(loss(moved, target, ((2, 4),))) == pytest.approx(float(loss(known, target, ((2, 4),))), rel=1e-4)
    if name != "dice":
        assert float(loss(moved, target, ())) != pytest.approx(float(loss(known, target, ())), rel=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_unknown_voxels_and_unlabelled_classes_get_no_gradient(name: str) -> None:
    logits, target = case()
    logits.requires_grad_()
    LOSSES[name](logits, target, ((), (2, 4))).backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    unknown = (target == UNKNOWN)[:, None].expand_as(logits)
    assert logits.grad[unknown].abs().max() == 0
    where = target[1] == 0  # a push between background and class 2 would have opposite signs
    assert (logits.grad[1, 0][where] * logits.grad[1, 2][where] >= -1e-12).all()


def test_a_scheme_may_label_a_part_of_a_class() -> None:
    """Ventricles are labelled CSF, sulci are not: the ventricles still teach."""
    logits = torch.zeros(1, 2, 1, 1, 2, requires_grad=True)
    target = torch.tensor([[[[0, 1]]]])
    sum(dice_and_cross_entropy(logits, target, 0.5, ((1,),))).backward()
    assert logits.grad is not None
    assert logits.grad[0, :, 0, 0, 0].abs().max() == pytest.approx(0, abs=1e-7)
    assert logits.grad[0, 1, 0, 0, 1] < 0 < logits.grad[0, 0, 0, 0, 1]


# Dice and focal loss -----------------------------------------------------------------------------------------------


def test_the_presets_are_those_of_the_specification() -> None:
    assert {name: (p.alpha, p.gamma, p.activation) for name, p in PRESETS.items()} == {
        "paper": (100.0, 0.2, "softmax"),
        "authors_code": (100.0, 2.0, "sigmoid"),
        "default": (1.0, 2.0, "softmax"),
    }


@pytest.mark.parametrize("name", ["paper", "default"])
def test_the_softmax_focal_loss_agrees_with_the_equation(name: str) -> None:
    logits, target = case()
    preset = PRESETS[name]
    p = torch.softmax(logits.double(), 1)
    total, voxels = 0.0, 0
    for place in torch.argwhere(target != UNKNOWN):
        b, i, j, k = place.tolist()
        p_t = float(p[b, target[b, i, j, k], i, j, k])
        total -= preset.alpha * (1 - p_t) ** preset.gamma * math.log(p_t)
        voxels += 1
    dice, focal = dice_focal(logits, target, preset)
    assert float(focal) == pytest.approx(total / voxels, rel=1e-4)
    assert float(dice) == pytest.approx(float(written_out(logits, target)[0]), abs=1e-5)


def test_the_authors_loss_agrees_with_monai() -> None:
    losses = pytest.importorskip("monai.losses", reason="needs MONAI")
    logits, target = case()
    target = target.clamp(min=0)
    truth = torch.nn.functional.one_hot(target, 5).movedim(-1, 1).float()
    dice, focal = dice_focal(logits, target, PRESETS["authors_code"])
    assert float(dice) == pytest.approx(float(losses.DiceLoss(sigmoid=True)(logits, truth)), abs=1e-6)
    assert float(focal) == pytest.approx(100 * float(losses.FocalLoss(gamma=2.0)(logits, truth)), rel=1e-5)


def test_the_softmax_focal_loss_agrees_with_monai() -> None:
    losses = pytest.importorskip("monai.losses", reason="needs MONAI")
    logits, target = case()
    target = target.clamp(min=0)
    truth = torch.nn.functional.one_hot(target, 5).movedim(-1, 1).float()
    ours = dice_focal(logits, target, FocalPreset(1.0, 2.0, "softmax", "channels"))[1]
    theirs = losses.FocalLoss(gamma=2.0, use_softmax=True, reduction="mean")(logits, truth)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-4)


def test_an_unlabelled_class_is_no_class_of_the_authors_dice() -> None:
    logits, target = case(missing=(4,))
    target[target == 4] = 0
    only = dice_focal(logits[:, :4], target, PRESETS["authors_code"])[0]
    without = logits.clone()
    without[:, 4] = -50.0  # nobody finds it
    assert float(dice_focal(without, target, PRESETS["authors_code"], ((4,), (4,)))[0]) == pytest.approx(float(only))


# The objective -----------------------------------------------------------------------------------------------------


class _Fixed(torch.nn.Module):
    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, image: Tensor) -> Tensor:
        return self.logits


def test_the_objective_offers_the_losses_by_name() -> None:
    logits, target = case()
    batch = Batch(torch.zeros(2, 1, 4, 5, 6), target, 0)
    model = _Fixed(logits)
    found = Supervised(phases=0)(model, batch)
    dice, entropy = dice_and_cross_entropy(logits, target)
    assert found == {"dice": dice, "cross_entropy": entropy}
    assert Supervised(phases=0, loss="dice")(model, batch) == {"dice": dice}
    focal = Supervised(phases=0, loss="dice_focal", preset="paper", gamma=2.0)(model, batch)["focal"]
    assert focal == dice_focal(logits, target, replace(PRESETS["paper"], gamma=2.0))[1]


def test_the_objective_merges_what_a_subject_does_not_label() -> None:
    logits, target = case()
    whole = Batch(torch.zeros(2, 1, 4, 5, 6), target, 0)
    some = replace(whole, unlabelled=((), (2, 4)))
    found = Supervised(phases=0)(_Fixed(logits), some)
    assert (found["dice"], found["cross_entropy"]) == dice_and_cross_entropy(logits, target, 0.5, ((), (2, 4)))
    assert found["dice"] != Supervised(phases=0)(_Fixed(logits), whole)["dice"]


def test_phases_keep_subjects_and_their_unlabelled_classes_together() -> None:
    torch.manual_seed(0)
    target = torch.randint(0, 3, (2, 4, 4, 4))
    target[1][target[1] == 2] = 0
    logits = torch.randn(2, 3, 4, 4, 4)

    class _Phases(torch.nn.Module):
        def forward(self, image: Tensor, phases: list[int]) -> Tensor:
            return torch.cat([logits[:, :, p // 4 :: 2, p // 2 % 2 :: 2, p % 2 :: 2] for p in phases])

    batch = Batch(torch.zeros(2, 1, 4, 4, 4), target, 0, unlabelled=((), (2,)))
    by_phases = Supervised(phases=8)(_Phases(), batch)
    at_once = Supervised(phases=0)(_Fixed(logits), batch)
    for name, value in at_once.items():
        assert float(by_phases[name]) == pytest.approx(float(value), abs=1e-6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "dize"}, "dice_focal"),
        ({"loss": "dice_focal", "preset": "mine"}, "authors_code"),
        ({"gamma": 2.0}, "belong to loss"),
    ],
)
def test_unknown_losses_and_misplaced_options_are_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(SpansegError, match=words):
        Supervised(**options)
