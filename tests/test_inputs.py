"""Which scans a file or folder stands for, and what is refused before anything runs."""

import os
from pathlib import Path

import pytest

from spanseg.errors import SpansegError
from spanseg.inputs import find_jobs, other_contrasts, stem_of


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not looked at")
    return root


def found(source: Path, out: Path) -> list[str]:
    return [(job.folder / job.stem).relative_to(out).as_posix() for job in find_jobs([source], out)]


def test_a_file_goes_straight_into_the_output_folder(tmp_path: Path) -> None:
    touch(tmp_path, "in put/Zoë T1.nii.gz")
    (job,) = find_jobs([tmp_path / "in put" / "Zoë T1.nii.gz"], tmp_path / "out")
    assert (job.folder, job.stem) == (tmp_path / "out", "Zoë T1")
    assert job.sidecar == tmp_path / "out" / "Zoë T1_dseg.json"


def test_t1w_images_come_first_and_keep_their_tree(tmp_path: Path) -> None:
    data = touch(
        tmp_path / "bids",
        *("sub-02/anat/sub-02_T1w.nii", "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T2w.nii.gz"),
        *("derivatives/prep/sub-01_T1w.nii.gz", ".git/x_T1w.nii.gz", "sub-01/anat/._sub-01_T1w.nii.gz"),
        *("sub-03/mri/T1.mgz", "sub-01/anat/sub-01_T1w.json"),
    )
    assert found(data, tmp_path / "out") == ["sub-01/anat/sub-01_T1w", "sub-02/anat/sub-02_T1w"]
    others = [path.name for path in other_contrasts([data], tmp_path / "out")]
    assert others == ["sub-01_T2w.nii.gz"]
    for named in ("sub-01/anat/sub-01_T2w.nii.gz", "sub-03"):
        assert other_contrasts([data / "sub-02", data / named], tmp_path / "out") == []


def test_freesurfer_folders_are_second(tmp_path: Path) -> None:
    data = touch(tmp_path / "subjects", "a/mri/T1.mgz", "b/mri/T1.mgz", "b/mri/aseg.mgz", "b/mri/orig.mgz", "T1.mgz")
    assert found(data, tmp_path / "out") == ["a/mri/T1", "b/mri/T1"]


def test_otherwise_every_image_that_is_no_label_map(tmp_path: Path) -> None:
    data = touch(
        tmp_path / "in",
        *("a.nii.gz", "B.NII", "deep/c.mgh", "a_dseg.nii.gz", "a_desc-brain_mask.nii.gz", "a_desc-brain.nii.gz"),
        "a_desc-facts_std.nii.gz",
        *("aparc+aseg.mgz", "lesion.nii.gz", "labels/x_seg.nii", "notes.txt", "derivatives/d.nii.gz", "masked.nii"),
    )
    assert found(data, tmp_path / "out") == ["B", "a", "masked", "deep/c"]


@pytest.mark.parametrize(("letters", "refused"), [(232, False), (233, True)])
def test_a_name_too_long_for_its_results_is_refused(letters: int, refused: bool, tmp_path: Path) -> None:
    touch(tmp_path, "x" * letters + ".nii")
    if not refused:
        assert found(tmp_path, tmp_path / "out") == ["x" * letters]
        return
    with pytest.raises(SpansegError, match="give the scan a shorter name"):
        find_jobs([tmp_path], tmp_path / "out")


@pytest.mark.skipif(os.name == "nt", reason="needs links without special rights")
def test_links_in_a_circle_break_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "in/a.nii")
    for link in ("in/b.nii", "in/self", "out"):
        (tmp_path / link).symlink_to(Path(link).name)
    (tmp_path / "in" / "up").symlink_to(tmp_path / "in", target_is_directory=True)
    assert found(tmp_path / "in", tmp_path / "out") == ["a", "b"]
    with pytest.raises(SpansegError, match="this link leads nowhere"):
        find_jobs([tmp_path / "in" / "b.nii"], tmp_path / "out")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    assert [job.stem for job in find_jobs([tmp_path / "pipe.nii"], tmp_path / "out")] == ["pipe"]


def test_the_output_folder_is_never_an_input(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "spanseg-out/other.nii.gz")
    assert found(tmp_path, tmp_path / "spanseg-out") == ["a"]
    assert found(tmp_path, tmp_path) == ["a", "spanseg-out/other"]  # results beside the scans


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    touch(tmp_path, "data/a.nii.gz", "in/b.nii.gz")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "loop").symlink_to(tmp_path / "in")
    assert found(tmp_path / "in", tmp_path / "out") == ["b", "linked/a"]


def test_one_file_named_twice_is_one_job(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz")
    assert len(find_jobs([tmp_path / "a.nii.gz", tmp_path / "." / "a.nii.gz", tmp_path], tmp_path / "out")) == 1


@pytest.mark.parametrize("other", ["a.nii", "A.nii.gz", "x/a.nii.gz"])
def test_shared_output_names_are_refused(tmp_path: Path, other: str) -> None:
    touch(tmp_path, "a.nii.gz", other)
    if (tmp_path / "a.nii.gz").samefile(tmp_path / other):
        pytest.skip("this file system does not tell upper from lower case")
    with pytest.raises(SpansegError, match="would both write"):
        find_jobs([tmp_path / "a.nii.gz", tmp_path / other], tmp_path / "out")


def test_unicode_names_that_look_the_same_are_the_same(tmp_path: Path) -> None:
    touch(tmp_path, "x/Zoe\u0308.nii.gz", "y/Zo\u00eb.nii.gz")
    with pytest.raises(SpansegError, match="would both write"):
        find_jobs([tmp_path / "x", tmp_path / "y"], tmp_path / "out")


def test_a_scan_that_a_result_would_overwrite_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "a_dseg.nii.gz")
    scans = [tmp_path / "a.nii.gz", tmp_path / "a_dseg.nii.gz"]
    with pytest.raises(SpansegError, match="would overwrite this scan"):
        find_jobs(scans, tmp_path)
    assert len(find_jobs(scans, tmp_path / "out")) == 2


def test_dicom_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "series").mkdir()
    for name in ("IM0001", "IM0002.dcm"):
        (tmp_path / "series" / name).write_bytes(b"\0" * 128 + b"DICM" + b"\0" * 100)
    for source in (tmp_path / "series", tmp_path / "series" / "IM0001", tmp_path / "series" / "IM0002.dcm"):
        with pytest.raises(SpansegError, match=r"DICOM.*dcm2niix"):
            find_jobs([source], tmp_path / "out")


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    touch(tmp_path, "notes.txt", ".nii.gz")
    for name, reason in (
        ("absent.nii", "no such file"),
        ("empty", "found no scan"),
        ("notes.txt", "expected an image named like"),
        (".nii.gz", "expected an image named like"),
    ):
        with pytest.raises(SpansegError, match=reason) as caught:
            find_jobs([tmp_path / name], tmp_path / "out")
        assert str(tmp_path / name) in str(caught.value)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_broken_link_is_named_as_one(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").symlink_to(tmp_path / "gone")
    with pytest.raises(SpansegError, match="leads nowhere"):
        find_jobs([tmp_path / "a.nii.gz"], tmp_path / "out")
    assert [job.stem for job in find_jobs([tmp_path], tmp_path / "out")] == ["a"]  # in a folder it fails in its turn


def test_stem() -> None:
    assert stem_of(Path("x/sub-01_T1w.nii.gz")) == "sub-01_T1w"
    assert stem_of(Path("x/T1.MGZ")) == "T1"
    assert stem_of(Path("a.b.nii")) == "a.b"
