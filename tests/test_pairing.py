"""Pairing: images of one scan find each other, and a guess between two is refused."""

from pathlib import Path

import pytest

from spanseg.errors import SpansegError
from spanseg.pairing import case_key, label_images, pair_images


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def paired(predictions: Path, truths: Path) -> dict[str, tuple[str, str]]:
    return {pair.case: (pair.prediction.name, pair.truth.name) for pair in pair_images(predictions, truths)[0]}


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("sub-01_ses-2_run-1_desc-brain_T1w_dseg.nii.gz", {"sub": "01", "ses": "2", "run": "1"}),
        ("sub-01_seg-neuromorphometrics_dseg.nii.gz", {"sub": "01"}),
        ("bert/mri/aseg.mgz", {"name": "bert"}),
        ("brain_07_T1w_dseg.nii", {"name": "brain_07"}),
        ("dseg.nii", {"name": "dseg"}),
    ],
)
def test_names_tell_whose_scan_it_is(path: str, key: dict[str, str]) -> None:
    assert case_key(Path(path)) == key


def test_our_results_find_a_bids_truth(tmp_path: Path) -> None:
    ours = touch(
        tmp_path / "ours",
        *(f"sub-0{i}/anat/sub-0{i}_T1w_{kind}.nii.gz" for i in (1, 2) for kind in ("dseg", "tissue_dseg")),
        "sub-01/anat/sub-01_T1w_desc-brain_mask.nii.gz",
    )
    truth = touch(tmp_path / "truth", *(f"derivatives/x/sub-0{i}/anat/sub-0{i}_seg-x_dseg.nii.gz" for i in (1, 2, 3)))
    pairs, unpaired = pair_images(ours, truth)
    assert [(pair.case, pair.subject, pair.prediction.name) for pair in pairs] == [
        ("sub-01", "sub-01", "sub-01_T1w_dseg.nii.gz"),
        ("sub-02", "sub-02", "sub-02_T1w_dseg.nii.gz"),
    ]
    assert [path.name for path in unpaired] == ["sub-03_seg-x_dseg.nii.gz"]


def test_sessions_are_kept_apart(tmp_path: Path) -> None:
    names = [f"sub-01_ses-{i}_dseg.nii.gz" for i in "ab"]
    found = paired(touch(tmp_path / "a", *names), touch(tmp_path / "b", *names))
    assert found == {f"sub-01_ses-{i}": (f"sub-01_ses-{i}_dseg.nii.gz",) * 2 for i in "ab"}


def test_freesurfer_and_other_names(tmp_path: Path) -> None:
    ours = touch(tmp_path / "ours", "bert/mri/T1_dseg.nii.gz", "ernie/mri/T1_dseg.nii.gz")
    theirs = touch(tmp_path / "theirs", "bert/mri/aseg.mgz", "bert/mri/norm.mgz", "ernie/mri/aseg.mgz")
    assert paired(ours, theirs) == dict.fromkeys(("bert", "ernie"), ("T1_dseg.nii.gz", "aseg.mgz"))
    other = paired(touch(tmp_path / "p", "x7_T1_dseg.nii.gz"), touch(tmp_path / "t", "x7_seg.nii.gz", "x7_mask.nii.gz"))
    assert other == {"x7": ("x7_T1_dseg.nii.gz", "x7_seg.nii.gz")}


def test_two_files_are_a_pair_whatever_their_names(tmp_path: Path) -> None:
    folder = touch(tmp_path, "mine.nii.gz", "theirs.mgz")
    pairs, unpaired = pair_images(folder / "mine.nii.gz", folder / "theirs.mgz")
    assert [pair.case for pair in pairs] == ["theirs"] and not unpaired


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (["sub-01_ses-1_dseg.nii", "sub-01_ses-2_dseg.nii"], ["sub-01_dseg.nii"]),
        (["sub-01_dseg.nii"], ["sub-01_desc-one_dseg.nii", "sub-01_desc-two_dseg.nii"]),
    ],
)
def test_a_choice_between_partners_is_refused(tmp_path: Path, ours: list[str], theirs: list[str]) -> None:
    with pytest.raises(SpansegError, match="could belong together"):
        pair_images(touch(tmp_path / "a", *ours), touch(tmp_path / "b", *theirs))


def test_nothing_in_common_and_nothing_there_are_refused(tmp_path: Path) -> None:
    one, other = touch(tmp_path / "a", "sub-01_dseg.nii"), touch(tmp_path / "b", "sub-02_dseg.nii")
    with pytest.raises(SpansegError, match="no case in common"):
        pair_images(one, other)
    with pytest.raises(SpansegError, match="no label image"):
        label_images(touch(tmp_path / "c", "sub-01_T1w.nii.gz", ".sub-01_dseg.nii.gz", "sub-01_mask.nii"))
    with pytest.raises(SpansegError, match="no such file"):
        label_images(tmp_path / "missing")
