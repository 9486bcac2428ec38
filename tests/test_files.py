"""Writing under a temporary name: nothing half-written, nothing left behind, and only the dead's leavings removed."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from spanseg import files
from spanseg.errors import SpansegError

SLOW_WRITER = """
import sys, time
from pathlib import Path
from spanseg.files import writing
with writing(Path(sys.argv[1])) as temporary, temporary.open("wb") as file:
    file.write(b"half")
    file.flush()
    print("half", flush=True)
    time.sleep(60)
"""


def slow_writer(path: Path) -> subprocess.Popen[str]:
    """Start a process that writes half a file and waits."""
    process = subprocess.Popen([sys.executable, "-c", SLOW_WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "half\n"
    return process


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "answer.txt"
    files.write_text(path, "first\n")
    with pytest.raises(RuntimeError), files.writing(path) as temporary:
        temporary.write_text("half", encoding="utf-8")
        assert path.read_bytes() == b"first\n"
        raise RuntimeError
    assert path.read_bytes() == b"first\n"
    files.write_bytes(path, b"second")
    assert path.read_bytes() == b"second"
    assert [entry.name for entry in path.parent.iterdir()] == ["answer.txt"]


def test_a_killed_writer_leaves_a_temporary_and_the_next_run_removes_it(tmp_path: Path) -> None:
    writer = slow_writer(tmp_path / "labels.nii.gz")
    left = list(tmp_path.iterdir())
    assert len(left) == 1 and left[0].name.endswith(".tmp") and left[0].name.startswith(".")
    assert files.remove_dead_temporaries(tmp_path) == []  # it is alive
    writer.kill()
    writer.wait()
    assert left[0].exists()
    assert files.remove_dead_temporaries(tmp_path) == left
    assert list(tmp_path.iterdir()) == []


def test_only_leavings_of_dead_processes_of_this_computer_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = files.temporary_for(tmp_path / "a.nii.gz")
    monkeypatch.setattr(files.platform, "node", lambda: "another computer")
    foreign = files.temporary_for(tmp_path / "a.nii.gz")
    monkeypatch.undo()
    dead = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{dead_process()}-"))
    foreign_dead = foreign.with_name(foreign.name.replace(f"-{os.getpid()}-", f"-{dead_process()}-"))
    others = [tmp_path / name for name in ("a.nii.gz", ".hidden.tmp", "spanseg-host-1-00000000.tmp", "notes.tmp")]
    kept = [own, foreign, foreign_dead, *others]
    for path in (*kept, dead):
        path.touch()
    assert files.remove_dead_temporaries(tmp_path) == [dead]
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert files.remove_dead_temporaries(tmp_path / "none") == []


def dead_process() -> int:
    """Number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    assert files.is_alive(os.getpid())
    assert not files.is_alive(dead_process())
    assert not files.is_alive(10**30)
    if sys.platform != "win32":

        def someone_elses(*_: object) -> None:
            raise PermissionError

        monkeypatch.setattr(os, "kill", someone_elses)
        assert files.is_alive(1)


def test_temporaries_differ_and_fit(tmp_path: Path) -> None:
    path = tmp_path / ("ü" * 120)
    names = {files.temporary_for(path).name for _ in range(100)}
    assert len(names) == 100 and all(len(name.encode()) < 120 for name in names)
    files.write_bytes(path, b"long name")


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "disk is full"), (errno.EROFS, "cannot be written to"), (errno.EIO, "could not be written")],
)
def test_failures_are_one_sentence(number: int, words: str, tmp_path: Path) -> None:
    with pytest.raises(SpansegError, match=words) as failure, files.writing(tmp_path / "a.txt") as temporary:
        temporary.touch()
        raise OSError(number, os.strerror(number))
    assert str(tmp_path / "a.txt") in str(failure.value) and "\n" not in str(failure.value)
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(SpansegError, match="is a file, not a folder"):
        files.write_bytes(tmp_path / "out" / "deeper" / "a.txt", b"")
    with pytest.raises(SpansegError, match="is a file, not a folder"):
        files.write_bytes(tmp_path / "out" / "a.txt", b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real ENOSPC, from the device that is always full."""
    monkeypatch.setattr(files, "temporary_for", lambda path: Path("/dev/full"))
    monkeypatch.setattr(files, "_remove", lambda path: None)
    with pytest.raises(SpansegError, match="disk is full"):
        files.write_bytes(tmp_path / "a.txt", b"something")


def test_a_rename_is_tried_again_on_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There, a virus scanner may hold the target for a moment."""
    tries = []
    real = os.replace

    def held_twice(source: Path, target: Path) -> None:
        tries.append(source)
        if len(tries) < 3:
            raise PermissionError(errno.EACCES, "in use")
        real(source, target)

    monkeypatch.setattr(files.os, "replace", held_twice)
    monkeypatch.setattr(files.time, "sleep", lambda seconds: None)
    (tmp_path / "t").write_bytes(b"x")
    with monkeypatch.context() as patch:
        patch.setattr(files.sys, "platform", "win32")
        files.replace(tmp_path / "t", tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"x" and len(tries) == 3


def test_two_writers_of_one_file_do_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "labels.nii.gz"
    slow = slow_writer(path)
    files.write_bytes(path, b"whole")
    assert path.read_bytes() == b"whole"
    slow.kill()
    slow.wait()
    assert path.read_bytes() == b"whole"


def test_a_file_is_hashed_by_its_bytes_and_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"abc")
    assert files.file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(SpansegError, match=r"none\.onnx: this file cannot be read \(No such file"):
        files.file_sha256(tmp_path / "none.onnx")
    with pytest.raises(SpansegError, match="expected a file, found a folder, a device or a pipe"):
        files.file_sha256(tmp_path)
