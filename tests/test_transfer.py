"""Studies that leave a centre out: what it costs, what adapting does to the old ones, and whose weights are used."""

import csv
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest

import tiny
from spanseg import recipe as recipes
from spanseg.compare import analysis, centre_tables, engine, page, tables, timing, transfer
from spanseg.compare import plan as planning
from spanseg.compare.results import Cell, Results
from spanseg.compare.study import read_study
from spanseg.compare.tables import Summary
from spanseg.errors import SpansegError
from spanseg.simulate import simulate

STUDY = """
[study]
title = "Two centres"
base = "{base}"
design = "leave_one_centre_out"
rows = ["zero_shot", "decoder"]
reference = "decoder"
folds = 2
steps = 2
base_steps = 3
[centre.here]
data = "here"
labels = "freesurfer"
[centre.there]
data = "there"
labels = "freesurfer"
"""


def line(row: str, split: str, centre: str, dice: float | None, **more: str) -> dict[str, str]:
    """A line of ``results.csv``; the part follows from split and centre."""
    head = {"seed": "0", "split": split, "row": row, "part": "new" if split == centre else "old", "centre": centre}
    scores = {"dice": "" if dice is None else str(dice), "asd_mm": "1", "truth_mm3": "9", "predicted_mm3": "9"}
    return head | {"subject": "sub-1", "structure": "Brain-Stem"} | scores | more


# What the base reaches at each centre, knowing it or not; and what a row does when 'a' is new.
LINES = [
    *(line("zero_shot", "a", *one) for one in (("a", 0.5), ("b", 0.8), ("c", 0.9))),
    *(line("zero_shot", "b", *one) for one in (("a", 0.7), ("b", 0.78), ("c", 0.9))),
    *(line("zero_shot", "c", *one) for one in (("a", 0.9), ("b", 0.8), ("c", 0.6))),
    *(line("full", "a", *one) for one in (("a", 0.75), ("b", 0.77), ("c", 0.92))),
    *(line("gentle", "a", *one) for one in (("a", 0.6), ("b", 0.792), ("c", 0.9))),
]


def test_a_new_centre_is_compared_with_bases_that_knew_it() -> None:
    found = {one.centre: one for one in transfer.direct_losses(LINES)}
    assert found["a"].known == pytest.approx(0.8) and found["a"].unknown == 0.5  # the mean of two bases
    assert {name: round(one.loss.mean, 6) for name, one in found.items()} == {"a": 0.3, "b": 0.02, "c": 0.3}
    assert transfer.direct_losses([one for one in LINES if one["split"] == "a"]) == []  # no base knew it


def test_gain_and_what_each_old_centre_loses() -> None:
    found = {one.row: one for one in transfer.centre_scores(LINES) if one.centre == "a"}
    full, gentle = found["full"], found["gentle"]
    assert full.gain.mean == pytest.approx(0.25)
    assert full.forgetting.mean == pytest.approx(0.005)  # 3 points lost at one centre, 2 gained at the other
    assert (full.worst, round(full.lost_by_centre["b"], 6), full.is_safe) == ("b", 0.03, False)
    assert gentle.is_safe and gentle.worst == "b"
    assert full.retention == pytest.approx(1.69 / 1.7)
    assert full.harmonic == pytest.approx(2 * 0.75 * 0.845 / (0.75 + 0.845))


def test_a_row_is_compared_on_what_the_base_was_scored_on_too() -> None:
    base = [line("zero_shot", "a", place, dice, seed=seed) for place in "ab" for seed, dice in (("0", 0.5), ("1", 0.7))]
    row = [line("full", "a", place, 0.5) for place in "ab"]
    row.append(line("full", "a", "b", 0.0, structure="Left-Putamen"))
    base.append(line("zero_shot", "a", "b", None, structure="Left-Putamen"))  # not in the truth, and not found
    row.append(line("full", "a", "b", 0.1, subject="sub-2"))
    (full,) = [one for one in transfer.centre_scores(base + row) if one.row == "full"]
    assert (full.gain.mean, full.forgetting.mean, full.is_safe) == (0, 0, True)
    assert [one.gain.mean for one in transfer.pooled_scores(base + row) if one.row == "full"] == [0]


def test_a_direct_loss_is_of_the_structures_that_both_bases_were_scored_on() -> None:
    lines = [*LINES, line("zero_shot", "b", "a", 0.1, structure="Left-Putamen")]
    assert transfer.direct_losses(lines) == transfer.direct_losses(LINES)


