"""Labelled scans looked over: a sound set passes, and each way to spoil one is refused by name."""

from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy import ndimage

import tiny
from spanseg.dataset_audit import AuditReport, audit_dataset, inspect_dataset
from spanseg.errors import SpansegError
from spanseg.labels import load_protocol

PROTOCOL = load_protocol("aseg")
HEAD = tiny.label_map()
AFFINE = np.array([[3.0, 0, 0, -72], [0, 3, 0, -84], [0, 0, 3, -72], [0, 0, 0, 1]])
Pair = tuple[Path, Path]


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, affine), path)
    return path


def person(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A head of its own shape and contrast, and its labels."""
    rng = np.random.default_rng(seed)
    stretch = rng.uniform(0.85, 1.2, 3)
    middle = (np.array(HEAD.shape) - 1) / 2
    labels = ndimage.affine_transform(HEAD, stretch, middle - stretch * middle, order=0)
    values = np.zeros(600)
    values[1:] = rng.uniform(60, 200, 599)
    image = values[labels] + rng.normal(0, 3, labels.shape)
    return image.astype(np.float32), labels.astype(np.int16)


def write(folder: Path, name: str, image: np.ndarray, labels: np.ndarray, affine: np.ndarray = AFFINE) -> Pair:
    scan = save(folder / name / f"{name}_T1w.nii.gz", image, affine)
    return scan, save(folder / "truth" / f"{name}_dseg.nii.gz", labels, affine)


@pytest.fixture
def sound(tmp_path: Path) -> list[Pair]:
    return [write(tmp_path, f"sub-{seed}", *person(seed)) for seed in range(3)]


def refusals(pairs: list[Pair], labels: str | None = "synthseg") -> tuple[str, ...]:
    return inspect_dataset(pairs, PROTOCOL, labels).refusals


def change(pair: Pair, edit: Callable[[np.ndarray], np.ndarray], which: int = 1) -> None:
    """Edit the scan (0) or the labels (1) of a pair in place."""
    image = nibabel.load(pair[which])
    data = np.asanyarray(image.dataobj)
    nibabel.save(nibabel.Nifti1Image(edit(data.copy()).astype(data.dtype), image.affine), pair[which])


def test_a_sound_set_passes_with_notes_of_what_it_lacks(sound: list[Pair]) -> None:
    report = audit_dataset(sound, PROTOCOL, "synthseg")
    assert report.refusals == ()
    missing = {structure.name for structure in PROTOCOL.structures[1:] if structure.id not in HEAD}
    assert report.notes == tuple(
        f"No scan has a voxel of {structure.name}: nothing new is learned of it."
        for structure in PROTOCOL.structures
        if structure.name in missing
    )


def test_all_reasons_are_told_at_once_and_numbered(sound: list[Pair]) -> None:
    sound[0][0].write_bytes(b"no image")
    change(sound[1], lambda labels: np.where(labels == 17, 9999, labels))
    with pytest.raises(SpansegError) as caught:
        audit_dataset(sound, PROTOCOL, "synthseg")
    title, first, second = str(caught.value).splitlines()
    assert "these 3 labelled scans cannot be trained on, for 2 reasons" in title
    assert first.startswith(f"1. {sound[0][0]}")
    assert second.startswith("2. the scheme does not map the label ids 9999 of") and str(sound[1][1]) in second


def test_unreadable_and_constant_files_are_refused(sound: list[Pair]) -> None:
    sound[0][1].write_bytes(b"no labels")
    change(sound[1], lambda image: np.full_like(image, 7), which=0)
    first, second = refusals(sound)
    assert str(sound[0][1]) in first
    assert str(sound[1][0]) in second and "same value" in second
    assert "no labelled scan" in refusals([])[0]


def test_left_and_right_swapped_is_refused_by_case(sound: list[Pair]) -> None:
    change(sound[1], lambda labels: labels[::-1])
    (only,) = refusals(sound)
    assert only.startswith(f"{sound[1][1]}: left and right are swapped")


def test_a_header_that_mirrors_the_head_is_swapped_too(tmp_path: Path) -> None:
    mirrored = AFFINE * np.array([[-1], [1], [1], [1]])
    (only,) = refusals([write(tmp_path, "sub-1", *person(1), affine=mirrored)])
    assert "left and right are swapped" in only
    image, labels = person(1)
    assert not refusals([write(tmp_path, "sub-2", image[::-1], labels[::-1], affine=mirrored)]), "stored the other way"


def test_one_structure_with_its_sides_exchanged_is_named(sound: list[Pair]) -> None:
    change(sound[2], lambda labels: np.select([labels == 17, labels == 53], [53, 17], labels))
    (only,) = refusals(sound)
    assert only.startswith(f"{sound[2][1]}: Left-Hippocampus lies to the right")


def test_labels_on_another_grid_or_on_air_are_refused(sound: list[Pair]) -> None:
    change(sound[0], lambda labels: labels[:-2])
    upper = np.arange(48) > 26
    change(sound[1], lambda labels: np.where(upper, labels, 0))
    change(sound[1], lambda image: np.where(upper, 2, image), which=0)  # air is not quite 0
    first, second = refusals(sound)
    assert first == f"{sound[0][1]}: these labels are not on the grid of sub-0_T1w.nii.gz; resample them first."
    assert f"{sound[1][1]}: only " in second and "shifted" in second


def test_labels_with_slightly_other_voxels_are_refused(sound: list[Pair]) -> None:
    labels = nibabel.load(sound[0][1])
    save(sound[0][1], np.asanyarray(labels.dataobj), AFFINE * np.array([1.003, 1.003, 1.003, 1]))  # 0.8 mm at a corner
    assert refusals(sound) == (
        f"{sound[0][1]}: these labels are not on the grid of sub-0_T1w.nii.gz; resample them first.",
    )


def test_coarse_voxels_are_refused_and_differing_ones_noted(sound: list[Pair], tmp_path: Path) -> None:
    image, labels = person(3)
    thick = AFFINE.copy()
    thick[2, 2] = 6.5
    (only,) = refusals([*sound, write(tmp_path, "sub-3", image, labels, affine=thick)])
    assert only.startswith(str(tmp_path / "sub-3")) and "3 × 3 × 6.5 mm" in only
    slab = AFFINE.copy()
    slab[2, 2] = 5.5
    report = inspect_dataset([*sound, write(tmp_path, "sub-3", image, labels, affine=slab)], PROTOCOL, "synthseg")
    assert report.refusals == ()
    assert "Voxel sizes differ between the scans: from 3 × 3 × 3 mm to 3 × 3 × 5.5 mm." in report.notes


def test_the_same_person_twice_is_refused_by_both_names(sound: list[Pair], tmp_path: Path) -> None:
    image, labels = person(0)
    again = 3 * image + np.random.default_rng(0).normal(0, 9, image.shape)
    resaved = write(tmp_path, "sub-9", again, np.where(labels == 16, 0, labels))
    (only,) = refusals([*sound, resaved])
    assert str(sound[0][0]) in only and str(resaved[0]) in only and "correlate" in only
    turned = AFFINE @ np.array([[-1, 0, 0, 47], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    stored = write(tmp_path, "sub-8", image[::-1], labels[::-1], affine=turned)
    assert "show the same person" in refusals([*sound, stored])[0]
    (copied,) = refusals([*sound, (save(tmp_path / "sub-7_T1w.nii.gz", image), sound[0][1])])
    assert "their images are the same file" in copied or "their label images are the same file" in copied
    named = [save(tmp_path / "sub-1_ses-2_T1w.nii.gz", person(5)[0]), save(tmp_path / "x_dseg.nii.gz", person(5)[1])]
    assert "both are named sub-1" in refusals([*sound, (named[0], named[1])])[0]


def test_a_structure_missing_in_one_scan_is_a_note(sound: list[Pair]) -> None:
    change(sound[1], lambda labels: np.where(labels == 17, 0, labels))
    report = inspect_dataset(sound, PROTOCOL, "synthseg")
    assert report.refusals == ()
    assert f"Left-Hippocampus is missing in {sound[1][0]}." in report.notes


def test_labels_without_any_structure_are_refused(sound: list[Pair]) -> None:
    change(sound[1], lambda labels: np.where(labels == 511, labels, 0))
    assert refusals(sound) == (
        f"{sound[1][1]}: no voxel is a structure of protocol 'aseg'; give labels that hold some.",
    )


def table(folder: Path, rows: str) -> Path:
    path = folder / "dseg.tsv"
    path.write_text(rows, encoding="utf-8")
    return path


def own_labels(sound: list[Pair]) -> str:
    """Rewrite the labels in a scheme of somebody's own, with a structure that no model has; returns its rows."""
    for pair in sound:
        change(pair, lambda labels: np.select([labels == 17, labels == 53, labels == 16], [1, 2, 138], 0))
    return "index\tname\tmaps_to\n1\tHippL\t17\n2\tHippR\tRight-Hippocampus\n138\tLeft-Claustrum\t"


def test_structures_that_the_model_does_not_have_are_refused_by_name(sound: list[Pair], tmp_path: Path) -> None:
    rows = own_labels(sound)
    (only,) = refusals(sound, str(table(tmp_path, rows)))
    assert "the model does not have the structures Left-Claustrum (138) of" in only
    (wrong,) = refusals(sound, str(table(tmp_path, rows + "Left-Claustrum")))
    assert "maps_to is 'Left-Claustrum', which protocol 'aseg' does not name" in wrong
    assert refusals(sound, str(table(tmp_path, rows + "unknown"))) == ()


def test_the_table_beside_the_labels_is_used_and_without_one_the_scheme_is_asked_for(
    sound: list[Pair], tmp_path: Path
) -> None:
    rows = own_labels(sound)
    (only,) = refusals(sound, None)
    assert "nothing says what the labels of" in only and "--labels" in only
    table(tmp_path / "truth", rows)
    assert "Left-Claustrum (138)" in refusals(sound, None)[0]
    table(tmp_path / "truth", rows + "background")
    assert audit_dataset(sound, PROTOCOL, None) == AuditReport((), ())
    assert "neither a file nor a label scheme" in refusals(sound, "nonsense")[0]
