"""What this computer can do: instruction sets, cores and the memory that is left, container limits included.

Standard library only, so that it can be asked before anything heavy is loaded. What a system does not tell is left out.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

INSTRUCTION_SETS = {  # our name: what Linux and macOS call it
    "avx2": ("avx2", "avx2_0"),
    "avx512f": ("avx512f",),
    "avx512_vnni": ("avx512_vnni", "avx512vnni"),
    "avx512_bf16": ("avx512_bf16",),
    "amx_int8": ("amx_int8",),
    "amx_bf16": ("amx_bf16",),
    "neon": ("asimd", "neon"),
    "neon_fp16": ("asimdhp", "feat_fp16"),
    "neon_bf16": ("bf16", "feat_bf16"),
    "neon_i8mm": ("i8mm", "feat_i8mm"),
    "sve": ("sve",),
}
_WINDOWS_FEATURES = {19: "neon", 40: "avx2", 41: "avx512f"}  # numbers of IsProcessorFeaturePresent
_NO_LIMIT_BYTES = 2**60  # cgroup v1 writes "no limit" as a number near 2**63


@dataclass(frozen=True)
class Machine:
    """One computer as this process sees it.

    Args:
        system: operating system and architecture, such as ``Linux x86_64``.
        processor: the processor's name; empty where the system does not tell.
        instruction_sets: those of ``INSTRUCTION_SETS`` that it has.
        cores: logical cores that this process may use.
        memory_total_bytes, memory_available_bytes: of the machine or its container, whichever is less; ``None`` where
            the system does not tell.
    """

    system: str
    processor: str
    instruction_sets: tuple[str, ...]
    cores: int
    memory_total_bytes: int | None
    memory_available_bytes: int | None


def describe() -> Machine:
    """Describe this computer.

    Example:
        >>> describe().cores >= 1
        True
    """
    total, available = memory_bytes()
    system = f"{platform.system()} {platform.machine()}"
    return Machine(system, processor_name(), instruction_sets(), cores(), total, available)


def instruction_sets() -> tuple[str, ...]:
    """Instruction sets of this processor that matter to neural networks."""
    flags = set(_processor_text().lower().replace(".", "_").split())
    if sys.platform == "win32":
        present = ctypes.windll.kernel32.IsProcessorFeaturePresent
        flags |= {name for number, name in _WINDOWS_FEATURES.items() if present(number)}
    return tuple(name for name, words in INSTRUCTION_SETS.items() if flags.intersection((*words, name)))


def computes_in_bf16() -> bool:
    """Whether this processor has instructions for bf16; without them it is many times slower than f32."""
    return not {"avx512_bf16", "amx_bf16", "neon_bf16"}.isdisjoint(instruction_sets())


def processor_name() -> str:
    """Name of the processor as its maker writes it; empty where the system does not tell."""
    for line in _processor_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "machdep.cpu.brand_string"):
            return value.strip()
    return platform.processor()


def _processor_text() -> str:
    """Flags and name of the processor, in the words of the system."""
    if sys.platform == "linux":
        return _read(Path("/proc/cpuinfo"))
    if sys.platform == "darwin":
        return mac_features(_run(["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"]))
    return ""


def mac_features(text: str) -> str:
    """Rewrite the answer of ``sysctl`` so that a feature that is present stands as a word of its own."""
    present = []
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.startswith("hw.optional") and value.strip() == "1":
            present.append(key.rpartition(".")[2])
    return "\n".join([text, " ".join(present)])


def cores() -> int:
    """Logical cores that this process may use: affinity and container quota respected, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = cgroup_cores() if sys.platform == "linux" else None
    return max(1, min(allowed, int(quota) if quota else allowed))


