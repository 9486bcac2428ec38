"""The folder of a correction session: begun, or checked and opened again with all that was clicked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from spanseg import __version__, files, sidecar
from spanseg.beginnings import Beginning, labels_from
from spanseg.beliefs import Belief, Believes, read_belief
from spanseg.cases import Case
from spanseg.claims import take_claim
from spanseg.errors import SpansegError
from spanseg.events import EventLog, now
from spanseg.images import Scan, read_labels, read_scan, write_labels
from spanseg.inputs import SESSION
from spanseg.labels import Protocol
from spanseg.session import Session
from spanseg.volume import SAME_GRID_MM, farthest_mm

FORMAT = f"{SESSION} 1"


def open_session(
    case: Case, protocol: Protocol, believes: Believes, beginning: Beginning | None = None, restore: bool = False
) -> Session:
    """Begin the session of a case, or go on with the one that is there.

    Args:
        case: which scan, and where its files lie.
        protocol: whose structures are corrected.
        believes: the default model.
        beginning: where a new session begins; the default model's labels by default.
        restore: go on from the events before a damaged line; the damaged log is kept under another name.

    Raises:
        SpansegError: the scan or the labels cannot be used, another process has the session open, it belongs to another
            scan, grid or protocol, or its log is damaged.
    """
    wish = beginning or Beginning()
    scan = read_scan(case.scan)
    if not take_claim(case.claim):
        raise SpansegError(f"{case.session}: another process has this session open; close that one first.")
    try:
        files.remove_dead_temporaries(case.session)
        if case.record.is_file():
            record = _read_record(case.record)
            _require_same_scan(record, case, scan, protocol)
            wish.require_same(record, case.record, scan, protocol)
        else:
            record = _begin(case, scan, protocol, believes, wish)
        session = _load(case, scan, protocol, record, believes)
        _replay(session, restore)
    except BaseException:
        case.claim.unlink(missing_ok=True)
        raise
    return session


def _begin(case: Case, scan: Scan, protocol: Protocol, believes: Believes, wish: Beginning) -> dict[str, Any]:
    """Write what a new session begins with."""
    if case.log.is_file() and case.log.stat().st_size:
        raise SpansegError(
            f"{case.log}: there are events, but not the {case.record.name} that they belong to; put it back, "
            "or choose another output folder (-o)."
        )
    labels, origin, notes = _first_labels(case, scan, protocol, believes, wish)
    record = {
        "format": FORMAT,
        "spanseg": __version__,
        "scan": case.scan.name,
        "scan_sha256": scan.sha256,
        "shape": list(scan.volume.shape),
        "affine": scan.volume.affine.tolist(),
        "protocol": protocol.name,
        "start": origin,
        "start_sha256": sidecar.labels_sha256(labels),
        "began": now(),
        "notes": notes,
    }
    write_labels(case.start, labels, scan)
    files.write_text(case.record, sidecar.dumps(record))
    return record


def _first_labels(
    case: Case, scan: Scan, protocol: Protocol, believes: Believes, wish: Beginning
) -> tuple[np.ndarray, dict[str, Any], list[str]]:
    """Labels, where they came from, and notes."""
    if wish.labels is not None:
        labels, notes = labels_from(wish.labels, wish.scheme, scan, protocol)
        hashed = files.file_sha256(wish.labels)
        return labels, {"from": "labels", "name": wish.labels.name, "sha256": hashed, "scheme": wish.scheme}, notes
    if wish.empty:
        return np.zeros(scan.volume.shape, dtype=np.int32), {"from": "empty", "name": "no labels", "sha256": None}, []
    labels, belief = believes(scan)
    belief.write(case.belief)
    return labels, {"from": "model", "name": believes.name, "sha256": believes.sha256}, []


def _load(case: Case, scan: Scan, protocol: Protocol, record: dict[str, Any], believes: Believes) -> Session:
    """The session as it began."""
    labels = read_labels(case.start).volume.data
    if sidecar.labels_sha256(labels) != record["start_sha256"]:
        raise SpansegError(f"{case.start}: this file was changed since the session began; put the first one back.")
    notes = [*scan.notes, *scan.warnings, *record["notes"]]
    belief = _belief(case, scan, believes, notes)
    log = EventLog(case.log, _identity(record), scan.volume.shape)
    own = labels.astype(np.int32, order="C")
    return Session(case, scan, protocol, record["start"], own, belief, log, notes)


def _belief(case: Case, scan: Scan, believes: Believes, notes: list[str]) -> Belief | None:
    """What was kept of the default model's belief, or else the model asked (again)."""
    kept = read_belief(case.belief, scan.volume.shape, believes.sha256)
    if kept is not None:
        return kept
    try:
        _, belief = believes(scan)
    except SpansegError as error:
        notes.append(f"There is no map of doubt, for the default model cannot segment this scan: {error}")
        return None
    belief.write(case.belief)
    return belief


