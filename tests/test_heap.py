"""Freed memory stays with the process while a network trains, and goes back afterwards."""

import platform
import resource

import pytest
import torch

from spanseg import heap, machine

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="nothing is done elsewhere")
MEBIBYTE = 2**20


def new_pages() -> int:
    """How many pages the system hands out while 64 MiB are asked for and freed eight times."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(16 * MEBIBYTE)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_what_is_freed_is_used_again() -> None:
    with heap.freed_memory_kept():
        new_pages()
        kept = new_pages()
    assert kept < new_pages() / 4


def test_the_system_gets_it_back_at_the_end() -> None:
    with heap.freed_memory_kept():
        torch.ones(64 * MEBIBYTE)
        assert resident() > 256 * MEBIBYTE
        high = resident()
    assert resident() < high - 200 * MEBIBYTE


def resident() -> int:
    machine.forget_peak_memory()
    found = machine.peak_memory_bytes()
    assert found is not None
    return found


def test_an_error_inside_puts_everything_back() -> None:
    with pytest.raises(ZeroDivisionError), heap.freed_memory_kept():
        raise ZeroDivisionError
    assert new_pages() > 100
