"""A segmenter that takes no time and no model, for tests of what surrounds it; also a program that can be killed.

As a program: ``python fake_segmenter.py SECONDS LOG segment …``. Every scan takes SECONDS, every rename pauses a little
so that kills hit the moment between two files, and each scan that was segmented adds a line to LOG. In its environment,
DIE_AT_RENAME=n has it killed right after its n-th rename, and GATE=FOLDER has it wait, ready, for FOLDER/open.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel
import numpy as np

from spanseg.result import Segmentation, StructureVolume

BROKEN_VALUE = 666.0
"""A scan with this voxel makes the fake fail with an error of its own."""


class FakePredictor:
    """Says what the real one says of itself."""

    def __init__(self, options: Any) -> None:
        self.options = options
        self.folder = SimpleNamespace(told=[], told_in_all=[], path=Path(str(options.model)))
        self.identity = {
            "model": options.model,
            "model_version": "1",
            "model_sha256": "0" * 64,
            "spanseg": "0.1.0",
            "engine": "fake",
            "precision": "f32",
            "threads": options.threads or 2,
            "instruction_sets": ("sse",),
        }


def segment_scan(scan: Any, predictor: FakePredictor, options: Any) -> Segmentation:
    """Label the brighter half of the scan as left white matter."""
    if (scan.volume.data == BROKEN_VALUE).any():
        raise ZeroDivisionError("the fake was told to fail")
    labels = np.where(scan.volume.data > scan.volume.data.mean(), 2, 0).astype(np.int32)
    inside = (labels > 0).astype(np.uint8)
    mm3 = float(inside.sum()) * scan.volume.voxel_volume_mm3
    volumes = [StructureVolume(2, "Left-Cerebral-White-Matter", mm3 + 0.25, mm3)]
    volumes.append(StructureVolume(0, "Total-WM", mm3, mm3))
    volumes.append(StructureVolume(0, "IntraCranialVol", None, None, "the scan is skull-stripped"))
    if options.lesion_mask:
        volumes.append(StructureVolume(25, "Lesion", 1.0, 1.0))
    soft = np.stack([255 * (1 - inside), 255 * inside], axis=-1).astype(np.uint8)
    return Segmentation(
        labels=scan.volume.with_data(labels),
        tissue=scan.volume.with_data(3 * inside),
        mask=scan.volume.with_data(inside),
        probabilities=scan.volume.with_data(soft) if options.probabilities else None,
        volumes=tuple(volumes),
        protocol="aseg",
        notes=scan.notes,
        warnings=scan.warnings,
        details=predictor.identity | {"steps": ["halved"], "timings_s": {"network": 0.0}, "licence": "Apache-2.0"},
    )


def write_scan(path: Path, seed: int = 0, broken: bool = False, affine: np.ndarray | None = None) -> Path:
    """Write a small scan of noise."""
    data = np.random.default_rng(seed).uniform(1, 100, (12, 13, 11)).astype(np.float32)
    if broken:
        data[3, 3, 3] = BROKEN_VALUE
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([8.0, 8.0, 8.0, 1.0]) if affine is None else affine), path)
    return path


def run_program(seconds: float, log: Path, arguments: list[str]) -> None:
    """Run the command line with the fake in place of the network."""
    from spanseg import files, report, segmenter
    from spanseg.cli.main import main

    def slow(scan: Any, predictor: Any, options: Any) -> Segmentation:
        result = segment_scan(scan, predictor, options)
        time.sleep(seconds)
        with log.open("a", encoding="utf-8") as stream:
            stream.write(scan.sha256 + "\n")
        return result

    rename, count = files.replace, itertools.count(1)

    def slow_rename(temporary: Path, path: Path) -> None:
        rename(temporary, path)
        if os.environ.get("DIE_AT_RENAME") == str(next(count)):
            os.kill(os.getpid(), signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
        time.sleep(min(seconds, 0.02))

    files.replace = slow_rename

    def load(options: Any) -> FakePredictor:
        if gate := os.environ.get("GATE"):
            (Path(gate) / str(os.getpid())).touch()
            while not (Path(gate) / "open").exists():
                time.sleep(0.01)
        return FakePredictor(options)

    report.render_report = lambda scan, result: "<html></html>\n"
    segmenter.load_model = load
    segmenter.segment_scan = slow
    main(arguments)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell start with it ignored
    run_program(float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
