"""A model judged on scans that have a truth: segment, score, and compare two models on the same people."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spanseg import splits
from spanseg.evaluate import score_volumes
from spanseg.evaluation import CaseScores, rows_of, score_row
from spanseg.images import read_labels, read_scan
from spanseg.labels import Protocol
from spanseg.participants import participant_of
from spanseg.result import Segmentation
from spanseg.schemes import find_scheme
from spanseg.segmenter import SegmentOptions, load_model, segment_scan
from spanseg.stats import MeanInterval, mean_interval

ScanWithTruth = tuple[Path, Path]


@dataclass(frozen=True)
class Change:
    """How one row of the table changed from one model to another, over the same people.

    Args:
        name: group or structure.
        before, after: mean Dice over people.
        difference: mean of the differences person by person, with its interval.
    """

    name: str
    before: float
    after: float
    difference: MeanInterval


def judge(
    pairs: Sequence[ScanWithTruth],
    labels: str | None,
    options: SegmentOptions,
    watch: Callable[[Path], None] | None = None,
    tolerance_mm: float = 1.0,
    seen: Callable[[ScanWithTruth, Segmentation], None] | None = None,
) -> tuple[list[CaseScores], Protocol]:
    """Segment scans and score them by their truth.

    Args:
        pairs: scans with their label images.
        labels: scheme of the truth; ``None`` for the table beside it or the protocol's own ids.
        options: with which model, and how.
        watch: is told each scan before it is segmented.
        tolerance_mm: of the surface Dice.
        seen: is given each result.

    Returns:
        Scores of each scan, and the model's protocol.

    Raises:
        SpansegError: the model's folder records that it was trained on one of the scans.
    """
    predictor = load_model(options)
    splits.require_unseen(predictor.folder.path, splits.scans_in(scan for scan, _ in pairs))
    cases = []
    for pair in pairs:
        if watch is not None:
            watch(pair[0])
        found = segment_scan(read_scan(pair[0]), predictor, options)
        cases.append(_judge_one(pair, found, labels, predictor.protocol, tolerance_mm))
        if seen is not None:
            seen(pair, found)
    return cases, predictor.protocol


def _judge_one(
    pair: ScanWithTruth, found: Segmentation, labels: str | None, protocol: Protocol, tolerance_mm: float
) -> CaseScores:
    scan, truth = pair
    crosswalk = find_scheme(labels, protocol, truth)
    scores = score_volumes(found.labels, read_labels(truth).volume, protocol, crosswalk, tolerance_mm, scan.name)
    return CaseScores(scan.name, participant_of(scan), scan.name, truth.name, crosswalk.name, scores)


def changes(before: Sequence[CaseScores], after: Sequence[CaseScores], protocol: Protocol) -> list[Change]:
    """Compare Dice person by person, one row a group or structure, with 95 % intervals of the difference.

    Args:
        before, after: scores of the same scans in the same order; scans of one person are averaged first.
        protocol: names the rows; there is one for whatever any scan was scored on by both.
    """
    rows = []
    for row in rows_of(protocol, (index for case in before for index in case.scores)):
        pairs = [(score_row(one, row), score_row(other, row)) for one, other in zip(before, after, strict=True)]
        dice = np.array([[s.values["dice"] if s else math.nan for s in pair] for pair in pairs])
        scored = ~np.isnan(dice).any(1)
        if scored.any():
            subjects = [case.subject for case, is_scored in zip(before, scored, strict=True) if is_scored]
            old, new = dice[scored].T
            means = [mean_interval(values.tolist(), subjects) for values in (old, new, new - old)]
            rows.append(Change(row.name, means[0].mean, means[1].mean, means[2]))
    return rows


def changes_text(rows: Sequence[Change]) -> str:
    """The comparison as a table for the terminal."""
    head = f"{'Dice':32}{'before':>8}{'after':>8}{'change':>9}   95 % of the change"
    lines = [
        f"{row.name:32}{row.before:8.3f}{row.after:8.3f}{row.difference.mean:+9.3f}   {_interval(row.difference)}"
        for row in rows
    ]
    return "\n".join([head, *lines])


def _interval(found: MeanInterval) -> str:
    """An interval; one person alone gives none."""
    return "n/a" if math.isnan(found.low) else f"[{found.low:+.3f}, {found.high:+.3f}]"


def changes_table(rows: Sequence[Change]) -> list[list[str]]:
    """The comparison as rows of a TSV file, header first."""
    head = ["name", "people", "before", "after", "change", "change_low", "change_high"]
    return [head] + [
        [row.name, str(row.difference.subjects)]
        + [f"{value:.5f}" for value in (row.before, row.after, row.difference.mean)]
        + ["n/a" if math.isnan(value) else f"{value:.5f}" for value in (row.difference.low, row.difference.high)]
        for row in rows
    ]
