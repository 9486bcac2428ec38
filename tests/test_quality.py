"""The quality score falls when something is wrong, says why, and is silent for models without a table."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

import results
from spanseg import quality, sidecar
from spanseg.asymmetry import volume_mm3
from spanseg.batch_table import write_batch_table
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.flags import LIMITS
from spanseg.labels import load_protocol
from spanseg.measures import brain_ml
from spanseg.plain_names import plain_name
from spanseg.quality import QualityTable, Usual, Weight
from spanseg.report import render_report
from spanseg.result import OFF_CANVAS
from spanseg.volume import Volume

LABELS = results.ball_labels()
SCAN = results.scan_like(LABELS)
PROTOCOL = load_protocol("aseg")
SURE = {structure.name: 0.9 for structure in PROTOCOL.structures[1:]}
RESULT = results.result_of(LABELS)
RESULT = dataclasses.replace(RESULT, details=RESULT.details | {"confidence": SURE, "relabelled_voxels": 20})
PROFILE = {
    plain_name(row.name): Usual(float(np.log(volume_mm3(row) / (10 * brain_ml(RESULT)))), 0.2)
    for row in RESULT.volumes
    if plain_name(row.name) in LIMITS and volume_mm3(row)
}
CLEAN = quality.measure(SCAN, RESULT, PROFILE)
TABLE = QualityTable(2.5, {name: Weight(value, 0.2, 0.5) for name, value in CLEAN.items()}, PROFILE)
SHA = "0" * 64


def spoilt_image(change):
    image = SCAN.volume.data.copy()
    return dataclasses.replace(SCAN, volume=LABELS.with_data(change(image).astype(np.float32))), RESULT


def with_noise():
    rng = np.random.default_rng(3)
    return spoilt_image(lambda image: np.hypot(image + rng.normal(0, 50, image.shape), rng.normal(0, 50, image.shape)))


def inverted():
    return spoilt_image(lambda image: np.where(LABELS.data > 0, 200 - image, image))


def ghosted():
    return spoilt_image(lambda image: image + 40 * (LABELS.data == 0))


def dark_brain():
    return spoilt_image(lambda image: np.where((LABELS.data == 3) | (LABELS.data == 42), 0, image))


def unsure():
    return SCAN, dataclasses.replace(RESULT, details=RESULT.details | {"confidence": dict.fromkeys(SURE, 0.4)})


def scattered():
    return SCAN, dataclasses.replace(RESULT, details=RESULT.details | {"relabelled_voxels": 20_000})


def one_sided():
    rows = [
        dataclasses.replace(row, mm3=row.mm3 * 0.3, mm3_labels=row.mm3_labels * 0.3)
        if row.name.startswith("Left-")
        else row
        for row in RESULT.volumes
    ]
    return SCAN, dataclasses.replace(RESULT, volumes=tuple(rows))


def wrong_voxel_size():
    affine = LABELS.affine.copy()
    affine[:3] *= 0.5
    smaller = {name: Volume(getattr(RESULT, name).data, affine) for name in ("labels", "tissue", "mask")}
    return dataclasses.replace(SCAN, volume=Volume(SCAN.volume.data, affine)), dataclasses.replace(RESULT, **smaller)


def cut_off():
    part = {name: getattr(RESULT, name) for name in ("labels", "tissue", "mask")}
    part = {name: Volume(volume.data[:, :, :45], volume.affine) for name, volume in part.items()}
    scan = dataclasses.replace(SCAN, volume=Volume(SCAN.volume.data[:, :, :45], SCAN.volume.affine))
    return scan, dataclasses.replace(RESULT, **part)


SPOILT = {
    with_noise: ("noise", "the scan is noisy"),
    inverted: ("contrast", "grey matter is brighter than white"),
    ghosted: ("ghosts", "not dark beside the head"),
    dark_brain: ("empty", "as dark as air"),
    unsure: ("uncertainty", "the network is unsure in the deep nuclei (mean probability 0.60 or less)"),
    scattered: ("islands", "small separate pieces"),
    one_sided: ("asymmetry", "left and right differ by"),
    wrong_voxel_size: ("brain_size", "is the voxel size right?"),
    cut_off: ("cut", "the edge of the scan cuts through the brain"),
}


def test_a_plausible_result_scores_well_without_reasons():
    assert quality.score(CLEAN, TABLE) == pytest.approx(1 / (1 + np.exp(-2.5)))
    assert quality.reasons(CLEAN, TABLE) == []
    graded = quality.with_quality(SCAN, RESULT, TABLE)
    assert graded.warnings == RESULT.warnings
    assert graded.details["quality"]["score"] == pytest.approx(0.924, abs=1e-3)


@pytest.mark.parametrize("spoil", SPOILT, ids=lambda spoil: spoil.__name__)
def test_each_fault_lowers_the_score_and_is_named(spoil):
    measure, words = SPOILT[spoil]
    features = quality.measure(*spoil(), PROFILE)
    assert features[measure] > CLEAN[measure] + 0.1
    assert quality.score(features, TABLE) < quality.score(CLEAN, TABLE)
    alone = dataclasses.replace(TABLE, weights={measure: Weight(CLEAN[measure], 0.1, 6.0)})
    (why,) = quality.reasons(features, alone)
    assert words in why


def test_a_low_score_warns_and_changes_no_label():
    scan, bad = unsure()
    strict = dataclasses.replace(TABLE, intercept=-1.0)
    graded = quality.with_quality(scan, bad, strict)
    assert (
        graded.labels is bad.labels
        and graded.tissue is bad.tissue
        and [row.mm3 for row in graded.volumes] == [row.mm3 for row in bad.volumes]
    )
    assert graded.warnings[-1].startswith("Quality 0.")
    assert "the network is unsure in the deep nuclei" in graded.warnings[-1]
    json.dumps(graded.details["quality"])  # it goes into the sidecar


def off_canvas():
    return SCAN, dataclasses.replace(RESULT, warnings=(OFF_CANVAS,))


DECISIVE = {wrong_voxel_size: "voxel size right?", cut_off: "cuts through the brain", off_canvas: "does not fit"}


@pytest.mark.parametrize("spoil", DECISIVE, ids=lambda spoil: spoil.__name__)
def test_wrong_sizes_and_missing_brain_decide_alone(spoil):
    lenient = dataclasses.replace(TABLE, intercept=50.0)
    scan, bad = spoil()
    rows = tuple(dataclasses.replace(row, low_mm3=1.0, high_mm3=2.0) for row in bad.volumes)
    graded = quality.with_quality(scan, dataclasses.replace(bad, volumes=rows), lenient)
    assert graded.details["quality"]["score"] == quality.DECIDED < quality.LOW
    assert DECISIVE[spoil] in graded.details["quality"]["reasons"][0] and "without intervals" in graded.warnings[-1]
    assert {row.low_mm3 for row in graded.volumes} == {row.high_mm3 for row in graded.volumes} == {None}


def test_no_brain_is_measured_and_scores_worst():
    empty = results.result_of(LABELS.with_data(np.zeros_like(LABELS.data)), details={})
    features = quality.measure(SCAN, empty, PROFILE)
    assert np.isfinite(list(features.values())).all()
    worst = min(quality.score(quality.measure(*spoil(), PROFILE), TABLE) for spoil in SPOILT)
    assert quality.score(features, TABLE) < worst


def test_every_measure_has_words():
    table = dataclasses.replace(
        TABLE, intercept=-100.0, weights={name: Weight(value - 1, 1.0, 1.0) for name, value in CLEAN.items()}
    )
    for name, row in table.weights.items():
        (words,) = quality.reasons(CLEAN, dataclasses.replace(table, weights={name: row}))
        assert words[0].islower() or words[0].isdigit()


def test_a_table_is_read_as_it_was_written_whatever_its_order(tmp_path: Path):
    (tmp_path / quality.NAME).write_text(quality.dumps(TABLE, {"model_sha256": SHA}), encoding="utf-8")
    read = quality.load(tmp_path, SHA)
    features = quality.measure(*one_sided(), PROFILE)
    assert quality.score(features, read) == pytest.approx(quality.score(features, TABLE), abs=0.01)
    turned = QualityTable(TABLE.intercept, dict(reversed(TABLE.weights.items())), dict(reversed(PROFILE.items())))
    (tmp_path / quality.NAME).write_text(quality.dumps(turned, {"model_sha256": SHA}), encoding="utf-8")
    again = quality.load(tmp_path, SHA)
    assert list(again.weights) != list(read.weights)
    assert quality.score(features, again) == pytest.approx(quality.score(features, read))
    strict = dataclasses.replace(again, intercept=-1.0)
    assert quality.reasons(features, strict) == quality.reasons(features, dataclasses.replace(read, intercept=-1.0))


def test_no_table_and_a_table_of_other_weights_give_no_score(tmp_path: Path):
    assert quality.load(tmp_path, SHA) is None
    (tmp_path / quality.NAME).write_text(quality.dumps(TABLE, {"model_sha256": "1" * 64}), encoding="utf-8")
    assert quality.load(tmp_path, SHA) is None
    graded = quality.with_quality(SCAN, RESULT, None)
    assert graded.details["quality"] is None and graded.warnings == RESULT.warnings


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("intercept = [", "no table of the quality score"),
        ("[fit]\nintercept = 1.0\n", "no table of the quality score"),
        (
            '[fit]\nintercept = 1\nmodel_sha256 = ""\n[weights]\nshine = [0, 1, 1]\n[profile]\n',
            "does not measure shine",
        ),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, text: str, words: str):
    (tmp_path / quality.NAME).write_text(text, encoding="utf-8")
    with pytest.raises(SpansegError, match=words):
        quality.load(tmp_path, SHA)


@pytest.mark.parametrize(("intercept", "shown"), [(2.5, "Quality 0.92"), (-1.0, "Quality 0.")])
def test_the_report_begins_with_the_score_and_why_it_is_low(intercept: float, shown: str):
    scan, result = (SCAN, RESULT) if intercept > 0 else unsure()
    page = render_report(scan, quality.with_quality(scan, result, dataclasses.replace(TABLE, intercept=intercept)))
    line = page.partition('<p class="quality">')[2].partition("</p>")[0]
    assert line.startswith(shown)
    assert ("the network is unsure in the deep nuclei" in line) == (intercept < 0)


def test_the_report_of_a_model_without_a_table_gives_no_score():
    page = render_report(SCAN, quality.with_quality(SCAN, RESULT, None))
    assert '<p class="quality">Quality n/a' in page


@pytest.mark.parametrize(("found", "cell"), [({"score": 0.934}, "0.93"), (None, "n/a")])
def test_the_table_of_a_batch_has_a_column_of_scores(tmp_path: Path, found: dict | None, cell: str):
    bare = {"threads_asked": None, "device": "cpu", "trust": None, "lesion_mask_sha256": None}
    graded = dataclasses.replace(RESULT, details=RESULT.details | {"quality": found, "threads": 1})
    settings = bare | {"facts": sidecar.facts_record(Facts(), False)}
    record = sidecar.build(SCAN, graded, settings, [])
    (tmp_path / "a_dseg.json").write_text(sidecar.dumps(record), encoding="utf-8")
    (tmp_path / "a_volumes.tsv").write_text("name\tmm3\nLeft-Thalamus\t7000\n", encoding="utf-8")
    assert write_batch_table(tmp_path) == 1
    head, row = (line.split("\t") for line in (tmp_path / "volumes.tsv").read_text(encoding="utf-8").splitlines())
    assert row[head.index("quality")] == cell
