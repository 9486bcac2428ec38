"""The default network: its cells, its phases, its size and its promises as a backbone."""

import pytest
import torch
from torch import nn

from spanseg import model, recipe
from spanseg.errors import SpansegError
from spanseg.nets.res_unet import ResUNet, depth_to_space, space_to_depth

MOST_PARAMETERS = 5_500_000


def small(**options: object) -> ResUNet:
    torch.manual_seed(0)
    return ResUNet(**{"in_channels": 1, "out_channels": 3, "widths": (4, 8, 12), "head_channels": 6} | options).eval()


def test_depth_to_space_undoes_space_to_depth() -> None:
    image = torch.randn(2, 3, 4, 6, 8)
    assert torch.equal(depth_to_space(space_to_depth(image)), image)
    cells = torch.randn(2, 24, 3, 2, 4)
    assert torch.equal(space_to_depth(depth_to_space(cells)), cells)


def test_a_cell_holds_its_own_eight_voxels() -> None:
    image = torch.arange(64.0).reshape(1, 1, 4, 4, 4)
    cells = space_to_depth(image)
    for phase in range(8):
        a, b, c = phase // 4, phase // 2 % 2, phase % 2
        assert torch.equal(cells[:, phase], image[:, 0, a::2, b::2, c::2])


@pytest.mark.parametrize("phases", [[phase] for phase in range(8)] + [[6, 1, 3]])
def test_phases_are_exactly_those_voxels_of_the_whole(phases: list[int]) -> None:
    network, image = small(), torch.randn(2, 1, 16, 8, 24)
    with torch.no_grad():
        whole = network(image)
        parts = torch.cat([whole[..., p // 4 :: 2, p // 2 % 2 :: 2, p % 2 :: 2] for p in phases])
        torch.testing.assert_close(network(image, phases=phases), parts, rtol=0, atol=1e-6)


def test_people_in_a_batch_do_not_mix() -> None:
    network, image = small(), torch.randn(3, 1, 8, 16, 8)
    with torch.no_grad():
        alone = torch.cat([network(one[None]) for one in image])
        torch.testing.assert_close(network(image), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("widths", [(4,), (4, 8), (4, 8, 12)])
def test_stride_is_the_smallest_cell(widths: tuple[int, ...]) -> None:
    network = small(widths=widths)
    n = network.stride
    assert n == 2 ** len(widths)
    assert network(torch.zeros(1, 1, n, 2 * n, n)).shape == (1, 3, n, 2 * n, n)


def test_stages_name_their_channels() -> None:
    assert small().stages == {"encoder0": 4, "encoder1": 8, "encoder2": 12, "decoder1": 8, "decoder0": 4}


def test_the_encoder_is_what_runs_before_the_first_decoder() -> None:
    network = small()
    encoder = {id(p) for p in network.groups()["encoder"]}
    named = {name for name, p in network.named_parameters() if id(p) in encoder}
    assert named == {n for n, _ in network.named_parameters() if n.startswith(("stem.", "encoder.", "down."))}


def test_every_parameter_gets_a_gradient() -> None:
    network = small()
    network(torch.randn(1, 1, 16, 16, 16)).square().mean().backward()
    assert not [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize("name", [name for name in recipe.shipped() if name.startswith("default")])
def test_the_default_recipes_fit_the_limit(name: str) -> None:
    network = model.build(recipe.load(name))
    assert isinstance(network, ResUNet)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert 1_000_000 < count <= MOST_PARAMETERS
    assert not [m for m in network.modules() if isinstance(m, nn.BatchNorm3d | nn.ConvTranspose3d)]


def test_a_canvas_that_does_not_fit_the_stride_is_refused() -> None:
    with pytest.raises(SpansegError, match=r"multiple of 8"):
        model.build(recipe.load("default-coarse", ["canvas.shape=[80, 84, 80]", "backbone.widths=[4, 8, 12]"]))


def test_a_canvas_of_one_position_at_the_coarsest_grid_is_refused() -> None:
    with pytest.raises(SpansegError, match="one edge at least must be 16 voxels long"):
        model.build(recipe.load("default-coarse", ["canvas.shape=[8, 8, 8]", "backbone.widths=[4, 8, 12]"]))
    model.build(recipe.load("default-coarse", ["canvas.shape=[8, 8, 16]", "backbone.widths=[4, 8, 12]"]))


def test_the_recipes_canvases_cover_a_brain() -> None:
    """The smallest margin round a brain of 140 x 190 x 150 mm with the centre 8 mm off."""
    recipes = {name: recipe.load(name) for name in recipe.shipped()}
    ours = [
        name for name, one in recipes.items() if one["backbone"]["name"] == "res_unet" and not model.is_clicked(one)
    ]
    for name in ours:  # a transformer's window is its canvas: 192 mm; a click network sees a neighbourhood
        canvas = model.canvas_of(recipe.load(name))
        edges = [n * canvas.voxel_mm for n in canvas.shape]
        assert edges[0] >= 156 and edges[1] >= 206 and edges[2] >= 160, name


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_gradients_through_a_residual_block_are_right_in_every_layout(kind: torch.dtype) -> None:
    """torch 2.13's own instance norm gives wrong ones where a channels-last gradient meets a batch of one."""
    network = small(widths=(8, 16))
    block = network.encoder[0].train().to(kind)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        image = torch.randn(1, 8, 6, 8, 10, generator=torch.Generator().manual_seed(1)).to(kind)
        image = image.contiguous(memory_format=layout).requires_grad_()
        weight = torch.randn(1, 8, 6, 8, 10, generator=torch.Generator().manual_seed(2)).to(kind)
        (block(image) * weight).sum().backward()
        assert image.grad is not None
        found.append(image.grad.float().flatten())
    assert torch.cosine_similarity(*found, dim=0) > 0.99


def test_training_in_bf16_keeps_the_layout_and_the_values() -> None:
    network = small(widths=(8, 16))
    norm, plain = network.stem[1], nn.InstanceNorm3d(8, affine=True)
    with torch.no_grad():
        plain.weight.copy_(norm.weight.normal_())
        plain.bias.copy_(norm.bias.normal_())
    image = (3 + torch.randn(1, 8, 6, 8, 10)).to(torch.bfloat16).contiguous(memory_format=torch.channels_last_3d)
    found = norm.train()(image)
    assert found.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(found.float(), plain(image.float()), rtol=0.02, atol=0.02)
    two = torch.cat([image, 5 * image])
    torch.testing.assert_close(norm(two)[1].float(), plain(two.float())[1], rtol=0.02, atol=0.02)
    assert torch.equal(norm(image.float()), plain(image.float())), "in f32 it is torch's own"
