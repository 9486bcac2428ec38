"""Claims: one process at a scan, and a dead one holds nothing up."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spanseg import claims
from spanseg.errors import SpansegError
from spanseg.files import host


def dead_process() -> int:
    """Number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


@pytest.fixture
def claim(tmp_path: Path) -> Path:
    return tmp_path / ".scan.claim"


def test_a_claim_is_held_until_it_is_given_back(claim: Path) -> None:
    assert claims.take_claim(claim)
    assert not claims.take_claim(claim)
    claim.unlink()
    assert claims.take_claim(claim)


def test_a_dead_process_holds_nothing(claim: Path) -> None:
    claim.write_text(f"{host()} {dead_process()} abc", encoding="utf-8")
    assert claims.take_claim(claim)
    assert f" {os.getpid()} " in claim.read_text(encoding="utf-8")


def test_a_living_process_is_left_alone(claim: Path) -> None:
    claim.write_text(f"{host()} {os.getppid()} abc", encoding="utf-8")
    assert not claims.take_claim(claim)


def test_an_earlier_run_with_our_process_id_is_dead(claim: Path) -> None:
    claim.write_text(f"{host()} {os.getpid()} abc", encoding="utf-8")
    assert claims.take_claim(claim)


def test_another_computer_is_given_half_an_hour(claim: Path) -> None:
    claim.write_text(f"elsewhere {dead_process()} abc", encoding="utf-8")
    assert not claims.take_claim(claim)
    long_ago = time.time() - claims.ABANDONED_S - 1
    os.utime(claim, (long_ago, long_ago))
    assert claims.take_claim(claim)


def test_a_claim_that_was_cut_off_is_given_a_moment(claim: Path) -> None:
    claim.write_bytes(b"")
    assert not claims.take_claim(claim)
    os.utime(claim, (time.time() - 11, time.time() - 11))
    assert claims.take_claim(claim)


@pytest.mark.parametrize("content", [b"", bytes(50), b"\xff\xfe", "host ² x".encode()])
def test_a_damaged_claim_holds_nothing_up(content: bytes, claim: Path) -> None:
    claim.write_bytes(content)
    os.utime(claim, (time.time() - 11, time.time() - 11))
    assert claims.take_claim(claim)
    claim.write_bytes(content)
    os.utime(claim, (time.time() - 11, time.time() - 11))
    claims.drop_abandoned_claim(claim)
    assert not claim.exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SpansegError, match=r"results cannot be written .*choose another one \(-o\)"):
        claims.take_claim(tmp_path / "file" / ".scan.claim")
    with pytest.raises(SpansegError, match="results cannot be written"):
        claims.take_claim(tmp_path / "file" / "deeper" / ".scan.claim")
