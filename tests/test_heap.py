"""Freed memory stays with the process while a network trains, and goes back afterwards."""

import platform

import pytest
import torch

from spanseg import heap, machine

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="nothing is done elsewhere")
MEBIBYTE = 2**20


def test_what_is_freed_stays_inside_and_goes_back_at_the_end() -> None:
    with heap.freed_memory_kept():
        pass  # at its end the system gets what other tests have left
    before = resident()
    torch.ones(64 * MEBIBYTE)
    assert resident() < before + 100 * MEBIBYTE
    with heap.freed_memory_kept():
        torch.ones(64 * MEBIBYTE)
        assert resident() > before + 200 * MEBIBYTE
    assert resident() < before + 100 * MEBIBYTE


def test_and_after_an_error_too() -> None:
    high = 0
    with pytest.raises(ZeroDivisionError), heap.freed_memory_kept():
        torch.ones(64 * MEBIBYTE)
        high = resident()
        raise ZeroDivisionError
    assert resident() < high - 200 * MEBIBYTE


def resident() -> int:
    machine.forget_peak_memory()
    found = machine.peak_memory_bytes()
    assert found is not None
    return found
