"""Deep supervision: classifiers beside the coarse stages learn too, and the logits do not change by them."""

from dataclasses import replace

import pytest
import torch

from spanseg.errors import SpansegError
from spanseg.interfaces import Batch
from spanseg.nets.res_unet import ResUNet
from spanseg.objectives.deeply_supervised import DeeplySupervised
from spanseg.objectives.supervised import Supervised


def network(**options: object) -> ResUNet:
    torch.manual_seed(0)
    return ResUNet(**{"in_channels": 1, "out_channels": 3, "widths": (4, 6, 8, 10), "head_channels": 6} | options)


def batch() -> Batch:
    target = torch.zeros(1, 16, 32, 16, dtype=torch.long)
    target[:, :, 8:20], target[:, 4:12, 20:] = 1, 2
    return Batch(torch.randn(1, 1, 16, 32, 16), target, index=3)


def test_the_classifiers_change_neither_logits_nor_the_loss_of_the_logits() -> None:
    plain, deep, data = network(), network(aside=True), batch()
    deep.load_state_dict(plain.state_dict(), strict=False)
    assert torch.equal(plain(data.image), deep(data.image))
    losses = DeeplySupervised(phases=2, aside=0.7)(deep, data)
    assert {name: losses[name] for name in ("dice", "cross_entropy")} == Supervised(phases=2)(plain, data)
    assert set(losses) == {"dice", "cross_entropy", "aside"}


def test_every_coarse_stage_but_the_deepest_has_a_classifier_that_learns() -> None:
    deep = network(aside=True)
    assert list(deep.aside) == ["decoder1", "decoder2"]
    assert all(any(p is one for one in deep.groups()["head"]) for p in deep.aside.parameters())
    DeeplySupervised()(deep, batch())["aside"].backward()
    assert all(p.grad is not None and p.grad.any() for p in deep.aside.parameters())
    assert deep.encoder[3].first[0].weight.grad.any() and deep.classify.weight.grad is None
    assert not any(one._forward_hooks for one in deep.modules())


def test_a_coarse_answer_is_compared_with_the_middle_of_its_cell() -> None:
    """A classifier that is right about the middles has next to no loss, one that is right about a corner has."""
    deep, data = network(widths=(4, 6, 8), aside=True), batch()
    data.target[:] = 0
    data.target[:, 2::4, 2::4, 2::4] = 1  # the middle of each cell of 4 x 4 x 4 voxels

    class Says(torch.nn.Module):
        def __init__(self, which: int) -> None:
            super().__init__()
            self.which = which

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            logits = torch.full((1, 3, *features.shape[2:]), -20.0)
            logits[:, self.which] = 20.0
            return logits

    deep.aside["decoder1"] = Says(1)
    right = DeeplySupervised(aside=1.0)(deep, data)["aside"]
    deep.aside["decoder1"] = Says(0)
    wrong = DeeplySupervised(aside=1.0)(deep, data)["aside"]
    assert right < 1e-3 and wrong > 10


def test_the_coarse_loss_takes_its_weight_and_the_options_of_the_fine_one() -> None:
    deep, data = network(aside=True), batch()

    def coarse(data: Batch = data, **options: float) -> float:
        return float(DeeplySupervised(**{"aside": 1.0} | options)(deep, data)["aside"].detach())

    assert coarse(aside=0.5) == pytest.approx(0.5 * coarse())
    assert coarse(cross_entropy=0.0) < 1 < coarse(cross_entropy=5.0)
    assert coarse(rarity=0.0) != pytest.approx(coarse(rarity=1.0), rel=1e-3)
    assert coarse(replace(data, unlabelled=((1,),))) != pytest.approx(coarse(), rel=1e-3)


def test_classifiers_that_cannot_learn_are_refused() -> None:
    deep = network(aside=True)
    deep.aside.requires_grad_(False)
    with pytest.raises(SpansegError, match="freezes them"):
        DeeplySupervised()(deep, batch())


@pytest.mark.parametrize("options", [{}, {"aside": True, "widths": (4, 6)}])
def test_a_backbone_without_classifiers_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(SpansegError, match=r"aside = true"):
        DeeplySupervised()(network(**options), batch())
