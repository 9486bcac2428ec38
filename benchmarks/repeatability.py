"""How much the volumes of a scan change although the person does not; exit code 1 if they change more than allowed.

    python benchmarks/repeatability.py SCAN [SCAN ...] [--model FOLDER]

Each scan is segmented as it is and after each change: its content moved by a part of a voxel along all axes, noise
added, its voxels stored in another order, its grid turned by some degrees, its voxels made 1.5 times as long. Grids are
read through cubic splines, which keep fine detail that linear interpolation smooths away; values stay within the
range of the scan. Longer voxels are averaged over first (a Gaussian that widens a voxel's FWHM to the new length).

Judged are volumes from probabilities: the mean over thalamus, caudate, putamen, pallidum, hippocampus and amygdala,
left and right, of the change without its sign. Moving, noise and turning may change it by 3 % (mean over these
changes), storing in another order not at all, going from 1 to 1.5 mm by 6 %. The accumbens is shown and not judged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from spanseg.asymmetry import lateral_pairs
from spanseg.images import read_scan, scan_of
from spanseg.labels import load_protocol
from spanseg.result import Segmentation
from spanseg.segmenter import Predictor, SegmentOptions, load_model, segment_scan
from spanseg.volume import Volume

NUCLEI = ("Thalamus", "Caudate", "Putamen", "Pallidum", "Hippocampus", "Amygdala")
SHOWN = (*NUCLEI, "Accumbens")
SNR = 20.0
"""White matter over the standard deviation of the noise that is added."""
TURN_DEGREES = 5.0
COARSE = 1.5
STORED, COARSER = "stored in another order", f"voxels {COARSE:g} times as long"
MOST_PERCENT, MOST_COARSER_PERCENT, MOST_STORED_PERCENT = 3.0, 6.0, 0.01
_FWHM = 2.3548
"""Of a Gaussian, in standard deviations."""
Changes = dict[str, dict[str, list[float]]]
"""What was changed → structure → percent, one number for each scan and side."""


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scans", type=Path, nargs="+", help="scans of heads or brains, best at 1 mm")
    parser.add_argument("--model", default="default", help="name of a shipped model, or a model folder")
    parser.add_argument("--threads", type=int, help="threads of the network; all cores by default")
    arguments = parser.parse_args()
    options = SegmentOptions(model=arguments.model, threads=arguments.threads)
    predictor = load_model(options)
    changes: Changes = {}
    for path in arguments.scans:
        print(path.name, flush=True)
        measure(read_scan(path).volume, predictor, options, changes)
    show(changes)
    reasons = missed(changes)
    print("\n".join(reasons) if reasons else "within all bars")
    sys.exit(1 if reasons else 0)


def measure(scan: Volume, predictor: Predictor, options: SegmentOptions, changes: Changes) -> None:
    """Segment a scan with and without each change and add the differences of the volumes in percent."""
    before = segment_scan(scan_of(scan), predictor, options)
    for name, changed in changed_scans(scan, white_matter(scan, before)):
        percent = percent_changes(before, segment_scan(scan_of(changed), predictor, options))
        row = changes.setdefault(name, {})
        for structure, values in percent.items():
            row.setdefault(structure, []).extend(values)
        print(f"  {name}: {nuclei_percent({name: percent}, name):.2f} %", flush=True)


def white_matter(scan: Volume, result: Segmentation) -> float:
    """Median intensity of cerebral white matter."""
    ids = load_protocol(result.protocol).groups["cerebral_white_matter"]
    return float(np.median(scan.data[np.isin(result.labels.data, ids)]))


def changed_scans(scan: Volume, white: float) -> Iterator[tuple[str, Volume]]:
    """Each change by name, and the scan after it."""
    for voxels in (0.3, 0.5):
        yield f"moved by {voxels:g} voxels", moved(scan, voxels)
    yield f"noise, SNR {SNR:g}", noisy(scan, white / SNR)
    yield f"turned by {TURN_DEGREES:g}°", turned(scan, TURN_DEGREES)
    yield STORED, stored_otherwise(scan)
    yield COARSER, coarser(scan, COARSE)


def moved(scan: Volume, voxels: float) -> Volume:
    """The content moved along all three axes, on the same grid."""
    return _within(ndimage.shift(scan.data, voxels, order=3, mode="nearest"), scan, scan.affine)


def noisy(scan: Volume, deviation: float, seed: int = 0) -> Volume:
    """Rician noise wherever the scan is not empty: brains are stripped of the skull after noise came in."""
    rng = np.random.default_rng(seed)
    real, imaginary = rng.normal(0, deviation, (2, *scan.shape))
    magnitude = np.hypot(scan.data + real, imaginary)
    return scan.with_data(np.where(scan.data > scan.data.min(), magnitude, scan.data).astype(np.float32))


def turned(scan: Volume, degrees: float) -> Volume:
    """The same content on a grid that is turned round the middle of the scan and large enough for all of it."""
    axis = np.ones(3) / np.sqrt(3)
    rotation = Rotation.from_rotvec(np.deg2rad(degrees) * axis).as_matrix()
    matrix = rotation @ scan.affine[:3, :3]
    to_old = np.linalg.inv(scan.affine[:3, :3]) @ matrix
    shape = np.ceil(np.abs(to_old) @ scan.shape).astype(int)
    offset = (np.array(scan.shape) - 1) / 2 - to_old @ ((shape - 1) / 2)
    affine = np.eye(4)
    affine[:3, :3] = matrix
    affine[:3, 3] = scan.affine[:3, :3] @ offset + scan.affine[:3, 3]
    data = ndimage.affine_transform(scan.data, to_old, offset, tuple(shape), order=3, cval=float(scan.data.min()))
    return _within(data, scan, affine)


def stored_otherwise(scan: Volume) -> Volume:
    """The same voxels at the same places, axes exchanged and the first of them reversed."""
    order = np.zeros((4, 4))
    for new, old in enumerate((2, 0, 1)):
        order[old, new] = 1.0
    order[3, 3] = 1.0
    order[2, 0], order[2, 3] = -1.0, scan.shape[2] - 1
    return Volume(np.ascontiguousarray(scan.data.transpose(2, 0, 1)[::-1]), scan.affine @ order)


def coarser(scan: Volume, factor: float) -> Volume:
    """The same content with voxels that are longer by a factor along every axis."""
    smooth = ndimage.gaussian_filter(scan.data, np.sqrt(factor**2 - 1) / _FWHM, mode="nearest")
    shape = tuple(int(np.ceil(n / factor)) for n in scan.shape)
    first = (factor - 1) / 2
    data = ndimage.affine_transform(smooth, np.full(3, factor), first, shape, order=3, mode="nearest")
    to_old = np.diag([factor, factor, factor, 1.0])
    to_old[:3, 3] = first
    return _within(data, scan, scan.affine @ to_old)


def _within(data: np.ndarray, scan: Volume, affine: np.ndarray) -> Volume:
    """Cut off what splines overshoot, which no scanner would give."""
    return Volume(data.clip(scan.data.min(), scan.data.max()), affine)


def percent_changes(before: Segmentation, after: Segmentation) -> dict[str, list[float]]:
    """Change of the volume of each shown structure in percent, left and right."""
    sides = {pair.name: (pair.left.mm3, pair.right.mm3) for pair in lateral_pairs(before)}
    return {
        pair.name: [
            100 * ((new or 0.0) / old - 1) if old else np.nan
            for old, new in zip(sides[pair.name], (pair.left.mm3, pair.right.mm3), strict=True)
        ]
        for pair in lateral_pairs(after)
        if pair.name in SHOWN
    }


def nuclei_percent(changes: Changes, name: str) -> float:
    """Mean over the six nuclei of the change without its sign."""
    return float(np.mean([np.abs(changes[name][nucleus]).mean() for nucleus in NUCLEI]))


def same_scan_percent(changes: Changes) -> float:
    """Mean over the changes that are judged together."""
    return float(np.mean([nuclei_percent(changes, name) for name in changes if name not in (STORED, COARSER)]))


def show(changes: Changes) -> None:
    """Print a line for each change: percent without sign and, in brackets, the mean with its sign."""
    print(f"\n{'change of volume in %':28}" + "".join(f"{name:>15}" for name in (*SHOWN, "six nuclei")))
    for name, row in changes.items():
        cells = [f"{np.abs(row[key]).mean():.2f} ({np.mean(row[key]):+.2f})" for key in SHOWN]
        print(f"{name:28}" + "".join(f"{cell:>15}" for cell in cells) + f"{nuclei_percent(changes, name):15.2f}")
    print(f"{'moved, noise, turned':28}{same_scan_percent(changes):{15 * (len(SHOWN) + 1)}.2f}\n")


def missed(changes: Changes) -> list[str]:
    """Bars that are missed, one sentence each; a volume that is not there misses its bar."""
    judged = (
        ("moved, noise, turned", same_scan_percent(changes), MOST_PERCENT),
        (STORED, nuclei_percent(changes, STORED), MOST_STORED_PERCENT),
        (COARSER, nuclei_percent(changes, COARSER), MOST_COARSER_PERCENT),
    )
    return [
        f"{name}: the six nuclei change by {value:.2f} %, allowed are {bar:g} %"
        for name, value, bar in judged
        if not value <= bar
    ]


if __name__ == "__main__":
    main()
