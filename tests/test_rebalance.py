"""The last bias must be moved where the loss had pushed it too far, and nowhere else."""

import torch
from torch import nn

from spanseg.interfaces import Sample
from spanseg.rebalance import BIAS, rebalanced, soft_volumes, with_volumes


class _Pixelwise(nn.Module):
    """Three classes from one intensity."""

    def __init__(self) -> None:
        super().__init__()
        self.classify = nn.Conv3d(1, 3, 1)

    def forward(self, image):
        return self.classify(image)


class _Source:
    """Noisy intensities 0, 1 and 2 of classes with 90, 9 and 1 % of the voxels."""

    def draw(self, seed, index):
        generator = torch.Generator().manual_seed(seed + index)
        u = torch.rand((1, 20, 20, 20), generator=generator)
        target = (u > 0.9).long() + (u > 0.99).long()
        image = target + 0.5 * torch.randn(target.shape, generator=generator)
        return Sample(image[None], target)


def test_too_large_rare_classes_are_made_smaller():
    network = _Pixelwise()
    weights = {  # the Bayes classifier for equal frequencies, so that rare classes come out too large
        "classify.weight": torch.tensor([0.0, 4.0, 8.0]).reshape(3, 1, 1, 1, 1),
        BIAS: torch.tensor([0.0, -2.0, -8.0]),
    }
    adjusted = rebalanced(network, weights, _Source())
    assert torch.equal(adjusted["classify.weight"], weights["classify.weight"])
    moved = adjusted[BIAS] - weights[BIAS]
    assert moved[0] == 0
    assert moved[2] < moved[1] < 0
    image, target, *_ = _Source().draw(5, 0)
    for values, sign in ((weights, 1), (adjusted, 0)):
        logits = nn.functional.conv3d(image, values["classify.weight"], values[BIAS])
        excess = (logits.argmax(1) > 0).sum() / (target > 0).sum()
        assert (excess > 1.5) == bool(sign)


class _Told(nn.Module):
    """The three classes behind a frozen layer, as the backbone of a network that is told something."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.backbone = nn.Conv3d(1, 1, 1), _Pixelwise()
        nn.init.constant_(self.first.weight, 1.0)
        nn.init.zeros_(self.first.bias)

    def forward(self, image):
        return self.backbone(self.first(image))


def test_weights_of_a_part_of_a_network_are_rebalanced_under_the_name_that_they_have_there():
    kernel, bias = torch.tensor([0.0, 4.0, 8.0]).reshape(3, 1, 1, 1, 1), torch.tensor([0.0, -2.0, -8.0])
    plain = rebalanced(_Pixelwise(), {"classify.weight": kernel, BIAS: bias}, _Source())
    of_part = {"backbone.classify.weight": kernel, f"backbone.{BIAS}": bias}
    told = rebalanced(_Told(), of_part, _Source())
    assert told.keys() == of_part.keys()
    assert torch.equal(told[f"backbone.{BIAS}"], plain[BIAS]) and not torch.equal(plain[BIAS], bias)
    without = {"backbone.classify.weight": kernel}
    assert rebalanced(_Told(), without, _Source()) is without


def test_classes_get_back_the_volumes_that_they_had():
    torch.manual_seed(0)

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.classify = nn.Conv3d(1, 4, 1)

        def forward(self, image):
            return self.classify(image)

    network = Head()
    samples = [Sample(torch.randn(1, 1, 6, 6, 6), torch.zeros(1, 6, 6, 6).long()) for _ in range(2)]
    wanted = soft_volumes(network, samples, [2, 3])
    changed = {name: value + torch.randn_like(value) for name, value in network.state_dict().items()}
    mended = with_volumes(network, changed, samples, wanted)
    assert torch.equal(mended["classify.weight"], changed["classify.weight"])
    moved = (mended[BIAS] - changed[BIAS]).nonzero().flatten().tolist()
    assert moved == [2, 3]
    network.load_state_dict(mended)
    now = soft_volumes(network, samples, [2, 3])
    assert abs(now[3] - wanted[3]) < 0.1 and abs(now[2] - wanted[2]) < 0.05 * wanted[2]
    other = {name: value for name, value in changed.items() if name != BIAS}
    assert with_volumes(network, other, samples, wanted) is other
