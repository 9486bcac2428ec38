"""Studies: a whole one on made-up heads; and what is refused before anything runs."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import tiny_study
from spanseg import recipe as recipes
from spanseg import splits
from spanseg.compare import engine, origins, page, tables, timing
from spanseg.compare import plan as planning
from spanseg.compare.cell import CellRunner
from spanseg.compare.checks import require_distinct_scans
from spanseg.compare.people import people_of
from spanseg.compare.results import Results
from spanseg.compare.study import Study, read_study, recipe_of
from spanseg.compare.tables import Summary
from spanseg.errors import SpansegError
from spanseg.sampling import GENTLE
from spanseg.simulate import simulate


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set of five people, a base recipe with a first stage, and a study."""
    folder = tmp_path_factory.mktemp("study")
    tiny_study.write(folder)
    return folder


@pytest.fixture(scope="module")
def whole(place: Path) -> tuple[planning.Plan, Results]:
    """The study from beginning to end, in one go."""
    plan = planning.plan_of(read_study(place / "study.toml"))
    results = Results(place / "whole", plan.cells, plan.meaning)
    done = list(engine.run(plan, results, place / "work-whole", lambda cell, row: None))
    assert done == list(plan.cells)
    return plan, results


def test_every_prefix_of_the_plan_is_balanced(whole: tuple[planning.Plan, Results]) -> None:
    plan, _ = whole
    counts = [[cell.row for cell in plan.cells[:end]] for end in range(1, len(plan.cells) + 1)]
    for rows in counts:
        times = [rows.count(row.name) for row in plan.study.rows]
        assert max(times) - min(times) <= 1


def test_the_table_holds_every_person_once_a_row(whole: tuple[planning.Plan, Results]) -> None:
    plan, results = whole
    tested = {(line["row"], line["subject"], line["structure"]) for line in results.rows()}
    assert len(tested) == len(results.rows())
    for row in plan.study.rows:
        assert {who for name, who, _ in tested if name == row.name} == {person.subject for person in plan.people}
    second = [line for line in results.rows() if line["subject"] == plan.people[1].subject]
    assert {(line["age_years"], line["sex"]) for line in second} == {("70", "male")}


def test_rows_differ_where_they_should(whole: tuple[planning.Plan, Results]) -> None:
    _, results = whole
    dice = {
        row: [line["dice"] for line in results.rows() if line["row"] == row] for row in ("zero_shot", "decoder", "kgpl")
    }
    assert dice["zero_shot"] != dice["decoder"]
    trained = {cell.row: int(lines[0]["trained"]) for cell, lines in results.costs.items()}
    assert trained["zero_shot"] == 0 < trained["decoder"] < trained["kgpl"]


def test_the_report_says_what_was_not_run(place: Path, whole: tuple[planning.Plan, Results]) -> None:
    plan, _ = whole
    results = Results(place / "begun", plan.cells, plan.meaning)
    next(engine.run(plan, results, place / "work-whole", lambda cell, row: None))
    page.write_report(Summary(plan, results), place / "begun")
    with (place / "begun" / "table_long.csv").open(newline="") as stream:
        rows = {line["row"]: line for line in csv.DictReader(stream) if line["metric"] == "dice"}
    assert rows["kgpl"]["mean"] == "not run" and rows["kgpl"]["cells"] == "0/2"
    assert 0 <= float(rows["zero_shot"]["mean"]) <= 1
    assert "1 of 8 cells" in (place / "begun" / "report.html").read_text()


