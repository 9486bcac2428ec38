"""How much clicks help: Dice after 0, 1, 3 and 5 simulated clicks, or one box, on scans with manual labels.

    python benchmarks/clicks.py DATA/malc [--model DIR] [--every 1] [--json FILE]

Each structure starts once from the default model's labels and once from nothing. A click goes where the label is most
wrong: into the deepest voxel of the largest wrong piece, as in the literature on interactive segmentation. The box is
the smallest that holds the true structure.
"""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from spanseg.clicks import next_click
from spanseg.correcting import Corrector
from spanseg.images import read_labels, read_scan
from spanseg.labelled import pair_scans
from spanseg.labels import Protocol, load_protocol
from spanseg.prompts import Prompt
from spanseg.segmenter import SegmentOptions, load_model, segment_scan
from spanseg.stats import mean_interval

STRUCTURES = {"hippocampus": (17, 53), "amygdala": (18, 54), "thalamus": (10, 49), "accumbens": (26, 58)}
CLICKS = 5
SHOWN = (0, 1, 3, 5)


def dice(truth: np.ndarray, label: np.ndarray) -> float:
    """Dice of two boolean arrays."""
    return float(2 * (truth & label).sum() / max(1, truth.sum() + label.sum()))


def clicked(
    corrector: Corrector, start: np.ndarray, truth: np.ndarray, structure: int
) -> tuple[list[float], list[float]]:
    """Dice after each click from none to :data:`CLICKS`, and the seconds that each took."""
    labels, prompts, scores, seconds = start, [], [dice(truth, start == structure)], []
    for _ in range(CLICKS):
        click = next_click(truth, labels == structure)
        if click is not None:
            prompts.append(Prompt("point", click.positive, (click.voxel,)))
            began = time.perf_counter()
            labels = corrector.correct(labels, structure, prompts)
            seconds.append(time.perf_counter() - began)
        scores.append(dice(truth, labels == structure))
    return scores, seconds


def boxed(corrector: Corrector, start: np.ndarray, truth: np.ndarray, structure: int) -> float:
    """Dice after the smallest box round the true structure."""
    voxels = np.argwhere(truth)
    corners = tuple(tuple(int(index) for index in corner) for corner in (voxels.min(0), voxels.max(0)))
    return dice(truth, corrector.correct(start, structure, [Prompt("box", True, corners)]) == structure)


def measure(folder: Path, model: str, every: int) -> list[dict[str, Any]]:
    """One row a person, structure and beginning."""
    protocol, rows = load_protocol("aseg"), []
    predictor = load_model(SegmentOptions())
    for scan_path, truth_path in sorted(pair_scans(folder, folder / "derivatives"))[::every]:
        scan = read_scan(scan_path)
        truth = truth_of(truth_path, protocol)
        found = segment_scan(scan, predictor, SegmentOptions()).labels.data.astype(np.int32)
        corrector = Corrector(scan.volume, protocol, model)
        for name, ids in STRUCTURES.items():
            for structure in ids:
                where = truth == protocol.class_of(structure)
                nothing = np.where(found == structure, 0, found)
                for beginning, start in (("default", found), ("empty", nothing)):
                    scores, seconds = clicked(corrector, start, where, structure)
                    rows.append(
                        {"case": scan_path.name, "structure": name, "id": structure, "from": beginning}
                        | {"dice": scores, "seconds": seconds, "box": boxed(corrector, start, where, structure)}
                    )
        print(scan_path.name, *(f"{row['structure']} {row['dice'][-1]:.2f}" for row in rows[-16:]), flush=True)
    return rows


def truth_of(path: Path, protocol: Protocol) -> np.ndarray:
    """Class indices of a manual segmentation on its own grid."""
    return protocol.crosswalk("neuromorphometrics").apply(read_labels(path).volume.data, path.name)


def table(rows: list[dict[str, Any]]) -> str:
    """Mean Dice by structure and beginning after 0, 1, 3 and 5 clicks; people are resampled for the interval."""
    lines = [
        "structure    from     " + "".join(f"{n} clicks".rjust(10) for n in SHOWN) + "   interval of the last     a box"
    ]
    for name in STRUCTURES:
        for beginning in ("default", "empty"):
            chosen = [row for row in rows if row["structure"] == name and row["from"] == beginning]
            means = [statistics.mean(row["dice"][n] for row in chosen) for n in SHOWN]
            last = mean_interval([row["dice"][CLICKS] for row in chosen], [row["case"] for row in chosen])
            shown = "".join(f"{mean:10.3f}" for mean in means)
            box = statistics.mean(row["box"] for row in chosen)
            lines.append(f"{name:12s} {beginning:8s} {shown}   [{last.low:.3f}, {last.high:.3f}]  {box:12.3f}")
    gains = np.diff(np.array([row["dice"] for row in rows]), axis=1).mean(0)
    lines.append("mean change by click: " + ", ".join(f"{gain:+.4f}" for gain in gains))
    seconds = [second for row in rows for second in row["seconds"]]
    lines.append(f"seconds a click: median {statistics.median(seconds):.2f}, longest {max(seconds):.2f}")
    return "\n".join(lines)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="click")
    parser.add_argument("--every", type=int, default=1, help="take every n-th person")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = measure(options.folder, options.model, options.every)
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
