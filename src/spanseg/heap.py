"""What a network frees in one training step stays with the process for the next one.

The C library of Linux (glibc) gives large blocks back to the system as soon as they are free, and the system clears
each page anew when they are asked for again. A training step does so with gigabytes. Elsewhere nothing changes.
"""

import contextlib
import ctypes
import platform
from collections.abc import Iterator

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -2, -3, -4  # options of mallopt
_KEEP = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1, _TOP_PAD: 2**28}
_AS_USUAL = {_MMAP_MAX: 2**16, _TRIM_THRESHOLD: 2**26, _TOP_PAD: 2**17, _MMAP_THRESHOLD: 2**25}
"""glibc's own values, the two thresholds as they are once a large block has been freed."""


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Keep freed memory inside the block; at its end the system gets back what is free.

    Example:
        >>> with freed_memory_kept():
        ...     pass
    """
    if platform.libc_ver()[0] != "glibc":
        yield
        return
    library = ctypes.CDLL(None)
    try:
        _set(library, _KEEP)
        yield
    finally:
        _set(library, _AS_USUAL)
        library.malloc_trim(0)


def _set(library: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        library.mallopt(option, value)
