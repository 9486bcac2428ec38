"""UNETR: MONAI's network bit for bit, counted, grouped and named."""

import pytest
import torch
from torch import nn

import tiny
from spanseg import model, parts, recipe
from spanseg.errors import SpansegError

stock = pytest.importorskip("monai.networks.nets.unetr")
Unetr = parts.find("nets", "unetr")

SMALL = {"feature_size": 4, "hidden_size": 24, "mlp_dim": 48, "num_heads": 4}
PAPER = {4: 92_783_876, 107: 92_785_627}
"""The KGPL paper's network at 96³ by classes, in the MONAI of its time."""


def small() -> nn.Module:
    torch.manual_seed(0)
    return Unetr(in_channels=1, out_channels=3, image_shape=[32, 48, 32], **SMALL).eval()


def count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@pytest.mark.parametrize(("classes", "total"), [(4, 92_802_308), (107, 92_804_059)])
def test_the_full_size_has_the_papers_parameters_and_the_norms_that_monai_added(classes: int, total: int) -> None:
    """MONAI 1.6 adds one LayerNorm (weight and bias) a block for cross-attention, which this network does not use."""
    with torch.device("meta"):
        network = Unetr(in_channels=1, out_channels=classes, image_shape=(96, 96, 96))
    assert count(list(network.parameters())) == total
    added = [p for name, p in network.named_parameters() if ".norm_cross_attn." in name]
    assert count(added) == 12 * 2 * 768 == 18_432
    assert total - count(added) == PAPER[classes]
    assert count(network.groups()["encoder"]) - count(added) == 88_340_736


def test_the_added_norms_are_never_read() -> None:
    network, image = small(), torch.randn(1, 1, 32, 48, 32)
    network(image).square().mean().backward()
    unread = {name for name, p in network.named_parameters() if p.grad is None}
    assert unread == {name for name, _ in network.named_parameters() if ".norm_cross_attn." in name}


def test_it_equals_the_stock_network_bit_for_bit() -> None:
    ours, image = small(), torch.randn(2, 1, 32, 48, 32)
    theirs = stock.UNETR(in_channels=1, out_channels=3, img_size=(32, 48, 32), **SMALL).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(ours(image), theirs(image))


def test_the_groups_hold_every_parameter_once() -> None:
    starts = tiny.first_names(small())
    assert starts["encoder"] == {"vit"}
    assert starts["skips"] == {f"encoder{n}" for n in (1, 2, 3, 4)}
    assert starts["decoder"] == {f"decoder{n}" for n in (2, 3, 4, 5)}


def test_stages_run_in_their_order_and_return_their_channels() -> None:
    network, seen = small(), []
    assert network.stride == 16
    for name in network.stages:
        assert network.attention_blocks(name) == [network.stage_module(name)]

        def note(module: nn.Module, args: object, output: torch.Tensor, name: str = name) -> None:
            seen.append((name, output.shape[2]))

        network.stage_module(name).register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(1, 1, 32, 48, 32))
    assert seen == list(network.stages.items())
    assert [name for name, _ in seen] == [f"layer{n}" for n in range(1, 13)]


def test_the_full_sizes_layers_have_768_channels() -> None:
    with torch.device("meta"):
        network = Unetr(in_channels=1, out_channels=4, image_shape=(96, 96, 96))
    assert set(network.stages.values()) == {768}


def test_heads_must_divide_the_channels() -> None:
    with pytest.raises(SpansegError, match="num_heads = 5 does not divide hidden_size = 24"):
        Unetr(in_channels=1, out_channels=3, image_shape=(32, 32, 32), **SMALL | {"num_heads": 5})


def test_a_canvas_of_one_patch_is_taken() -> None:
    settings = ["canvas.shape=[16, 16, 16]", "backbone.hidden_size=24", "backbone.mlp_dim=24", "backbone.num_heads=2"]
    network = model.build(recipe.load("step1-unetr", settings))
    assert network(torch.zeros(1, 1, 16, 16, 16)).shape[2:] == (16, 16, 16)
