"""A study across data sets whose rows test one network in four ways, beside a network of its own recipe."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tiny
from spanseg import recipe as recipes
from spanseg.compare import engine, page
from spanseg.compare import plan as planning
from spanseg.compare.prompted import answered, drawn_classes, prompt_for
from spanseg.compare.results import Cell, Results
from spanseg.compare.study import read_study
from spanseg.compare.tables import Summary
from spanseg.errors import SpansegError
from spanseg.images import scan_of
from spanseg.labels import Crosswalk, load_protocol
from spanseg.prompts import Prompt
from spanseg.simulate import simulate
from spanseg.slice_prompts import SlicePrompts
from spanseg.volume import Volume, canonical
from test_slice_answers import HIPPOCAMPUS, Bright
from test_slice_answers import scan as bright_block

pytest.importorskip("transformers")
STUDY = """
[study]
title = "Tiny, across"
base = "{folder}/sam.toml"
settings = ["train.lr=2e-3"]
design = "cross_dataset"
train_centres = ["here"]
validate = 0
steps = 2
reference = "sam_none"
rows = ["sam_click", "sam_none", "sam_auto", "sam_box", "unet"]
[centre.here]
labels = "freesurfer"
[centre.there]
labels = "freesurfer"
[row.sam_none]
starts = false
prompts = "none"
[row.sam_auto]
weights_of = "sam_none"
prompts = "auto"
[row.sam_click]
weights_of = "sam_none"
prompts = "click"
[row.sam_box]
weights_of = "sam_none"
prompts = "box"
[row.unet]
base = "{folder}/unet.toml"
starts = false
"""


def recipe(backbone: dict[str, Any], objective: dict[str, Any]) -> dict[str, Any]:
    return {
        "recipe": {"protocol": "subcortical", "title": "tiny"},
        "canvas": {"shape": [32, 32, 32], "voxel_mm": 6.0},
        "backbone": backbone,
        "objective": objective,
        "synth": {"elastic_mm": 1.0},
        "train": {"warmup": 1, "lr": 5e-3, "muon": False, "ema": 0.5},
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets, two recipes and a study in which a row comes before the one whose weights it tests."""
    folder = tmp_path_factory.mktemp("across")
    for seed, (name, people) in enumerate((("here", 2), ("there", 1))):
        simulate([tiny.write_map(folder / "map.nii.gz")], folder / name, people, voxel_mm=6.0, seed=seed)
    sam = recipe({"name": "sam", "size": "tiny", "side": 32}, {"name": "prompted", "slices": 2, "rounds": 1})
    unet = recipe({"name": "slice_unet", "widths": [4, 8]}, {"name": "sliced", "slices": 4})
    (folder / "sam.toml").write_text(recipes.dumps(sam))
    (folder / "unet.toml").write_text(recipes.dumps(unet))
    (folder / "study.toml").write_text(STUDY.format(folder=folder.as_posix()))
    return folder


@pytest.fixture(scope="module")
def plan(place: Path) -> planning.Plan:
    return planning.plan_of(read_study(place / "study.toml"))


@pytest.fixture(scope="module")
def whole(place: Path, plan: planning.Plan) -> tuple[Results, list[tuple[str, int]]]:
    """The study from beginning to end, and every step of training that it took."""
    results, steps = Results(place / "whole", plan.cells, plan.meaning), []

    def note(cell: Cell, line: dict[str, float]) -> None:
        steps.append((cell.row, int(line["step"])))

    assert list(engine.run(plan, results, place / "work", note)) == list(plan.cells)
    return results, steps


def test_weights_are_trained_once_whoever_asks_for_them_first(whole: tuple[Results, list[tuple[str, int]]]) -> None:
    results, steps = whole
    assert steps == [("sam_none", 1), ("sam_none", 2), ("unet", 1), ("unet", 2)]
    taken = {cell.row: (lines[0]["steps"], lines[0]["trained"]) for cell, lines in results.costs.items()}
    assert taken["sam_none"][0] == taken["unet"][0] == "2" and taken["sam_click"] == ("0", "0")


