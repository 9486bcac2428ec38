"""The files of one result: what other programs read back from them, and what must not be in them."""

import csv
import dataclasses
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

import fake_segmenter
from spanseg import sidecar
from spanseg.facts import Facts
from spanseg.images import Scan, read_scan
from spanseg.labels import load_protocol
from spanseg.outputs import colour_lut, label_table, tissue_table, tsv, write_result
from spanseg.result import Segmentation
from spanseg.segmenter import SegmentOptions
from spanseg.sidecar import OutputOptions

OBLIQUE = np.array([[-7.9, 0.6, 0, 40.5], [0.6, 7.9, 0, -50.25], [0, 0, 8, -44], [0, 0, 0, 1]])


@pytest.fixture
def scan(tmp_path: Path) -> Scan:
    return read_scan(fake_segmenter.write_scan(tmp_path / "Jane Doe" / "scan.nii.gz", affine=OBLIQUE))


def result_of(scan: Scan, **options: object) -> Segmentation:
    chosen = SegmentOptions(**options)  # type: ignore[arg-type]
    return fake_segmenter.segment_scan(scan, fake_segmenter.FakePredictor(chosen), chosen)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def test_the_files_that_are_written(folder: Path, scan: Scan) -> None:
    everything = write_result(folder, "s", scan, result_of(scan, probabilities=True), OutputOptions(brain=True))
    usual = [
        *("s_desc-brain_mask.nii.gz", "s_dseg.nii.gz", "s_dseg.tsv", "s_lut.txt", "s_report.html"),
        *("s_tissue_dseg.nii.gz", "s_tissue_dseg.tsv", "s_volumes.tsv"),
    ]
    assert everything == sorted([*usual, "s_desc-brain.nii.gz", "s_probseg.nii.gz"])


def test_only_labels_are_labels_alone(folder: Path, scan: Scan) -> None:
    assert write_result(folder, "s", scan, result_of(scan), OutputOptions(only_labels=True)) == ["s_dseg.nii.gz"]


def test_images_lie_on_the_scans_grid_and_hold_the_result(folder: Path, scan: Scan) -> None:
    result = result_of(scan, probabilities=True)
    write_result(folder, "s", scan, result, OutputOptions(brain=True))
    for name, values in (
        ("s_dseg", result.labels.data),
        ("s_tissue_dseg", result.tissue.data),
        ("s_desc-brain_mask", result.mask.data),
        ("s_desc-brain", scan.volume.data * result.mask.data),
    ):
        image = nibabel.load(folder / f"{name}.nii.gz")
        np.testing.assert_array_equal(np.asanyarray(image.dataobj), values)
        np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)
    for name in ("s_dseg", "s_tissue_dseg", "s_desc-brain_mask"):
        assert nibabel.load(folder / f"{name}.nii.gz").get_data_dtype().kind in "iu"


def test_probabilities_are_small_and_read_back_as_fractions(folder: Path, scan: Scan) -> None:
    result = result_of(scan, probabilities=True)
    write_result(folder, "s", scan, result, OutputOptions())
    image = nibabel.load(folder / "s_probseg.nii.gz")
    assert image.shape == (*scan.volume.shape, 2)
    assert image.get_data_dtype() == np.uint8
    assert result.probabilities is not None
    np.testing.assert_allclose(image.get_fdata(), result.probabilities.data / 255, atol=1e-6)


def test_the_spread_over_ages_is_written_where_there_is_one(folder: Path, scan: Scan) -> None:
    values = np.random.default_rng(0).random(scan.volume.shape, dtype=np.float32)
    result = replace(result_of(scan), facts_std=scan.volume.with_data(values))
    assert "s_desc-facts_std.nii.gz" in write_result(folder, "s", scan, result, OutputOptions())
    image = nibabel.load(folder / "s_desc-facts_std.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), values)
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-5)


