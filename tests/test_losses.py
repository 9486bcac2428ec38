"""The quick loss against its formula written out with one-hot arrays."""

import pytest
import torch
from torch import Tensor

from spanseg.labels import UNKNOWN
from spanseg.losses import dice_and_cross_entropy


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


def test_rare_classes_weigh_as_the_root_of_their_size() -> None:
    target = torch.zeros(1, 10, 10, 1, dtype=torch.int64)
    target[0, 0, 0] = 1  # one voxel against 99
    logits = torch.zeros(1, 2, 10, 10, 1)
    logits[0, 0] = 3.0  # everything is called background
    _, entropy = dice_and_cross_entropy(logits, target)
    missed, right = torch.nn.functional.softplus(torch.tensor([3.0, -3.0]))
    expected = (1.0 * missed + 99 / 99**0.5 * right) / (1 + 99**0.5)
    assert float(entropy) == pytest.approx(float(expected), abs=1e-5)