def test_killed_in_the_training_for_another_row_it_ends_with_the_same_table(
    place: Path, plan: planning.Plan, whole: tuple[Results, list[tuple[str, int]]]
) -> None:
    folder, work = place / "killed", place / "work-killed"

    def killed(cell: Cell, line: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(engine.run(plan, Results(folder, plan.cells, plan.meaning), work, killed))
    list(engine.run(plan, Results(folder, plan.cells, plan.meaning), work, lambda cell, line: None))
    assert (folder / "results.csv").read_text() == (place / "whole" / "results.csv").read_text()


def test_coverage_and_failures_are_said_by_data_set(
    place: Path, plan: planning.Plan, whole: tuple[Results, list[tuple[str, int]]]
) -> None:
    results, _ = whole
    page.write_report(Summary(plan, results), place / "whole")
    with (place / "whole" / "datasets.csv").open(newline="") as stream:
        rows = {line["row"]: line for line in csv.DictReader(stream)}
    assert list(rows) == [row.name for row in plan.study.rows]
    assert {(line["centre"], line["people"], line["coverage"]) for line in rows.values()} == {("there", "1", "12/12")}
    lines = [line for line in results.rows() if line["row"] == "unet" and float(line["truth_mm3"]) > 0]
    missed = sum(float(line["predicted_mm3"]) == 0 for line in lines)
    assert float(rows["unet"]["failures"]) == pytest.approx(missed / len(lines), rel=1e-3)


def test_another_test_or_other_weights_are_another_row(place: Path, plan: planning.Plan) -> None:
    first = plan.meaning
    assert first["row sam_none"]["prompts"] == "none" and "weights_of" not in first["row sam_none"]
    assert first["row sam_box"] == first["row sam_none"] | {"prompts": "box", "weights_of": "sam_none"}
    assert not {"prompts", "weights_of", "base"} & set(first["row unet"]), "as before these keys were"
    rates = {name: first[f"row {name}"]["train"]["lr"] for name in ("sam_none", "sam_box", "unet")}
    assert rates == {"sam_none": 2e-3, "sam_box": 2e-3, "unet": 5e-3}, "the study's settings are for its own base"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('prompts = "box"', 'prompts = "boxes"'), r"row.sam_box\]: prompts must be none, auto, click, box, not"),
        (('unet.toml"', 'unet.toml"\nprompts = "none"'), r"row.unet\]: .*this row's backbone is slice_unet"),
        (('weights_of = "sam_none"', 'weights_of = "sam"'), "weights_of is 'sam', which is not among"),
        (('weights_of = "sam_none"', 'weights_of = "sam_box"'), "itself tests the weights of"),
        (('prompts = "none"', 'prompts = "none"\ntrains = false'), "'sam_none', which trains nothing"),
        (('prompts = "box"', 'prompts = "box"\nsettings = []'), "'settings' is no key beside weights_of here"),
    ],
)
def test_what_cannot_be_tested_is_refused(place: Path, change: tuple[str, str], message: str) -> None:
    (place / "wrong.toml").write_text((place / "study.toml").read_text().replace(*change))
    with pytest.raises(SpansegError, match=message) as refused:
        read_study(place / "wrong.toml")
    assert "wrong.toml" in str(refused.value)


def test_a_base_of_other_structures_is_refused(place: Path) -> None:
    other = recipes.load(str(place / "unet.toml"))
    other["recipe"]["protocol"] = "tissue"
    (place / "tissue.toml").write_text(recipes.dumps(other))
    text = (place / "study.toml").read_text().replace("unet.toml", "tissue.toml")
    (place / "wrong.toml").write_text(text)
    with pytest.raises(SpansegError, match="labels the protocol 'tissue' and the study's base 'subcortical'"):
        read_study(place / "wrong.toml")


def test_a_click_lies_deepest_and_a_box_holds_all() -> None:
    mask = np.zeros((20, 22, 24), dtype=bool)
    mask[3:8, 5:10, 7:12] = True
    mask[15, 15, 15] = True
    assert prompt_for(mask, "click") == Prompt("point", True, ((5, 7, 9),))
    assert prompt_for(mask, "box") == Prompt("box", True, ((3, 5, 7), (15, 15, 15)))
    assert prompt_for(np.zeros_like(mask), "box") is None


def test_the_truth_is_turned_to_the_scan_and_what_it_labels_in_part_is_left_out() -> None:
    scan, upright = bright_block(), canonical(bright_block())[0]
    truth = Volume(np.where(upright.data == 100, 5, np.where(upright.data == 50, 6, 0)), upright.affine)
    classes = drawn_classes(truth, Crosswalk("theirs", {0: 0, 5: 5, 6: 2}, (2,)), scan, "case")
    np.testing.assert_array_equal(classes, np.where(scan.data == 100, 5, 0))


class Shy(Bright):
    """Sees nothing by itself; prompted, all that is bright."""

    def ask(self, features: Tensor, prompts: SlicePrompts | None = None, plane: str = "") -> tuple[Tensor, Tensor]:
        tokens, overlap = super().ask(features, prompts, plane)
        nothing = torch.where(torch.arange(13) == 0, 20.0, -20.0)[:, None, None].expand_as(tokens)
        return nothing if prompts is None else tokens, overlap


@pytest.mark.parametrize("prompts", ["none", "auto", "click", "box"])
def test_a_structure_that_is_not_found_alone_is_found_where_it_is_asked_for(prompts: str) -> None:
    scan = bright_block()
    drawn = np.where(scan.data == 100, load_protocol("subcortical").class_of(HIPPOCAMPUS), 0)
    chosen = recipe({"name": "sam", "size": "tiny", "side": 32}, {"name": "prompted"})
    chosen["canvas"] = {"shape": [16, 16, 16], "voxel_mm": 4.0}
    labels = answered(scan_of(scan), drawn, chosen, Shy(classes=13).eval(), prompts).data
    if prompts in ("none", "auto"):
        assert not labels.any()
        return
    assert set(np.unique(labels)) == {0, HIPPOCAMPUS}, "what the truth does not show is not asked for"
    found, block = labels == HIPPOCAMPUS, scan.data == 100
    assert 2 * (found & block).sum() / (found.sum() + block.sum()) > 0.8  # its canvas has voxels of 4 mm