def test_over_all_centres_rows_are_compared_where_all_were_run() -> None:
    found = {one.row: one for one in transfer.pooled_scores(LINES)}
    assert found["full"].gain.subjects == 1 and found["full"].gain.mean == pytest.approx(0.25)
    assert found["zero_shot"].gain.subjects == 1 and found["zero_shot"].gain.mean == 0


def test_the_mean_of_centres_counts_each_centre_once() -> None:
    row = [line("full", split, centre, 0.7) for split in "abc" for centre in "abc"]
    row += [line("full", "a", "a", 0.7, subject=f"sub-{k}") for k in range(2, 5)]  # one centre tested four people
    row += [line("zero_shot", "a", "a", 0.5, subject=f"sub-{k}") for k in range(2, 5)]
    each = [one for one in transfer.centre_scores([*LINES[:9], *row]) if one.row == "full"]
    (mean,) = transfer.mean_scores(each, 3)
    assert (mean.centre, mean.gain.subjects) == (transfer.MEAN, 3)
    assert mean.gain.mean == pytest.approx((0.2 - 0.08 + 0.1) / 3)
    assert transfer.mean_scores(each, 4) == []  # one centre was not run


def test_a_row_is_tested_against_the_full_training_at_each_centre() -> None:
    lines = [
        line(row, split, centre, 0.5 + 0.01 * number + (0.1 + 0.01 * number) * (row == "full"), subject=f"sub-{number}")
        for row in ("full", "gentle")
        for split in "ab"
        for centre in "ab"
        for number in range(4)
    ]
    found = transfer.centre_tests(lines, "gentle", "full", "new")
    assert {name: round(one.difference.mean, 6) for name, one in found.items()} == {"a": -0.115, "b": -0.115}
    assert found["a"].wilcoxon_p == 0.125 and found["a"].difference.subjects == 4
    assert transfer.centre_tests(lines, "not run", "full", "new") == {}


def hand_made(lines: list[dict[str, str]], **how: dict) -> Summary:
    """A summary of these lines: three centres, each of which was to be left out; curves and costs by row."""
    rows = [SimpleNamespace(name=name, trains=name != "zero_shot") for name in ("zero_shot", "full", "gentle", "lazy")]
    study = SimpleNamespace(rows=rows, reference="gentle")
    cells = [Cell(0, split, row.name) for split in "abc" for row in rows]
    run = {(one["split"], one["row"]) for one in lines}
    curves = {
        cell: [{"step": str(k), "validation": str(v)} for k, v in how["curves"].get(cell.row, ())] for cell in cells
    }
    results = SimpleNamespace(
        rows=lambda: lines,
        finished=lambda cell: (cell.split, cell.row) in run,
        curves={cell: looks for cell, looks in curves.items() if (cell.split, cell.row) in run},
        costs={cell: [{"train_s": "50", "steps": "100"}] for cell in cells if cell.split != "c"},
    )
    plan = SimpleNamespace(study=study, splits=[SimpleNamespace(name=name) for name in "abc"], cells=cells)
    return Summary(plan, results)


def people(row: str, split: str, centre: str, dice: float, step: float) -> list[dict[str, str]]:
    return [line(row, split, centre, dice + step * k, subject=f"sub-{k}") for k in range(6)]


def test_summary_lines_of_the_tables_of_centres() -> None:
    lines = [
        one
        for row in ("zero_shot", "full")
        for split in "abc"
        for centre in "abc"
        for one in people(row, split, centre, 0.6, 0.01)
    ]
    lines += [one for split in "ab" for centre in "abc" for one in people("gentle", split, centre, 0.5, 0.02)]
    lines += [one for split in "abc" for centre in "abc" for one in people("lazy", split, centre, 0.55, 0.011)]
    (_, *table) = centre_tables.against_table(hand_made(lines, curves={}))
    found = {
        (one[0], one[1], one[2]): dict(zip(centre_tables.TESTS, one[5:], strict=True)) | {"people": one[3]}
        for one in table
    }
    partly, whole = found["new", "gentle", "a"], found["new", "lazy", "a"]
    assert float(partly["wilcoxon_p"]) == float(whole["wilcoxon_p"]) == 0.03125
    assert float(partly["wilcoxon_holm"]) == float(whole["wilcoxon_holm"]) == 0.09375  # 'c' is still to come
    assert float(partly["t_holm"]) == pytest.approx(3 * float(partly["t_p"]), rel=1e-3)
    assert found["new", "gentle", "c"]["people"] == found["new", "gentle", transfer.MEAN]["people"] == tables.NOT_RUN
    assert found["old", "lazy", transfer.MEAN]["people"] == "3 centres"
    mean = found["new", "lazy", transfer.MEAN]
    assert (mean["wilcoxon_p"], mean["wilcoxon_holm"]) == ("0.25", "0.75")  # three centres that agree; three rows
    assert ("new", "full", "a") not in found


