"""Adapting to a centre, from a few scans to a model that segments them without PyTorch."""

import json
import math
import shutil

import numpy as np
import pytest
import torch

import spanseg
import tiny
from spanseg import (
    adaptation,
    adapter_request,
    centres,
    checkpoint,
    export,
    generation,
    model,
    runtime,
    segmenter,
    splits,
)
from spanseg.cli import main as cli
from spanseg.errors import SpansegError
from spanseg.judging import Change, changes, changes_table, changes_text, judge
from spanseg.labelled import pair_scans
from spanseg.labels import UNKNOWN, load_protocol
from spanseg.participants import participant_of
from spanseg.sampling import LabelledScan
from spanseg.simulate import simulate
from spanseg.stats import MeanInterval
from spanseg.volume import Volume


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("centre")
    label_map = tiny.write_map(folder / "map.nii.gz")
    simulate([label_map], folder / "bids", 5, voxel_mm=4.0)
    return folder / "bids"


@pytest.fixture(scope="module")
def pairs(dataset):
    return sorted(pair_scans(dataset, dataset / "derivatives"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """An untrained tiny model, as a folder that others adapt."""
    folder = tmp_path_factory.mktemp("base")
    recipe = tiny.recipe()
    torch.manual_seed(0)
    checkpoint.save(folder / "run", model.build(recipe).state_dict(), recipe)
    canvas = np.random.default_rng(0).random((32, 32, 32), dtype=np.float32)
    export.export(folder / "run", folder / "model", export.Description("tiny", "1", "Apache-2.0", "nothing"), [canvas])
    return folder / "model"


def options(base, **more):
    return adaptation.AdaptOptions(start=str(base), labels="aseg", **({"most_steps": 10, "budget_s": 600} | more))


@pytest.fixture(scope="module")
def adapter(base, pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters") / "ours"
    plans = []
    adaptation.adapt(pairs[:3], folder, options(base), plans.append, lambda row: None, pairs[3:])
    adaptation.exported(folder, "ours", options(base), pairs[0][0])
    return folder, plans[0]


def test_a_structure_that_the_truth_leaves_out_keeps_what_the_base_model_gives_it():
    aseg = load_protocol("aseg")
    csf, cortex, white = (aseg.class_of(value) for value in (24, 3, 2))
    truth = np.array([cortex, cortex, white, 0, UNKNOWN, csf], dtype=np.int16).reshape(6, 1, 1)
    found = np.array([24, 3, 24, 24, 24, 24], dtype=np.int32).reshape(6, 1, 1)
    scan = LabelledScan("a", truth * 0.0, truth, np.ones(3), (csf,))
    turned = Volume(found[::-1], np.diag([-1.0, 1, 1, 1]))  # another order of voxels than the scan's RAS+
    classes = adaptation.with_unlabelled(scan, turned, aseg).classes.ravel().tolist()
    assert classes == [csf, cortex, csf, csf, UNKNOWN, csf]
    assert adaptation.with_unlabelled(scan, turned, aseg).unlabelled == ()
    labels_all = LabelledScan("a", truth * 0.0, truth, np.ones(3))
    assert (adaptation.with_unlabelled(labels_all, turned, aseg).classes == truth).all()


def test_what_is_replayed_is_drawn_as_the_base_learned_whatever_labels_it_learned_from(tmp_path):
    recipe = tiny.recipe()
    recipe["synth"] |= {"silver": 1.0, "lifespan": False}
    tiny.write_map(tmp_path / "head.nii.gz")
    maps = generation.read_maps(tmp_path, generation.load_classes(load_protocol("aseg")))
    drawn = adaptation._synthetic(maps, recipe)
    assert drawn.options.elastic_mm == recipe["synth"]["elastic_mm"]
    assert drawn.draw(0, 0).target.any()


def test_the_plan_says_what_will_be_trained(adapter):
    plan = adapter[1]
    assert plan.adaptation == "decoder" and plan.steps == 10 and plan.step_s > 0
    assert 0 < plan.trained < plan.total


def test_an_adapter_changes_what_the_model_finds_and_nothing_in_the_base(adapter, base, pairs):
    before = (base / "weights.safetensors").read_bytes()
    first = spanseg.segment(pairs[4][0], model=str(base))
    second = spanseg.segment(pairs[4][0], model=str(adapter[0]))
    assert (first.labels.data != second.labels.data).any()
    assert (base / "weights.safetensors").read_bytes() == before


def test_the_split_names_who_trained_and_who_tests(adapter, pairs):
    record = json.loads((adapter[0] / splits.NAME).read_text(encoding="utf-8"))
    trained, tested = ([one for one in record[side] if one["kind"] == "scan"] for side in ("train", "held_out"))
    assert [one["name"] for one in trained] == [participant_of(scan) for scan, _ in pairs[:3]]
    assert [one["name"] for one in tested] == [participant_of(scan) for scan, _ in pairs[3:]]
    assert [one["sha256"] for one in tested] == [one.sha256 for one in splits.scans_in(scan for scan, _ in pairs[3:])]


def test_another_request_into_the_same_folder_is_refused_and_the_same_one_is_finished(adapter, base, pairs):
    folder, asked = adapter[0], []

    def again(train, **more):
        return adaptation.adapt(train, folder, options(base, **more), asked.append, lambda row: None, pairs[3:])

    assert again(pairs[:3], budget_s=5) == folder / checkpoint.DELTA and not asked
    with pytest.raises(SpansegError, match="made with another set of scans or labels; give another --centre"):
        again(pairs[1:3], adaptation="decoder")
    with pytest.raises(SpansegError, match="made with another adaptation, another seed"):
        again(pairs[:3], adaptation="full", seed=1)
    request = folder / adapter_request.NAME
    kept = request.read_text(encoding="utf-8")
    request.unlink()
    with pytest.raises(SpansegError, match="without a record of how it was asked for"):
        again(pairs[:3])
    request.write_text(kept, encoding="utf-8")


def test_an_adapter_can_be_adapted_further(adapter, base, pairs, tmp_path):
    further = options(adapter[0], adaptation="lora", replay_share=0.0)
    adaptation.adapt(pairs[3:4], tmp_path / "more", further, lambda plan: None, lambda row: None)
    before, after = (checkpoint.restore(folder)[1].eval() for folder in (adapter[0], tmp_path / "more"))
    image = torch.rand(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        far = (before(image) - after(image)).abs().max()
    assert 0 < far < 1, "it begins where the first adapter ended"
    adaptation.exported(tmp_path / "more", "more", further, pairs[3][0])
    assert centres.model_of("more", str(base), tmp_path)[0] == str(tmp_path / "more")
    stock = model.backbone(tiny.recipe()).eval()
    checkpoint.load_backbone(stock, tmp_path / "more" / checkpoint.DELTA)  # low-rank deltas on a decoder on the base
    with torch.no_grad():
        assert torch.allclose(stock(image), after(image), atol=1e-4)


def test_a_model_with_tokens_is_not_adapted(pairs, tmp_path):
    recipe = tiny.recipe() | {"tokens": {"name": "knowledge", "stages": ["decoder0"]}}
    checkpoint.save(tmp_path / "told", dict(model.build(recipe).named_parameters()), recipe)
    with pytest.raises(SpansegError, match=r"has tokens \(knowledge\), and adapt starts from models without"):
        adaptation.recipe_for(options(tmp_path / "told"), 5)


@pytest.mark.parametrize("bf16", [True, False])
def test_it_trains_in_the_arithmetic_of_its_base(tmp_path, bf16):
    recipe = tiny.recipe() | ({"train": {"bf16": True, "steps": 7, "ema": 0.5}} if bf16 else {})
    checkpoint.save(tmp_path / "base", dict(model.build(recipe).named_parameters()), recipe)
    how = adaptation.recipe_for(options(tmp_path / "base"), 5)[0]["train"]
    assert how["bf16"] is bf16 and "steps" not in how and how["ema"] == 0.98


def test_nobody_is_tested_on_a_model_that_they_trained(adapter, base, pairs, tmp_path):
    person = participant_of(pairs[0][0])
    with pytest.raises(SpansegError, match=f"{person}: the model in .*ours was trained on this scan"):
        judge(pairs[:1], "aseg", segmenter.SegmentOptions(model=str(adapter[0])))
    with pytest.raises(SpansegError, match=f"{person}: "):
        adaptation.adapt(pairs[3:], adapter[0], options(base), lambda plan: None, lambda row: None, pairs[:3])
    shutil.copytree(base, tmp_path / "base")
    splits.write(tmp_path / "base", splits.scans_in([pairs[0][0]]), [])
    seen = options(tmp_path / "base")
    with pytest.raises(SpansegError, match=f"{person}: the model in .*base was trained on this scan"):
        adaptation.adapt(pairs[3:], tmp_path / "new", seen, lambda plan: None, lambda row: None, pairs[:3])
    assert not (tmp_path / "new").exists()


def test_the_delta_holds_the_decoder_and_no_more(adapter):
    names = checkpoint.load_tensors(adapter[0] / checkpoint.DELTA)
    assert not [name for name in names if name.startswith(("encoder.", "stem.", "down."))]
    assert any(name.startswith("decoder.") for name in names)
    assert not (adapter[0] / "weights.safetensors").exists()


def test_the_delta_reloads_to_what_was_exported(adapter):
    _, network = checkpoint.restore(adapter[0])
    canvas = np.random.default_rng(1).random((32, 32, 32), dtype=np.float32)
    with torch.no_grad():
        expected = torch.softmax(network.eval()(torch.from_numpy(canvas)[None, None]), 1)[0].numpy() * 255
    got = runtime.Engine(runtime.open_model(str(adapter[0])), "f32", 1)(canvas)
    assert np.abs(got - expected).max() < 1.5


def test_a_centre_without_an_adapter_is_segmented_by_the_base(base, tmp_path):
    found, note = centres.model_of("elsewhere", str(base), tmp_path)
    assert found == str(base)
    assert "no adapter" in note


def test_a_centre_with_an_adapter_is_segmented_by_it(adapter, base):
    found, note = centres.model_of("ours", str(base), adapter[0].parent)
    assert found == str(adapter[0])
    assert "ours" in note


def test_an_adapter_of_another_base_is_refused(adapter):
    with pytest.raises(SpansegError, match="another base model"):
        centres.model_of("ours", "default", adapter[0].parent)


@pytest.mark.parametrize("name", ["../ours", "", "a/b", "x" * 65])
def test_a_name_that_is_no_folder_is_refused(name):
    with pytest.raises(SpansegError, match="cannot be the name of a centre"):
        centres.folder_of(name)


def test_a_delta_on_other_weights_is_refused(adapter, base, tmp_path):
    other = tmp_path / "base"
    shutil.copytree(base, other)
    tensors = checkpoint.load_tensors(other / "weights.safetensors")
    checkpoint.save_tensors(other / "weights.safetensors", {key: value + 1 for key, value in tensors.items()})
    shutil.copytree(adapter[0], tmp_path / "ours")
    text = (tmp_path / "ours" / "recipe.toml").read_text().replace(str(base), str(other))
    (tmp_path / "ours" / "recipe.toml").write_text(text)
    with pytest.raises(SpansegError, match="belongs to other weights"):
        checkpoint.restore(tmp_path / "ours")


def test_few_scans_learn_tokens_and_more_learn_the_decoder():
    assert adaptation.choose(2)[0] == "tokens_and_head"
    assert adaptation.choose(5)[0] == "decoder"


def test_tokens_alone_adapt_and_export(base, pairs, tmp_path):
    settings = options(base, replay_share=0.0)
    adaptation.adapt(pairs[:2], tmp_path / "few", settings, lambda plan: None, lambda row: None)
    adaptation.exported(tmp_path / "few", "few", settings, pairs[0][0])
    names = checkpoint.load_tensors(tmp_path / "few" / checkpoint.DELTA)
    assert any(name.startswith("tokens.") for name in names)
    heard = [value for name, value in names.items() if name.startswith("meetings.") and "scale" in name]
    assert heard and any(value.any() for value in heard), "the tokens of the centre are fed in training"
    assert spanseg.segment(pairs[0][0], model=str(tmp_path / "few")).volumes


def test_an_adapter_is_refused_on_a_gpu(adapter):
    with pytest.raises(SpansegError, match=r"weights.safetensors, and this model is without them, .* use --device cpu"):
        segmenter.load_model(segmenter.SegmentOptions(model=str(adapter[0]), device="cuda"))


def test_people_are_not_on_both_sides(pairs):
    train, test = adaptation.split_people(pairs, [])
    assert train and test and not {scan for scan, _ in train} & {scan for scan, _ in test}
    named = [participant_of(pairs[0][0])]
    train, test = adaptation.split_people(pairs, named)
    assert [scan for scan, _ in train] == [pairs[0][0]] and len(test) == len(pairs) - 1
    with pytest.raises(SpansegError, match="no labelled scan of sub-nobody"):
        adaptation.split_people(pairs, ["nobody"])


def test_a_model_compared_with_itself_has_not_changed(base, pairs):
    cases, protocol = judge(pairs[:2], "aseg", segmenter.SegmentOptions(model=str(base)))
    assert {row.difference.mean for row in changes(cases, cases, protocol)} == {0.0}


def test_the_command_uses_the_adapter_of_a_centre_and_says_so(adapter, base, pairs, tmp_path):
    def sidecar_of(centre):
        out = tmp_path / centre
        command = ["segment", str(pairs[4][0]), "-o", str(out), "--model", str(base), "--centre", centre]
        with pytest.raises(SystemExit) as stopped:
            cli.main([*command, "--adapters", str(adapter[0].parent), "--only", "labels"])
        assert stopped.value.code == 0
        (path,) = out.rglob("*.json")
        return json.loads(path.read_text(encoding="utf-8"))

    ours, others = sidecar_of("ours"), sidecar_of("elsewhere")
    assert ours["model"]["name"] != others["model"]["name"] if isinstance(ours["model"], dict) else True
    assert any("Adapter of the centre 'ours'" in note for note in ours["notes"])
    assert any("no adapter" in note for note in others["notes"])


def test_one_test_person_gives_a_change_without_an_interval() -> None:
    rows = [
        Change("nuclei", 0.8, 0.85, MeanInterval(0.05, math.nan, math.nan, 1)),
        Change("cortex", 0.8, 0.79, MeanInterval(-0.01, -0.03, 0.02, 3)),
    ]
    alone, several = changes_text(rows).splitlines()[1:]
    assert alone.split() == ["nuclei", "0.800", "0.850", "+0.050", "n/a"]
    assert several.endswith("-0.010   [-0.030, +0.020]")
    assert [row[-2:] for row in changes_table(rows)[1:]] == [["n/a", "n/a"], ["-0.03000", "0.02000"]]
