"""Runs: from a recipe and label maps to weights."""

import json
import tomllib
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import torch

import tiny
from spanseg import checkpoint, generation, model, runs, sources, splits
from spanseg.errors import SpansegError
from spanseg.generation import load_classes
from spanseg.sentences import load_table
from spanseg.simulate import simulate


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    tiny.write_map(folder / "head.nii.gz")
    return generation.read_maps(folder, load_classes(model.protocol_of(tiny.recipe())))


def both_ways(maps):
    """Two maps that are not the same: the head, and the head turned."""
    return [maps[0], replace(maps[0], name="turned", classes=np.ascontiguousarray(maps[0].classes[::-1]))]


def test_an_encoder_that_nobody_trained_is_not_frozen(maps, tmp_path):
    recipe = tiny.recipe() | {"adapt": {"name": "frozen_encoder"}}
    with pytest.raises(SpansegError, match="'frozen_encoder' freezes weights that nobody has trained"):
        runs.train(recipe, maps, tmp_path / "run", lambda name, row: None)
    assert not list(tmp_path.iterdir())


def told_recipe(**tokens):
    return tiny.recipe() | {"tokens": {"name": "knowledge", "stages": ["decoder0"]} | tokens}


def test_a_run_remembers_who_read_its_sentences(maps, tmp_path):
    runs.train(told_recipe(), maps, tmp_path / "run", lambda name, row: None)
    recipe = tomllib.loads((tmp_path / "run" / "recipe.toml").read_text(encoding="utf-8"))
    assert recipe["tokens"]["encoder"] == load_table().encoder
    recipe["tokens"]["encoder"] = "another encoder"
    for use in (sources.teller, lambda changed: runs.train(changed, maps, tmp_path / "next", lambda name, row: None)):
        with pytest.raises(SpansegError, match="trained with the sentences of 'another encoder'"):
            use(recipe)
    assert not (tmp_path / "next").exists()


def test_sentences_of_another_width_are_refused_with_the_setting_that_helps(tmp_path):
    table = load_table()
    replace(table, states=np.repeat(table.states, 2, 1)).save(tmp_path / "wide.npz")
    with pytest.raises(SpansegError, match=r"--set tokens\.width=768"):
        sources.teller(told_recipe(table=str(tmp_path / "wide.npz")))
    assert sources.teller(told_recipe(table=str(tmp_path / "wide.npz"), width=768)) is not None


def test_everybody_of_whom_a_network_is_told_has_a_row(tmp_path, maps):
    simulate([tiny.write_map(tmp_path / "map.nii.gz")], tmp_path / "bids", 2, voxel_mm=6.0)
    recipe = told_recipe() | {"real": {"data": str(tmp_path / "bids"), "labels": "aseg", "share": 1.0}}
    table = tmp_path / "bids" / "participants.tsv"
    table.write_text("participant_id\tage\tsex\nsub-sim0001\t30\tF\n", encoding="utf-8")
    with pytest.raises(SpansegError, match=r"no row for sub-sim0002; add them, n/a for what"):
        runs.train(recipe, [], tmp_path / "run", lambda name, row: None)
    assert not (tmp_path / "run").exists()
    with table.open("a", encoding="utf-8") as stream:
        stream.write("sub-sim0002\tn/a\tn/a\n")
    runs.train(recipe, [], tmp_path / "run", lambda name, row: None)


def test_packed_maps_survive_the_trip(maps, tmp_path):
    generation.save_packed(maps, tmp_path / "maps.npz")
    (back,) = generation.load_packed(tmp_path / "maps.npz")
    assert back.name == maps[0].name
    np.testing.assert_array_equal(back.classes, maps[0].classes)
    np.testing.assert_array_equal(back.centre, maps[0].centre)


def test_a_run_writes_weights_that_another_run_starts_from(maps, tmp_path):
    recipe = tiny.recipe(steps=2)
    trainer, look = runs.prepare(recipe, maps, tmp_path / "first")
    assert look is None
    trainer.run()
    weights = runs.finish(trainer, recipe)
    assert checkpoint.weights_of(str(tmp_path / "first")) == weights
    chained = tiny.recipe(steps=2, start=str(weights))
    second, _ = runs.prepare(chained, maps, tmp_path / "second")
    stored = checkpoint.load_tensors(weights)
    for name, parameter in second.network.named_parameters():
        torch.testing.assert_close(parameter.detach(), stored[name])


