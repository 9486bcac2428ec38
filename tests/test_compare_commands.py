"""``spanseg compare`` and its short names as commands: killed again and again, planned, refused."""

import csv
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import pytest

import killed_study
import tiny_study
from spanseg.cli.compare import seconds_of
from spanseg.cli.main import main
from spanseg.errors import SpansegError

TABLES = ("results.csv", "curves.csv")
SAME = """
design = "cross_dataset"
train_centres = ["first"]
validate = 0
[centre.others]
data = "same"
labels = "freesurfer"
[centre.first]
"""
"""A data set whose people are those of the first, which its own table knows by the folder's name."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_study.write(tmp_path_factory.mktemp("commands"))


def answer(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    out, error = capsys.readouterr()
    return int(caught.value.code or 0), out, error


@pytest.mark.slow
def test_killed_while_it_trains_or_writes_a_study_ends_with_the_same_tables(study: Path, tmp_path: Path) -> None:
    """Killed in a training, after a training, and between the tables of a cell with two cells at once."""
    short = study.with_name("short.toml")
    short.write_text(study.read_text().replace('"kgpl", "one_hot"', "").replace('reference = "kgpl"', ""))

    def go_on(name: str, jobs: int = 1, file: str = "none", moment: int = 1) -> int:
        out, work = tmp_path / name, tmp_path / f"{name}-work"
        words = [file, moment, "compare", short, "--out", out, "--work", work, "--jobs", jobs, "--budget", "2h"]
        command = [sys.executable, killed_study.__file__, *map(str, words)]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        # what it prints is read to the end: a process that it left behind would keep that open
        return subprocess.run(command, capture_output=True, env=environment, timeout=120).returncode

    def finished() -> set[tuple[str, str]]:
        with (tmp_path / "killed" / "results.csv").open(newline="") as stream:
            return {(line["split"], line["row"]) for line in csv.DictReader(stream)}

    killed = int(killed_study.SIGNAL) if os.name == "nt" else -killed_study.SIGNAL
    first = tmp_path / "killed-work" / "fold0-decoder-0"
    assert go_on("whole") == 0
    assert go_on("killed", file="fold0-decoder-0/state.safetensors", moment=2) == killed
    assert not (first / "delta.safetensors").exists() and finished() == {("fold0", "zero_shot")}
    assert go_on("killed", file="fold0-decoder-0/delta.safetensors") == killed
    assert (first / "delta.safetensors").exists() and finished() == {("fold0", "zero_shot")}
    assert go_on("killed", jobs=2, file="curves.csv", moment=2) == killed
    assert len(finished()) == 2
    assert go_on("killed") == 0
    for name in TABLES:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_plan_is_told_and_nothing_is_run(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = answer(capsys, "compare", study, "--plan", "--out", tmp_path / "out", "--work", tmp_path / "work")
    assert code == 0 and "5 people, 2 splits, 4 rows" in out
    assert re.search(r"8 cells, 8 to do, about \d+ minutes", out)
    assert list(tmp_path.iterdir()) == []


def test_a_budget_that_is_spent_says_how_to_go_on(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = study.with_name("trained.toml")
    trained.write_text(study.read_text().replace('"zero_shot", ', ""))
    places = ("--out", tmp_path / "out", "--work", tmp_path / "work")
    code, out, _ = answer(capsys, "compare", trained, *places, "--budget", "0.001s")
    assert code == 0 and "0 of 6 cells are finished" in out and "the same command goes on" in out


def test_durations() -> None:
    assert [seconds_of(text) for text in ("", "90s", "60m", "1.5h", "2")] == [None, 90, 3600, 5400, 120]
    with pytest.raises(SpansegError, match="--budget takes a duration such as 90s, 60m or 2h, not 'soon'"):
        seconds_of("soon")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("steps = 4", "stepz = 4"), "'stepz' is no key here"),
        (('data = "heads"', 'data = "absent"'), "there is no folder"),
        (("folds = 2", "folds = 9"), "nobody is left to test on"),
        (("[centre.heads]", SAME), "would train and test; keep them apart"),
        (("[centre.heads]", SAME.replace("same", "unsaid")), "would be tested with the scan of first/sub-"),
    ],
)
def test_a_study_that_cannot_be_is_refused_in_one_sentence(
    study: Path, tmp_path: Path, change: tuple[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    same_people(study.parent / "heads", study.parent / "same")
    shutil.copytree(study.parent / "heads", study.parent / "unsaid", dirs_exist_ok=True)
    wrong = study.with_name("wrong.toml")
    wrong.write_text(study.read_text().replace(*change))
    code, out, error = answer(capsys, "compare", wrong, "--out", tmp_path / "out", "--work", tmp_path / "work")
    assert code == 2 and message in error
    assert out == "" and len(error.strip().splitlines()) == 1 and list(tmp_path.iterdir()) == []


def same_people(folder: Path, other: Path) -> None:
    """Copy a data set, with a table that says whose scans these are."""
    shutil.copytree(folder, other, dirs_exist_ok=True)
    subjects = [line.split("\t")[0] for line in (folder / "participants.tsv").read_text().splitlines()[1:]]
    rows = [f"{subject}\theads/{subject}" for subject in subjects]
    (other / "participants.tsv").write_text("participant_id\tsame_person_as\n" + "\n".join(rows) + "\n")


def other_people(folder: Path, other: Path) -> None:
    """Copy a data set with brighter scans, of whom no table says anything."""
    shutil.copytree(folder, other)
    (other / "participants.tsv").unlink()
    for scan in other.glob("sub-*/anat/*.nii.gz"):
        image = nib.load(scan)
        nib.save(nib.Nifti1Image(1.5 * image.get_fdata(dtype="float32"), image.affine), scan)


def test_the_short_names_plan_studies(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ("--plan", "--base", study.parent / "base.toml", "--rows", "zero_shot,decoder", "--steps", "2")
    heads, others = study.parent / "heads", tmp_path / "others"
    other_people(heads, others)
    (label,) = (others / "derivatives").rglob("sub-sim0004*.nii.gz")
    label.unlink()
    code, out, error = answer(capsys, "fewshot", heads, "--labels", "freesurfer", "--shots", "1,2", *places)
    assert (code, error) == (0, "") and "5 people, 2 splits, 2 rows" in out and "2shot: 2 train" in out
    code, out, error = answer(
        capsys, "cross-domain", "--train", f"{heads}:freesurfer", "--test", f"{others}:freesurfer", *places
    )
    assert (code, error) == (0, "") and "9 people, 1 splits" in out and "4 test" in out
    assert out.count("note: ") == 1 and "belongs to sub-sim0004/anat/sub-sim0004_T1w.nii.gz; left out." in out
    code, out, error = answer(capsys, "leave-one-centre-out", f"{heads}:freesurfer", f"{others}:freesurfer", *places)
    assert (code, error) == (0, "") and "9 people, 2 splits" in out and "before" in out
