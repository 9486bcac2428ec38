"""The paper's plain U-Net: its parameters to the last one, and its contract at a narrow width."""

import pytest
import torch
from torch import nn

import tiny
from spanseg.nets.unet import UNet


def small() -> UNet:
    torch.manual_seed(0)
    return UNet(in_channels=1, out_channels=3, widths=(4, 8, 12)).eval()


def count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@pytest.mark.parametrize(("classes", "total"), [(4, 90_304_644), (107, 90_311_339)])
def test_the_full_size_has_the_papers_parameters(classes: int, total: int) -> None:
    with torch.device("meta"):
        network = UNet(in_channels=1, out_channels=classes)
    assert count(list(network.parameters())) == total
    assert count(network.groups()["encoder"]) == 56_526_144


def test_the_groups_hold_every_parameter_once() -> None:
    assert set(tiny.first_names(small())) == {"encoder", "skips", "decoder", "head"}


def test_the_encoder_ends_with_the_bottleneck() -> None:
    network = small()
    encoder = {id(p) for p in network.groups()["encoder"]}
    assert {id(p) for p in network.stage_module("bottleneck").parameters()} <= encoder
    assert not {id(p) for p in network.stage_module("decoder1").parameters()} & encoder


def test_stages_run_in_their_order_and_return_their_channels() -> None:
    network = small()
    seen, shape = tiny.stages_seen(network, torch.zeros(2, 1, 4, 8, 8))
    assert shape == (2, 3, 4, 8, 8)
    assert seen == list(network.stages.items())
    assert [name for name, _ in seen] == ["encoder0", "encoder1", "bottleneck", "decoder1", "decoder0"]


@pytest.mark.parametrize("widths", [(4, 8), (4, 6, 8, 10)])
def test_stride_is_the_smallest_cell(widths: tuple[int, ...]) -> None:
    network = UNet(in_channels=2, out_channels=3, widths=widths)
    n = network.stride
    assert n == 2 ** (len(widths) - 1)
    assert network(torch.zeros(1, 2, n, 2 * n, 2 * n)).shape == (1, 3, n, 2 * n, 2 * n)


def test_every_parameter_gets_a_gradient() -> None:
    """But for the biases in front of an instance norm, which takes every constant out again."""
    network = small()
    network(torch.randn(1, 1, 16, 16, 16)).square().mean().backward()
    normed = {id(m.bias) for block in (*network.encoder, *network.decoder) for m in block if isinstance(m, nn.Conv3d)}
    assert not [
        n for n, p in network.named_parameters() if id(p) not in normed and (p.grad is None or not p.grad.any())
    ]


def test_people_in_a_batch_do_not_mix() -> None:
    network, image = small(), torch.randn(3, 1, 8, 16, 8)
    with torch.no_grad():
        alone = torch.cat([network(one[None]) for one in image])
        torch.testing.assert_close(network(image), alone, rtol=1e-4, atol=1e-5)


def test_peft_refuses_transposed_convolutions() -> None:
    """Why this network declares no ``lora``."""
    peft = pytest.importorskip("peft")
    with pytest.raises(ValueError, match=r"ConvTranspose3d.* is not supported"):
        peft.inject_adapter_in_model(peft.LoraConfig(r=2, target_modules=["up.0"]), small())
    assert "lora" not in UNet.pairs["none"]
