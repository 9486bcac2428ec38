"""``spanseg`` in a process that is killed: ``killed_study.py FILE N compare …``, right after the N-th renaming to FILE.

FILE is the end of a path, such as ``decoder-0/state.safetensors``; a file of a name that never comes kills nothing.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

from spanseg import files
from spanseg.cli.main import main
from spanseg.compare import engine

SIGNAL = signal.SIGTERM if os.name == "nt" else signal.SIGKILL

if __name__ == "__main__":  # the processes that a study starts are not killed: they end when this one is gone
    name, moment, rename, count = sys.argv[1], int(sys.argv[2]), files.replace, itertools.count(1)

    def last_rename(temporary: Path, path: Path) -> None:
        rename(temporary, path)
        if path.as_posix().endswith(name) and next(count) == moment:
            os.kill(os.getpid(), SIGNAL)

    files.replace = last_rename
    engine.cores = lambda: 1  # one thread a cell, as in the other runs: the digits are to be the same
    main(sys.argv[3:])