def test_a_row_is_safe_over_all_centres_only_if_it_is_at_each() -> None:
    lines = [line("zero_shot", split, centre, 0.8) for split in "abc" for centre in "abc"]
    lines += [
        line("gentle", split, centre, 0.8)
        for split in "abc"
        for centre in "abc"
        if (split, centre) not in (("a", "b"), ("c", "b"))
    ]
    lines += [
        line("gentle", "a", "b", 0.74),
        line("gentle", "c", "b", 0.85),
    ]  # lost where 'a' is new, gained where 'c' is
    (head, *table) = centre_tables.centre_table(hand_made(lines, curves={}))
    found = {one[0]: dict(zip(head, one, strict=True)) for one in table if one[1] == "gentle"}
    assert {name: one["safe"] for name, one in found.items()} == {"a": "no", "b": "yes", "c": "yes"} | dict.fromkeys(
        (transfer.ALL, transfer.MEAN), "no"
    )
    assert (found[transfer.MEAN]["people_new"], found["a"]["people_old"]) == ("3 centres", "2")
    worst = {name: (one["worst_old"], one["worst_new"], float(one["worst_forgetting"])) for name, one in found.items()}
    assert worst["a"] == worst[transfer.ALL] == worst[transfer.MEAN] == ("b", "a", pytest.approx(0.06))


def test_a_row_that_was_not_run_at_every_centre_is_not_called_safe_and_is_compared_where_all_were_run() -> None:
    lines = [line("zero_shot", split, centre, 0.8) for split in "abc" for centre in "abc"]
    lines += [line("full", split, centre, 0.9) for split in "ab" for centre in "abc"]
    lines += [line("gentle", "a", centre, 0.85) for centre in "abc"]
    lines.append(line("full", "a", "a", 0.1, structure="Left-Putamen"))
    (head, *table) = centre_tables.centre_table(hand_made(lines, curves={}))
    found = {(one[0], one[1]): dict(zip(head, one, strict=True)) for one in table}
    assert {found[transfer.ALL, row]["safe"] for row in ("full", "gentle")} == {tables.NOT_RUN}
    assert (found["a", "full"]["safe"], found["a", "zero_shot"]["worst_new"]) == ("yes", "n/a")
    assert [float(found[transfer.ALL, row]["gain"]) for row in ("full", "gentle")] == pytest.approx([0.1, 0.05])
    assert found[transfer.ALL, "zero_shot"]["people_new"] == "1"


def test_time_to_arrive_where_the_full_training_does() -> None:
    lines = [line(row, split, split, 0.8) for split in "abc" for row in ("zero_shot", "full", "gentle", "lazy")]
    curves = {
        "zero_shot": [(10, 0.9)],
        "full": [(40, 0.5), (80, 0.8), (100, 0.79)],
        "gentle": [(60, 0.77)],
        "lazy": [(90, 0.7)],
    }
    summary = hand_made(lines, curves=curves)
    assert summary.seconds_to_arrive("full") == [40.0, 40.0]  # step 80 of 100, 50 seconds; the cost of 'c' is lost
    assert summary.seconds_to_arrive("gentle") == [30.0, 30.0]  # 0.77 is 96 % of 0.8
    assert summary.seconds_to_arrive("lazy") == [None, None]
    assert summary.seconds_to_arrive("zero_shot") == []
    summary.target = "zero_shot"
    assert summary.seconds_to_arrive("full") == []  # a base model's curve is of other people


def test_the_first_look_at_a_goal() -> None:
    looks = [(10.0, 0.5), (20.0, 0.7), (30.0, 0.69)]
    assert analysis.first_at(looks, 0.69) == 20.0
    assert analysis.first_at(looks, 0.71) is None


