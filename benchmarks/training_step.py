"""What a step of training costs this process: processor time of its own and of the system, new pages and memory.

    python benchmarks/training_step.py RECIPE LABELMAPS [--steps 8] [--given-back] [--set KEY=VALUE]

Medians over the steps but for the first two. With ``--given-back`` freed memory goes back to the system after each use,
as it does without ``spanseg.heap``.
"""

import argparse
import contextlib
import resource
import statistics
import tempfile
import time
from pathlib import Path

from spanseg import generation, heap, machine, model, recipe, runs

WARM = 2


class Meter:
    """What each step has used, told after it."""

    def __init__(self) -> None:
        self.readings: list[tuple[float, ...]] = []

    def __call__(self, run: str, row: dict[str, float]) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        self.readings.append((used.ru_utime, used.ru_stime, time.monotonic(), used.ru_minflt))

    def medians(self) -> list[float]:
        pairs = list(zip(self.readings, self.readings[1:], strict=False))[WARM - 1 :]
        steps = [[after - before for before, after in zip(*pair, strict=True)] for pair in pairs]
        return [statistics.median(column) for column in zip(*steps, strict=True)]


def main() -> None:
    """Train some steps in a folder that is thrown away."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("labelmaps", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--given-back", action="store_true")
    parser.add_argument("--set", action="append", default=[], dest="settings")
    given = parser.parse_args()
    if given.given_back:
        heap.freed_memory_kept = contextlib.nullcontext
    chosen = recipe.load(given.recipe, [*given.settings, f"train.steps={given.steps}"])
    maps = generation.read_maps(given.labelmaps, generation.load_classes(model.protocol_of(chosen)))
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        runs.train(chosen, maps, Path(folder) / "run", meter, "cpu")
    own, system, wall, pages = meter.medians()
    peak = (machine.peak_memory_bytes() or 0) / 2**20
    print(f"own {own:.2f} s, system {system:.2f} s, wall {wall:.2f} s, new pages {pages:.0f}, peak {peak:.0f} MiB")


if __name__ == "__main__":
    main()