def cgroup_cores(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Processor time that a Linux container may use, in cores; ``None`` without a limit."""
    limits = []
    for folder in _cgroup_folders(root, own, "cpu"):
        quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
        if not quota:
            quota, period = _read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(period):
            limits.append(int(quota) / int(period))
    return min(limits, default=None)


def memory_bytes() -> tuple[int | None, int | None]:
    """Total and available memory in bytes, of the machine or its container, whichever is less."""
    if sys.platform == "linux":
        return _least(linux_memory(_read(Path("/proc/meminfo"))), cgroup_memory())
    if sys.platform == "darwin":
        return mac_memory(_run(["/usr/sbin/sysctl", "-n", "hw.memsize"]), _run(["/usr/bin/vm_stat"]))
    if sys.platform == "win32":
        return _windows_memory()
    return None, None


def linux_memory(meminfo: str) -> tuple[int | None, int | None]:
    """Total and available bytes from the text of ``/proc/meminfo``."""
    rows = dict(line.partition(":")[::2] for line in meminfo.splitlines())
    total, available = (
        int(rows[key].split()[0]) * 1024 if key in rows else None for key in ("MemTotal", "MemAvailable")
    )
    return total, available


def cgroup_memory(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> tuple[int | None, int | None]:
    """Memory limit of a Linux container and what of it is free, in bytes; file cache counts as free."""
    found: tuple[int | None, int | None] = (None, None)
    for folder in _cgroup_folders(root, own, "memory"):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
        if limit is None or used is None or limit > _NO_LIMIT_BYTES:
            continue
        stat = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
        cache = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
        found = _least(found, (limit, max(0, limit - used + cache)))
    return found


def mac_memory(memsize: str, vm_stat: str) -> tuple[int | None, int | None]:
    """Total and available bytes from the answers of ``sysctl -n hw.memsize`` and ``vm_stat``."""
    total = int(memsize) if memsize.strip().isdigit() else None
    rows = {key: value.strip(" .") for key, _, value in (line.partition(":") for line in vm_stat.splitlines())}
    words = vm_stat.partition("page size of ")[2].split()
    counts = [rows.get(f"Pages {state}", "") for state in ("free", "inactive", "speculative")]
    if not words or not all(count.isdigit() for count in counts):
        return total, None
    return total, int(words[0]) * sum(int(count) for count in counts)


def _windows_memory() -> tuple[int | None, int | None]:
    """Ask ``GlobalMemoryStatusEx``: a length, a percentage, then total and available physical bytes among seven."""
    status = (ctypes.c_uint64 * 8)()
    status[0] = ctypes.sizeof(status)
    if sys.platform == "win32" and ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return status[1], status[2]
    return None, None


def _least(
    first: tuple[int | None, int | None], second: tuple[int | None, int | None]
) -> tuple[int | None, int | None]:
    total, available = (
        min((v for v in pair if v is not None), default=None) for pair in zip(first, second, strict=True)
    )
    return total, available


def _cgroup_folders(root: Path, own: Path, controller: str) -> list[Path]:
    """Folders that limit this process: its own group and all above it, for cgroup versions 1 and 2."""
    folders = [root, root / controller]
    for line in _read(own).splitlines():
        _, controllers, group = line.split(":", 2)
        top = root / controller if controller in controllers.split(",") else root
        if top == root and controllers:
            continue
        parts = [part for part in group.split("/") if part]
        folders += [top.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]
    return [folder for folder in folders if folder.is_dir()]


def _number(*paths: Path) -> int | None:
    """The whole number in the first of the files that holds one."""
    texts = [_read(path).strip() for path in paths]
    return next((int(text) for text in texts if text.isdigit()), None)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _run(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def forget_peak_memory() -> None:
    """Let :func:`peak_memory_bytes` count from here on; does nothing where the system cannot (all but Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak_memory_bytes() -> int | None:
    """Largest resident memory of this process so far; ``None`` where the system does not tell (Windows)."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would count the parent's memory too, up to the moment of exec
        kibibytes = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM:")]
        if kibibytes:
            return int(kibibytes[0]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024
