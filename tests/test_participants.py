"""Participants tables: what they say of whom, and one sentence for each way in which they can be wrong."""

from pathlib import Path

import pytest

from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.participants import facts_of, find_table, participant_of, read_participants


def write(folder: Path, text: str) -> Path:
    path = folder / "participants.tsv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_table_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "\ufeffparticipant_id\tAge\tsex\thand\tdx\r\n"
        "sub-01\t34.5\tF\tright\tMCI\r\n"
        "sub-02\t89+\tmale\tleft\tcontrol\r\n"
        "03\tn/a\tO\t\t\r\n"
        "sub-04\t 0.25 \tn/a\r\n",
    )
    assert read_participants(path) == {
        "sub-01": Facts(34.5, "female", "mild cognitive impairment"),
        "sub-02": Facts(89, "male", "healthy"),
        "sub-03": Facts(),
        "sub-04": Facts(0.25),
    }


def test_columns_have_other_names_too_and_a_diagnosis_goes_before_a_group(tmp_path: Path) -> None:
    assert read_participants(write(tmp_path, "participant_id\tgender\tgroup\nsub-1\tm\tPD\n")) == {
        "sub-1": Facts(sex="male", diagnosis="parkinson's disease")
    }
    text = "participant_id\tgroup\tdiagnosis\nsub-1\tfirst cohort\tstroke\n"
    assert read_participants(write(tmp_path, text)) == {"sub-1": Facts(diagnosis="stroke")}
    assert read_participants(write(tmp_path, "participant_id\nsub-1\n")) == {"sub-1": Facts()}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "participant_id\tage\nsub-1\t20\nsub-2\told\n",
            r"participants\.tsv, line 3, column age: .* not 'old'; .*write n/a",
        ),
        ("participant_id\tage\nsub-1\t-2\n", "line 2, column age: .* between 0 and 130 .*-2"),
        ("participant_id\tage\nsub-1\t131\n", "line 2, column age: .* between 0 and 130 .*131"),
        ("participant_id\tage\nsub-1\tnan\n", "line 2, column age: .*nan"),
        ("participant_id\tsex\nsub-1\tfemal\n", "line 2, column sex: .*'femal' .*did you mean 'female'"),
        ("participant_id\tgender\nsub-1\t2\n", "line 2, column gender: .*'2'"),
        ("participant_id\tdiagnosis\nsub-1\tautsim\n", "line 2, column diagnosis: .*'autsim' .*did you mean 'autism'"),
        ("participant_id\tgroup\nsub-1\tcohort A\n", "line 2, column group: .*'cohort A'.*rename the column"),
        ("participant_id\tage\nsub-1\t20\n1\t21\n", "line 3: sub-1 stands in line 2 too"),
        ("participant_id\tage\n\t20\n", "line 2: participant_id is empty"),
        ("id,age\nsub-1,20\n", "expected tab-separated columns participant_id, .* got id,age"),
        ("", "got an empty file"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_line(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(SpansegError, match=sentence) as caught:
        read_participants(write(tmp_path, text))
    assert str(caught.value).count("\n") == 0


def test_a_table_that_is_no_text_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "participants.tsv"
    with pytest.raises(SpansegError, match="cannot be read"):
        read_participants(path)
    path.write_bytes("participant_id\tage\nsub-Zoë\t3\n".encode("utf-16"))
    with pytest.raises(SpansegError, match="expected UTF-8 text"):
        read_participants(path)


@pytest.mark.parametrize(("units", "is_fine"), [("years", True), ("Year", True), ("months", False), ("weeks", False)])
def test_ages_in_other_units_are_refused(units: str, is_fine: bool, tmp_path: Path) -> None:
    path = write(tmp_path, "participant_id\tage\nsub-1\t6\n")
    path.with_suffix(".json").write_text(f'{{"age": {{"Units": "{units}"}}}}', encoding="utf-8")
    if is_fine:
        assert read_participants(path)["sub-1"].age_years == 6
        return
    with pytest.raises(SpansegError, match=rf"ages are in '{units}', expected years"):
        read_participants(path)


@pytest.mark.parametrize("description", ["{ cut off", "[]", '{"age": "years"}', '{"sex": {}}'])
def test_a_description_that_says_nothing_of_units_is_no_reason_to_refuse(description: str, tmp_path: Path) -> None:
    path = write(tmp_path, "participant_id\tage\nsub-1\t6\n")
    path.with_suffix(".json").write_text(description, encoding="utf-8")
    assert read_participants(path) == {"sub-1": Facts(6)}


def test_a_person_without_a_row_is_one_sentence(tmp_path: Path) -> None:
    path = write(tmp_path, "participant_id\tage\nsub-011\t20\n")
    table = read_participants(path)
    assert facts_of(table, "sub-011", path) == Facts(20)
    with pytest.raises(SpansegError, match=r"participants\.tsv: there is no row for sub-01 .*nearest is sub-011"):
        facts_of(table, "sub-01", path)


@pytest.mark.parametrize(
    ("scan", "person"),
    [
        ("sub-01_ses-2_run-1_T1w.nii.gz", "sub-01"),
        ("derivatives/fs/sub-01/mri/T1.mgz", "sub-01"),
        ("fs/sub-01_ses-2/mri/T1.mgz", "sub-01"),
        ("fs/bert/mri/T1.mgz", "sub-bert"),
        ("anna.nii", "sub-anna"),
    ],
)
def test_whose_scan_it_is(scan: str, person: str) -> None:
    assert participant_of(Path(scan)) == person


def test_the_table_of_the_dataset_is_found_up_to_its_root(tmp_path: Path) -> None:
    outside = write(tmp_path, "participant_id\n")
    scans = tmp_path / "data" / "sub-01" / "anat"
    scans.mkdir(parents=True)
    assert find_table(scans) is None, "without a dataset nothing above the folder is looked at"
    (tmp_path / "data" / "dataset_description.json").touch()
    assert find_table(scans) is None, "what lies above the dataset's root is not its own"
    own = write(tmp_path / "data", "participant_id\n")
    assert find_table(scans) == own == find_table(tmp_path / "data")
    assert find_table(tmp_path) == outside
