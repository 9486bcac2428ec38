"""Tissue first, structures on top of it: in training, exported, and segmenting without PyTorch."""

import json
import shutil

import numpy as np
import pytest
import torch

import spanseg
import tiny
from spanseg import cascade, checkpoint, export, folds, generation, model, recipe, runs, segmenter, sources, splits
from spanseg.chain import stacked
from spanseg.errors import SpansegError
from spanseg.facts import Facts
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
    assert spanseg.segment(scan, model=str(tmp_path / "model")).volumes
    with pytest.raises(SpansegError, match="this model needs another network before it; use --device cpu"):
        segmenter.load_model(segmenter.SegmentOptions(model=str(tmp_path / "model"), device="cuda"))


@pytest.mark.parametrize("takes", [["age"], None])
def test_each_network_of_a_chain_is_told_its_own_facts(takes, tmp_path):
    """Tissue hears the sex; structures hear the age, or nothing."""
    runs_made = {}
    for name, chosen, facts in (
        ("tissue", tissue_recipe(), ["sex"]),
        ("structures", structure_recipe(tmp_path / "tissue"), takes),
    ):
        if facts:
            chosen["tokens"] = {"name": "knowledge", "stages": ["encoder1", "decoder0"], "facts": facts}
        torch.manual_seed(0)
        network = model.build(chosen)
        with torch.no_grad():
            for parameter in getattr(network, "meetings", torch.nn.Module()).parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        checkpoint.save(tmp_path / name, dict(network.named_parameters()), chosen)
        runs_made[name] = tmp_path / name
    folder = tmp_path / "model"
    export.export(
        runs_made["structures"], folder, export.Description("chain", "1", "Apache-2.0", "nothing"), [tiny.canvas()]
    )
    predictor = segmenter.load_model(segmenter.SegmentOptions(model=str(folder), threads=1))
    canvas = tiny.canvas()

    def answer(policy="given", **facts):
        options = segmenter.SegmentOptions(facts=Facts(**facts), facts_policy=policy)
        return [predictor.engine(canvas, words) for words in predictor.words_for(options)]

    woman, man = answer(sex="female")[0], answer(sex="male")[0]
    assert np.array_equal(woman, answer(sex="female")[0]) and not np.array_equal(woman, man)
    assert np.array_equal(woman, answer(sex="female", age_years=70)[0]) == (takes is None)
    assert len(answer("marginalise")) == (1 if takes is None else 8)
    with pytest.raises(SpansegError, match=r"takes .*words.* was given image"):
        predictor.engine(canvas)