def test_volumes_say_what_is_not_there_and_why(folder: Path, scan: Scan) -> None:
    result = result_of(scan)
    write_result(folder, "s", scan, result, OutputOptions())
    structure, tissue, whole = rows(folder / "s_volumes.tsv")
    assert (structure["id"], structure["name"]) == ("2", "Left-Cerebral-White-Matter")
    voxels = int((result.labels.data == 2).sum())
    assert float(structure["mm3_labels"]) == pytest.approx(voxels * scan.volume.voxel_volume_mm3, abs=0.01)
    assert float(structure["mm3"]) - float(structure["mm3_labels"]) == pytest.approx(0.25, abs=0.011)
    assert tissue["id"] == "n/a"
    assert (whole["mm3"], whole["mm3_labels"], whole["note"]) == ("n/a", "n/a", "the scan is skull-stripped")


def test_volumes_have_their_intervals_where_the_model_has_some(folder: Path, scan: Scan) -> None:
    result = result_of(scan)
    first, *others = result.volumes
    first = dataclasses.replace(first, low_mm3=10.004, high_mm3=2e6)
    write_result(folder, "s", scan, dataclasses.replace(result, volumes=(first, *others)), OutputOptions())
    structure, tissue, _ = rows(folder / "s_volumes.tsv")
    assert (structure["low90_mm3"], structure["high90_mm3"]) == ("10.00", "2000000.00")
    assert (tissue["low90_mm3"], tissue["high90_mm3"]) == ("n/a", "n/a")


def test_volumes_warn_where_left_and_right_are_not_certain(folder: Path, tmp_path: Path) -> None:
    path = fake_segmenter.write_scan(tmp_path / "nocode.nii")
    image = nibabel.load(path)
    image.header["sform_code"] = image.header["qform_code"] = 0
    header = image.header.copy()
    with (tmp_path / "codes0.nii").open("wb") as stream:
        header.write_to(stream)
        stream.write(b"\0" * 4 + np.asanyarray(image.dataobj).tobytes(order="F"))
    scan = read_scan(tmp_path / "codes0.nii")
    write_result(folder, "s", scan, result_of(scan), OutputOptions())
    structure, tissue, _ = rows(folder / "s_volumes.tsv")
    assert structure["note"] == "left and right are not certain"
    assert tissue["note"] == "n/a"


def test_label_tables_agree_with_the_protocol(scan: Scan) -> None:
    aseg = load_protocol("aseg")
    volumes = result_of(scan).volumes
    table = list(csv.DictReader(label_table(aseg, volumes).splitlines(), delimiter="\t"))
    assert [int(row["index"]) for row in table] == aseg.ids.tolist()
    by_name = {row["name"]: row for row in table}
    assert by_name["Left-Hippocampus"] == {
        "index": "17", "name": "Left-Hippocampus", "color": "#dcd814", "mapping": "1",
    }  # fmt: skip
    assert by_name["Left-Cerebral-White-Matter"]["mapping"] == "2"
    assert by_name["Left-Lateral-Ventricle"]["mapping"] == "3"
    tissues = list(csv.DictReader(tissue_table(aseg).splitlines(), delimiter="\t"))
    assert [(row["index"], row["name"], row["mapping"]) for row in tissues] == [
        *(("0", "Background", "0"), ("1", "CSF", "3"), ("2", "GM", "1"), ("3", "WM", "2"))
    ]


def test_the_lut_is_what_freesurfer_reads(scan: Scan) -> None:
    lines = [line.split() for line in colour_lut(load_protocol("aseg"), result_of(scan).volumes).splitlines()]
    assert all(len(line) == 6 for line in lines)
    assert ["17", "Left-Hippocampus", "220", "216", "20", "0"] in lines