def _replay(session: Session, restore: bool) -> None:
    """Let all events of the log take effect; what was torn off or damaged is kept aside."""
    reading = session.log.read()
    line, reason = reading.line, reading.reason
    for event in reading.events:
        try:
            session.follow(event)
        except SpansegError as error:
            line, reason = event.number, str(error)
            break
    last = session.events[-1].labels_sha256 if session.events else None
    if not line and last is not None and last != sidecar.labels_sha256(session.labels):
        raise SpansegError(f"{session.case.log}: the labels after the last event are not the recorded ones.")
    if line:
        _restore(session, line, reason, restore)
    elif reading.torn:
        aside = session.log.set_aside(reading.torn)
        session.notes.append(
            f"The last event was cut off while it was written, before it was answered: see {aside.name}."
        )


def _restore(session: Session, line: int, reason: str, restore: bool) -> None:
    """Refuse a damaged log, or go on from the events before the damage."""
    path, whole = session.case.log, len(session.events)
    if not restore:
        raise SpansegError(
            f"{path}: line {line} of this event log is damaged ({reason}); give --restore to go on from the {whole} "
            "events before it, which keeps this file under another name."
        )
    kept = session.log.keep(session.events)
    session.log.read()
    session.notes.append(f"The first {whole} events were restored; the damaged log was kept as {kept.name}.")


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpansegError(f"{path}: this file cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError):
        record = None
    kinds = {"scan_sha256": str, "shape": list, "affine": list, "protocol": str, "start": dict, "start_sha256": str}
    kinds |= {"notes": list, "scan": str}
    known = isinstance(record, dict) and record.get("format") == FORMAT
    if not known or not all(isinstance(record.get(key), kind) for key, kind in kinds.items()):
        raise SpansegError(f"{path}: expected the record of a session that spanseg wrote, found other content.")
    return dict(record)


def _require_same_scan(record: dict[str, Any], case: Case, scan: Scan, protocol: Protocol) -> None:
    advice = "choose another output folder (-o), or give what the session was begun with."
    if record["scan_sha256"] != scan.sha256:
        raise SpansegError(
            f"{case.session}: this session was begun with another scan ({record['scan']}, sha256 "
            f"{record['scan_sha256'][:12]}…) than {case.scan}; {advice}"
        )
    try:
        apart_mm = farthest_mm(np.array(record["affine"], dtype=float), scan.volume.affine, scan.volume.shape)
    except (ValueError, TypeError):
        apart_mm = np.inf
    if tuple(record["shape"]) != scan.volume.shape or not apart_mm <= SAME_GRID_MM:
        raise SpansegError(f"{case.session}: this session was begun on another grid than that of {case.scan}; {advice}")
    if record["protocol"] != protocol.name:
        raise SpansegError(
            f"{case.session}: this session was begun with protocol '{record['protocol']}', this is '{protocol.name}'; "
            f"{advice}"
        )


def _identity(record: dict[str, Any]) -> str:
    """Hash of all that gives the clicks of a session their meaning."""
    keys = ("scan_sha256", "shape", "affine", "protocol", "start_sha256")
    return hashlib.sha256(json.dumps([record[key] for key in keys]).encode()).hexdigest()
