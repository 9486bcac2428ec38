"""Corrections saved and exported: files hold what was seen, the trail how it came about; training takes them."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fake_corrector import AMYGDALA, HIPPOCAMPUS, PROTOCOL, BallCorrector, begin, click, write_scan
from spanseg.cases import Case, find_cases
from spanseg.corrected import is_saved, save
from spanseg.corrected_dataset import export_dataset
from spanseg.dataset_audit import inspect_dataset
from spanseg.errors import SpansegError
from spanseg.files import file_sha256
from spanseg.inputs import find_jobs
from spanseg.labelled import pair_scans, read_labelled
from spanseg.prompts import Prompt


def test_saving_writes_labels_tables_and_the_audit_trail(tmp_path: Path) -> None:
    session = begin(find_cases(write_scan(tmp_path / "in" / "head.nii.gz"), tmp_path / "out")[0])
    click(session, (HIPPOCAMPUS, (6, 6, 6)), (AMYGDALA, (8, 8, 8)))
    session.undo()
    scribble = Prompt("scribble", True, tuple((5 + n, 6, 7) for n in range(9)))
    session.prompt(HIPPOCAMPUS, scribble, BallCorrector())
    scan = session.case.scan.read_bytes()
    assert not is_saved(session)
    names = save(session)
    assert is_saved(session) and names[0] == "head_desc-corrected_dseg.nii.gz"
    written = nibabel.load(session.case.folder / names[0])
    assert np.array_equal(np.asanyarray(written.dataobj), session.labels)
    assert np.array_equal(written.affine, nibabel.load(session.case.scan).affine)
    assert session.case.scan.read_bytes() == scan
    record = json.loads((session.case.folder / names[3]).read_text(encoding="utf-8"))
    assert record["in_force"] == [1, 4] and [event["kind"] for event in record["events"]][2] == "undo"
    last = record["events"][-1]
    assert (last["name"], last["prompt"], last["prompt_voxels"]) == ("Left-Hippocampus", "scribble", 9)
    assert last["where"] == [[5, 6, 7], [13, 6, 7]] and last["corrector"] == BallCorrector.name
    assert last["changed_voxels"] == session.events[-1].change.voxels > 0 and last["time"].endswith("+00:00")
    rows = [line.split("\t") for line in (session.case.folder / names[2]).read_text(encoding="utf-8").splitlines()]
    sizes = {row[1]: row[3] for row in rows}
    assert float(sizes["Left-Hippocampus"]) == (session.labels == HIPPOCAMPUS).sum() * 27
    click(session, (AMYGDALA, (8, 8, 8)))
    assert not is_saved(session)
    session.close()


def test_nothing_that_is_read_can_be_overwritten(tmp_path: Path) -> None:
    scan = write_scan(tmp_path / "in" / "head.nii.gz")
    own = find_cases(scan, tmp_path / "out")[0]
    for path in own.written:
        path.parent.mkdir(parents=True, exist_ok=True)
        with pytest.raises(SpansegError, match="would overwrite this file"):
            find_cases(scan, tmp_path / "out", labels=path)
    start = tmp_path / "start" / "session" / "start.nii.gz"
    write_scan(start)
    with pytest.raises(SpansegError, match=r"start\.nii\.gz: the correction of start\.nii\.gz would overwrite"):
        find_cases(start, tmp_path)


def test_cases_of_a_folder_have_names_of_their_own(tmp_path: Path) -> None:
    for person in ("anna", "ben"):
        write_scan(tmp_path / "in" / person / "mri" / "head.nii.gz")
    names = [case.name for case in find_cases(tmp_path / "in", tmp_path / "out")]
    assert names == ["anna_mri_head", "ben_mri_head"]
    with pytest.raises(SpansegError, match="--labels belongs to one scan"):
        find_cases(tmp_path / "in", tmp_path / "out", tmp_path / "labels.nii.gz")


def test_exported_cases_are_labelled_scans_that_can_be_trained_on(tmp_path: Path) -> None:
    for number, name in enumerate(("sub-01/ses-1/anat/sub-01_ses-1_T1w", "sub-02/ses-1/anat/sub-02_ses-1_T1w")):
        write_scan(tmp_path / "in" / f"{name}.nii.gz", seed=number)
    cases = find_cases(tmp_path / "in", tmp_path / "out")
    with pytest.raises(SpansegError, match="no case has saved labels yet"):
        export_dataset(cases, PROTOCOL, tmp_path / "bids")
    expected = {}
    for number, case in enumerate(cases):
        session = begin(case)
        click(session, (HIPPOCAMPUS, (6 + 3 * number, 6, 6)))
        save(session)
        expected[f"sub-0{number + 1}"] = session.labels
        session.close()
    export_dataset(cases, PROTOCOL, tmp_path / "bids")
    pairs = pair_scans(tmp_path / "bids", tmp_path / "bids" / "derivatives")
    assert [file_sha256(scan) for scan, _ in pairs] == [file_sha256(case.scan) for case in cases]
    report = inspect_dataset(pairs, PROTOCOL, None)
    assert not report.refusals
    for scan in read_labelled(pairs, None, PROTOCOL):
        counts = np.bincount(scan.classes.ravel(), minlength=len(PROTOCOL))
        assert counts.tolist() == [int((expected[scan.name] == s.id).sum()) for s in PROTOCOL.structures]


def saved(tmp_path: Path, *names: str) -> list[Case]:
    """Cases in one output folder, each given alone, with labels that were saved."""
    cases = [find_cases(write_scan(tmp_path / "in" / name), tmp_path / "out")[0] for name in names]
    for case in cases:
        session = begin(case)
        save(session)
        session.close()
    return cases


def pairs_of(folder: Path) -> dict[str, str]:
    """Which scans are trained on, by the name of their labels."""
    return {truth.name.split("_desc")[0]: scan.name for scan, truth in pair_scans(folder, folder / "derivatives")}


def test_scans_of_any_name_and_of_several_commands_are_exported_side_by_side(tmp_path: Path) -> None:
    names = ("t1 crop.nii.gz", "t1_crop.nii.gz", "日本.nii.gz", "東京.nii.gz", "anna.nii")
    for case in saved(tmp_path, *names):
        for _ in range(2):  # again is the same
            (label,) = export_dataset([case], PROTOCOL, tmp_path / "bids")
    assert label.name == "sub-anna_desc-corrected_dseg.nii.gz"
    pairs = pairs_of(tmp_path / "bids")
    assert len(pairs) == len(names) and sum(name.startswith("sub-t1crop") for name in pairs) == 2
    rows = [line.split("\t") for line in (tmp_path / "bids" / "scans.tsv").read_text(encoding="utf-8").splitlines()]
    assert rows[0] == ["scan", "file", "case"] and [row[1] for row in rows[1:]] == list(names)
    assert {row[0] for row in rows[1:]} == {name.partition(".")[0] for name in pairs.values()}


def test_two_scans_with_one_name_are_refused_in_one_command_and_in_two(tmp_path: Path) -> None:
    first, second = saved(tmp_path, "sub-01_T1w.nii.gz", "sub-01_crop_T1w.nii.gz")
    with pytest.raises(SpansegError, match="sub-01_T1w and sub-01_crop_T1w would both be exported as sub-01;"):
        export_dataset([first, second], PROTOCOL, tmp_path / "bids")
    export_dataset([first], PROTOCOL, tmp_path / "bids")
    with pytest.raises(SpansegError, match="sub-01_T1w and sub-01_crop_T1w would both be exported as sub-01;"):
        export_dataset([second], PROTOCOL, tmp_path / "bids")
    assert pairs_of(tmp_path / "bids") == {"sub-01": "sub-01_T1w.nii.gz"}


def test_a_scan_keeps_the_contrast_that_it_was_exported_with_first(tmp_path: Path) -> None:
    head, flair = saved(tmp_path, "head.nii.gz", "sub-01_FLAIR.nii.gz")
    export_dataset([head], PROTOCOL, tmp_path / "bids")
    for _ in range(2):
        with pytest.raises(SpansegError, match=r"head is exported as T1w.*would pass over sub-01_FLAIR"):
            export_dataset([head, flair], PROTOCOL, tmp_path / "bids")
    assert pairs_of(tmp_path / "bids") == {"sub-head": "sub-head_T1w.nii.gz"}
    for cases in ([flair], [head], [head, flair]):
        export_dataset(cases, PROTOCOL, tmp_path / "other")
    assert pairs_of(tmp_path / "other") == {"sub-head": "sub-head_FLAIR.nii.gz", "sub-01": "sub-01_FLAIR.nii.gz"}


def test_a_scan_that_was_replaced_is_not_exported_with_the_labels_of_another(tmp_path: Path) -> None:
    anna, ben = saved(tmp_path, "anna.nii.gz", "ben.nii.gz")
    write_scan(ben.scan, seed=1)
    with pytest.raises(SpansegError, match=r"ben\.nii\.gz: this is not the scan any more"):
        export_dataset([anna, ben], PROTOCOL, tmp_path / "bids")
    assert not (tmp_path / "bids").exists()
    ben.saved[-1].write_text("{}", encoding="utf-8")
    with pytest.raises(SpansegError, match="this record of a correction is damaged"):
        export_dataset([anna, ben], PROTOCOL, tmp_path / "bids")


def test_an_export_whose_table_is_another_is_not_added_to(tmp_path: Path) -> None:
    (tmp_path / "bids").mkdir()
    (tmp_path / "bids" / "scans.tsv").write_text("filename\n", encoding="utf-8")
    with pytest.raises(SpansegError, match="expected the columns scan, file, case"):
        export_dataset(saved(tmp_path, "anna.nii.gz"), PROTOCOL, tmp_path / "bids")


def test_what_corrections_keep_is_no_scan_unless_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("anna", "ben")):
        write_scan(tmp_path / f"{name}.nii.gz", seed=number)
    for out in (Path("spanseg-corrected"), Path()):
        case = find_cases(Path(), out)[0]
        session = begin(case)
        click(session, (HIPPOCAMPUS, (6, 6, 6)))
        save(session)
        session.close()
        export_dataset([case], PROTOCOL, out / "export")
        for other in (Path("results"), out):
            assert [job.path.name for job in find_jobs([Path()], other)] == ["anna.nii.gz", "ben.nii.gz"]
        assert [case.name for case in find_cases(Path(), out)] == ["anna", "ben"]
        assert [job.path.name for job in find_jobs([out / "export"], Path("results"))] == ["sub-anna_T1w.nii.gz"]
        assert [job.path for job in find_jobs([case.session], Path("results"))] == [case.start]


def test_folders_of_other_people_are_scans_whatever_they_are_called(tmp_path: Path) -> None:
    for folder in ("session", "export"):
        write_scan(tmp_path / folder / f"{folder}.nii.gz")
        (tmp_path / folder / "session.json").write_text('{"format": "of somebody else"}', encoding="utf-8")
    assert [job.path.parent.name for job in find_jobs([tmp_path], tmp_path / "out")] == ["export", "session"]
