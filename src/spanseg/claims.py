"""Claims: which process works on which scan, so that several can share one output folder and any may be killed."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from spanseg.errors import SpansegError
from spanseg.files import host, is_alive

ABANDONED_S = 1800.0
"""A claim this old is nobody's: it outlives any scan, and a process on another computer cannot be asked."""
_UNFINISHED_S = 10.0
_THIS_RUN = secrets.token_hex(8)


def take_claim(path: Path) -> bool:
    """Claim what a file stands for; false while a living process holds it.

    Two processes that find the same dead claim at the same moment may both succeed. They then do the same work twice,
    which is harmless: results are put in place whole, and are the same.

    Raises:
        SpansegError: the folder cannot be written.
    """
    for _ in range(2):
        try:
            descriptor = _create(path)
        except FileExistsError:
            if not _is_abandoned(path):
                return False
            path.unlink(missing_ok=True)
            continue
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(f"{host()} {os.getpid()} {_THIS_RUN}")
        return True
    return False


def keep_claim(path: Path) -> bool:
    """Say that a claim is still in use; false if it is not this process's any more."""
    try:
        ours = path.read_text(encoding="utf-8", errors="replace").split()[1:] == [str(os.getpid()), _THIS_RUN]
        if ours:
            os.utime(path)
    except OSError:
        return False
    return ours


def drop_abandoned_claim(path: Path) -> None:
    """Remove a claim that is nobody's any more."""
    if path.is_file() and _is_abandoned(path):
        path.unlink(missing_ok=True)


def _create(path: Path) -> int:
    """Create a file that must not exist yet, with its folder, and return its descriptor."""
    try:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except OSError as error:
        if isinstance(error, FileExistsError) and path.parent.is_dir():
            raise
        raise SpansegError(
            f"{path.parent}: results cannot be written to this folder ({error.strerror}); choose another one (-o)."
        ) from error


def _is_abandoned(path: Path) -> bool:
    try:
        words = path.read_text(encoding="utf-8", errors="replace").split()
        age_s = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    except PermissionError:  # on Windows: its owner has it open, or is removing it
        return False
    if len(words) != 3 or not words[1].isdecimal():
        return age_s > _UNFINISHED_S
    if age_s > ABANDONED_S:
        return True
    if words[0] != host():
        return False
    if int(words[1]) == os.getpid():
        return words[2] != _THIS_RUN  # in a container every run may have the same process id
    return not is_alive(int(words[1]))
