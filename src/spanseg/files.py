"""Writing files so that nobody ever sees half of one: a temporary name beside the target, then one rename.

A temporary carries the host and the process that writes it. A later run can thus tell what a killed process left
behind from what a living one is still writing. Whole files are hashed here too.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import platform
import re
import shutil
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from spanseg.errors import SpansegError

_PATTERN = re.compile(r"\.spanseg-(?P<host>[A-Za-z0-9_]+)-(?P<process>[0-9]+)-[0-9a-f]{8}\.tmp")
_FILE_SUFFIXES = (".nii", ".gz", ".mgz", ".mgh", ".csv", ".tsv", ".json", ".html")
_RENAME_TRIES = 20
_RENAME_PAUSE_S = 0.05
_WINDOWS_QUERY, _WINDOWS_STILL_ACTIVE, _WINDOWS_NO_SUCH_PROCESS = 0x1000, 259, 87


def temporary_for(path: Path) -> Path:
    """Name a temporary file in the folder of ``path``: hidden, unique, and telling who writes it.

    The target's own name is not in it, because a long one would not leave room for the rest.
    """
    return path.with_name(f".spanseg-{host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp")


def replace(temporary: Path, path: Path) -> None:
    """Give a finished temporary file its final name, over whatever has that name.

    On Windows a virus scanner or a reader may hold the target for a moment, so the rename is tried for a second.
    """
    for _ in range(_RENAME_TRIES if sys.platform == "win32" else 1):
        try:
            os.replace(temporary, path)
            return
        except PermissionError as error:
            refused = error
            time.sleep(_RENAME_PAUSE_S)
    raise refused


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Lend a temporary name to write to; on success it becomes ``path``, otherwise it is removed.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "new folder" / "answer.txt"
        >>> with writing(target) as temporary:
        ...     _ = temporary.write_text("42", encoding="utf-8")
        >>> target.read_text(encoding="utf-8")
        '42'

    Raises:
        SpansegError: the folder cannot be written to, or the disk is full.
    """
    temporary = temporary_for(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        replace(temporary, path)
    except OSError as error:
        raise SpansegError(_write_failure(path, error)) from error
    finally:
        _remove(temporary)


def require_folder(path: Path) -> None:
    """Refuse the name of a file where a folder for results is meant.

    Example:
        >>> require_folder(Path("results"))
        >>> require_folder(Path("labels.nii.gz"))
        Traceback (most recent call last):
        spanseg.errors.SpansegError: labels.nii.gz: results go into a folder, and this is the name of a file; give a ...

    Raises:
        SpansegError: the name ends as a file of ours does, and no folder has it.
    """
    if path.suffix.lower() in _FILE_SUFFIXES and not path.is_dir():
        raise SpansegError(
            f"{path}: results go into a folder, and this is the name of a file; give a folder, such as "
            f"{path.parent / 'results'}."
        )


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file at once.

    Raises:
        SpansegError: the folder cannot be written to, or the disk is full.
    """
    with writing(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: Path, content: str) -> None:
    """Write a whole text file at once, UTF-8, with line ends as given.

    Raises:
        SpansegError: the folder cannot be written to, or the disk is full.
    """
    write_bytes(path, content.encode("utf-8", "backslashreplace"))  # Linux has file names that are no text


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes.

    Raises:
        SpansegError: the file cannot be read.
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise SpansegError(f"{path}: expected a file, found a folder, a device or a pipe.")
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise SpansegError(f"{path}: this file cannot be read ({error.strerror}).") from error


def remove_dead_temporaries(folder: Path) -> list[Path]:
    """Remove the temporaries directly in a folder that processes of this computer left behind when they died.

    Those of living processes and of other computers, which may share the folder, are left alone.

    Returns:
        What was removed.
    """
    removed = []
    try:
        names = sorted(entry.name for entry in os.scandir(folder))
    except OSError:
        return []
    for name in names:
        match = _PATTERN.fullmatch(name)
        if match and match["host"] == host() and not is_alive(int(match["process"])):
            _remove(folder / name)
            removed.append(folder / name)
    return removed


def is_alive(process: int) -> bool:
    """Whether a process of this computer is running; in doubt, yes.

    Args:
        process: its number.
    """
    if sys.platform == "win32":
        return _is_alive_on_windows(process)
    try:
        os.kill(process, 0)  # signal 0 asks only; on Windows it would end the process
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _is_alive_on_windows(process: int) -> bool:
    if sys.platform != "win32" or process >= 2**32:
        return False
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = ctypes.c_void_p
    handle = kernel.OpenProcess(_WINDOWS_QUERY, False, process)
    if not handle:
        return ctypes.get_last_error() != _WINDOWS_NO_SUCH_PROCESS
    code = ctypes.c_ulong()
    answered = kernel.GetExitCodeProcess(ctypes.c_void_p(handle), ctypes.byref(code))
    kernel.CloseHandle(ctypes.c_void_p(handle))
    return not answered or code.value == _WINDOWS_STILL_ACTIVE


def host() -> str:
    """Name of this computer, in letters that any file system takes."""
    return re.sub("[^A-Za-z0-9]", "_", platform.node())[:40] or "localhost"


def _remove(path: Path) -> None:
    """Remove a file or folder if it is there; one that cannot be removed is left to a later run."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
    except OSError:
        return


def _write_failure(path: Path, error: OSError) -> str:
    """Say in one sentence why a file could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{path}: the disk is full; make room or choose another output folder."
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{path}: the folder cannot be written to; choose another output folder."
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return f"{path}: part of this path is a file, not a folder; choose another output folder."
    return f"{path}: the file could not be written ({error.strerror or error}); choose another output folder."