@pytest.mark.parametrize(("adapt", "tokens"), [("decoder", None), ("frozen_encoder", {"name": "knowledge"})])
def test_a_run_with_a_frozen_encoder_comes_to_its_end(maps, tmp_path, adapt, tokens):
    checkpoint.save(tmp_path / "first", dict(model.build(tiny.recipe()).named_parameters()), tiny.recipe())
    recipe = tiny.recipe(steps=1, start=str(tmp_path / "first"), validate_draws=1) | {"adapt": {"name": adapt}}
    recipe["synth"]["left_out"] = 1
    if tokens:
        recipe["tokens"] = tokens | {"stages": ["decoder0"]}
    runs.train(recipe, both_ways(maps), tmp_path / "second", lambda run, row: None)
    before, network = (checkpoint.restore(tmp_path / run)[1] for run in ("first", "second"))
    after = getattr(network, "backbone", network).state_dict()
    same = {name.partition(".")[0] for name, value in before.state_dict().items() if torch.equal(value, after[name])}
    assert "stem" in same and "classify" not in same


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_run_may_keep_a_share_of_what_it_started_from(maps, tmp_path, share):
    torch.manual_seed(1)
    first = dict(model.build(tiny.recipe()).named_parameters())
    checkpoint.save(tmp_path / "first", first, tiny.recipe())
    recipe = tiny.recipe(steps=2, start=str(tmp_path / "first"), keep_start=share)
    trainer, _ = runs.prepare(recipe, maps, tmp_path / "second")
    trainer.run()
    kept = checkpoint.load_tensors(runs.finish(trainer, recipe))
    for name, value in kept.items():
        torch.testing.assert_close(value, share * first[name].detach() + (1 - share) * trainer.ema[name])


def test_what_a_run_added_to_its_start_is_kept_as_it_was_learned(maps, tmp_path):
    first = dict(model.build(tiny.recipe()).named_parameters())
    checkpoint.save(tmp_path / "first", first, tiny.recipe())
    recipe = tiny.recipe(steps=2, start=str(tmp_path / "first"), keep_start=1.0)
    recipe["tokens"] = {"name": "knowledge", "stages": ["decoder0"]}
    trainer, _ = runs.prepare(recipe, both_ways(maps), tmp_path / "second")
    trainer.run()
    kept = checkpoint.load_tensors(runs.finish(trainer, recipe))
    for name, value in kept.items():
        stored = first.get(name.removeprefix("backbone."))
        torch.testing.assert_close(value, trainer.ema[name] if stored is None else stored.detach())
    assert any(not name.startswith("backbone.") for name in kept)


def test_a_share_of_nothing_cannot_be_kept(maps, tmp_path):
    with pytest.raises(SpansegError, match=r"keep_start = 0\.5 needs a start"):
        runs.prepare(tiny.recipe(keep_start=0.5), maps, tmp_path)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [("train", "step", 2), ("objective", "phase", 2), ("synth", "noise", -1.0), ("backbone", "width", 4)],
)
def test_a_wrong_stage_is_refused_before_the_stages_that_come_before_it(maps, tmp_path, section, key, value):
    recipe = tiny.recipe(start="default-coarse")
    recipe[section] = recipe.get(section, {}) | {key: value}
    with pytest.raises(SpansegError, match=key):
        runs.train(recipe, maps, tmp_path / "run", lambda run, row: None)
    assert not list(tmp_path.iterdir())


def test_a_recipe_without_a_reward_is_refused():
    with pytest.raises(SpansegError, match=r"add \[objective\]"):
        runs.rewarded({"train": {}})


