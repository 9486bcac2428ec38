"""What the machine says about itself: answers of three systems, and container limits laid out in a folder."""

import sys
from pathlib import Path

import pytest

from spanseg import machine

GIB = 2**30


def test_this_machine_is_described() -> None:
    found = machine.describe()
    assert found.cores >= 1
    assert found.memory_total_bytes is not None and found.memory_available_bytes is not None
    assert 0 < found.memory_available_bytes <= found.memory_total_bytes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512f avx512_vnni", ("avx2", "avx512f", "avx512_vnni")),
        ("flags : avx2 avx512f avx512_bf16 amx_bf16", ("avx2", "avx512f", "avx512_bf16", "amx_bf16")),
        ("Features : fp asimd asimdhp i8mm bf16", ("neon", "neon_fp16", "neon_bf16", "neon_i8mm")),
        ("flags : avx2x notavx512f", ()),
    ],
)
def test_instruction_sets_are_whole_words(
    text: str, expected: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_processor_text", lambda: text)
    monkeypatch.setattr(sys, "platform", "linux")
    assert machine.instruction_sets() == expected


def test_mac_features_count_only_when_they_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = "hw.optional.arm.FEAT_BF16: 1\nhw.optional.arm.FEAT_I8MM: 0\nhw.optional.neon: 1\n"
    monkeypatch.setattr(machine, "_processor_text", lambda: machine.mac_features(answer))
    assert machine.instruction_sets() == ("neon", "neon_bf16")


def test_intel_mac_lists_its_features(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = "machdep.cpu.brand_string: Intel(R) Core(TM) i7\nmachdep.cpu.leaf7_features: BMI1 AVX2 SMEP\n"
    monkeypatch.setattr(machine, "_processor_text", lambda: machine.mac_features(answer))
    assert machine.instruction_sets() == ("avx2",)
    assert machine.processor_name() == "Intel(R) Core(TM) i7"


def test_linux_memory() -> None:
    text = "MemTotal:       16000 kB\nMemFree:  10 kB\nMemAvailable:    4000 kB\n"
    assert machine.linux_memory(text) == (16000 * 1024, 4000 * 1024)
    assert machine.linux_memory("") == (None, None)


def test_mac_memory_counts_free_inactive_and_speculative_pages() -> None:
    pages = "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free:    100.\nPages active:   7.\n"
    pages += "Pages inactive:   20.\nPages speculative:  3.\n"
    assert machine.mac_memory("17179869184\n", pages) == (16 * GIB, 123 * 16384)
    assert machine.mac_memory("", "") == (None, None)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_cgroup_two_takes_the_tightest_limit_on_the_way_up(tmp_path: Path) -> None:
    write(tmp_path / "self", "0::/slice/job\n")
    write(tmp_path / "fs/slice/memory.max", f"{4 * GIB}\n")
    write(tmp_path / "fs/slice/memory.current", f"{3 * GIB}\n")
    write(tmp_path / "fs/slice/memory.stat", f"anon 5\ninactive_file {GIB}\n")
    write(tmp_path / "fs/slice/job/memory.max", "max\n")
    write(tmp_path / "fs/slice/job/memory.current", f"{2 * GIB}\n")
    write(tmp_path / "fs/slice/job/cpu.max", "150000 100000\n")
    assert machine.cgroup_memory(tmp_path / "fs", tmp_path / "self") == (4 * GIB, 2 * GIB)
    assert machine.cgroup_cores(tmp_path / "fs", tmp_path / "self") == 1.5


def test_cgroup_one_and_its_word_for_no_limit(tmp_path: Path) -> None:
    write(tmp_path / "self", "4:memory:/job\n3:cpu,cpuacct:/job\n")
    write(tmp_path / "fs/memory/memory.limit_in_bytes", "9223372036854771712\n")
    write(tmp_path / "fs/memory/memory.usage_in_bytes", "1\n")
    write(tmp_path / "fs/cpu/job/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / "fs/cpu/job/cpu.cfs_period_us", "100000\n")
    assert machine.cgroup_memory(tmp_path / "fs", tmp_path / "self") == (None, None)
    assert machine.cgroup_cores(tmp_path / "fs", tmp_path / "self") is None
    write(tmp_path / "fs/memory/job/memory.limit_in_bytes", f"{GIB}\n")
    write(tmp_path / "fs/memory/job/memory.usage_in_bytes", f"{GIB // 4}\n")
    assert machine.cgroup_memory(tmp_path / "fs", tmp_path / "self") == (GIB, GIB - GIB // 4)


def test_the_container_limit_wins_over_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "linux_memory", lambda text: (16 * GIB, 8 * GIB))
    monkeypatch.setattr(machine, "cgroup_memory", lambda: (2 * GIB, GIB))
    monkeypatch.setattr(sys, "platform", "linux")
    assert machine.memory_bytes() == (2 * GIB, GIB)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot forget")
def test_the_peak_is_counted_anew_once_forgotten() -> None:
    big = bytearray(b"x" * (200 * 2**20))
    high = machine.peak_memory_bytes()
    del big
    machine.forget_peak_memory()
    assert machine.peak_memory_bytes() < high - 100 * 2**20
