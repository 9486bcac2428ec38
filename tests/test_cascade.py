"""Tissue first, structures on top of it: in training, exported, and segmenting without PyTorch."""

import numpy as np
import pytest
import torch

import tiny
from spanseg import cascade, checkpoint, export, generation, model, segmenter, sources
from spanseg.chain import stacked
from spanseg.errors import SpansegError
from spanseg.interfaces import Sample
from spanseg.simulate import simulate

INPUTS = [{"image": "T1"}, {"model": "tissue", "output": "probabilities"}]


def tissue_recipe():
    recipe = tiny.recipe()
    recipe["recipe"] = {"protocol": "tissue", "title": "tissue"}
    return recipe


def structure_recipe(first, inputs=INPUTS):
    recipe = tiny.recipe()
    recipe["recipe"] = recipe["recipe"] | {"inputs": inputs}
    recipe["cascade"] = {"tissue": str(first)}
    return recipe


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tissue")
    torch.manual_seed(0)
    checkpoint.save(folder, dict(model.build(tissue_recipe()).named_parameters()), tissue_recipe())
    return folder


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    tiny.write_map(folder / "head.nii.gz")
    return generation.read_maps(folder, generation.load_classes(model.protocol_of(tiny.recipe())))


@pytest.mark.parametrize(
    ("inputs", "channels"),
    [(INPUTS, 5), ([{"model": "tissue", "output": "labels"}], 1), ([INPUTS[1]], 4), ([{"image": "T1"}], 1)],
)
def test_channels_are_counted_from_the_inputs(inputs, channels, first, maps):
    recipe = structure_recipe(first, inputs)
    assert model.channels_of(recipe) == channels
    source, _ = sources.sources(recipe, maps, "cpu")
    assert source.draw(0, 0).image.shape[1] == channels


def test_the_first_network_sees_the_same_image(first, maps):
    sample = sources.sources(structure_recipe(first), maps, "cpu")[0].draw(0, 3)
    plain = sources.sources(tiny.recipe(), maps, "cpu")[0].draw(0, 3)
    assert torch.equal(sample.image[:, :1], plain.image)
    with torch.no_grad():
        expected = torch.softmax(checkpoint.restore(first)[1].eval()(plain.image), 1)
    assert torch.allclose(sample.image[:, 1:], expected)


def test_a_person_is_looked_at_by_the_network_that_has_not_seen_them(first):
    class One:
        def draw(self, seed, index):
            return Sample(torch.zeros(1, 1, 32, 32, 32), torch.zeros(1, 32, 32, 32).long(), case="sub-01")

    def always(value):
        network = torch.nn.Conv3d(1, 4, 1)
        torch.nn.init.zeros_(network.weight)
        torch.nn.init.zeros_(network.bias)
        with torch.no_grad():
            network.bias[value] = 50
        return network

    looked_at = cascade.Cascaded(One(), always(1), [INPUTS[1]], {"sub-01": always(2)})
    assert int(looked_at.draw(0, 0).image.argmax(1).unique()) == 2


def test_numpy_and_torch_stack_the_same_channels():
    rng = np.random.default_rng(0)
    found = rng.integers(0, 256, (4, 3, 4, 5)).astype(np.uint8)
    canvas = rng.random((3, 4, 5), dtype=np.float32)
    for inputs in (INPUTS, [{"model": "tissue", "output": "labels"}]):
        ours = cascade.channels(
            torch.from_numpy(canvas)[None, None], torch.from_numpy(found / np.float32(255))[None], inputs
        )
        assert np.allclose(ours[0].numpy(), stacked(canvas, found, inputs))


def test_a_chain_exports_and_segments(first, tmp_path):
    recipe = structure_recipe(first)
    torch.manual_seed(1)
    checkpoint.save(tmp_path / "run", dict(model.build(recipe).named_parameters()), recipe)
    canvas = np.random.default_rng(0).random((32, 32, 32), dtype=np.float32)
    measured = export.export(
        tmp_path / "run", tmp_path / "model", export.Description("chain", "1", "Apache-2.0", "nothing"), [canvas]
    )
    assert measured["f32_against_pytorch"] >= 0.998
    (scan,) = simulate([tiny.write_map(tmp_path / "map.nii.gz")], tmp_path / "bids", 1, voxel_mm=3.0)
    assert segmenter.segment(scan, model=str(tmp_path / "model")).volumes


def test_a_recipe_without_its_first_network_is_refused(maps):
    recipe = structure_recipe("")
    with pytest.raises(SpansegError, match=r"cascade\.tissue"):
        sources.sources(recipe, maps, "cpu")


def test_a_first_network_of_another_protocol_is_refused(tmp_path, maps):
    checkpoint.save(tmp_path, dict(model.build(tiny.recipe()).named_parameters()), tiny.recipe())
    with pytest.raises(SpansegError, match="expected a run of the protocol 'tissue'"):
        sources.sources(structure_recipe(tmp_path), maps, "cpu")


def test_an_input_that_is_nothing_is_refused():
    recipe = structure_recipe("x", [{"image": "T1"}, {"model": "tissue", "output": "guess"}])
    with pytest.raises(SpansegError, match="probabilities or labels"):
        model.channels_of(recipe)
