"""Segment every scan of a BIDS dataset that has true labels and print how well that went.

    python benchmarks/malc.py DATA/malc --json malc.json
    python benchmarks/malc.py DATA/ixi --labels muse --every 3

The truth is the one label image a scan below ``derivatives``. Nothing is written but the JSON that was asked for.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from spanseg.evaluate import EvaluateOptions, Evaluation, evaluation_json
from spanseg.evaluation import CaseScores, RowSummary, rows_of, score_row, summarise, summary_text
from spanseg.files import write_text
from spanseg.judging import judge
from spanseg.labelled import pair_scans
from spanseg.labels import Protocol
from spanseg.segmenter import SegmentOptions, load_model

SHOWN = ("nuclei", "cerebral_white_matter", "cerebral_cortex", "lateral_ventricles", "all_structures")


def main() -> None:
    """Run the benchmark."""
    arguments = parse()
    options = SegmentOptions(
        model=arguments.model, precision=arguments.precision, threads=arguments.threads, flip=arguments.flip
    )
    pairs = sorted(pair_scans(arguments.dataset, arguments.dataset / "derivatives"))[:: arguments.every]
    cases, protocol = judge(pairs, arguments.labels, options, watch=lambda scan: print(scan.name, flush=True))
    summary = summarise(cases, protocol)
    print_tables(cases, summary, protocol)
    identity = load_model(options).identity
    print(f"model {identity['model']}, weights {identity['model_sha256'][:12]}, {identity['precision']}")
    if arguments.json:
        judged = EvaluateOptions(protocol.name, arguments.labels)
        content = evaluation_json(Evaluation(judged, tuple(cases), tuple(summary), ()))
        content = {"model": identity, "every": arguments.every, **content}
        write_text(arguments.json, json.dumps(content, indent=1, allow_nan=False) + "\n")


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="BIDS dataset with label images below derivatives")
    parser.add_argument("--model", default="default", help="name of a shipped model, or a model folder")
    parser.add_argument("--labels", default="neuromorphometrics", help="label scheme of the truth, or a table")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take only every Nth scan")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures to this file")
    parser.add_argument("--precision", default="auto", help="f32, bf16 or auto")
    parser.add_argument("--threads", type=int, help="threads of the network; all cores by default")
    parser.add_argument("--flip", action="store_true", help="average with the mirror image")
    return parser.parse_args()


def print_tables(cases: Sequence[CaseScores], summary: Sequence[RowSummary], protocol: Protocol) -> None:
    """Print Dice of the groups per subject, the worst subject, and the summary of every structure."""
    rows = [row for row in rows_of(protocol, cases[0].scores) if row.name in SHOWN]
    print(f"\n{'Dice':12}" + "".join(f"{row.name:>24}" for row in rows))
    dice = {}
    for case in cases:
        scored = [score_row(case, row) for row in rows]
        dice[case.case] = [scores.values["dice"] for scores in scored if scores is not None]
        print(f"{case.case:12}" + "".join(f"{value:24.3f}" for value in dice[case.case]))
    worst = min(dice, key=lambda case: dice[case][0])
    print(f"worst in {rows[0].name}: {worst} ({dice[worst][0]:.3f})\n")
    print(summary_text(summary))


if __name__ == "__main__":
    main()
