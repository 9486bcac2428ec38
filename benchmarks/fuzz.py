"""Fuzz the reading of images: damaged headers and bodies must be read or refused, never crash, hang or eat memory.

    python benchmarks/fuzz.py --n 10000 --seed 1

Each file is read in a worker process with a cap on time and memory. What is read must come back from its own results
with the same affine; what is refused must leave nothing behind. Any other outcome is a failure, its file is kept, and
the exit code is 1.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import multiprocessing
import random
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

SHAPE = (24, 26, 22)
VOXEL_MM = 3.0
TELLING = (
    0,
    1,
    -1,
    2,
    7,
    127,
    255,
    348,
    352,
    32767,
    -32768,
    2**31 - 1,
    -(2**31),
    1e-30,
    1e30,
    float("nan"),
    float("inf"),
)
DTYPES = (np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64, np.int64)
MEMORY_CAP = 2**28  # what the reader is told; the seeds need less than a megabyte
GROWTH_CAP = 2**29  # what the process may grow by
SLOW_START_S = 60.0


def seeds() -> list[tuple[bytes, Any]]:
    """Right files of every kind, with the layout of their headers."""
    found: list[tuple[bytes, Any]] = []
    for number, dtype in enumerate(DTYPES):
        data = np.random.default_rng(number).integers(0, 99, SHAPE).astype(dtype)
        for kind in (nibabel.Nifti1Header, nibabel.Nifti2Header):
            header = kind(endianness="<>"[number % 2])
            header.set_data_shape(SHAPE)
            header.set_data_dtype(dtype)
            header.set_sform(affine(), number % 3)
            header.set_qform(affine(), (number + 1) % 3)
            header["vox_offset"], header["scl_slope"], header["magic"] = (
                header.single_vox_offset,
                1,
                header.single_magic,
            )
            body = data.astype(np.dtype(dtype).newbyteorder("<>"[number % 2])).tobytes(order="F")
            found.append((header.binaryblock + bytes(4) + body, header.template_dtype.newbyteorder("<>"[number % 2])))
    for dtype in (np.uint8, np.int16, np.int32, np.float32):
        image = nibabel.MGHImage(np.random.default_rng(9).integers(0, 99, SHAPE).astype(dtype), affine())
        found.append((image.to_bytes(), nibabel.freesurfer.mghformat.header_dtype))
    return found


def affine() -> np.ndarray:
    """A slightly turned left-handed grid."""
    turn = np.array([[1, 0, 0], [0, np.cos(0.1), -np.sin(0.1)], [0, np.sin(0.1), np.cos(0.1)]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.diag([-VOXEL_MM, VOXEL_MM, VOXEL_MM])
    matrix[:3, 3] = (36, -39, -33)
    return matrix


def mutated(content: bytes, layout: Any, draw: random.Random) -> tuple[bytes, str]:
    """A damaged copy of a file and the end of its name."""
    damaged = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        draw.choice((_field, _field, _field, _header_byte, _any_byte, _block))(damaged, layout, draw)
    if draw.random() < 0.15:
        damaged = _resized(damaged, draw)
    if draw.random() < 0.6:
        return bytes(damaged), draw.choice((".nii", ".mgh", ".nii.gz"))
    packed = bytearray(gzip.compress(bytes(damaged), 1))
    if draw.random() < 0.4:
        draw.choice((_any_byte, _block))(packed, layout, draw)
    if draw.random() < 0.2:
        packed = _resized(packed, draw)
    return bytes(packed), draw.choice((".nii.gz", ".mgz"))


def _field(content: bytearray, layout: Any, draw: random.Random) -> None:
    """Put a telling number into one element of one header field."""
    name = draw.choice(layout.names)
    dtype, offset = layout.fields[name][:2]
    element = dtype.base
    at = offset + element.itemsize * draw.randrange(max(1, dtype.itemsize // element.itemsize))
    if element.kind == "S":
        content[at : at + element.itemsize] = draw.randbytes(element.itemsize)
        return
    with np.errstate(all="ignore"):
        value = np.array(draw.choice(TELLING) if draw.random() < 0.8 else draw.uniform(-400, 400))
        number = np.nan_to_num(value).clip(-(2**31), 2**31) if element.kind in "iu" else value
        content[at : at + element.itemsize] = number.astype(element).tobytes()


def _header_byte(content: bytearray, layout: Any, draw: random.Random) -> None:
    if content:
        content[draw.randrange(min(len(content), layout.itemsize))] = draw.randrange(256)


def _any_byte(content: bytearray, _layout: Any, draw: random.Random) -> None:
    if content:
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)


def _block(content: bytearray, _layout: Any, draw: random.Random) -> None:
    """Overwrite a stretch with zeros, ones or noise."""
    if content:
        start, length = draw.randrange(len(content)), draw.randrange(1, 2000)
        filling = draw.choice((bytes(length), b"\xff" * length, draw.randbytes(length)))
        content[start : start + length] = filling[: len(content) - start]


def _resized(content: bytearray, draw: random.Random) -> bytearray:
    if draw.random() < 0.6:
        return content[: draw.randrange(len(content) + 1)]
    return content + draw.randbytes(draw.choice((1, 100, 3_000_000)))


def work(pipe: Connection, folder: Path) -> None:
    """Read what the pipe names, one file after another, and answer what became of each."""
    import warnings

    warnings.simplefilter("error")  # a warning that reaches users is a finding too
    judged(folder / "none.nii", folder)  # all is imported before the first file is timed
    pipe.send("ready")
    before = peak_bytes()
    while True:
        outcome, detail = judged(Path(pipe.recv()), folder)
        grown = peak_bytes() - before
        if grown > GROWTH_CAP:
            outcome, detail = "FAILURE memory", f"{grown / 2**20:.0f} MiB"
        pipe.send((outcome, detail))


def judged(path: Path, folder: Path) -> tuple[str, str]:
    """Read one file and check what must hold whatever it is."""
    from spanseg.errors import SpansegError
    from spanseg.images import read_labels, read_scan, write_labels

    result = folder / "labels.nii.gz"
    try:
        scan = read_scan(path, max_memory_bytes=MEMORY_CAP)
        finite = bool(np.isfinite(scan.volume.data).all() and np.isfinite(scan.volume.affine).all())
        write_labels(result, (scan.volume.data > 50).astype(np.int16), scan)
        back = read_labels(result).volume
        if not finite or not np.array_equal(back.affine, scan.volume.affine):
            return "FAILURE result", "not finite, or another affine in the result"
        if not np.allclose(nibabel.load(result).affine, scan.volume.affine) and not any(
            "metres" in n for n in scan.notes
        ):
            return "FAILURE result", "nibabel reads another affine"
        return ("read with a note or warning" if scan.notes or scan.warnings else "read"), ""
    except SpansegError as refusal:
        if "\n" in str(refusal) or "memory of this computer" in str(refusal) or result.exists():
            return "FAILURE refusal", str(refusal)
        return "refused", str(refusal).partition(": ")[2][:40]
    except Exception as error:
        return "FAILURE error", f"{type(error).__name__}: {error}"
    finally:
        result.unlink(missing_ok=True)


def peak_bytes() -> int:
    """Most memory this process has had; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Worker:
    """A process that reads files; a hanging or dead one is replaced."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.start()

    def start(self) -> None:
        """Start a process and wait until it is ready."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=work, args=(theirs, self.folder), daemon=True)
        self.process.start()
        theirs.close()
        if not self.pipe.poll(SLOW_START_S):
            raise TimeoutError("the worker process did not start")
        self.pipe.recv()

    def ask(self, path: Path, cap_s: float) -> tuple[str, str]:
        """Have one file read."""
        self.pipe.send(str(path))
        try:
            if self.pipe.poll(cap_s):
                return self.pipe.recv()
            outcome = ("FAILURE time", f"more than {cap_s:g} s")
        except EOFError:
            self.process.join()
            outcome = ("FAILURE crash", f"exit code {self.process.exitcode}")
        self.process.kill()
        self.process.join()
        self.start()
        return outcome


