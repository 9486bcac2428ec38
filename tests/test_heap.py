"""Freed memory stays with the process while a network trains, and goes back afterwards."""

import platform
import subprocess
import sys

import pytest
import torch

from spanseg import heap, machine

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="nothing is done elsewhere")
MEBIBYTE = 2**20
COUNT_NEW_PAGES = """
import resource
import torch
from spanseg import heap

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(16 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

with heap.freed_memory_kept():
    new_pages()
    kept = new_pages()
print(kept, new_pages())
"""


def test_what_is_freed_is_used_again() -> None:
    """In a process of its own: in this one, others may have left memory in large pages."""
    ran = subprocess.run([sys.executable, "-c", COUNT_NEW_PAGES], capture_output=True, text=True, check=True)
    kept, given_back = map(int, ran.stdout.split())
    assert kept < given_back / 4


def test_the_system_gets_it_back_at_the_end() -> None:
    with heap.freed_memory_kept():
        torch.ones(64 * MEBIBYTE)
        assert resident() > 256 * MEBIBYTE
        high = resident()
    assert resident() < high - 200 * MEBIBYTE


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
