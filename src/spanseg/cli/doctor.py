"""``spanseg doctor``: can this computer segment, and are the shipped models whole?"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from importlib import metadata, resources
from pathlib import Path
from typing import Annotated

import typer

from spanseg import __version__, machine
from spanseg.errors import SpansegError

CORE_PACKAGES = ("numpy", "scipy", "nibabel", "Pillow", "openvino", "typer", "rich")
_GIB = 2**30

Check = tuple[bool, str]


def doctor(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder whose writability is tried.")] = Path("spanseg-out"),
) -> None:
    """Show versions, processor and memory, and check the models and the output folder.

    Exit codes: 0 all checks passed; 1 one failed.
    """
    for line in _computer():
        print(f"         {line}")
    verdicts = []
    for passed, line in checks(out):
        print(f"{'ok      ' if passed else 'FAILED  '} {line}", flush=True)
        verdicts.append(passed)
    if not all(verdicts):
        raise typer.Exit(1)


def _computer() -> Iterator[str]:
    found = machine.describe()
    yield f"spanseg {__version__}, Python {platform.python_version()}"
    yield f"{found.system}, {found.processor or 'processor unknown'}, {found.cores} cores for this process"
    yield f"instruction sets: {', '.join(found.instruction_sets) or 'none known'}"
    if found.memory_total_bytes is not None and found.memory_available_bytes is not None:
        total, free = found.memory_total_bytes / _GIB, found.memory_available_bytes / _GIB
        yield f"memory: {free:.1f} of {total:.1f} GiB available (container limits counted)"
    else:
        yield "memory: this system does not tell"


def checks(out: Path) -> Iterator[Check]:
    """Try what segmenting needs, one thing after the other.

    Args:
        out: folder that results would go to.

    Yields:
        Whether the check passed, and a line that says what was found.
    """
    yield from map(_package, CORE_PACKAGES)
    models = sorted(entry.name for entry in (resources.files("spanseg") / "models").iterdir() if entry.is_dir())
    if not models:
        yield False, "no model came with this installation; install spanseg again, or name a folder with --model"
    for name in models:
        yield from _model(name)
    yield _writable(out)


def _package(name: str) -> Check:
    try:
        return True, f"{name} {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return False, f"{name} is not installed; install spanseg again: pip install --force-reinstall spanseg"


def _model(name: str) -> Iterator[Check]:
    """Hash of the network file against the recorded one; then whether it loads, and fits into memory."""
    from spanseg import runtime, segmenter

    try:
        folder = runtime.open_model(name)
        recorded = folder.table["model"].get("sha256", "")
        same = folder.sha256() == recorded
        yield same, f"model {name}: the network file {'is' if same else 'is not'} the one that model.toml records"
        began = time.monotonic()
        engine = runtime.Engine(folder)
        seconds = time.monotonic() - began
        yield (
            True,
            f"model {name}: loads in {seconds:.1f} s ({engine.name}, {engine.precision}, {engine.threads} threads)",
        )
        yield _fits(name, segmenter.canvas_bytes(folder))
    except SpansegError as error:
        yield False, f"model {name}: {error}"


def _fits(name: str, needed: int) -> Check:
    _, available = machine.memory_bytes()
    line = f"model {name}: needs {needed / _GIB:.1f} GiB of memory"
    if available is None:
        return True, line
    return needed <= available, f"{line}, {available / _GIB:.1f} GiB are available"


def _writable(folder: Path) -> Check:
    """Write and remove a small file in the folder, or in the nearest one above it that exists."""
    from spanseg import files

    place = next((p for p in (folder.absolute(), *folder.absolute().parents) if p.exists()), folder)
    trial = files.temporary_for(place / "doctor")
    try:
        trial.write_text("spanseg doctor\n", encoding="utf-8")
        trial.unlink()
    except OSError as error:
        return False, f"output folder {folder}: cannot be written ({error.strerror}); choose another one with -o"
    return True, f"output folder {folder}: can be written"