def test_no_row_is_judged_on_a_structure_that_another_one_missed() -> None:
    lines = [
        *(line(row, "a", "a", 0.5, asd_mm="1") for row in ("good", "bad")),
        line("good", "a", "a", 0.1, structure="Left-Amygdala", asd_mm="9"),
        line("bad", "a", "a", 0.0, structure="Left-Amygdala", asd_mm="", predicted_mm3="0"),
    ]
    kept = analysis.by_subject(analysis.shared(lines, ["good", "bad"], "asd_mm"), "asd_mm")
    assert kept == {row: {("a", "sub-1"): 1.0} for row in ("good", "bad")}
    assert len(analysis.shared(lines, ["good", "bad"], "dice")) == 4
    assert analysis.missed(one for one in lines if one["row"] == "bad") == 0.5


def test_rows_that_are_still_to_come_count_in_the_correction() -> None:
    lines = [
        line(row, "a", "a", 0.5 + 0.01 * number + gain * (1 + 0.1 * number), subject=f"sub-{number}")
        for row, gain in (("reference", 0.0), ("other", 0.1))
        for number in range(6)
    ]
    (alone,) = analysis.compare_rows(lines, ["reference", "other"], "reference", "dice")
    (early,) = analysis.compare_rows(lines, ["reference", "other", "later", "last"], "reference", "dice")
    assert early.wilcoxon_holm == pytest.approx(3 * alone.wilcoxon_holm) and early.t_holm > alone.t_holm


