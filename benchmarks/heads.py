"""Dice on synthetic heads of people whom no model saw, with each contrast as it was measured on real scans.

    python benchmarks/heads.py DATA/labelmaps --model default --model wide

Three heads a contrast from the label maps that training left out. The contrasts are those of the tables in
``docs/experiments.md``, section 3; ``benchmarks/contrast.py`` and ``benchmarks/front_to_back.py`` measure real scans.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from calibrate import left_out_maps
from spanseg.labelled import pair_scans
from spanseg.segmenter import SegmentOptions, load_model
from spanseg.simulate import plain_options, simulate
from validate import HEADLINE, LEFT_OUT, judged

T2 = {"t2": 1.0, "t2_contrast": (0.35, 0.6), "t2_csf": (1.0, 2.2)}
FLAIR = {"flair": 1.0, "flair_contrast": (0.15, 0.4)}
ROUGH = {"bias": 0.25, "contrast_jitter": 0.05, "thick": 1.0, "thickness_mm": 4.5}
KINDS: dict[str, dict[str, Any]] = {
    f"{contrast}{what}": how | more
    for what, more in (
        ("", {}),
        (", bias, slices up to 4.5 mm", ROUGH),
        (", lesions", {"lesions": 1.0}),
        (", fading", {"fading": 0.7}),
    )
    for contrast, how in (("T1", {"t1": 1.0}), ("T2", T2), ("FLAIR", FLAIR))
}
NONE = dict.fromkeys(("t1", "t2", "flair", "random", "infant"), 0.0)


def main() -> None:
    """Draw the heads of each kind once and judge every model by them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labelmaps", type=Path, help="folder of the label maps that the models are trained on")
    parser.add_argument("--model", action="append", required=True, help="name or folder; may be given several times")
    parser.add_argument("--kind", action="append", choices=KINDS, help="only this kind; may be given several times")
    given = parser.parse_args()
    choices = [SegmentOptions(model=model) for model in given.model]
    (maps, *_) = [left_out_maps(given.labelmaps, LEFT_OUT, load_model(options)) for options in choices]
    rows = (*HEADLINE, "other_structures")
    print(f"{'':36}" + "  ".join(rows))
    for kind in given.kind or KINDS:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "bids"
            how = dataclasses.replace(plain_options(), strip=0.0, **(NONE | KINDS[kind]))
            simulate(maps, folder, len(maps), 1.0, 11, how)
            pairs = sorted(pair_scans(folder, folder / "derivatives"))
            for options in choices:
                found = judged(pairs, "aseg", options)
                print(f"{kind:36}" + "  ".join(f"{found[row]:.3f}" for row in rows), options.model, flush=True)


if __name__ == "__main__":
    main()