def test_a_lesion_has_its_place_in_the_tables(scan: Scan) -> None:
    volumes = result_of(scan, lesion_mask="any.nii").volumes
    assert label_table(load_protocol("aseg"), volumes).splitlines()[-1] == "25\tLesion\t#ffa500\t7"
    assert colour_lut(load_protocol("aseg"), volumes).splitlines()[-1].split()[:2] == ["25", "Lesion"]


def test_tsv_keeps_its_columns_whatever_is_in_a_cell() -> None:
    assert tsv([["a\tb", "c\nd"], [1, ""]]) == "a b\tc d\n1\t\n"


def words(value: object) -> list[str]:
    """All keys and values of nested JSON as text."""
    if isinstance(value, dict):
        return [*value, *(word for item in value.values() for word in words(item))]
    if isinstance(value, list):
        return [word for item in value for word in words(item)]
    return [str(value)]


def record_of(scan: Scan, facts: Facts, outputs: OutputOptions) -> dict[str, object]:
    options = SegmentOptions(facts=facts)
    settings = sidecar.settings_of(fake_segmenter.FakePredictor(options).identity, options, outputs)
    return json.loads(sidecar.dumps(sidecar.build(scan, result_of(scan, facts=facts), settings, ["s_dseg.nii.gz"])))


def test_the_sidecar_keeps_the_decade_at_most(scan: Scan) -> None:
    facts = Facts(37.5, "female", "multiple sclerosis")
    record = record_of(scan, facts, OutputOptions())
    assert record["facts"] == {"given": ["age_years", "diagnosis", "sex"], "age_decade": "30-39"}
    for word in words(record):
        assert not any(secret in word for secret in ("37.5", "sclerosis", "female", "Jane Doe", "Doe", "/"))
    stored = record_of(scan, facts, OutputOptions(store_facts=True))["facts"]
    assert isinstance(stored, dict)
    assert stored["age_years"] == 37.5
    assert stored["diagnosis"] == "multiple sclerosis"


def test_nothing_made_from_the_facts_is_kept(scan: Scan) -> None:
    """Not a hash either: there are so few facts that all of them could be tried."""
    one = record_of(scan, Facts(37.5, "female", "stroke"), OutputOptions())
    other = record_of(scan, Facts(31, "male", "healthy"), OutputOptions())
    assert one == other


def test_settings_hash_tells_settings_apart_but_not_computers(tmp_path: Path) -> None:
    def hashed(outputs: OutputOptions | None = None, machine: dict[str, object] | None = None, **given: object) -> str:
        options = SegmentOptions(**given)  # type: ignore[arg-type]
        identity = fake_segmenter.FakePredictor(options).identity | (machine or {})
        return sidecar.settings_sha256(sidecar.settings_of(identity, options, outputs or OutputOptions()))

    (tmp_path / "one.nii").write_bytes(b"1")
    (tmp_path / "two.nii").write_bytes(b"2")
    different = [
        *(hashed(), hashed(probabilities=True), hashed(trust="sform"), hashed(threads=1), hashed(facts=Facts(30))),
        *(hashed(lesion_mask=tmp_path / "one.nii"), hashed(lesion_mask=tmp_path / "two.nii")),
        *(hashed(OutputOptions(brain=True)), hashed(OutputOptions(only_labels=True))),
        *(hashed(machine={"precision": "bf16"}), hashed(machine={"model_sha256": "1"})),
    ]
    assert len(set(different)) == len(different)
    assert hashed(machine={"instruction_sets": ("avx2",), "threads": 8}) == hashed()
    assert hashed(max_memory_bytes=2**33) == hashed()


def test_labels_hash_sees_values_and_shape_only() -> None:
    labels = np.arange(24).reshape(2, 3, 4)
    assert sidecar.labels_sha256(labels.astype(np.int16)) == sidecar.labels_sha256(np.asfortranarray(labels))
    assert sidecar.labels_sha256(labels) != sidecar.labels_sha256(labels.reshape(4, 3, 2))
    assert sidecar.labels_sha256(labels) != sidecar.labels_sha256(labels + 1)