@pytest.mark.parametrize(
    ("scores", "said"),
    [((0.5, 0.6, 0.7, 0.7, 0.702, 0.703), "yes"), ((0.5, 0.6, 0.65, 0.7, 0.72, 0.73), "no"), ((0.5,), "n/a")],
)
def test_a_curve_that_rises_in_its_last_third_has_not_converged(scores: tuple[float, ...], said: str) -> None:
    looks = [(10.0 * (k + 1), score) for k, score in enumerate(scores)]
    assert analysis.converged(looks, looks[-1][0]) == said


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two data sets of four people, and a study that leaves each of them out."""
    folder = tmp_path_factory.mktemp("centres")
    label_map = tiny.write_map(folder / "map.nii.gz")
    for seed, name in enumerate(("here", "there")):
        simulate([label_map], folder / name, 4, voxel_mm=6.0, seed=seed)
    recipe = tiny.recipe(ema=0.5, validate_every=1)
    (folder / "base.toml").write_text(recipes.dumps(recipe))
    (folder / "study.toml").write_text(STUDY.format(base=folder / "base.toml"))
    return folder


def begin(place: Path, name: str) -> tuple[planning.Plan, Results]:
    plan = planning.plan_of(read_study(place / "study.toml"))
    return plan, Results(place / name, plan.cells, plan.meaning)


def test_from_the_bases_to_the_page(place: Path) -> None:
    plan, results = begin(place, "whole")
    assert [cell.row for cell in plan.cells] == ["zero_shot", "zero_shot", "decoder", "decoder"]
    running = engine.run(plan, results, place / "work", lambda cell, row: None)
    next(running), next(running)
    summary = Summary(plan, results)
    (_, *direct), (_, *centres) = centre_tables.direct_table(summary), centre_tables.centre_table(summary)
    assert [row[0] for row in direct] == ["here", "there"] and all(row[-1] in ("yes", "no") for row in direct)
    assert {row[1]: row[2] == tables.NOT_RUN for row in centres} == {"zero_shot": False, "decoder": True}
    assert all(row[-1] == tables.NOT_RUN for row in centre_tables.against_table(summary)[1:])
    assert [results.costs[cell][0]["steps"] for cell in plan.cells[:2]] == ["3", "3"]  # the bases'
    list(running)
    page.write_report(Summary(plan, results), place / "whole")
    with (place / "whole" / "centres.csv").open(newline="") as stream:
        found = {(one["centre"], one["row"]): one for one in csv.DictReader(stream)}
    assert found["all centres", "decoder"]["people_new"] == "4" and found["here", "zero_shot"]["safe"] == "base"
    with (place / "whole" / "against.csv").open(newline="") as stream:
        against = list(csv.DictReader(stream))
    assert [(one["part"], one["centre"]) for one in against] == list(
        product(("new", "old"), (transfer.MEAN, "here", "there"))
    )
    assert {(one["row"], one["people"]) for one in against} == {("zero_shot", "2"), ("zero_shot", "2 centres")}
    with (place / "whole" / "table_long.csv").open(newline="") as stream:
        long = {one["row"]: one for one in csv.DictReader(stream) if one["metric"] == "dice"}
    assert long["zero_shot"]["s_to_arrive"] == "n/a"
    assert 0 < float(long["decoder"]["s_to_arrive"]) <= float(long["decoder"]["train_s"])
    assert "What a new centre costs" in (place / "whole" / "report.html").read_text()


def test_killed_while_a_base_is_trained_or_run_side_by_side_the_table_is_the_same(place: Path, tmp_path: Path) -> None:
    plan = planning.plan_of(replace(read_study(place / "study.toml"), only=("here",)))

    def killed(cell: Cell, row: dict[str, float]) -> None:
        if cell.row == "base" and row["step"] == 2:
            raise KeyboardInterrupt

    found = []
    for name, jobs in (("one", 1), ("two", 2)):
        folder, work = tmp_path / name, tmp_path / f"work-{name}"
        if jobs == 1:
            with pytest.raises(KeyboardInterrupt):
                list(engine.run(plan, Results(folder, plan.cells, plan.meaning), work, killed))
        results = Results(folder, plan.cells, plan.meaning)
        assert set(engine.run(plan, results, work, lambda cell, row: None, jobs=jobs)) == set(plan.cells)
        found.append([(folder / table).read_text() for table in ("results.csv", "curves.csv")])
    assert found[0] == found[1]


def test_a_base_is_counted_once_and_not_when_it_is_there(place: Path) -> None:
    plan, results = begin(place, "pace")
    first = plan.cells[0]
    there = timing.Pace(plan, results, 2.0, lambda cell: cell.split == "here")
    assert first.split == "here" and there.of(first) == 0
    assert timing.Pace(plan, results, 2.0).of(first) == 3 * 2.0
    assert timing.Pace(plan, results, 2.0).left() == 2 * (3 + 2) * 2.0  # two bases, two decoders
    assert there.left() == (3 + 2 * 2) * 2.0


def test_a_base_that_does_not_fit_the_budget_is_not_begun(place: Path, tmp_path: Path) -> None:
    plan, results = begin(place, "budget")
    assert list(engine.run(plan, results, tmp_path, lambda cell, row: None, 5.0, jobs=2, step_s=2.0)) == []
    assert not list(tmp_path.iterdir())


def test_shots_to_match_are_told_when_all_were_run() -> None:
    rows, shots = ("full", "decoder", "lora"), (1, 2, 5)
    dice = {"full": (0.5, 0.6, 0.7), "decoder": (0.6, 0.696, 0.72), "lora": (0.1, 0.2, 0.3)}
    lines = [line(row, f"{n}shot", f"{n}shot", dice[row][k]) for row in rows for k, n in enumerate(shots)]
    cells = [Cell(0, f"{n}shot", row) for n in shots for row in rows]

    def table(finished: set[Cell]) -> dict[str, str]:
        def done(row: str) -> tuple[int, int]:
            return sum(cell.row == row for cell in finished), 3

        kept = [one for one in lines if Cell(0, one["split"], one["row"]) in finished]
        summary = SimpleNamespace(rows=rows, target="full", done=done, lines=kept)
        return dict(tables.shots_table(summary)[1:])  # type: ignore[arg-type]

    assert table(set(cells)) == {"full": "5", "decoder": "2", "lora": "not reached"}
    assert table(set(cells) - {Cell(0, "5shot", "decoder")})["decoder"] == tables.NOT_RUN
    assert set(table({cell for cell in cells if cell.split == "1shot"}).values()) == {tables.NOT_RUN}


def test_weights_of_another_recipe_are_not_taken_over(place: Path, tmp_path: Path) -> None:
    plan, results = begin(place, "first")
    next(engine.run(plan, results, tmp_path / "work", lambda cell, row: None))
    changed = replace(plan, study=replace(plan.study, base_steps=4))
    fresh = Results(tmp_path / "second", changed.cells, changed.meaning)
    with pytest.raises(
        SpansegError, match="another recipe, start, augmentation, other scans or other facts than this study's"
    ):
        next(engine.run(changed, fresh, tmp_path / "work", lambda cell, row: None))


def test_results_of_other_scans_are_not_gone_on_with(place: Path) -> None:
    plan, results = begin(place, "scans")
    next(engine.run(plan, results, place / "work-scans", lambda cell, row: None))
    scan = sorted((place / "here").rglob("*_T1w.nii.gz"))[0]
    kept = scan.read_bytes()
    try:
        scan.write_bytes(sorted((place / "there").rglob("*_T1w.nii.gz"))[0].read_bytes())
        with pytest.raises(SpansegError, match="is not the one that made the results"):
            begin(place, "scans")
    finally:
        scan.write_bytes(kept)
