"""The JSON record beside each result: what it was made from, with what, and what must be known to trust it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spanseg import files
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.result import Segmentation

if TYPE_CHECKING:
    from spanseg.images import Scan
    from spanseg.segmenter import SegmentOptions

FORMAT = "spanseg sidecar 1"
MACHINE = ("threads", "instruction_sets")
"""Recorded, but no reason to redo a scan: a batch may be finished on another computer."""
_READ_AGAIN: dict[str, type] = {
    "input_sha256": str, "labels_sha256": str, "settings": dict, "settings_sha256": str, "outputs": list,
    "warnings": list, "facts": dict, "model": str, "precision": str, "threads": int,
}  # fmt: skip
_SETTINGS_READ_AGAIN = {"lesion_mask_sha256", "device", "trust"}
_FACTS = {"given", "age_decade", *(field.name for field in fields(Facts))}


@dataclass(frozen=True)
class OutputOptions:
    """Which files are written.

    Args:
        brain: also the skull-stripped scan.
        only_labels: nothing but the labels (and the sidecar).
        store_facts: the sidecar holds the facts as given, not the decade of age at most.
    """

    brain: bool = False
    only_labels: bool = False
    store_facts: bool = False


def settings_of(identity: dict[str, Any], options: SegmentOptions, outputs: OutputOptions) -> dict[str, Any]:
    """Everything but the scan that decides what is written; JSON values only.

    Args:
        identity: what the predictor says of itself.
        options: how scans are segmented.
        outputs: which files are written.
    """
    lesion = options.lesion_mask
    return {key: value for key, value in identity.items() if key not in MACHINE} | {
        "threads_asked": options.threads,
        "device": options.device,
        "trust": options.trust,
        "lesion_mask_sha256": None if lesion is None else files.file_sha256(Path(lesion)),
        "probabilities": options.probabilities,
        "brain": outputs.brain,
        "only_labels": outputs.only_labels,
        "facts": facts_record(options.facts, outputs.store_facts),
        "facts_policy": options.facts_policy,
        "tell_diagnosis": options.tell_diagnosis,
        "flip": options.flip,
    }


def facts_record(facts: Facts, store: bool) -> dict[str, Any]:
    """What may be kept of a person: which facts were given and the decade of age, or all of it when asked to."""
    record: dict[str, Any] = {"given": sorted(facts.known), "age_decade": facts.decade()}
    return record | facts.known if store else record


def build(scan: Scan, result: Segmentation, settings: dict[str, Any], written: list[str]) -> dict[str, Any]:
    """Compose the record of one scan.

    Args:
        scan: the scan as it was read.
        result: its segmentation.
        settings: what :func:`settings_of` says.
        written: names of the files that belong to the result.
    """
    return result.details | {
        "format": FORMAT,
        "input_sha256": scan.sha256,
        "input_shape": list(scan.volume.shape),
        "input_voxel_size_mm": [round(float(size), 4) for size in scan.volume.voxel_size_mm],
        "protocol": result.protocol,
        "labels_sha256": labels_sha256(result.labels.data),
        "facts": settings["facts"],
        "notes": list(result.notes),
        "warnings": list(result.warnings),
        "settings": settings,
        "settings_sha256": settings_sha256(settings),
        "outputs": written,
    }


def dumps(record: dict[str, Any]) -> str:
    """Write a record as JSON text."""
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def read(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        SpansegError: there is none, or it is not one of ours.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpansegError(f"{path}: this sidecar cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise SpansegError(f"{path}: expected the JSON sidecar of a result, found other content.") from error
    if not _is_record(record):
        raise SpansegError(f"{path}: expected a sidecar that spanseg wrote ('format': '{FORMAT}'), found other JSON.")
    return record


def _is_record(found: Any) -> bool:
    """Whether JSON holds all that is read again, each of its kind: a sidecar may have been edited by hand."""
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        return False
    if not all(isinstance(found.get(key), kind) for key, kind in _READ_AGAIN.items()):
        return False
    facts, settings = found["facts"], found["settings"]
    if not isinstance(facts.get("given"), list) or not isinstance(facts.get("age_decade"), str | None):
        return False
    texts = [*found["outputs"], *found["warnings"], *facts["given"]]
    return (
        all(isinstance(text, str) for text in texts) and settings.keys() >= _SETTINGS_READ_AGAIN and _are_facts(facts)
    )


def _are_facts(record: dict[str, Any]) -> bool:
    """Whether what was stored of a person has the names and kinds of facts."""
    numbers = isinstance(record.get("age_years"), float | int | None)
    texts = (value for name, value in record.items() if name not in ("given", "age_years"))
    return record.keys() <= _FACTS and numbers and all(isinstance(text, str | None) for text in texts)


def read_if_any(path: Path) -> dict[str, Any] | None:
    """Read a record; ``None`` when there is none that can be read."""
    try:
        return read(path)
    except SpansegError:
        return None


def settings_sha256(settings: dict[str, Any]) -> str:
    """Hash of settings, whatever their order."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def labels_sha256(labels: np.ndarray) -> str:
    """Hash of labels and their shape, whatever the integer type and the order in memory."""
    plain = np.ascontiguousarray(labels, dtype="<i4")
    return hashlib.sha256(repr(labels.shape).encode() + plain.tobytes()).hexdigest()