def test_left_out_maps_validate_and_the_best_weights_are_kept(maps, tmp_path):
    recipe = tiny.recipe(steps=2, validate_every=1, validate_draws=1)
    recipe["synth"]["left_out"] = 1
    trainer, look = runs.prepare(recipe, maps * 2, tmp_path)
    trainer.run(look)
    assert (tmp_path / "best.safetensors").is_file()
    assert 0 <= trainer.best <= 1


@pytest.mark.parametrize(
    ("section", "key", "words"),
    [("synth", "nois", "noise"), ("train", "step", "steps"), ("backbone", "widht", "did you mean 'widths'")],
)
def test_unknown_options_are_refused_with_those_that_exist(maps, tmp_path, section, key, words):
    recipe = tiny.recipe()
    recipe[section][key] = 1
    with pytest.raises(SpansegError, match=words):
        runs.prepare(recipe, maps, tmp_path)


def test_a_canvas_that_does_not_fit_the_stride_is_refused(maps, tmp_path):
    recipe = tiny.recipe()
    recipe["canvas"]["shape"] = [30, 32, 32]
    with pytest.raises(SpansegError, match="multiple of 4"):
        runs.prepare(recipe, maps, tmp_path)


def test_an_empty_folder_of_maps_is_refused(tmp_path):
    with pytest.raises(SpansegError, match="expected label maps"):
        generation.read_maps(tmp_path, load_classes(model.protocol_of(tiny.recipe())))


def test_no_map_left_to_train_on_is_refused(maps, tmp_path):
    recipe = tiny.recipe()
    recipe["synth"]["left_out"] = 1
    with pytest.raises(SpansegError, match="leaves no label map"):
        runs.prepare(recipe, maps, tmp_path)


def test_a_chain_trains_what_it_starts_from_first_and_once(maps, tmp_path, monkeypatch):
    coarse, chained = tiny.recipe(steps=1), tiny.recipe(steps=2, start="default-coarse")
    monkeypatch.setattr(runs.recipes, "load", lambda name: coarse)
    rows = []
    weights = runs.train(chained, maps, tmp_path / "fine", lambda run, row: rows.append((run, row["step"])))
    assert rows == [("default-coarse", 1), ("fine", 1), ("fine", 2)]
    assert weights.is_file()
    runs.train(chained, maps, tmp_path / "fine", lambda run, row: rows.append((run, row["step"])))
    assert len(rows) == 3


def test_a_run_writes_its_split_and_what_it_starts_from_must_not_have_seen_the_left_out_maps(maps, tmp_path):
    both = both_ways(maps)
    recipe = tiny.recipe(steps=1, validate_draws=1)
    recipe["synth"]["left_out"] = 1
    runs.train(recipe, both, tmp_path / "first", lambda run, row: None)
    record = json.loads((tmp_path / "first" / splits.NAME).read_text(encoding="utf-8"))
    names = {side: [(one["kind"], one["name"]) for one in record[side]] for side in ("train", "held_out")}
    assert names == {"train": [("label map", "turned")], "held_out": [("label map", maps[0].name)]}
    later = tiny.recipe(steps=1, start=str(tmp_path / "first"))
    later["synth"]["left_out"] = 1
    with pytest.raises(SpansegError, match=r"turned: the model in .*first was trained on this label map"):
        runs.train(later, both[::-1], tmp_path / "second", lambda run, row: None)
    assert not (tmp_path / "second").exists()


def test_real_scans_are_mixed_in(maps, tmp_path):
    anat, truth = tmp_path / "sub-01", tmp_path / "derivatives" / "sub-01"
    for folder in (anat, truth):
        folder.mkdir(parents=True)
    labels = tiny.label_map()
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    brain = np.where((labels > 0) & (labels < 500), labels, 0)
    nib.save(nib.Nifti1Image(brain.astype(np.int16), affine), truth / "sub-01_dseg.nii.gz")
    nib.save(nib.Nifti1Image((100.0 * (brain > 0) + brain).astype(np.float32), affine), anat / "sub-01_T1w.nii.gz")
    recipe = tiny.recipe()
    recipe["real"] = {"data": str(tmp_path), "truth": str(truth.parent), "labels": "synthseg", "share": 1.0}
    source, _ = sources.sources(recipe, maps, "cpu")
    image, target, *_ = source.draw(0, 0)
    again, _, *_ = source.draw(0, 0)
    assert torch.equal(image, again)
    assert image.shape == (1, 1, 32, 32, 32)
    assert {0, 1, 2} <= set(target.unique().tolist())
    assert image[0, 0][target[0] > 0].mean() > 2 * image[0, 0][target[0] == 0].mean()
    del recipe["real"]["share"]
    assert torch.equal(sources.sources(recipe, [], "cpu")[0].draw(0, 0).image, image), "all of them by default"


