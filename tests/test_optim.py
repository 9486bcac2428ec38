"""The optimiser: orthogonal steps for kernels, AdamW for the rest."""

import pytest
import torch
from torch import nn

from spanseg.optim import MuonAdamW, orthogonalise


@pytest.mark.parametrize("shape", [(16, 16), (8, 216), (192, 24)])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_singular_values_come_near_one_and_directions_stay(shape: tuple[int, int], scale: float) -> None:
    torch.manual_seed(0)
    left, values, right = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    spread = values.clone().copy_(torch.linspace(0.2, 1.0, len(values)))
    result = orthogonalise(scale * left @ torch.diag(spread) @ right)
    assert result.shape == shape
    found = torch.linalg.svdvals(result)
    assert found.min() > 0.6 and found.max() < 1.3
    inner = left.T @ result @ right.T
    assert (inner - torch.diag(inner.diagonal())).abs().max() < 1e-3
    assert (inner.diagonal() > 0).all()


def test_the_adamw_part_is_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 3, bias=False), nn.Linear(5, 3, bias=False)
    theirs.load_state_dict(ours.state_dict())
    first = MuonAdamW(ours.parameters(), lr=0.01, weight_decay=0.1)
    second = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.995), eps=1e-8, weight_decay=0.1)
    for _ in range(5):
        x = torch.randn(7, 5)
        for network, optimiser in ((ours, first), (theirs, second)):
            optimiser.zero_grad()
            network(x).square().sum().backward()
            optimiser.step()
    torch.testing.assert_close(ours.weight, theirs.weight, rtol=1e-5, atol=1e-6)


def test_a_kernel_steps_along_its_orthogonal_direction() -> None:
    torch.manual_seed(0)
    conv = nn.Conv3d(4, 6, 3)
    before = conv.weight.detach().clone()
    optimiser = MuonAdamW(conv.parameters(), lr=0.1, weight_decay=0.0)
    conv(torch.randn(1, 4, 5, 5, 5)).square().sum().backward()
    optimiser.step()
    step = (before - conv.weight.detach()).reshape(6, -1)
    values = torch.linalg.svdvals(step) / (0.1 * 0.2 * 108**0.5)
    assert values.min() > 0.6 and values.max() < 1.3
    assert (step * conv.weight.grad.reshape(6, -1)).sum() > 0, "the step must go against the gradient"


@pytest.mark.parametrize("shape", [(1, 24, 12), (2, 24, 12), (1, 8, 8, 48), (5, 7, 1, 1, 1)])
def test_tables_of_tokens_embeddings_and_one_voxel_kernels_take_adamw_steps(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    table = nn.Parameter(torch.randn(shape))
    before, table.grad = table.detach().clone(), torch.randn(shape)
    MuonAdamW([table], lr=0.1, weight_decay=0.0).step()
    torch.testing.assert_close(table.detach(), before - 0.1 * table.grad.sign())


def test_matrices_of_a_group_that_asks_for_it_step_along_theirs() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(8, 8)
    before = linear.weight.detach().clone()
    optimiser = MuonAdamW([{"params": list(linear.parameters()), "matrices": True}], lr=0.1, weight_decay=0.0)
    linear(torch.randn(16, 8)).square().sum().backward()
    optimiser.step()
    values = torch.linalg.svdvals(before - linear.weight.detach()) / (0.1 * 0.2 * 8**0.5)
    assert values.min() > 0.6 and values.max() < 1.3


@pytest.mark.parametrize("muon", [True, False])
def test_decay_alone_shrinks_weights_but_no_bias(muon: bool) -> None:
    conv = nn.Conv3d(2, 3, 3)
    nn.init.ones_(conv.bias)
    before = conv.weight.detach().clone()
    for parameter in conv.parameters():
        parameter.grad = torch.zeros_like(parameter)
    MuonAdamW(conv.parameters(), lr=0.1, weight_decay=0.5, muon=muon).step()
    torch.testing.assert_close(conv.weight.detach(), before * 0.95)
    assert torch.equal(conv.bias.detach(), torch.ones(3))


def test_in_bf16_a_step_points_the_same_way() -> None:
    torch.manual_seed(0)
    convolutions = [nn.Conv3d(8, 12, 3) for _ in range(2)]
    convolutions[1].load_state_dict(convolutions[0].state_dict())
    image, steps = torch.randn(1, 8, 5, 5, 5), []
    for conv, bf16 in zip(convolutions, (False, True), strict=True):
        before = conv.weight.detach().clone()
        conv(image).square().sum().backward()
        MuonAdamW(conv.parameters(), lr=0.1, weight_decay=0.0, bf16=bf16).step()
        assert conv.weight.dtype == torch.float32
        steps.append((before - conv.weight.detach()).flatten())
    assert torch.cosine_similarity(*steps, dim=0) > 0.99
    assert not torch.equal(*steps), "one of them was to be rounded"
