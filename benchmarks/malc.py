"""Segment every scan of a BIDS dataset that has true labels and print how well that went.

    python benchmarks/malc.py ../shared/data/malc --json malc.json
    python benchmarks/malc.py ../shared/data/ixi --labels muse --every 3

The truth is the one label image a scan below ``derivatives``. Nothing is written but the JSON that was asked for.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from spanseg.errors import SpansegError
from spanseg.evaluate import EvaluateOptions, Evaluation, evaluation_json, score_volumes
from spanseg.evaluation import CaseScores, RowSummary, rows_of, score_row, summarise, summary_text
from spanseg.files import write_text
from spanseg.images import read_labels, read_scan
from spanseg.inputs import find_jobs
from spanseg.labels import Protocol
from spanseg.pairing import case_key, label_images
from spanseg.schemes import find_scheme
from spanseg.segmenter import Predictor, SegmentOptions, load_model, segment_scan

SHOWN = ("nuclei", "cerebral_white_matter", "cerebral_cortex", "lateral_ventricles", "all_structures")


def main() -> None:
    """Run the benchmark."""
    arguments = parse()
    options = SegmentOptions(model=arguments.model, precision=arguments.precision, threads=arguments.threads)
    predictor = load_model(options)
    cases = []
    for scan, truth in scans_with_truth(arguments.dataset)[:: arguments.every]:
        started = time.perf_counter()
        cases.append(judge(scan, truth, predictor, options, arguments))
        print(f"{cases[-1].case}: {time.perf_counter() - started:.1f} s", flush=True)
    summary = summarise(cases, predictor.protocol)
    print_tables(cases, summary, predictor.protocol)
    identity = predictor.identity
    print(f"model {identity['model']}, weights {identity['model_sha256'][:12]}, {identity['precision']}")
    if arguments.json:
        judged = EvaluateOptions(predictor.protocol.name, arguments.labels)
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
    return parser.parse_args()


def scans_with_truth(dataset: Path) -> list[tuple[Path, Path]]:
    """Scans of a dataset with their label images, by subject."""
    truths = {case_key(path).get("sub"): path for path in label_images(dataset / "derivatives")}
    scans = [job.path for job in find_jobs([dataset], dataset / "derivatives")]
    pairs = [(scan, truths[subject]) for scan in scans if (subject := case_key(scan).get("sub")) in truths]
    if not pairs:
        raise SpansegError(f"{dataset}: no scan with a label image of the same subject below derivatives.")
    return pairs


def judge(
    scan: Path, truth: Path, predictor: Predictor, options: SegmentOptions, arguments: argparse.Namespace
) -> CaseScores:
    """Segment a scan and score the result."""
    protocol = predictor.protocol
    labels = segment_scan(read_scan(scan), predictor, options).labels
    crosswalk = find_scheme(arguments.labels, protocol, truth)
    scores = score_volumes(labels, read_labels(truth).volume, protocol, crosswalk, 1.0, scan.name)
    subject = f"sub-{case_key(scan)['sub']}"
    return CaseScores(subject, subject, scan.name, truth.name, crosswalk.name, scores)


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
