"""Synthetic scans as a BIDS data set, from a result of our own and from the tiny head."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

import tiny
from spanseg.cli.main import main
from spanseg.errors import SpansegError
from spanseg.images import read_labels, scan_of, write_labels
from spanseg.labels import load_protocol
from spanseg.scanners import SCANNERS, scanner_named
from spanseg.simulate import MOST_BRAIN_ML, simulate
from spanseg.volume import Volume

IDS = set(load_protocol("aseg").ids.tolist())


@pytest.fixture
def label_map(tmp_path: Path) -> Path:
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    write_labels(tmp_path / "map_dseg.nii.gz", tiny.label_map(), scan_of(Volume(tiny.label_map() + 0.0, affine)))
    return tmp_path / "map_dseg.nii.gz"


def read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image = nibabel.load(path)
    return np.asarray(image.dataobj), image.affine


def truth_of(scan: Path) -> Path:
    name = scan.name.removesuffix("_T1w.nii.gz")
    return scan.parents[2] / "derivatives" / "truth" / name / "anat" / f"{name}_dseg.nii.gz"


def test_our_own_result_gives_people_with_their_truth(demo_labels: Path, tmp_path: Path) -> None:
    scans = simulate([demo_labels], tmp_path / "bids", 2, voxel_mm=3.0)
    truths = []
    for scan in scans:
        (image, affine), (truth, truth_affine) = read(scan), read(truth_of(scan))
        assert image.shape == truth.shape
        np.testing.assert_array_equal(affine, truth_affine)
        found = set(np.unique(truth).tolist())
        assert found <= IDS and len(found) > 25
        assert np.median(image[truth > 0]) > np.median(image[truth == 0])
        left, right = (np.argwhere(truth == value).mean(axis=0) for value in (2, 41))
        assert (affine[:3, :3] @ (right - left))[0] > 20, "left is left"
        truths.append(truth)
    assert (truths[0] != truths[1]).mean() > 0.02, "people are deformed, each in a way of its own"


def test_nobody_is_larger_than_the_field_of_view(demo_labels: Path, tmp_path: Path) -> None:
    protocol = load_protocol("aseg")
    brain = [one.id for one in protocol.structures if one.tissue in ("GM", "WM")]
    for scan in simulate([demo_labels], tmp_path / "bids", 2, voxel_mm=4.0, seed=5):
        found = np.isin(read(truth_of(scan))[0], brain)
        assert 600 < found.sum() * 64 / 1000 <= MOST_BRAIN_ML
        assert found[1:-1, 1:-1, 1:-1].sum() == found.sum(), "air on each side"


@pytest.mark.parametrize("centre", SCANNERS)
def test_the_brain_is_whole_at_every_synthetic_centre(centre: str, demo_labels: Path, tmp_path: Path) -> None:
    brain = [one.id for one in load_protocol("aseg").structures if one.tissue in ("GM", "WM")]
    for scan in simulate([demo_labels], tmp_path / "bids", 2, 4.0, 3, scanner_named(centre)):
        (image, _), (truth, _) = read(scan), read(truth_of(scan))
        found = np.isin(truth, brain)
        assert found[1:-1, 1:-1, 1:-1].sum() == found.sum(), "air on each side"
        assert (image[found] > 0).mean() > 0.99, "nothing of the brain is outside the field of view"


def test_a_label_map_of_giants_is_refused_with_its_name(demo_labels: Path, tmp_path: Path) -> None:
    image = read_labels(demo_labels)
    giant = image.volume.affine @ np.diag([1.6, 1.6, 1.6, 1.0])
    write_labels(tmp_path / "giant.nii.gz", image.volume.data, scan_of(Volume(image.volume.data + 0.0, giant)))
    with pytest.raises(SpansegError, match=r"giant\.nii\.gz: none of 30 people"):
        simulate([tmp_path / "giant.nii.gz"], tmp_path / "bids", 1, voxel_mm=8.0)


def test_the_data_set_is_bids_and_the_seed_decides(label_map: Path, tmp_path: Path) -> None:
    first, again, other = (simulate([label_map], tmp_path / n, 1, 4.0, s) for n, s in (("a", 7), ("b", 7), ("c", 8)))
    assert first[0].relative_to(tmp_path / "a").as_posix() == "sub-sim0001/anat/sub-sim0001_T1w.nii.gz"
    assert json.loads((tmp_path / "a" / "dataset_description.json").read_text(encoding="utf-8"))["BIDSVersion"]
    assert (tmp_path / "a" / "participants.tsv").read_text(encoding="utf-8") == "participant_id\nsub-sim0001\n"
    np.testing.assert_array_equal(read(first[0])[0], read(again[0])[0])
    assert (read(first[0])[0] != read(other[0])[0]).any()


def test_a_folder_with_files_and_nothing_to_draw_are_refused(label_map: Path, tmp_path: Path) -> None:
    with pytest.raises(SpansegError, match="expected an empty folder"):
        simulate([label_map], tmp_path, 1)
    with pytest.raises(SpansegError, match="at least one label map"):
        simulate([label_map], tmp_path / "bids", 0)
    assert not (tmp_path / "bids").exists()


def test_the_command(label_map: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bids"
    with pytest.raises(SystemExit) as stopped:
        main(["simulate", str(label_map), "-n", "1", "--voxel-mm", "4", "-o", str(out)])
    assert stopped.value.code == 0
    assert "1 scans and their truth written" in capsys.readouterr().out
    assert len(list(out.rglob("*.nii.gz"))) == 2


def test_synthetic_centres_differ_as_their_scanners_do(label_map: Path, tmp_path: Path) -> None:
    grey_below_white = {}
    for name, options in SCANNERS.items():
        scan = simulate([label_map], tmp_path / name, 1, 4.0, 1, options)[0]
        (image, _), (truth, _) = read(scan), read(truth_of(scan))
        inside = [image[np.isin(truth, ids)].astype(float) for ids in ((3, 42), (2, 41))]
        grey_below_white[name] = 1 - np.median(inside[0]) / np.median(inside[1])
    assert grey_below_white["early_inversion"] < grey_below_white["low_field"] < 0
    assert grey_below_white["seven_tesla"] > 0.5


def test_a_centre_that_does_not_exist_is_refused_with_those_that_do() -> None:
    with pytest.raises(SpansegError, match="choose one of low_field, seven_tesla"):
        scanner_named("lowfield")


def test_people_are_drawn_from_the_maps_in_turn(label_map: Path, demo_labels: Path, tmp_path: Path) -> None:
    both = simulate([label_map, demo_labels], tmp_path / "both", 3, 6.0)
    alone = simulate([label_map], tmp_path / "alone", 3, 6.0)
    same = [np.array_equal(read(truth_of(a))[0], read(truth_of(b))[0]) for a, b in zip(both, alone, strict=True)]
    assert same == [True, False, True]
