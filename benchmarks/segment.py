"""Wall time and peak memory of `spanseg segment`, cold: a new process for each run, the median of several.

    python benchmarks/segment.py HEAD.nii.gz [--runs 5] [--json OUT]

HEAD is any whole-head T1; it is resampled to three grids: 256³ at 1 mm, 0.8 mm oblique, 1×1×3 mm.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from spanseg.inputs import stem_of
from spanseg.machine import describe


def grids(centre: np.ndarray) -> dict[str, tuple[tuple[int, int, int], np.ndarray]]:
    """Shapes and affines of the three heads, all centred on the same point."""
    angle = np.deg2rad(15)
    oblique = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    chosen = {
        "256³ at 1 mm": ((256, 256, 256), np.eye(3)),
        "0.8 mm oblique": ((224, 300, 300), 0.8 * oblique),
        "1×1×3 mm": ((256, 256, 70), np.diag([1.0, 1.0, 3.0])),
    }
    made = {}
    for name, (shape, matrix) in chosen.items():
        affine = np.eye(4)
        affine[:3, :3] = matrix
        affine[:3, 3] = centre - matrix @ ((np.array(shape) - 1) / 2)
        made[name] = (shape, affine)
    return made


def write_heads(head: Path, folder: Path) -> dict[str, Path]:
    """Resample the head to the three grids."""
    image = nib.load(head)
    data = np.asarray(image.dataobj, dtype=np.float32).squeeze()
    centre = image.affine[:3, :3] @ ((np.array(data.shape) - 1) / 2) + image.affine[:3, 3]
    paths = {}
    for index, (name, (shape, affine)) in enumerate(grids(centre).items()):
        move = np.linalg.inv(image.affine) @ affine
        moved = ndimage.affine_transform(data, move[:3, :3], move[:3, 3], shape, order=1)
        paths[name] = folder / f"head{index}.nii.gz"
        nib.save(nib.Nifti1Image(moved.astype(np.int16), affine), paths[name])
    return paths


def run_once(scan: Path, out: Path, extra: list[str]) -> dict[str, float]:
    """Segment one scan in a new process; seconds, MiB and the stages that the sidecar names."""
    command = [sys.executable, "-m", "spanseg", "segment", str(scan), "-o", str(out), "--overwrite", *extra]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    if status:
        raise SystemExit(f"{' '.join(command)} failed with status {status}")
    sidecar = json.loads((out / f"{stem_of(scan)}_dseg.json").read_text())
    return {"wall_s": wall, "peak_mib": usage.ru_maxrss / 1024} | sidecar["timings_s"]


def convolution_peak(precision: str) -> float:
    """TFLOP/s of a 3×3×3 convolution, 64 to 64 channels on 56×72×56 voxels; NaN where the precision is missing."""
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino as ov
    from openvino import opset13 as ops

    core = ov.Core()
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        return float("nan")
    image = ops.parameter([1, 64, 56, 72, 56], np.float32)
    weight = ops.constant(np.random.default_rng(0).normal(size=(64, 64, 3, 3, 3)).astype(np.float32))
    layer = ops.convolution(image, weight, [1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 1])
    compiled = core.compile_model(ov.Model([layer], [image], "peak"), "CPU", {"INFERENCE_PRECISION_HINT": precision})
    data = np.zeros((1, 64, 56, 72, 56), dtype=np.float32)
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        compiled(data)
        seconds.append(time.perf_counter() - began)
    return 2 * 27 * 64 * 64 * 56 * 72 * 56 / min(seconds) / 1e12


def main() -> None:
    """Measure and print one row a head."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("head", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options, extra = parser.parse_known_args()
    machine = describe()
    print(f"{machine.processor}, {machine.cores} cores, {' '.join(machine.instruction_sets)}")
    print(f"convolution peak: f32 {convolution_peak('f32'):.2f}, bf16 {convolution_peak('bf16'):.2f} TFLOP/s")
    table = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, path in write_heads(options.head, Path(scratch)).items():
            rows = [run_once(path, Path(scratch) / "out", extra) for _ in range(options.runs)]
            table[name] = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
            print(name + ": " + ", ".join(f"{key} {value:.2f}" for key, value in table[name].items()), flush=True)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
