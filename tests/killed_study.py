"""``spanseg`` in a process that is killed right after its n-th rename (0: never): ``killed_study.py N compare …``."""

import itertools
import os
import signal
import sys
from pathlib import Path

import torch

from spanseg import files
from spanseg.cli.main import main

if __name__ == "__main__":  # the processes that a study starts are not killed: they end when this one is gone
    moment, rename, count = int(sys.argv[1]), files.replace, itertools.count(1)

    def last_rename(temporary: Path, path: Path) -> None:
        rename(temporary, path)
        if next(count) == moment:
            os.kill(os.getpid(), signal.SIGTERM if os.name == "nt" else signal.SIGKILL)

    files.replace = last_rename
    torch.set_num_threads(1)
    main(sys.argv[2:])
