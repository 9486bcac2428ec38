"""``spanseg doctor``: says what is wrong, and says so with its exit code."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from spanseg import machine, runtime
from spanseg.cli import doctor
from spanseg.errors import SpansegError

NETWORK = b"pretend that this is a network"
Patch = Callable[..., None]


class Loads:
    """An engine that loads anything."""

    name, precision, threads = "Engine 1.0", "f32", 2

    def __init__(self, folder: runtime.ModelFolder) -> None: ...


class LoadsNothing:
    """An engine that refuses."""

    def __init__(self, folder: runtime.ModelFolder) -> None:
        raise SpansegError("this network cannot be loaded (test).")


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Patch:
    """Ship one model with a recorded hash and memory need, run by some engine."""

    def ship(sha256: str, peak_mib: float = 1.0, engine: type = Loads) -> None:
        package = tmp_path / "package"
        (package / "models" / "small").mkdir(parents=True)
        (package / "models" / "small" / "model.onnx").write_bytes(NETWORK)
        runs = {"canvas": {"shape": [4, 4, 4]}, "labels": {"ids": [0, 2]}, "runtime": {"peak_mib": peak_mib}}
        table = {"model": {"sha256": sha256}} | runs
        monkeypatch.setattr(doctor.resources, "files", lambda name: package)
        monkeypatch.setattr(runtime, "open_model", lambda name: runtime.ModelFolder(package / "models" / name, table))
        monkeypatch.setattr(runtime, "Engine", engine)
        monkeypatch.setattr(machine, "memory_bytes", lambda: (8 * 2**30, 2**30))

    return ship


def failures(out: Path) -> list[str]:
    return [line for passed, line in doctor.checks(out) if not passed]


RIGHT = hashlib.sha256(NETWORK).hexdigest()


def test_a_whole_installation_passes(shipped: Patch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shipped(RIGHT)
    doctor.doctor(tmp_path / "out" / "deeper")
    told = capsys.readouterr().out
    assert "FAILED" not in told
    for word in ("numpy", "openvino", "instruction sets", "GiB available", "f32, 2 threads"):
        assert word in told
    assert not (tmp_path / "out").exists(), "looking must leave nothing behind"
    assert {path.name for path in tmp_path.iterdir()} == {"package"}


def test_a_changed_network_is_found(shipped: Patch, tmp_path: Path) -> None:
    shipped("0" * 64)
    (failure,) = failures(tmp_path)
    assert "is not the one that model.toml records" in failure
    with pytest.raises(typer.Exit) as stopped:
        doctor.doctor(tmp_path)
    assert stopped.value.exit_code == 1


def test_too_little_memory_is_found(shipped: Patch, tmp_path: Path) -> None:
    shipped(RIGHT, peak_mib=2048)
    (failure,) = failures(tmp_path)
    assert "needs 2.1 GiB" in failure and "1.0 GiB are available" in failure


def test_a_network_that_does_not_load_is_found(shipped: Patch, tmp_path: Path) -> None:
    shipped(RIGHT, engine=LoadsNothing)
    (failure,) = failures(tmp_path)
    assert "cannot be loaded" in failure


def test_no_model_at_all_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.setattr(doctor.resources, "files", lambda name: tmp_path)
    (failure,) = failures(tmp_path)
    assert "no model" in failure


def test_a_folder_that_cannot_be_written_is_found(shipped: Patch, tmp_path: Path) -> None:
    shipped(RIGHT)
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    (failure,) = failures(in_the_way / "out")
    assert "cannot be written" in failure


def test_a_missing_package_is_found(shipped: Patch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped(RIGHT)
    monkeypatch.setattr(doctor, "CORE_PACKAGES", ("numpy", "not-a-package-of-anyone"))
    (failure,) = failures(tmp_path)
    assert "not-a-package-of-anyone is not installed" in failure
