"""Swin UNETR: MONAI's network bit for bit, counted, grouped and named; merging as of MONAI 1.4."""

from itertools import combinations

import pytest
import torch
from torch import nn

import tiny
from spanseg import parts
from spanseg.errors import SpansegError
from spanseg.nets._norms import InstanceNorm

stock = pytest.importorskip("monai.networks.nets.swin_unetr")
SwinUnetr = parts.find("nets", "swin_unetr")

SHAPE = (64, 32, 32)  # the bottleneck needs two positions for its instance norm


def small(downsample: str = "merging") -> nn.Module:
    torch.manual_seed(0)
    return SwinUnetr(in_channels=1, out_channels=3, feature_size=12, downsample=downsample).eval()


def count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


@pytest.mark.parametrize("name", ["swin_unetr", "unetr"])
def test_instance_norms_are_those_that_keep_the_layout_in_bf16(name: str) -> None:
    network = (
        small()
        if name == "swin_unetr"
        else parts.find("nets", name)(
            in_channels=1, out_channels=3, image_shape=(32, 32, 32), hidden_size=48, mlp_dim=96, num_heads=3
        )
    )
    norms = [module for module in network.modules() if isinstance(module, nn.InstanceNorm3d)]
    assert norms and all(type(norm) is InstanceNorm for norm in norms)


def test_the_full_size_has_the_published_parameters() -> None:
    network = SwinUnetr(in_channels=1, out_channels=4)
    groups = network.groups()
    assert count(list(network.parameters())) == 62_186_806
    assert count(groups["encoder"]) == 8_062_002
    assert count(groups["decoder"] + groups["head"]) == 19_598_020  # all that the strict policy trains
    assert network.stages == {"stage1": 48, "stage2": 96, "stage3": 192, "stage4": 384}


def test_it_equals_the_stock_network_bit_for_bit() -> None:
    ours, image = small(), torch.randn(1, 1, *SHAPE)
    theirs = stock.SwinUNETR(in_channels=1, out_channels=3, feature_size=12).eval()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(ours(image), theirs(image))


def test_ways_to_merge_share_weights_and_differ() -> None:
    image, reference = torch.randn(1, 1, 32, 32, 32), small()
    seen = []
    with torch.no_grad():
        for downsample in ("merging", "mergingv2", "merging_1_4"):
            other = small(downsample)
            other.load_state_dict(reference.state_dict(), strict=True)
            seen.append(other.swinViT(image)[1])
    assert not any(torch.allclose(a, b, atol=1e-2) for a, b in combinations(seen, 2))


def test_merging_of_monai_1_4_reads_two_sub_grids_twice_and_two_never() -> None:
    merge, seen = small("merging_1_4").stage_module("stage1").downsample, []
    merge.norm.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    x = torch.randn(2, 4, 6, 8, 12, requires_grad=True)
    assert merge(x).shape == (2, 2, 3, 4, 24)
    places = ("000", "100", "010", "001", "101", "010", "001", "111")
    for column, (a, b, c) in zip(seen[0].split(12, -1), ([int(n) for n in place] for place in places), strict=True):
        assert torch.equal(column, x[:, a::2, b::2, c::2])
    merge(x).square().sum().backward()
    assert not x.grad[:, 1::2, 1::2, 0::2].any() and not x.grad[:, 0::2, 1::2, 1::2].any()
    assert merge(torch.zeros(1, 5, 4, 3, 12)).shape == (1, 3, 2, 2, 24)  # odd edges are padded


def test_the_groups_hold_every_parameter_once() -> None:
    starts = tiny.first_names(small())
    assert starts["encoder"] == {"swinViT"}
    assert starts["skips"] == {f"encoder{n}" for n in (1, 2, 3, 4, 10)}
    assert starts["decoder"] == {f"decoder{n}" for n in (1, 2, 3, 4, 5)}


def test_stages_run_in_their_order_and_their_blocks_keep_their_channels() -> None:
    network, seen = small(), []
    assert network.stride == 32
    for name in network.stages:
        assert len(network.attention_blocks(name)) == 2
        assert all(block in list(network.stage_module(name).modules()) for block in network.attention_blocks(name))
        for block in network.attention_blocks(name):

            def note(module: nn.Module, args: object, output: torch.Tensor, name: str = name) -> None:
                seen.append((name, output.shape[-1]))

            block.register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(1, 1, *SHAPE))
    assert seen == [stage for stage in network.stages.items() for _ in range(2)]


def test_every_parameter_gets_a_gradient() -> None:
    network = small()
    network(torch.randn(1, 1, *SHAPE)).square().mean().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize(
    "options",
    [{"feature_size": 20}, {"feature_size": 12, "num_heads": [5, 6, 12, 24]}, {"num_heads": [3, 6]}, {"depths": [2]}],
)
def test_sizes_that_do_not_fit_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(SpansegError, match="multiple of 12, four depths, and four num_heads"):
        SwinUnetr(in_channels=1, out_channels=3, **options)


def test_an_unknown_merging_is_refused() -> None:
    with pytest.raises(SpansegError, match="merging, mergingv2, merging_1_4, not 'meging'"):
        small("meging")