def test_a_finished_run_asked_for_more_steps_says_so(tmp_path):
    recipe = tiny.recipe(steps=2)
    runs.refuse_another(recipe, tmp_path)
    checkpoint.save(tmp_path, {}, recipe)
    runs.refuse_another(recipe, tmp_path)
    with pytest.raises(SpansegError, match=r"finished after 2 steps, and 5 are asked for; .* or remove"):
        runs.refuse_another(tiny.recipe(steps=5), tmp_path)


def stop_at(step):
    """Stop a training as a user does."""

    def report(run, row):
        if row["step"] == step:
            raise KeyboardInterrupt

    return report


def test_a_run_of_another_recipe_is_neither_passed_over_nor_gone_on_with(maps, tmp_path):
    real = tiny.recipe() | {"real": {"data": "BIDS"}}
    with pytest.raises(KeyboardInterrupt):
        runs.train(tiny.recipe(save_every=1), maps, tmp_path, stop_at(3))
    for other, words in (
        (tiny.recipe(lr=1e-3), "train.lr = 0.005, not 0.001"),
        (real, "real.data = nothing, not given"),
    ):
        with pytest.raises(SpansegError, match=f"run of another recipe, with {words}"):
            runs.train(other, maps, tmp_path, lambda run, row: None)
    rows = []
    runs.train(tiny.recipe(steps=6, save_every=2), maps, tmp_path, lambda run, row: rows.append(row["step"]))
    assert rows == [3, 4, 5, 6]
    runs.refuse_another(tiny.recipe(steps=6), tmp_path)
    runs.refuse_another(tiny.recipe(steps=6, bf16=True, validate_every=1), tmp_path)  # says nothing of what is learned
    with pytest.raises(SpansegError, match=r"train.lr = 0.005, not 0.001; ask for the same again, choose another"):
        runs.refuse_another(tiny.recipe(steps=6, lr=1e-3), tmp_path)


def test_a_run_that_was_begun_before_recipes_were_written_first_goes_on(maps, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        runs.train(tiny.recipe(save_every=1), maps, tmp_path, stop_at(3))
    (tmp_path / "recipe.toml").unlink()
    rows = []
    runs.train(tiny.recipe(lr=1e-3), maps, tmp_path, lambda run, row: rows.append(row["step"]))
    assert rows == [3, 4]


def test_what_a_run_fills_into_its_recipe_is_not_another_recipe(maps, tmp_path, monkeypatch):
    told = told_recipe()
    told["train"] |= {"save_every": 1, "start": "default-coarse"}
    coarse, load = tiny.recipe(steps=1), runs.recipes.load
    monkeypatch.setattr(runs.recipes, "load", lambda name: coarse if name == "default-coarse" else load(name))
    with pytest.raises(KeyboardInterrupt):
        runs.train(told, maps, tmp_path / "run", lambda run, row: stop_at(2)(run, row) if run == "run" else None)
    rows = []
    runs.train(told, maps, tmp_path / "run", lambda run, row: rows.append((run, row["step"])))
    assert rows == [("run", 2), ("run", 3), ("run", 4)]
    runs.refuse_another(told, tmp_path / "run")


def test_what_is_drawn_from_is_read_once(maps, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(runs, "sources", lambda *given: made.append(0) or sources.sources(*given))
    recipe = tiny.recipe(steps=1, validate_draws=1)
    recipe["synth"]["left_out"] = 1
    runs.train(recipe, both_ways(maps), tmp_path, lambda run, row: None)
    assert len(made) == 1
