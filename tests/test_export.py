"""The exported network must be the trained one."""

import hashlib
import os
import shutil
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import tiny
from spanseg import checkpoint, export, graph, model, runtime, runtime_torch, splits
from spanseg import recipe as recipes
from spanseg.errors import SpansegError
from spanseg.network_predictor import NetworkPredictor
from spanseg.splits import Member

OF_RECIPE = ("canvas", "input", "labels")
"""Sections of model.toml that follow from the recipe alone."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    recipe = tiny.recipe()
    torch.manual_seed(0)
    checkpoint.save(folder, model.build(recipe).state_dict(), recipe)
    return folder


@pytest.fixture(scope="module")
def canvas():
    return tiny.canvas()


@pytest.fixture(scope="module")
def exported(run, canvas, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    measured = export.export(run, folder, export.Description("tiny", "1", "Apache-2.0", "nothing"), [canvas])
    return folder, measured


def test_export_agrees_with_pytorch_and_says_so(exported):
    folder, measured = exported
    assert measured["f32_against_pytorch"] >= 0.998
    table = tomllib.loads((folder / "model.toml").read_text())
    assert table["agreement"]["f32_against_pytorch"] == pytest.approx(measured["f32_against_pytorch"], abs=1e-4)
    assert table["model"]["sha256"] == hashlib.sha256((folder / "model.onnx").read_bytes()).hexdigest()
    assert table["runtime"]["peak_mib"] > 0


def test_classifiers_that_only_train_are_left_out(canvas, tmp_path):
    recipe = tiny.recipe()
    widths = {"backbone": recipe["backbone"] | {"widths": [4, 6, 8], "aside": True}}
    recipe |= widths | {"objective": {"name": "deeply_supervised", "phases": 1, "aside": 0.3}}
    network = model.build(recipe)
    checkpoint.save(tmp_path / "run", network.state_dict(), recipe)
    measured = export.export(
        tmp_path / "run", tmp_path / "model", export.Description("tiny", "1", "Apache-2.0", "nothing"), [canvas]
    )
    aside = sum(parameter.numel() for name, parameter in network.named_parameters() if name.startswith("aside."))
    assert aside and measured["parameters"] == sum(p.numel() for p in network.parameters()) - aside
    stored = recipes.load(str(tmp_path / "model" / "recipe.toml"))
    assert not stored["backbone"]["aside"] and stored["objective"] == {"name": "supervised", "phases": 1}
    assert not [name for name in checkpoint.load_tensors(tmp_path / "model" / "weights.safetensors") if "aside" in name]
    again = model.build(recipe)  # who trains on with them starts from the model all the same
    checkpoint.load_backbone(again, tmp_path / "model" / "weights.safetensors")
    torch.testing.assert_close(again.classify.bias, network.classify.bias.half().float())


def test_weights_that_are_no_number_are_not_exported(run, canvas, tmp_path):
    recipe, network = checkpoint.restore(run)
    network.classify.bias.data[0] = torch.nan
    checkpoint.save(tmp_path / "run", network.state_dict(), recipe)
    with pytest.raises(SpansegError, match=r"classify\.bias holds what is no finite number"):
        export.export(
            tmp_path / "run", tmp_path / "model", export.Description("tiny", "1", "Apache-2.0", "nothing"), [canvas]
        )
    assert not (tmp_path / "model").exists()


def test_an_export_says_nothing_that_means_nothing(run, canvas, tmp_path, capfd, recwarn):
    export.export(run, tmp_path / "model", export.Description("tiny", "1", "Apache-2.0", "nothing"), [canvas])
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    assert [str(one.message) for one in recwarn] == []


def test_what_is_not_known_to_mean_nothing_is_still_written(capfd):
    with graph._without_lines(b"Constant folding"):
        os.write(2, b"Warning: Constant folding - not applied.\nsomething else\n")
    assert capfd.readouterr().err == "something else\n"


def test_the_model_folder_keeps_what_the_run_has_seen(run, canvas, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    splits.write(tmp_path / "run", [Member("scan", "sub-01", "ab" * 32)], [])
    description = export.Description("tiny", "1", "Apache-2.0", "nothing")
    export.export(tmp_path / "run", tmp_path / "model", description, [canvas])
    assert splits.seen_by(tmp_path / "model") == {"ab" * 8}
    assert "sub-01" not in "".join(path.read_text() for path in (tmp_path / "model").glob("*.toml"))
    assert runtime.open_model(str(tmp_path / "model")).title == "spanseg default, coarse stage"


def test_a_recipe_of_windows_gives_a_model_of_windows():
    recipe = tiny.recipe()
    recipe["canvas"]["windows"] = True
    table = export._table(recipe, export.Description("tiny", "1", "Apache-2.0", "nothing"), torch.nn.Identity())
    assert runtime.ModelFolder(Path(), table).windows
    unexported = NetworkPredictor(recipe, torch.nn.Identity()).folder
    assert unexported.windows and unexported.table.items() >= {key: table[key] for key in OF_RECIPE}.items()
    recipe["canvas"]["windows"] = "yes"
    with pytest.raises(SpansegError, match="windows = true"):
        model.canvas_of(recipe)


@pytest.mark.parametrize("recipe", ["step1-cascade", "click"])
def test_a_network_that_sees_more_than_the_scan_is_described_so_and_refused_in_memory(recipe):
    recipe = recipes.load(recipe)
    described = runtime_torch.described(recipe).table
    table = export._table(recipe, export.Description("tiny", "1", "Apache-2.0", "nothing"), torch.nn.Identity())
    assert {key: described[key] for key in OF_RECIPE} == {key: table[key] for key in OF_RECIPE}
    with pytest.raises(SpansegError, match=r"only one that sees the scan alone .* export it and test its folder"):
        NetworkPredictor(recipe, torch.nn.Identity())


def test_probabilities_equal_pytorchs(run, canvas, exported):
    recipe = tiny.recipe()
    network = model.build(recipe).eval()
    weights = checkpoint.load_tensors(exported[0] / "weights.safetensors")
    checkpoint.load_into(network, {key: value.float() for key, value in weights.items()}, "weights")
    with torch.no_grad():
        expected = torch.softmax(network(torch.from_numpy(canvas)[None, None]), 1)[0].numpy() * 255
    got = runtime.Engine(runtime.open_model(str(exported[0])), "f32", 1)(canvas)
    assert got.dtype == np.uint8
    assert np.abs(got - expected).max() < 1.01


def test_weights_are_stored_in_half_precision(exported):
    graph = onnx.load(str(exported[0] / "model.onnx")).graph
    large = [t for t in graph.initializer if np.prod(t.dims) >= 64]
    assert large
    assert all(t.data_type == onnx.TensorProto.FLOAT16 for t in large)


def test_a_network_that_disagrees_is_not_written(run, canvas, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "_in_torch", lambda *_: np.eye(33, dtype=np.uint8)[5][:, None, None, None])
    with pytest.raises(SpansegError, match="nothing was written"):
        export.export(run, tmp_path / "m", export.Description("tiny", "1", "x", "y"), [canvas])
    assert list(tmp_path.iterdir()) == []


def test_the_same_canvas_gives_the_same_bits(exported, canvas):
    engine = runtime.Engine(runtime.open_model(str(exported[0])), "f32", 1)
    np.testing.assert_array_equal(engine(canvas), engine(canvas))


def test_a_folder_without_a_network_is_refused(tmp_path):
    with pytest.raises(SpansegError, match=r"model\.toml"):
        runtime.open_model(str(tmp_path))


def test_unknown_precision_is_refused(exported):
    with pytest.raises(SpansegError, match="f32, bf16, auto"):
        runtime.Engine(runtime.open_model(str(exported[0])), "f16")


def test_labels_agree_where_they_are_the_same_or_tied_in_both():
    def answers(*classes):
        return np.array(classes, dtype=np.uint8).T[:, :, None, None]

    first = answers((0, 200, 55), (10, 123, 122), (10, 123, 122), (250, 3, 2))
    second = answers((0, 190, 65), (10, 122, 123), (10, 100, 145), (250, 2, 3))
    assert export.agreement(first, second) == pytest.approx(2 / 3)  # same, tied, different; the last is background
    assert export.agreement(second, first) == pytest.approx(2 / 3)
    assert export.agreement(first[:1], first[:1]) == 1.0
