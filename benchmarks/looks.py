"""Draws contours of the default model's labels on scans, one PNG a scan, to be looked at.

    python benchmarks/looks.py SCAN [SCAN ...] -o docs/pictures [--model NAME]

Each picture has three rows (axial, coronal, sagittal), four slices each with contours, masked to the brain plus 10 mm.
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image

from spanseg.images import read_scan
from spanseg.inputs import stem_of
from spanseg.report_pictures import Slice, brain_slices
from spanseg.segmenter import SegmentOptions, load_model, segment_scan

CELL = 330


def composed(piece: Slice) -> Image.Image:
    """One slice with its contours, fitted into a square cell."""
    scan = Image.open(io.BytesIO(piece.scan_jpeg)).convert("RGBA")
    contours = Image.open(io.BytesIO(piece.contours_png)).convert("RGBA")
    together = Image.alpha_composite(scan, contours).convert("RGB")
    together.thumbnail((CELL, CELL))
    cell = Image.new("RGB", (CELL, CELL))
    cell.paste(together, ((CELL - together.width) // 2, (CELL - together.height) // 2))
    return cell


def sheet(slices: list[Slice]) -> Image.Image:
    """Four slices of each plane in rows."""
    rows = []
    for plane in ("axial", "coronal", "sagittal"):
        row = [piece for piece in slices if piece.plane == plane and not piece.close_up]
        chosen = [row[round(k)] for k in np.linspace(1, len(row) - 2, 4)] if len(row) >= 6 else row[:4]
        rows.append([composed(piece) for piece in chosen])
    page = Image.new("RGB", (CELL * max(map(len, rows)), CELL * len(rows)))
    for y, row in enumerate(rows):
        for x, cell in enumerate(row):
            page.paste(cell, (x * CELL, y * CELL))
    return page


def main() -> None:
    """Segment and draw each scan."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--model", default="default")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    options = SegmentOptions(model=given.model)
    predictor = load_model(options)
    for path in given.scans:
        scan = read_scan(path)
        result = segment_scan(scan, predictor, options)
        slices = brain_slices(scan, result)
        target = given.out / f"{stem_of(path)}.png"
        if slices:
            sheet(slices).quantize(128).save(target, optimize=True)
        print(target, *result.warnings, sep=" | ")


if __name__ == "__main__":
    main()
