"""Evaluation from files to tables: hand-made images with known scores, and what must be refused."""

import csv
import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spanseg.cli.main import main
from spanseg.errors import SpansegError
from spanseg.evaluate import EvaluateOptions, evaluate, evaluation_json, score_volumes, write_evaluation
from spanseg.evaluation import METRICS, CaseScores, RowSummary, rows_of
from spanseg.judging import changes
from spanseg.labels import Crosswalk, load_protocol
from spanseg.metrics import Scores
from spanseg.sidecar import FORMAT
from spanseg.volume import Volume

ASEG = load_protocol("aseg")
OWN = ASEG.crosswalk("aseg")


def save(path: Path, data: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data.astype(np.int16), np.eye(4) if affine is None else affine), path)
    return path


def brain(moved: int = 0) -> np.ndarray:
    """Two hippocampi and a thalamus as cubes of 4 voxels, the left hippocampus moved along the first axis."""
    data = np.zeros((24, 12, 12), dtype=np.int16)
    data[3 + moved : 7 + moved, 2:6, 2:6] = 17
    data[15:19, 2:6, 2:6] = 53
    data[10:14, 7:11, 7:11] = 10
    return data


def row(summary: tuple[RowSummary, ...], name: str) -> RowSummary:
    return next(found for found in summary if found.row.name == name)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three subjects: one right, one with a hippocampus moved by a voxel, one without it."""
    wrong = brain()
    wrong[wrong == 17] = 0
    for name, data in (("01", brain()), ("02", brain(moved=1)), ("03", wrong)):
        save(tmp_path / "pred" / f"sub-{name}_T1w_dseg.nii.gz", data)
        save(tmp_path / "truth" / f"sub-{name}_dseg.nii.gz", brain())
    return tmp_path / "pred", tmp_path / "truth"


def test_scores_of_cases_and_their_summary(folders: tuple[Path, Path]) -> None:
    found = evaluate(*folders)
    assert [case.subject for case in found.cases] == ["sub-01", "sub-02", "sub-03"]
    left = row(found.summary, "Left-Hippocampus")
    assert left.intervals["dice"].mean == pytest.approx((1 + 0.75 + 0) / 3)
    assert left.intervals["asd_mm"].mean == pytest.approx((16 + 4) / 56 / 2), "a missing structure has no distance"
    assert (left.cases, left.missing, left.empty) == (3, 1, 0)
    assert left.intervals["dice"].low < left.intervals["dice"].mean < left.intervals["dice"].high
    nuclei = row(found.summary, "nuclei")
    per_case = [1, (0.75 + 1 + 1) / 3, (0 + 1 + 1) / 3]
    assert nuclei.intervals["dice"].mean == pytest.approx(np.mean(per_case)), "nuclei that no image has are left out"
    assert nuclei.missing == 1 and nuclei.empty == 3 * 9
    assert math.isnan(row(found.summary, "Right-Thalamus").intervals["dice"].mean)


def test_tables_and_json_agree(folders: tuple[Path, Path], tmp_path: Path) -> None:
    found = evaluate(*folders, EvaluateOptions(seed=3))
    written = write_evaluation(found, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in written)
    tables = {}
    for path in written[:2]:
        with path.open(encoding="utf-8", newline="") as stream:
            tables[path.name] = list(csv.DictReader(stream, delimiter="\t"))
    lost = [line for line in tables["evaluation_cases.tsv"] if (line["case"], line["id"]) == ("sub-03", "17")]
    assert [(line["dice"], line["asd_mm"], line["truth_mm3"], line["missing"]) for line in lost] == [
        ("0", "n/a", "64", "1")
    ]
    summary = {line["name"]: line for line in tables["evaluation_summary.tsv"]}
    content = json.loads(written[2].read_text(encoding="utf-8"))
    for entry in content["summary"]:
        for metric in METRICS:
            cell = summary[entry["name"]][f"{metric}_mean"]
            mean = entry[metric]["mean"]
            assert cell == "n/a" if mean is None else float(cell) == pytest.approx(mean, rel=1e-4)
    assert content["cases"][2]["structures"]["Left-Hippocampus"]["asd_mm"] is None
    assert (content["seed"], content["tolerance_mm"], content["protocol"]) == (3, 1.0, "aseg")
    assert str(tmp_path) not in json.dumps(content), "paths of this computer are nobody's business"


def test_what_the_truth_does_not_label_is_not_scored(tmp_path: Path) -> None:
    """A truth of hippocampi alone, in ids of its own; the predicted thalamus lies in its background."""
    truth = np.zeros(brain().shape)
    truth[brain() == 17], truth[brain() == 53] = 1, 2
    scheme = tmp_path / "scheme.tsv"
    scheme.write_text("index\tmaps_to\n1\t17\n2\t53\n", encoding="utf-8")
    files = save(tmp_path / "p_dseg.nii", brain()), save(tmp_path / "t_dseg.nii", truth)
    found = evaluate(*files, EvaluateOptions(labels=str(scheme)))
    assert {name.row.name for name in found.summary if name.row.id} == {"Left-Hippocampus", "Right-Hippocampus"}
    assert row(found.summary, "nuclei").intervals["dice"].mean == 1
    assert found.cases[0].scheme == "scheme.tsv"


def test_ids_without_an_entry_are_listed_and_refused(tmp_path: Path) -> None:
    truth = brain()
    truth[0, 0, 0] = 99
    files = save(tmp_path / "p_dseg.nii", brain()), save(tmp_path / "t_dseg.nii", truth)
    with pytest.raises(SpansegError, match=r"t_dseg\.nii, truth: .*\[99\]"):
        evaluate(*files)


def test_lesions_of_a_prediction_are_no_structure() -> None:
    data = brain()
    data[20:22, 1:3, 1:3] = 25
    found = score_volumes(Volume(data, np.eye(4)), Volume(brain(), np.eye(4)), ASEG, OWN, 1.0, "case")
    assert found[ASEG.class_of(17)].dice == 1


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flip", [0, 1, 2])
def test_grids_may_be_stored_in_another_order(axes: tuple[int, int, int], flip: int) -> None:
    """The same voxels at the same places, whatever the order of the axes in the file."""
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    turn = np.eye(4)[:, [*axes, 3]]  # from the turned array's indices to ours
    turn[flip] *= -1
    turn[flip, 3] = brain().shape[flip] - 1
    other = Volume(np.flip(brain(moved=1), flip).transpose(axes), affine @ turn)
    found = score_volumes(other, Volume(brain(), affine), ASEG, OWN, 1.0, "case")
    assert found == score_volumes(Volume(brain(moved=1), affine), Volume(brain(), affine), ASEG, OWN, 1.0, "case")


@pytest.mark.parametrize(
    ("shape", "shift_mm", "scale", "words"),
    [
        ((24, 12, 13), 0.0, 1.0, "24 × 12 × 13 voxels"),
        ((24, 12, 12), 0.5, 1.0, "0.5 mm apart"),
        ((24, 12, 12), 0.0, 1.1, "1.1 × 1 × 1 mm"),
    ],
)
def test_other_grids_are_refused(shape: tuple[int, ...], shift_mm: float, scale: float, words: str) -> None:
    affine = np.diag([scale, 1.0, 1.0, 1.0])
    affine[1, 3] = shift_mm
    with pytest.raises(SpansegError, match=words):
        score_volumes(Volume(np.zeros(shape, int), affine), Volume(brain(), np.eye(4)), ASEG, OWN, 1.0, "case")


def test_rounded_headers_are_one_grid() -> None:
    affine = np.eye(4)
    affine[:3, 3] = 0.004
    found = score_volumes(Volume(brain(), affine), Volume(brain(), np.eye(4)), ASEG, OWN, 1.0, "case")
    assert found[ASEG.class_of(53)].dice == 1


def test_groups_hold_only_what_was_scored() -> None:
    rows = {found.name: found.classes for found in rows_of(ASEG, [ASEG.class_of(17), ASEG.class_of(3)])}
    assert rows["nuclei"] == (ASEG.class_of(17),)
    assert rows["cerebral_cortex"] == (ASEG.class_of(3),)
    assert "lateral_ventricles" not in rows
    assert set(rows["all_structures"]) == {ASEG.class_of(17), ASEG.class_of(3)}


def test_repeated_scans_of_a_subject_are_one_vote(tmp_path: Path) -> None:
    for name, moved in (("sub-01_ses-1", 0), ("sub-01_ses-2", 0), ("sub-02", 1)):
        save(tmp_path / "pred" / f"{name}_dseg.nii", brain(moved))
        save(tmp_path / "truth" / f"{name}_dseg.nii", brain())
    dice = row(evaluate(tmp_path / "pred", tmp_path / "truth").summary, "Left-Hippocampus").intervals["dice"]
    assert (dice.mean, dice.subjects) == (pytest.approx((1 + 0.75) / 2), 2)


def test_the_columns_of_a_comparison_add_up_and_all_rows_are_there() -> None:
    """One person has two scans; the first scan's truth labels no thalamus."""
    truth, worse = Volume(brain(), np.eye(4)), Volume(brain(moved=2), np.eye(4))
    scored = score_volumes(truth, truth, ASEG, OWN, 1.0, "same")
    moved = score_volumes(worse, truth, ASEG, OWN, 1.0, "moved")
    thalamus, left = ASEG.class_of(10), ASEG.class_of(17)

    def cases(*found: dict[int, Scores]) -> list[CaseScores]:
        people = ("sub-1", "sub-1", "sub-2")
        known = [{index: one for index, one in found[0].items() if index != thalamus}, *found[1:]]
        return [CaseScores("", who, "", "", "", scores) for who, scores in zip(people, known, strict=True)]

    rows = {row.name: row for row in changes(cases(moved, scored, moved), cases(scored, scored, scored), ASEG)}
    hippocampus = rows[ASEG.structures[left].name]
    assert (hippocampus.before, hippocampus.after) == (pytest.approx((0.75 + 0.5) / 2), 1)
    assert rows[ASEG.structures[thalamus].name].difference.subjects == 2
    assert all(row.after - row.before == pytest.approx(row.difference.mean) for row in rows.values())


