"""What a batch does not do: replace the result of another scan, leave empty folders, or keep doubts to itself."""

import json
from pathlib import Path

import pytest

import fake_segmenter
from spanseg import report, segmenter
from test_batch import files_under, make_scans, run, states


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenter, "load_model", fake_segmenter.FakePredictor)
    monkeypatch.setattr(segmenter, "segment_scan", fake_segmenter.segment_scan)
    monkeypatch.setattr(report, "render_report", lambda scan, result: "<html></html>\n")


def test_the_result_of_another_scan_is_replaced_when_asked_to_only(tmp_path: Path) -> None:
    data, out = make_scans(tmp_path, 1), tmp_path / "out"
    run(data, out)
    before = {path: path.read_bytes() for path in files_under(out)}
    scan = fake_segmenter.write_scan(data / "sub-00" / "sub-00_T1w.nii.gz", seed=99)
    (outcome,) = run(data, out)
    assert outcome.state == "failed"
    for words in (str(scan), "sub-00_T1w_dseg.json is the result of another scan", "--overwrite", "-o"):
        assert words in outcome.messages[0]
    assert {path: path.read_bytes() for path in files_under(out)} == before
    assert states(run(data, out, overwrite=True)) == ["done"]
    assert states(run(data, out)) == ["skipped"]


def test_a_scan_that_fails_leaves_no_empty_folder(tmp_path: Path) -> None:
    data, out = make_scans(tmp_path, 1), tmp_path / "new" / "out"
    (data / "sub-00" / "sub-00_T1w.nii.gz").write_bytes(b"no image")
    assert states(run(data, out)) == ["failed"]
    assert not (tmp_path / "new").exists()
    out.mkdir(parents=True)
    assert states(run(data, out)) == ["failed"]
    assert list(tmp_path.glob("new/out/*")) == [] and out.is_dir(), "it was there before"


def test_what_the_report_doubts_is_told_too(tmp_path: Path) -> None:
    (outcome,) = run(make_scans(tmp_path, 1), tmp_path / "out")
    record = json.loads(next((tmp_path / "out").rglob("*_dseg.json")).read_text(encoding="utf-8"))
    assert record["quality_flags"] == list(outcome.messages)
    assert any("Voxels are up to 8.0 mm long" in message for message in outcome.messages)
