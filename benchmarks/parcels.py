"""A study's rows on cortical parcels and on all other structures apart, each against a reference, from its results.csv.

    python benchmarks/parcels.py studies/results/kgpl-mindboggle-dkt decoder

Rows are compared on what all of them were scored on. Behind each mean stands the difference to the reference, both with
their 95 % bootstrap intervals over people, Wilcoxon's and the paired t-test's p, not corrected, and the smallest
difference that these people would show with 80 % power.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from pathlib import Path

from spanseg.compare.analysis import by_subject, interval, shared
from spanseg.compare.design import NEW
from spanseg.stats import paired_test

METRICS = {"dice": "Dice", "asd_mm": "mean surface distance (mm)"}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder with results.csv")
    parser.add_argument("reference", help="row that the others are compared with")
    arguments = parser.parse_args()
    with (arguments.study / "results.csv").open(newline="", encoding="utf-8") as stream:
        lines = [line for line in csv.DictReader(stream) if line["part"] == NEW]
    rows = dict.fromkeys(line["row"] for line in lines)
    if arguments.reference not in rows:
        parser.error(f"no row '{arguments.reference}' has results; those that have are {', '.join(rows)}")
    for is_parcel, what in ((True, "cortical parcels"), (False, "other structures")):
        part = [line for line in lines if line["structure"].startswith("ctx-") is is_parcel]
        print(f"{len({line['structure'] for line in part})} {what}")
        for metric, name in METRICS.items():
            show(part, metric, name, arguments.reference)


def show(lines: Sequence[dict[str, str]], metric: str, name: str, reference: str) -> None:
    """Print one line a row."""
    rows = list(dict.fromkeys(line["row"] for line in lines))
    found = by_subject(shared(lines, rows, metric), metric)
    for row in rows:
        mean, words = interval(found[row]), ""
        if row != reference:
            people = sorted(found[row])
            test = paired_test(*([found[one][who] for who in people] for one in (reference, row)))
            change = test.difference
            words = f"{change.mean:+.4f} [{change.low:+.4f}, {change.high:+.4f}]  Wilcoxon {test.wilcoxon_p:.2g}"
            words += f"  t {test.t_p:.2g}  detectable {test.detectable:.4f}"
        print(f"  {name:28}{row:12}{mean.mean:.4f} [{mean.low:.4f}, {mean.high:.4f}]  {words}")


if __name__ == "__main__":
    main()