def test_the_command_prints_and_writes(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(folders[1] / "sub-09_dseg.nii.gz", brain())
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *map(str, folders), "--labels", "aseg", "-o", str(tmp_path / "out")])
    printed = capsys.readouterr()
    assert stopped.value.code == 0
    assert "Left-Hippocampus" in printed.out and "0.583" in printed.out
    assert "sub-09_dseg.nii.gz" in printed.err, "an image without a partner is named"
    assert (tmp_path / "out" / "evaluation.json").is_file()


def test_one_case_has_no_interval_and_says_why(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = save(tmp_path / "one.nii.gz", brain()), save(tmp_path / "true.nii.gz", brain(1))
    with pytest.raises(SystemExit):
        main(["evaluate", *map(str, one), "-o", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    assert "nan" not in printed and "n/a: an interval needs two subjects" in printed
    assert "1 case;" in printed
    table = [line for line in printed.splitlines() if "interval]" in line or line.startswith("Left-Hippocampus")]
    assert len({len(line) for line in table}) == 1, "numbers end where their heads end"


def test_the_title_names_the_models_that_sidecars_tell_of(folders: tuple[Path, Path]) -> None:
    assert evaluate(*folders).title == "Evaluation"
    record = dict.fromkeys(("input_sha256", "labels_sha256", "settings_sha256", "precision"), "") | {
        "format": FORMAT,
        "settings": dict.fromkeys(("lesion_mask_sha256", "device", "trust")),
        "facts": {"given": []},
        "outputs": [],
        "warnings": [],
        "threads": 1,
        "model": "plain",
    }
    (folders[0] / "sub-01_T1w_dseg.json").write_text(json.dumps(record), encoding="utf-8")
    assert evaluate(*folders).title == "Evaluation of plain"
    record["model_title"] = "KGPL (sentences read by MiniLM)"
    (folders[0] / "sub-02_T1w_dseg.json").write_text(json.dumps(record), encoding="utf-8")
    found = evaluate(*folders)
    assert found.title == "Evaluation of KGPL (sentences read by MiniLM), plain"
    assert evaluation_json(found)["title"] == found.title


def test_tables_are_there_though_nobody_reads_what_is_printed(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(*words: object, **options: object) -> None:
        if "file" not in options:
            raise BrokenPipeError

    monkeypatch.setattr("builtins.print", closed)
    with pytest.raises(SystemExit):
        main(["evaluate", *map(str, folders), "--labels", "aseg", "-o", str(tmp_path / "out")])
    assert (tmp_path / "out" / "evaluation.json").is_file()


def test_the_command_refuses_in_one_sentence(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", *map(str, folders), "--labels", "nothing", "-o", str(tmp_path / "out")])
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.err.strip().splitlines()[-1].startswith("spanseg: labels 'nothing'")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tolerance_mm", [-1.0, math.nan, math.inf])
def test_a_tolerance_that_is_no_length_is_refused(tolerance_mm: float) -> None:
    with pytest.raises(SpansegError, match="takes a number of mm"):
        EvaluateOptions(tolerance_mm=tolerance_mm)


def test_a_truth_that_is_the_prediction_itself_is_noted(tmp_path: Path) -> None:
    image = save(tmp_path / "sub-1_dseg.nii", brain())
    (note,) = evaluate(image, image).notes
    assert "one and the same file" in note


def test_a_perturbed_real_truth_scores_as_it_must(shared_data: Path) -> None:
    """Manual labels moved by one voxel of 1 mm: no surface is further off, and volumes stay."""
    files = sorted(shared_data.glob("malc/derivatives/*/sub-*/anat/*_dseg.nii.gz"))
    if not files:
        pytest.skip("needs ../shared/data/malc")
    image = nib.load(files[0])
    crosswalk: Crosswalk = ASEG.crosswalk("neuromorphometrics")
    truth = np.asarray(image.dataobj).astype(np.int32)
    ids = ASEG.ids[np.maximum(crosswalk.apply(truth, "truth"), 0)]
    volumes = Volume(np.roll(ids, 1, axis=1), image.affine), Volume(truth, image.affine)
    found = score_volumes(*volumes, ASEG, crosswalk, 1.0, files[0].name)
    assert set(found) == set(range(1, len(ASEG))) - {ASEG.class_of(24)}
    for index, scores in found.items():
        assert 0.5 < scores.dice < 0.97, ASEG.structures[index].name
        assert 0.1 < scores.asd_mm < 1 and scores.hd95_mm == 1 and scores.surface_dice > 0.99
        assert scores.volume_error_abs_percent < 5