def fuzz(count: int, seed: int, cap_s: float, keep: Path | None) -> collections.Counter[tuple[str, str]]:
    """Damage files and have them read.

    Args:
        count: number of files.
        seed: of all random choices.
        cap_s: time allowed for one file.
        keep: folder for files that fail.

    Returns:
        How often each outcome came, with its detail.
    """
    draw, files = random.Random(seed), seeds()  # noqa: S311 - damage, not secrets
    outcomes: collections.Counter[tuple[str, str]] = collections.Counter()
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        out.mkdir()
        worker = Worker(out)
        for number in range(count):
            content, ending = mutated(*draw.choice(files), draw)
            path = Path(name) / f"{number}{ending}"
            path.write_bytes(content)
            outcome, detail = worker.ask(path, cap_s)
            left = [entry.name for entry in out.iterdir()]
            if left:
                outcome, detail = "FAILURE left behind", ", ".join(left)
            outcomes[outcome, detail] += 1
            if outcome.startswith("FAILURE"):
                print(f"{outcome}: {path.name}: {detail}")
                _keep(path, keep)
            path.unlink()
        worker.process.kill()
    return outcomes


def _keep(path: Path, folder: Path | None) -> None:
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())


def main() -> int:
    """Fuzz and print the count of outcomes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=10_000, help="number of files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cap-s", type=float, default=10.0, help="time allowed for one file")
    parser.add_argument("--keep", type=Path, default=None, help="folder for files that fail")
    options = parser.parse_args()
    started = time.perf_counter()
    outcomes = fuzz(options.n, options.seed, options.cap_s, options.keep)
    for (outcome, detail), times in outcomes.most_common(25):
        print(f"{times:7d}  {outcome}: {detail}" if detail else f"{times:7d}  {outcome}")
    print()
    totals: collections.Counter[str] = collections.Counter()
    for (outcome, _), times in outcomes.items():
        totals[outcome] += times
    for outcome, times in sorted(totals.items()):
        print(f"{times:7d}  {outcome}")
    print(f"{options.n} files in {time.perf_counter() - started:.0f} s")
    return int(any(outcome.startswith("FAILURE") for outcome in totals))


if __name__ == "__main__":
    sys.exit(main())