def test_a_first_network_that_is_told_other_facts_is_refused_in_training(maps, tmp_path):
    told = tissue_recipe() | {"tokens": {"name": "knowledge", "stages": ["decoder0"], "facts": ["sex"]}}
    checkpoint.save(tmp_path, dict(model.build(told).named_parameters()), told)
    with pytest.raises(SpansegError, match="is told sex, the recipe's network nothing; train both with the same"):
        sources.sources(structure_recipe(tmp_path), maps, "cpu")
    same = structure_recipe(tmp_path) | {"tokens": told["tokens"]}
    assert sources.sources(same, maps, "cpu")[0].draw(0, 0).image.shape[1] == 5


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


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Three people, the first one with two sessions."""
    folder = tmp_path_factory.mktemp("people")
    scans = simulate([tiny.write_map(folder / "map.nii.gz")], folder / "bids", 3, voxel_mm=6.0)
    other = simulate([folder / "map.nii.gz"], folder / "later", 1, voxel_mm=6.0, seed=1)[0]
    truths = [next((one.parents[2] / "derivatives").rglob("sub-sim0001_dseg.nii.gz")) for one in (scans[0], other)]
    for old, new in ((other, scans[0]), (truths[1], truths[0])):
        shutil.copy(old, new.with_name(new.name.replace("sub-sim0001", "sub-sim0001_ses-2")))
    return folder / "bids"


def real_recipe(first, people, **cascaded):
    chosen = structure_recipe(first)
    chosen["real"] = {"data": str(people), "labels": "aseg", "share": 1.0, "gentle": True}
    chosen["cascade"] |= cascaded
    chosen["train"]["steps"] = 1
    return chosen


@pytest.fixture(scope="module")
def folded(first, people, tmp_path_factory):
    folder, rows = tmp_path_factory.mktemp("folded") / "run", []
    wanted = real_recipe(first, people, folds=3, fold_steps=1)
    runs.train(wanted, [], folder, lambda run, row: rows.append((run, int(row["step"]))))
    return folder, wanted, rows


def trained_on(run):
    return {one["name"] for one in json.loads((run / splits.NAME).read_text(encoding="utf-8"))["train"]}


def test_every_person_is_looked_at_by_a_network_of_the_others(folded):
    folder, _, rows = folded
    assert [name for name, _ in rows] == [*(f"run, tissue of fold {fold}" for fold in ("0", "1", "2", "all")), "run"]
    everyone = {f"sub-sim000{n}" for n in (1, 2, 3)}
    left_out = [everyone - trained_on(folder / "folds" / str(fold)) for fold in range(3)]
    assert sorted(map(len, left_out)) == [1, 1, 1] and set.union(*left_out) == everyone
    assert trained_on(folder / "folds" / "all") == trained_on(folder) == everyone
    made = recipe.load(str(folder / "recipe.toml"))
    source = sources.sources(made, [], "cpu")[0]
    for person, network in source.out_of_fold.items():
        fold = next(n for n, out in enumerate(left_out) if out == {person})
        stored = checkpoint.load_tensors(folder / "folds" / str(fold) / checkpoint.DELTA)
        assert all(torch.equal(value, stored[name]) for name, value in network.named_parameters())
    assert set(source.out_of_fold) == everyone == {source.draw(0, index).case for index in range(20)}


def test_the_tissue_of_use_is_tuned_on_everyone_and_starts_from_the_given_one(folded, first):
    folder, *_ = folded
    used = cascade.first_run(recipe.load(str(folder / "recipe.toml")))
    assert used == folder / "folds" / "all"
    tissue = recipe.load(str(used / "recipe.toml"))
    assert tissue["train"]["start"] == str(first) and tissue["recipe"]["protocol"] == "tissue"
    before, after = (checkpoint.load_tensors(run / checkpoint.DELTA) for run in (first, used))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_folds_that_are_finished_are_left_as_they_are(folded, tmp_path):
    folder, wanted, _ = folded
    shutil.copytree(folder / "folds", tmp_path / "run" / "folds")
    shutil.rmtree(tmp_path / "run" / "folds" / "1")
    kept = (tmp_path / "run" / "folds" / "0" / checkpoint.DELTA).stat().st_mtime_ns
    rows = []
    runs.train(wanted, [], tmp_path / "run", lambda run, row: rows.append(run))
    assert rows == ["run, tissue of fold 1", "run"]
    assert (tmp_path / "run" / "folds" / "0" / checkpoint.DELTA).stat().st_mtime_ns == kept


def test_the_folds_that_a_run_has_made_are_not_another_recipe(folded):
    folder, wanted, _ = folded
    runs.refuse_another(wanted, folder)
    with pytest.raises(SpansegError, match=r"cascade.folds = 3, not 2"):
        runs.refuse_another(wanted | {"cascade": wanted["cascade"] | {"folds": 2}}, folder)


def test_a_tissue_network_that_has_seen_the_people_is_refused(folded, people):
    tuned = folded[0] / "folds" / "0"
    for settings in ({}, {"folds": 3}):
        with pytest.raises(SpansegError, match=r"sub-sim000\d: the model in .* was trained on this scan"):
            folds.tissue_recipes(real_recipe(tuned, people, **settings))


def test_an_unknown_key_of_the_real_scans_is_refused_here_too(people, first):
    recipe = real_recipe(first, people, folds=[str(first)])
    recipe["real"]["shar"] = 1
    with pytest.raises(SpansegError, match=r"\[real\] has no option 'shar' \(did you mean 'share'\?\)"):
        cascade._out_of_fold(recipe)


def test_a_person_whom_every_fold_has_seen_is_refused(folded, people):
    one = str(folded[0] / "folds" / "0")
    with pytest.raises(SpansegError, match="was trained on in every fold"):
        sources.sources(real_recipe(one, people, folds=[one]), [], "cpu")


@pytest.mark.parametrize("wrong", [1, 4, -1, 2.5, "three", {"sub-01": "run"}])
def test_a_number_of_folds_that_cannot_be_is_refused(first, people, wrong):
    with pytest.raises(SpansegError, match="folds takes 2 to 3, the number of people"):
        folds.tissue_recipes(real_recipe(first, people, folds=wrong))


def test_folds_of_synthetic_people_are_refused(first):
    drawn = structure_recipe(first)
    assert folds.tissue_recipes(drawn) == {}
    drawn["cascade"]["folds"] = 3
    with pytest.raises(SpansegError, match="no \\[real\\]"):
        folds.tissue_recipes(drawn)
