"""The 2-D U-Net of slices: what it sees, its groups and stages, and slices that are asked for alone."""

import pytest
import torch
from torch import nn

import tiny
from spanseg.errors import SpansegError
from spanseg.interfaces import Batch
from spanseg.nets.slice_unet import SliceUNet
from spanseg.objectives.sliced import Sliced


def small(**options: object) -> SliceUNet:
    torch.manual_seed(0)
    return SliceUNet(in_channels=1, out_channels=3, widths=(4, 8, 12), **options).eval()  # type: ignore[arg-type]


def image(*shape: int) -> torch.Tensor:
    return torch.randn(2, 1, *shape, generator=torch.Generator().manual_seed(1))


def test_the_groups_hold_every_parameter_once() -> None:
    assert set(tiny.first_names(small())) == {"encoder", "skips", "decoder", "head"}


def test_stages_run_in_their_order_and_return_their_channels() -> None:
    network = small()
    seen, shape = tiny.stages_seen(network, image(9, 6, 14))
    assert shape == (2, 3, 9, 6, 14), "sizes that no level divides"
    assert seen == list(network.stages.items())


@pytest.mark.parametrize(("plane", "axis"), [("sagittal", 0), ("coronal", 1), ("axial", 2)])
@pytest.mark.parametrize("neighbours", [True, False])
def test_a_slice_sees_itself_and_its_neighbours_at_most(plane: str, axis: int, neighbours: bool) -> None:
    network, shown = small(plane=plane, neighbours=neighbours), image(12, 12, 12)
    other = shown.clone()
    other.select(2 + axis, 5).add_(torch.rand(2, 1, 12, 12))
    with torch.no_grad():
        differs = (network(shown) != network(other)).movedim(2 + axis, 0).flatten(1).any(1)
    assert differs.nonzero().flatten().tolist() == ([4, 5, 6] if neighbours else [5])


def test_slices_that_are_asked_for_alone_are_those_of_the_whole() -> None:
    network, shown = small(), image(8, 10, 12)
    which = torch.tensor([[0, 9, 3], [4, 4, 7]])
    with torch.no_grad():
        whole, some = network(shown), network(shown, slices=which)
    for subject, rows in enumerate(which):
        torch.testing.assert_close(some[subject], whole[subject][:, :, rows], atol=1e-5, rtol=1e-5)


def test_the_objective_of_slices_compares_each_with_its_own_truth() -> None:
    """A network that knows the truth loses nothing, whichever slices are drawn; the drawing follows from the index."""

    class Knowing(nn.Module):
        plane = "axial"

        def forward(self, seen: torch.Tensor, slices: torch.Tensor) -> torch.Tensor:
            self.asked = slices
            subject = torch.arange(len(seen))[:, None]
            shown = seen[:, 0].movedim(3, 1)[subject, slices].movedim(1, 3)
            return torch.stack([shown == c for c in range(3)], 1).float() * 40 - 20

    target = torch.zeros(2, 8, 10, 12, dtype=torch.long)
    target[:, 2:5, 3:7, 2:6], target[1, 5:7, 2:4, 8:11] = 1, 2
    network, objective = Knowing(), Sliced(slices=5)
    losses = objective(network, Batch(target[:, None].float(), target, 3))
    first = network.asked
    assert first.shape == (2, 5) and all(float(value) < 1e-3 for value in losses.values())
    objective(network, Batch(target[:, None].float(), target, 3))
    assert torch.equal(first, network.asked)


def test_an_unknown_plane_is_refused() -> None:
    with pytest.raises(SpansegError, match="a plane of sagittal, coronal, axial, not 'oblique'"):
        small(plane="oblique")