def test_a_budget_that_is_spent_begins_nothing(
    place: Path, whole: tuple[planning.Plan, Results], tmp_path: Path
) -> None:
    plan, results = whole
    fresh = Results(tmp_path, plan.cells, plan.meaning)
    fresh.costs = {cell: lines for cell, lines in results.costs.items() if cell == plan.cells[1]}
    assert list(engine.run(plan, fresh, tmp_path / "work", lambda cell, row: None, budget_s=1e-6)) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps = 4", "stepz = 4"), "'stepz' is no key here \\(did you mean 'steps'"),
        (('"decoder"', '"decoda"'), "no row 'decoda'; did you mean 'decoder'"),
        (('data = "heads"', 'data = "absent"'), "there is no folder"),
        (("folds = 2", "folds = 1"), "folds must be a whole number of at least 2"),
        (("folds = 2", "folds = 9"), "nobody is left to test on"),
        (('reference = "kgpl"', 'reference = "lora"'), "not among its rows"),
        (("folds = 2", 'design = "thirds"'), "design must be one of"),
        (('"decoder"', '"vpt_lora"'), "no row 'vpt_lora'"),
        (
            ("[centre.heads]", '[row.kgpl]\nadapt = { name = "lora" }\n[centre.heads]'),
            "does not support tokens 'knowledge'",
        ),
        (("steps = 4", 'steps = 4\nsettings = ["train.start=step1-unetr"]'), "train it once"),
        (("folds = 2", 'design = "fewshot"\nshots = [50]'), "shots must lie between"),
        (("folds = 2", 'folds = 2\nonly = ["fold2"]'), "only names fold2; its splits are fold0, fold1"),
        (("folds = 2", 'folds = 2\naugment = "much"'), "augment must be gentle or usual"),
        (('labels = "freesurfer"', 'labels = "freesurfer"\npeople = -1'), "people must be a whole number"),
        (
            ("steps = 4", 'steps = 4\nsettings = ["train.lrr=1"]'),
            r"row zero_shot: the recipe's \[train\] has no option 'lrr'",
        ),
        (("steps = 4", 'steps = 4\nsettings = ["synth.rotatoin=3"]'), r"\[synth\] has no option 'rotatoin'"),
        (
            ("steps = 4", "steps = 4\nsettings = [\"tokens.facts=['agee']\"]"),
            "row kgpl: facts are age, sex, diagnosis, not 'agee'",
        ),
        (("steps = 4", 'steps = 4\nsettings = ["train.patience=3"]'), "different numbers of steps"),
        (("steps = 4", 'steps = 4\nsettings = ["train.keep_start=0.5"]'), "train.keep_start to 0"),
        (("steps = 4", 'steps = 4\nsettings = "train.lr=1"'), "settings must be a list of texts"),
        (
            ("steps = 4", "steps = 4\nsettings = [\"recipe.inputs=[{model = 'tissue', output = 'labels'}]\"]"),
            "row zero_shot: a study takes networks that see a scan alone",
        ),
        (("steps = 4", "steps = 4\nseeds = 2"), "seeds must be a list of whole numbers, not 2"),
        (("steps = 4", 'steps = 4\nsettings = ["train.lr=fast"]'), r"\[train\] lr must be a number, not 'fast'"),
        (("steps = 4", 'steps = 4\nsettings = ["train.batch=0"]'), r"\[train\] batch must be 1 or more, not 0"),
        (("steps = 4", "steps = 4\nagainst = [[[1], 2]]"), "against takes pairs of its rows"),
        (("[centre.heads]", "[row.kgpl]\nsettings = [1]\n[centre.heads]"), "settings must be a list of texts"),
        (('data = "heads"', "data = 3"), "data must be a text, not 3"),
        (("steps = 4", "steps = 4\nseeds = [-1]"), "seeds must be 0 or more"),
        (("steps = 4", "steps = 4\nshots = [1]"), 'shots is for design = "fewshot"'),
        (("steps = 4", 'steps = 4\nagainst = [["kgpl", "kgpl"]]'), "against takes pairs of its rows"),
        (
            ('labels = "freesurfer"', 'labels = "freesurfer"\npeople = 9'),
            "9 people are asked for; 5 have labelled scans",
        ),
        (("[centre.heads]", "[row.kgpl]\nsays = 3\n[centre.heads]"), "says must be a text, not 3"),
        (("[centre.heads]", "[row.kgpl]\nstart = 3\n[centre.heads]"), "start must be a text, not 3"),
        (("[centre.heads]", '[row.kgpl]\ntrains = "no"\n[centre.heads]'), "trains must be true or false, not 'no'"),
        (('title = "Tiny"', "title = 3"), "title must be a text, not 3"),
        (('labels = "freesurfer"', "labels = 3"), "labels must be a text, not 3"),
        (("steps = 4", 'steps = 4\nsettings = ["train.start=gone/step1-unetr"]'), "spanseg train step1-unetr --data"),
        (("steps = 4", "steps = 4\nseeds = [0, 0]"), "seeds must name one or more, each once"),
        (('"decoder"', '"kgpl"'), "rows must name one or more, each once"),
        (("steps = 4", 'steps = 4\nagainst = [["kgpl", "lora"]]'), "against takes pairs of its rows, not"),
        (("[centre.heads]", "[row.kgpl]\nadapt = {}\n[centre.heads]"), "adapt must be a table with a name"),
        (("[centre.heads]", "[row]\nkgpl = 3\n[centre.heads]"), r"\[row.kgpl\]: this must be a table"),
        (('labels = "freesurfer"', 'labels = "freesurfa"'), "neither a file nor a label scheme"),
        (('labels = "freesurfer"', 'labels = "neuromorphometrics"'), "the scheme .neuromorphometrics. does not map"),
        (("[centre.heads]", '[centre.again]\ndata = "heads"\n[centre.heads]'), r"it is the folder of \[centre.again\]"),
        (("folds = 2", 'design = "leave_one_centre_out"\nfolds = 2'), "needs at least two centres"),
        (
            ("[centre.heads]", 'design = "leave_one_centre_out"\n[row.kgpl]\nstart = "else"\n[centre.heads]'),
            "all start from the base; leave out start",
        ),
        (("folds = 2", "folds = true"), "folds must be a whole number, not True"),
        (("steps = 4", 'steps = 4\nsettings = ["train.start=3"]'), "train.start must be a text, not 3"),
        (('rows = ["zero_shot", ', 'design = "leave_one_centre_out"\nrows = ['), "needs the row zero_shot"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_runs(place: Path, change: tuple[str, str], message: str) -> None:
    text = (place / "study.toml").read_text().replace(*change)
    (place / "wrong.toml").write_text(text)
    with pytest.raises(SpansegError, match=message):
        plan = planning.plan_of(read_study(place / "wrong.toml"))
        planning.require_starts(plan, Results(place / "nothing", plan.cells, plan.meaning))


def test_weights_that_saw_somebody_who_is_tested_are_refused(
    place: Path, whole: tuple[planning.Plan, Results], tmp_path: Path
) -> None:
    plan, results = whole
    for name, refused in (("fold0-decoder-0", True), ("none", False)):
        start = shutil.copytree(place / "step1", tmp_path / name)
        if refused:  # the weights of a cell say whom they were trained on
            shutil.copy(place / "work-whole" / name / splits.NAME, start)
        study = replace(plan.study, settings=(f"train.start={start}",))
        nothing = Results(tmp_path / "nothing", plan.cells, plan.meaning)
        if refused:
            with pytest.raises(SpansegError, match=r"heads/sub-\w+ would be tested, and the weights .* were"):
                planning.require_starts(replace(plan, study=study), nothing)
            planning.require_starts(replace(plan, study=study), results)  # nothing is left to do with them
        else:
            planning.require_starts(replace(plan, study=study), nothing)


def test_a_training_that_never_got_to_weights_leaves_nobody_seen(
    whole: tuple[planning.Plan, Results], tmp_path: Path
) -> None:
    plan, _ = whole
    told = {person.entry: person.facts for person in plan.people}
    recipe, people = recipe_of(plan.study, plan.study.rows[1], 0), plan.people
    origins.claim(tmp_path, recipe, people[3:], people[:1], told, "gentle")
    origins.claim(tmp_path, recipe, people[:2], people[3:4], told, "gentle")
    record = json.loads((tmp_path / splits.NAME).read_text())
    assert len(record["train"]) == 2 and record["earlier"] == []


def test_a_scan_that_is_watched_and_learned_from_is_refused(
    place: Path, whole: tuple[planning.Plan, Results], tmp_path: Path
) -> None:
    plan, _ = whole
    (split, *_) = plan.splits
    (watched,) = split.validate
    same = replace(split.train[0], scans=watched.scans)
    with pytest.raises(SpansegError, match="would be watched with the scan of"):
        require_distinct_scans(plan.study, [replace(split, train=(*split.train[1:], same))])
    (tmp_path / "empty.nii.gz").touch()
    empty = ((tmp_path / "empty.nii.gz", watched.scans[0][1]),)
    nothing = [replace(person, scans=empty) for person in (split.train[0], watched)]
    require_distinct_scans(plan.study, [replace(split, train=(nothing[0],), validate=(nothing[1],))])


def test_a_cell_writes_who_trained_and_who_was_held_out(place: Path, whole: tuple[planning.Plan, Results]) -> None:
    plan, _ = whole
    fold = plan.splits[0]
    record = json.loads((place / "work-whole" / "fold0-decoder-0" / splits.NAME).read_text())
    for side, people in (("train", fold.train), ("held_out", fold.validate)):
        assert sorted(member["name"] for member in record[side]) == sorted(person.subject for person in people)


def test_a_start_that_holds_other_weights_is_not_gone_on_with(
    place: Path, whole: tuple[planning.Plan, Results], tmp_path: Path
) -> None:
    plan, _ = whole
    running = engine.run(
        plan, Results(tmp_path, plan.cells, plan.meaning), place / "work-whole", lambda cell, row: None
    )
    next(running)
    other = plan.meaning | {"starts": {str(place / "step1"): "0000"}}
    assert plan.meaning["starts"].keys() == other["starts"].keys()
    with pytest.raises(SpansegError, match="does not hold the weights that the results began with"):
        Results(tmp_path, plan.cells, other)
    Results(place / "whole", plan.cells, other)  # nothing is left to do with them
    kept = Results(tmp_path, plan.cells, plan.meaning | {"starts": {}}).meaning["starts"]
    assert kept == plan.meaning["starts"]  # not forgotten where the weights are not


def test_time_is_told_before_the_first_cell_and_kept_by_the_budget(
    whole: tuple[planning.Plan, Results], tmp_path: Path
) -> None:
    plan, results = whole
    fresh = Results(tmp_path, plan.cells, plan.meaning)
    assert not timing.Pace(plan, fresh).is_known
    step_s = timing.seconds_of_a_step(plan)
    assert 0 < step_s < 60
    assert timing.Pace(plan, fresh, 5.0).left() == 6 * 4 * 5.0  # zero_shot learns nothing
    assert list(engine.run(plan, fresh, tmp_path, lambda cell, row: None, 15.0, step_s=5.0)) == [plan.cells[0]]
    assert timing.Pace(plan, results).left() == 0 and timing.Pace(plan, results).of(plan.cells[1]) > 0


def test_rows_are_tested_against_each_other_where_the_study_says_so(
    place: Path, whole: tuple[planning.Plan, Results], tmp_path: Path
) -> None:
    plan, results = whole
    asked = replace(plan, study=replace(plan.study, against=(["kgpl", "decoder"], ["one_hot", "zero_shot"])))
    page.write_report(Summary(asked, results), tmp_path)
    with (tmp_path / "pairs.csv").open(newline="") as stream:
        rows = {(one["row"], one["metric"]): one for one in csv.DictReader(stream)}
    means = Summary(plan, results).fair("dice", lambda line: line["part"] == "new")
    ours, theirs = (sum(means[row].values()) / len(means[row]) for row in ("kgpl", "decoder"))
    assert float(rows["kgpl", "dice"]["difference"]) == pytest.approx(ours - theirs, abs=1e-4)
    assert rows["kgpl", "dice"]["people"] == "5" and len(rows) == 8
    begun = Summary(asked, Results(tmp_path / "nothing", plan.cells, plan.meaning))
    assert all(line[3:] == [tables.NOT_RUN] * 9 for line in tables.pairs_table(begun)[1:])
    assert "against kgpl, paired t-test" in (tmp_path / "table_paper.md").read_text()


def test_a_finished_study_needs_no_weights_to_start_from(whole: tuple[planning.Plan, Results], place: Path) -> None:
    plan, results = whole
    gone = replace(plan, study=replace(plan.study, settings=("train.start=gone",)))
    planning.require_starts(gone, results)
    with pytest.raises(SpansegError, match="gone: expected a run or model folder"):
        planning.require_starts(gone, Results(place / "nothing", plan.cells, plan.meaning))


def test_a_table_of_another_study_is_refused(whole: tuple[planning.Plan, Results], place: Path) -> None:
    plan, _ = whole
    with pytest.raises(SpansegError, match="which this study does not have"):
        Results(place / "whole", plan.cells[:3], plan.meaning)


def test_results_of_other_recipes_are_not_gone_on_with(whole: tuple[planning.Plan, Results], place: Path) -> None:
    plan, _ = whole
    changed = replace(plan, study=replace(plan.study, steps=5))
    with pytest.raises(SpansegError, match=r"the row .* is not the one that made the results"):
        Results(place / "whole", plan.cells, changed.meaning)


def test_results_of_labels_that_were_read_otherwise_are_not_gone_on_with(
    whole: tuple[planning.Plan, Results], place: Path
) -> None:
    plan, _ = whole
    study = replace(plan.study, centres=(replace(plan.study.centres[0], labels="aseg"),))
    with pytest.raises(SpansegError, match=r"the split .* is not the one that made the results"):
        Results(place / "whole", plan.cells, planning.plan_of(study).meaning)


def test_rows_share_the_stages_and_the_number_of_steps(place: Path) -> None:
    chosen = read_study(place / "study.toml")
    made = {row.name: recipe_of(chosen, row, 0) for row in chosen.rows}
    assert {recipe["train"]["steps"] for recipe in made.values()} == {4}
    assert made["one_hot"]["tokens"]["stages"] == made["kgpl"]["tokens"]["stages"] == ["encoder1"]
    assert "tokens" not in made["decoder"] and made["decoder"]["adapt"]["policy"] == "strict"


def changed(place: Path, name: str, *changes: tuple[str, str]) -> Study:
    text = (place / "study.toml").read_text()
    for before, after in changes:
        text = text.replace(before, after)
    (place / f"{name}.toml").write_text(text)
    return read_study(place / f"{name}.toml")


def test_one_fold_alone_and_a_row_with_settings_of_its_own(place: Path) -> None:
    chosen = changed(
        place,
        "one",
        ("folds = 2", 'folds = 2\nonly = ["fold1"]'),
        ("[centre", '[row.kgpl]\nsettings = ["train.lr=0.5"]\n[centre'),
    )
    plan = planning.plan_of(chosen)
    assert [split.name for split in plan.splits] == ["fold1"] and {cell.split for cell in plan.cells} == {"fold1"}
    rates = {row.name: recipe_of(chosen, row, 0)["train"]["lr"] for row in chosen.rows}
    assert rates["kgpl"] == 0.5 and rates["decoder"] == 5e-3


def test_some_people_of_a_centre_from_young_to_old(place: Path) -> None:
    people = people_of(changed(place, "some", ("[centre.heads]", "[centre.heads]\npeople = 3")).centres)
    assert sorted(one.facts.age_years or 0 for one in people) == [20, 45, 70]


def test_the_usual_augmentation_is_that_of_the_recipe(place: Path) -> None:
    found = {}
    for how in ("gentle", "usual"):
        plan = planning.plan_of(changed(place, how, ("folds = 2", f'folds = 2\naugment = "{how}"')))
        runner = CellRunner(plan.study, plan.splits, plan.people, place / "work-usual", lambda cell, row: None)
        recipe = recipe_of(plan.study, plan.study.rows[0], 0)
        recipe["synth"]["rotation"] = 77.0
        told = {person.entry: person.facts for person in plan.people}
        found[how] = runner.source(plan.people[:1], recipe, told).options.rotation  # type: ignore[attr-defined]
        assert ("augment" in plan.meaning["row kgpl"]) == (how == "usual")
    assert found == {"gentle": GENTLE.rotation, "usual": 77.0}


def test_the_base_of_a_left_out_centre_has_settings_of_its_own(place: Path) -> None:
    simulate([place / "map.nii.gz"], place / "others", 5, voxel_mm=6.0, seed=3)
    chosen = changed(
        place,
        "centres",
        ("folds = 2", 'folds = 2\ndesign = "leave_one_centre_out"\nbase_steps = 3\nbase_settings = ["train.lr=0.25"]'),
        ("[centre.heads]", '[centre.others]\nlabels = "freesurfer"\n[centre.heads]'),
    )
    plan = planning.plan_of(chosen)
    base = plan.meaning["split heads"]["base"]["train"]
    assert base["lr"] == 0.25 and base["steps"] == 3
    runner = CellRunner(plan.study, plan.splits, plan.people, place / "work-centres", lambda cell, row: None)
    folder = runner.base(runner.splits["heads"], 0)
    assert recipes.load(str(folder / "recipe.toml"))["train"]["lr"] == 0.25


def test_people_are_read_with_what_is_known_of_them(place: Path) -> None:
    people = people_of(read_study(place / "study.toml").centres)
    assert [one.facts.age_years for one in people] == [20, 70, 30, 60, 45]


def test_rows_are_tested_against_the_full_training_unless_the_study_says_otherwise(
    whole: tuple[planning.Plan, Results],
) -> None:
    plan, results = whole
    rows = (*plan.study.rows[:1], replace(plan.study.rows[1], name="full"), *plan.study.rows[2:])
    for named, expected in (("", "full"), ("one_hot", "one_hot")):
        asked = replace(plan, study=replace(plan.study, rows=rows, reference=named))
        assert Summary(asked, results).reference == expected
    assert Summary(replace(plan, study=replace(plan.study, reference="")), results).reference == "one_hot"
