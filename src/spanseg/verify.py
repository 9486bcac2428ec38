"""Checks a result: the same scan, run again with what the sidecar records, must give the same labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spanseg import segmenter, sidecar
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.images import read_labels, read_scan
from spanseg.segmenter import SegmentOptions

COMPARED = ("model", "model_version", "model_sha256", "spanseg", "engine", "precision", "threads", "instruction_sets")
"""What is said when it differs, because it explains why labels do."""


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Args:
        same: whether the labels are the same, voxel by voxel.
        findings: one sentence each.
    """

    same: bool
    findings: tuple[str, ...]


def verify(
    record_path: Path,
    scan_path: Path,
    facts: Facts | None = None,
    lesion_mask: Path | None = None,
    model: str = "default",
) -> Verdict:
    """Segment a scan again as its sidecar says, and compare.

    Args:
        record_path: sidecar of the result; the labels beside it, if any, tell how large a difference is.
        scan_path: the scan that it was made from.
        facts: what was given about the person; a sidecar does not hold it unless it was asked to.
        lesion_mask: the lesion mask that was given.
        model: the model that was used, by name or folder.

    Raises:
        SpansegError: a file cannot be read, or the lesion mask of the result was not given.
    """
    record = sidecar.read(record_path)
    if sidecar.file_sha256(scan_path) != record["input_sha256"]:
        return Verdict(False, (f"{scan_path} is not the scan that this result was made from: its hash differs.",))
    given = facts or Facts()
    findings = _facts_findings(record["facts"], given)
    options = _options(record, given, lesion_mask, model)
    predictor = segmenter.load_model(options)
    findings += _differences(record, predictor.identity)
    result = segmenter.segment_scan(read_scan(scan_path, options.trust), predictor, options)
    if sidecar.labels_sha256(result.labels.data) == record["labels_sha256"]:
        findings.append("The labels are the same, voxel by voxel.")
        findings += _stored_findings(record_path, record)
        return Verdict(_stored_is_whole(record_path, record), tuple(findings))
    findings.append("The labels are not the same.")
    stored = _stored_labels(record_path)
    if stored is not None:
        findings.append(_how_different(stored, result.labels.data))
    return Verdict(False, tuple(findings))


def _options(record: dict[str, Any], facts: Facts, lesion_mask: Path | None, model: str) -> SegmentOptions:
    settings = record["settings"]
    recorded = settings["lesion_mask_sha256"]
    if recorded and (lesion_mask is None or sidecar.file_sha256(lesion_mask) != recorded):
        raise SpansegError("this result was made with a lesion mask; give the same file with --lesion-mask.")
    return SegmentOptions(
        model=model,
        precision=record["precision"],
        threads=record["threads"],
        device=settings["device"],
        trust=settings["trust"],
        facts=Facts(**(_stored_facts(record["facts"]) | facts.known)),
        lesion_mask=lesion_mask if recorded else None,
    )
