"""Checks a result: the same scan, run again with what the sidecar records, must give the same labels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spanseg import files, segmenter, sidecar
from spanseg.centres import ADAPTERS
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.images import read_labels, read_scan
from spanseg.runtime import is_run, open_model
from spanseg.segmenter import SegmentOptions
from spanseg.shipped import shipped_model

EXPLAINS = ("model_version", "model_sha256", "spanseg", "engine", "precision", "threads", "instruction_sets")
"""What is said when it differs, because it explains why labels do."""


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Args:
        same: whether the scan gives the recorded labels, voxel by voxel, and the labels beside the record are those.
        findings: one sentence each.
    """

    same: bool
    findings: tuple[str, ...]


def verify(
    record_path: Path,
    scan_path: Path,
    facts: Facts | None = None,
    lesion_mask: Path | None = None,
    model: str | None = None,
) -> Verdict:
    """Segment a scan again as its sidecar says, and compare.

    Args:
        record_path: sidecar of the result; labels beside it are compared too.
        scan_path: the scan that it was made from.
        facts: what is known about the person; a sidecar does not hold it unless it was asked to.
        lesion_mask: the lesion mask that was given.
        model: name or folder of the model; by default the shipped model or the folder here that the record means.

    Raises:
        SpansegError: a file cannot be read, or the model or the lesion mask of the result is missing.
    """
    record = sidecar.read(record_path)
    if files.file_sha256(scan_path) != record["input_sha256"]:
        return Verdict(False, (f"{scan_path} is not the scan that this result was made from: its hash differs.",))
    known = Facts(**(_stored_facts(record) | (facts or Facts()).known))
    options = _options(record_path, record, known, lesion_mask, model)
    if options.prompts is not None and not is_run(options.model):
        raise SpansegError(
            f"{record_path}: this result was made with the training run '{record['model']}'; give its folder with "
            "--model."
        )
    predictor = segmenter.load_model(options)
    labels = segmenter.segment_scan(read_scan(scan_path, options.trust), predictor, options).labels.data
    findings = [*_facts_findings(record, known), *_differences(record, predictor.identity)]
    same = sidecar.labels_sha256(labels) == record["labels_sha256"]
    findings.append("The labels are the same, voxel by voxel." if same else "The labels are not the same.")
    stored = _stored_labels(record_path)
    if stored is not None and sidecar.labels_sha256(stored) != record["labels_sha256"]:
        same = False
        findings.append("The label image beside the sidecar was changed after it was written.")
    if stored is not None and not same:
        findings.append(_how_different(stored, labels))
    return Verdict(same, tuple(findings))


def _options(
    where: Path, record: dict[str, Any], facts: Facts, lesion_mask: Path | None, model: str | None
) -> SegmentOptions:
    settings = record["settings"]
    recorded = settings["lesion_mask_sha256"]
    if recorded and (lesion_mask is None or files.file_sha256(lesion_mask) != recorded):
        raise SpansegError(f"{where}: this result was made with a lesion mask; give that same file with --lesion-mask.")
    return SegmentOptions(
        model=model or _model_of(where, record),
        precision=record["precision"],
        threads=record["threads"],
        device=settings["device"],
        trust=settings["trust"],
        facts=facts,
        facts_policy=settings.get("facts_policy", "given"),
        tell_diagnosis=bool(settings.get("tell_diagnosis", False)),
        flip=bool(settings.get("flip", False)),
        lesion_mask=lesion_mask if recorded else None,
        prompts=settings.get("prompted_by"),
    )


def _model_of(where: Path, record: dict[str, Any]) -> str:
    """The shipped model of a record, or its folder if that lies here or among the adapters here."""
    name, recorded = str(record.get("model_folder", record["model"])), str(record.get("model_sha256"))
    if shipped_model(name) is not None:
        return name
    for place in (Path(name), ADAPTERS / name):
        if (place / "model.toml").is_file() and open_model(str(place)).sha256() == recorded:
            return str(place)
    raise SpansegError(
        f"{where}: this result was made with the model '{record['model']}' (sha256 {recorded[:12]}), which is not "
        f"shipped; give its folder, which was named '{name}', with --model FOLDER (adapters lie below {ADAPTERS})."
    )


def _stored_facts(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record["facts"].items() if name not in ("given", "age_decade")}


def _facts_findings(record: dict[str, Any], known: Facts) -> list[str]:
    """Say which facts the result was made with that are missing now, or differ."""
    given, decade = record["facts"]["given"], record["facts"]["age_decade"]
    missing = [name.removesuffix("_years") for name in given if name not in known.known]
    findings = []
    if missing:
        options = " ".join(f"--{name}" for name in missing)
        findings.append(f"The result was made with facts that were not given now: {', '.join(missing)} ({options}).")
    if added := sorted(set(known.known) - set(given)):
        findings.append(f"The result was made without {', '.join(name.removesuffix('_years') for name in added)}.")
    if decade and known.age_years is not None and known.decade() != decade:
        findings.append(f"The result was made with an age of {decade} years.")
    return findings


def _differences(record: dict[str, Any], identity: dict[str, Any]) -> list[str]:
    now = json.loads(json.dumps(identity))
    return [
        f"Not as it was: {name} is {now.get(name)}, was {record.get(name)}."
        for name in EXPLAINS
        if now.get(name) != record.get(name)
    ]


def _stored_labels(record_path: Path) -> np.ndarray | None:
    path = record_path.with_name(record_path.name.removesuffix(".json") + ".nii.gz")
    return read_labels(path).volume.data if path.is_file() else None


def _how_different(stored: np.ndarray, labels: np.ndarray) -> str:
    """Share of voxels that agree, among those that are labelled in either."""
    if stored.shape != labels.shape:
        return f"The label image beside the sidecar has the shape {stored.shape}, this scan gives {labels.shape}."
    labelled = (stored > 0) | (labels > 0)
    agree = float((stored == labels)[labelled].mean()) if labelled.any() else 1.0
    return f"{agree:.3%} of the labelled voxels are the same as in the label image beside the sidecar."
