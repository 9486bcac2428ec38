"""What ``spanseg serve`` refuses before it serves or writes anything: one sentence, exit code 2."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from fake_corrector import AFFINE, BallCorrector, FakeBelief, write_labels, write_scan
from spanseg.cli.main import main
from spanseg.correcting import Corrector
from spanseg.serve.running import listen


def test_only_this_computer_can_reach_the_port_and_a_taken_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with listen() as listener:
        host, port = listener.getsockname()
        assert host == "127.0.0.1"
        assert exit_code(tmp_path, monkeypatch, write_scan(tmp_path / "head.nii.gz"), "--port", port) == 2
    assert f"port {port} cannot be used" in capsys.readouterr().err


def test_the_command_refuses_what_it_cannot_correct(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scan, labels = write_scan(tmp_path / "head.nii.gz"), write_labels(tmp_path / "mine.nii.gz", {5: 9999})
    assert exit_code(tmp_path, monkeypatch, scan, "--labels", labels) == 2
    assert "[9999]" in capsys.readouterr().err
    write_labels(labels, affine=np.diag([3.0, 3, 3, 1]))
    assert exit_code(tmp_path, monkeypatch, scan, "--labels", labels) == 2
    assert "not on the grid of the scan" in capsys.readouterr().err
    assert exit_code(tmp_path, monkeypatch, scan, "--labels", labels, "--empty") == 2
    assert exit_code(tmp_path, monkeypatch, tmp_path / "nothing.nii.gz") == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "sentence"),
    [
        ("nonsense", "there is no model 'nonsense'"),
        ("default", "expected a network that answers clicks"),
        ("empty", "found no model.toml"),
        ("run", "recipe"),
    ],
)
def test_a_model_that_answers_no_prompts_is_refused_before_anything_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: str, sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "delta.safetensors").write_bytes(b"no tensors")
    scan = write_scan(tmp_path / "in" / "head.nii.gz")
    monkeypatch.chdir(tmp_path)
    for source in (scan, scan.parent):
        assert exit_code(tmp_path, monkeypatch, source, "--model", model, corrector=Corrector) == 2
        said = capsys.readouterr()
        assert sentence in said.err and said.err.count("\n") == 1 and not said.out
    assert not (tmp_path / "out").exists()


def test_a_scan_that_cannot_be_read_is_refused_before_anything_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torn, film = write_scan(tmp_path / "torn.nii.gz"), tmp_path / "film.nii.gz"
    torn.write_bytes(torn.read_bytes()[:2000])
    nibabel.save(nibabel.Nifti1Image(np.ones((12, 12, 12, 5), np.float32), AFFINE), film)
    for scan in (torn, film):
        assert exit_code(tmp_path, monkeypatch, scan) == 2
        said = capsys.readouterr()
        assert scan.name in said.err and said.err.count("\n") == 1 and not said.out
    assert not (tmp_path / "out").exists()


def exit_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *words: object, corrector: type = BallCorrector) -> int:
    monkeypatch.setattr("spanseg.beliefs.ModelBelief", FakeBelief)
    monkeypatch.setattr("spanseg.correcting.Corrector", corrector)
    monkeypatch.setattr("spanseg.serve.running.run", lambda *given: None)  # what is not refused fails, and hangs not
    with pytest.raises(SystemExit) as caught:
        main(["serve", *map(str, words), "--no-browser", "-o", str(tmp_path / "out")])
    return int(caught.value.code or 0)
