"""Verification: an unchanged result passes, and every kind of change is named."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np
import pytest

import fake_segmenter
from spanseg import report, segmenter
from spanseg.batch import Batch
from spanseg.cli.main import main
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.inputs import find_jobs
from spanseg.segmenter import SegmentOptions
from spanseg.sidecar import OutputOptions
from spanseg.verify import verify


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenter, "load_model", fake_segmenter.FakePredictor)
    monkeypatch.setattr(segmenter, "segment_scan", fake_segmenter.segment_scan)
    monkeypatch.setattr(report, "render_report", lambda scan, result: "<html></html>\n")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return fake_segmenter.write_scan(tmp_path / "scan.nii.gz")


def made(scan: Path, store: bool = False, **options: Any) -> Path:
    """Segment and return the sidecar."""
    jobs = find_jobs([scan], scan.parent / "out")
    batch = Batch(jobs, SegmentOptions(**options), OutputOptions(store_facts=store))
    assert [outcome.state for outcome in batch.run()] == ["done"]
    return jobs[0].sidecar


def test_an_unchanged_result_is_verified(scan: Path) -> None:
    verdict = verify(made(scan), scan)
    assert verdict.same
    assert verdict.findings == ("The labels are the same, voxel by voxel.",)


def test_it_runs_with_what_was_recorded(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sidecar = made(scan, threads=7, trust="sform", model="default")
    seen: list[SegmentOptions] = []
    monkeypatch.setattr(segmenter, "load_model", lambda o: seen.append(o) or fake_segmenter.FakePredictor(o))
    verify(sidecar, scan)
    (options,) = seen
    assert (options.threads, options.precision, options.trust, options.model) == (7, "f32", "sform", "default")


def test_a_model_that_is_not_shipped_is_found_here_or_asked_for(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Told(fake_segmenter.FakePredictor):
        def __init__(self, options: SegmentOptions) -> None:
            super().__init__(options)
            self.identity |= {"model": "told", "model_sha256": "ab" * 32}

    monkeypatch.setattr(segmenter, "load_model", Told)
    sidecar = made(scan, model=str(tmp_path / "somebody" / "told-model"))
    text = sidecar.read_text(encoding="utf-8")
    assert json.loads(text)["model_folder"] == "told-model" and "somebody" not in text
    monkeypatch.chdir(tmp_path)
    asked = r"_dseg\.json: .* 'told' \(sha256 abababababab\), which is not shipped; .*'told-model', with --model"
    with pytest.raises(SpansegError, match=asked):
        verify(sidecar, scan)
    assert verify(sidecar, scan, model="anything").same
    adapter = tmp_path / "spanseg-adapters" / "told-model"
    adapter.mkdir(parents=True)
    (adapter / "model.toml").touch()
    here = SimpleNamespace(sha256=lambda: "ab" * 32)
    monkeypatch.setattr("spanseg.verify.open_model", lambda place: here)
    assert verify(sidecar, scan).same
    here.sha256 = lambda: "cd" * 32
    with pytest.raises(SpansegError, match="which is not shipped"):
        verify(sidecar, scan)


def test_another_scan_is_named_before_anything_runs(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sidecar = made(scan)
    fake_segmenter.write_scan(scan, seed=1)
    monkeypatch.setattr(segmenter, "load_model", None)
    verdict = verify(sidecar, scan)
    assert not verdict.same
    assert "its hash differs" in verdict.findings[0]


def test_a_changed_label_image_is_found_and_measured(scan: Path) -> None:
    sidecar = made(scan)
    path = sidecar.with_name("scan_dseg.nii.gz")
    image = nibabel.load(path)
    labels = np.asanyarray(image.dataobj).copy()
    i, j, k = np.argwhere(labels == 2)[0]
    labels[i, j, k] = 17
    nibabel.save(nibabel.Nifti1Image(labels, image.affine), path)
    verdict = verify(sidecar, scan)
    assert not verdict.same
    share = 1 - 1 / (labels > 0).sum()
    assert "changed after it was written" in verdict.findings[1]
    assert verdict.findings[2].startswith(f"{share:.3%} of the labelled voxels")
    path.unlink()
    assert verify(sidecar, scan).same  # labels are not needed: the record holds their hash


def test_other_labels_and_their_cause_are_named(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sidecar = made(scan)

    class Newer(fake_segmenter.FakePredictor):
        def __init__(self, options: Any) -> None:
            super().__init__(options)
            self.identity |= {"model_version": "2", "instruction_sets": ("sse", "avx2")}

    def other(scan: Any, predictor: Any, options: Any) -> Any:
        result = fake_segmenter.segment_scan(scan, predictor, options)
        result.labels.data[0, 0, 0] = 17
        return result

    monkeypatch.setattr(segmenter, "load_model", Newer)
    monkeypatch.setattr(segmenter, "segment_scan", other)
    verdict = verify(sidecar, scan)
    assert not verdict.same
    text = " ".join(verdict.findings)
    assert "model_version is 2, was 1" in text
    assert "instruction_sets is ['sse', 'avx2'], was ['sse']" in text
    assert "The labels are not the same." in text


def test_facts_that_are_not_in_the_sidecar_are_asked_for(scan: Path) -> None:
    sidecar = made(scan, facts=Facts(37, "female"))
    asked = verify(sidecar, scan).findings[0]
    assert "facts that were not given now: age, sex (--age --sex)" in asked
    assert len(verify(sidecar, scan, Facts(37, "female")).findings) == 1
    assert "an age of 30-39 years" in verify(sidecar, scan, Facts(41, "female")).findings[0]
    assert "made without diagnosis" in verify(sidecar, scan, Facts(37, "female", "stroke")).findings[0]


def test_stored_facts_are_used(scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sidecar = made(scan, store=True, facts=Facts(37, "female", "stroke"))
    seen: list[SegmentOptions] = []
    monkeypatch.setattr(segmenter, "load_model", lambda o: seen.append(o) or fake_segmenter.FakePredictor(o))
    assert len(verify(sidecar, scan).findings) == 1
    assert seen[0].facts == Facts(37, "female", "stroke")


def test_the_lesion_mask_is_asked_for(scan: Path, tmp_path: Path) -> None:
    lesion = fake_segmenter.write_scan(tmp_path / "lesion.nii", seed=5)
    sidecar = made(scan, lesion_mask=lesion)
    with pytest.raises(SpansegError, match=r"_dseg\.json: this result .* give that same file with --lesion-mask"):
        verify(sidecar, scan)
    with pytest.raises(SpansegError, match="give that same file with --lesion-mask"):
        verify(sidecar, scan, lesion_mask=scan)
    assert verify(sidecar, scan, lesion_mask=lesion).same


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"format": "spanseg sidecar 1"}', "\xff"])
def test_what_is_no_sidecar_is_refused(content: str, scan: Path, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(SpansegError, match=r"x\.json: expected"):
        verify(tmp_path / "x.json", scan)


@pytest.mark.parametrize(
    "change",
    [
        {"threads": "two"},
        {"threads": float("inf")},
        {"precision": 32},
        {"model": None},
        {"outputs": 5},
        {"outputs": [["a"]]},
        {"warnings": [1]},
        {"settings": {}},
        {"facts": []},
        {"facts": {"given": [], "age_decade": None, "shoe_size": 43}},
        {"facts": {"given": [], "age_decade": None, "sex": 1}},
        {"facts": {"given": "sex", "age_decade": None}},
    ],
)
def test_a_sidecar_that_was_edited_out_of_shape_is_refused(change: dict[str, Any], scan: Path) -> None:
    sidecar = made(scan)
    record = json.loads(sidecar.read_text(encoding="utf-8")) | change
    sidecar.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(SpansegError, match="expected a sidecar that spanseg wrote"):
        verify(sidecar, scan)


def test_a_sidecar_nested_without_end_is_refused(scan: Path) -> None:
    sidecar = made(scan)
    sidecar.write_text('{"format": ' + "[" * 100_000, encoding="utf-8")
    with pytest.raises(SpansegError, match="found other content"):
        verify(sidecar, scan)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a named pipe")
def test_a_pipe_is_refused_and_not_waited_for(scan: Path) -> None:
    sidecar = made(scan)
    os.mkfifo(scan.with_name("pipe.nii"))
    with pytest.raises(SpansegError, match="expected a file, found a folder, a device or a pipe"):
        verify(sidecar, scan.with_name("pipe.nii"))


def test_the_command_says_so_with_its_exit_code(scan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sidecar = made(scan)

    def exit_code(*words: object) -> object:
        with pytest.raises(SystemExit) as caught:
            main(["verify", *map(str, words)])
        return caught.value.code

    assert exit_code(sidecar, scan) == 0
    assert capsys.readouterr().out.endswith("\nverified\n")
    record = json.loads(sidecar.read_text(encoding="utf-8")) | {"labels_sha256": "0"}
    sidecar.write_text(json.dumps(record), encoding="utf-8")
    assert exit_code(sidecar, scan) == 1
    assert capsys.readouterr().out.endswith("\nnot verified\n")
    assert exit_code(sidecar, scan.with_name("absent.nii")) == 2
