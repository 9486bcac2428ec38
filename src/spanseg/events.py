"""The log of a correction session: one line an event, on the disk before anybody is told of it, and never rewritten."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spanseg import files
from spanseg.changes import Change, change_from
from spanseg.errors import SpansegError
from spanseg.prompts import Prompt, prompt_from


@dataclass(frozen=True)
class Event:
    """What happened once.

    Args:
        number: 1 for the first of a session.
        kind: ``prompt``, ``undo`` or ``redo``.
        of: number of the prompt that is made, undone or made again.
        structure: id of the structure that was meant.
        prompt: what the user said; that of the prompt ``of``.
        corrector: name of what answered it.
        time: when, UTC, as ISO 8601 writes it.
        change: what it did to the labels.
        labels_sha256: hash of the labels after it.
    """

    number: int
    kind: str
    of: int
    structure: int
    prompt: Prompt
    corrector: str
    time: str
    change: Change
    labels_sha256: str


@dataclass(frozen=True)
class Reading:
    """What a log holds.

    Args:
        events: those that are whole, in order.
        torn: what follows the last of them: a line that was cut off while it was written.
        line: number of the first line that is damaged; 0 for none.
        reason: what is wrong with it.
    """

    events: tuple[Event, ...]
    torn: bytes
    line: int = 0
    reason: str = ""


class EventLog:
    """The file ``events.jsonl`` of a session.

    Args:
        path: the file; it need not exist yet.
        session: what identifies the session, written into each line.
        shape: of the image.
    """

    def __init__(self, path: Path, session: str, shape: Sequence[int]) -> None:
        self.path = path
        self._session = session
        self._shape = tuple(shape)
        self._bytes = 0

    def read(self) -> Reading:
        """Read all events; a damaged line ends the reading, the file stays as it is.

        Raises:
            SpansegError: the file cannot be read, or is the log of another session.
        """
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise SpansegError(f"{self.path}: this event log cannot be read ({error.strerror}).") from error
        events: list[Event] = []
        *lines, tail = content.split(b"\n")
        for line in lines:
            try:
                events.append(self._event(line, len(events) + 1))
            except _DamagedError as error:
                return Reading(tuple(events), tail, len(events) + 1, str(error))
        self._bytes = len(content) - len(tail)
        return Reading(tuple(events), tail)

    def set_aside(self, torn: bytes) -> Path:
        """Move what follows the last whole line into a file of its own.

        Raises:
            SpansegError: the folder cannot be written to.
        """
        aside = _free_name(self.path, "torn")
        files.write_bytes(aside, torn)
        self._cut()
        return aside

    def keep(self, events: Sequence[Event]) -> Path:
        """Begin a new log with these events; the old one is kept under another name, which is returned.

        Raises:
            SpansegError: the folder cannot be written to.
        """
        damaged = _free_name(self.path, "damaged")
        files.write_bytes(damaged, self.path.read_bytes())
        files.write_bytes(self.path, b"".join(self._line(event) for event in events))
        return damaged

    def append(self, event: Event) -> None:
        """Write an event, and return when the disk has it.

        Raises:
            SpansegError: the file cannot be written, or something else wrote to it.
        """
        line = self._line(event)
        try:
            there = self.path.stat().st_size if self.path.exists() else 0
            if there != self._bytes:
                raise SpansegError(f"{self.path}: something else wrote to this event log; close it and open it again.")
            with self.path.open("ab") as stream:
                stream.write(line)
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            self._cut()
            raise SpansegError(
                f"{self.path}: the event could not be written ({error.strerror}), so nothing was changed; make room."
            ) from error
        self._bytes += len(line)

    def _cut(self) -> None:
        """End the file after its last whole line; one that cannot be cut now is, when it is opened again."""
        try:
            with self.path.open("r+b") as stream:
                stream.truncate(self._bytes)
                os.fsync(stream.fileno())
        except OSError:
            return

    def _line(self, event: Event) -> bytes:
        body = {
            "session": self._session,
            "number": event.number,
            "kind": event.kind,
            "of": event.of,
            "structure": event.structure,
            "prompt": event.prompt.to_dict(),
            "corrector": event.corrector,
            "time": event.time,
            "change": event.change.to_dict(),
            "labels_sha256": event.labels_sha256,
        }
        return _text(body | {"checksum": _checksum(body)}).encode("ascii") + b"\n"

    def _event(self, line: bytes, number: int) -> Event:
        """Read a line, checked word by word."""
        try:
            body = json.loads(line)
            checksum = body.pop("checksum")
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError) as error:
            raise _DamagedError("it is no event") from error
        if checksum != _checksum(body):
            raise _DamagedError("its checksum is wrong")
        if body.get("session") != self._session:
            raise SpansegError(
                f"{self.path}: this event log belongs to another session (another scan, grid, protocol or first "
                "labels), and its clicks mean nothing here; put it back beside its own session.json."
            )
        if body.get("number") != number:
            raise _DamagedError(f"it is event {body.get('number')}, expected {number}")
        try:
            change, prompt = change_from(body["change"], self._shape), prompt_from(body["prompt"])
            fields = {name: body[name] for name in ("of", "structure", "corrector", "time", "labels_sha256")}
            return Event(number=number, kind=body["kind"], prompt=prompt, change=change, **fields)
        except (SpansegError, KeyError, TypeError, AttributeError) as error:
            raise _DamagedError(str(error)) from error


class _DamagedError(Exception):
    """What is wrong with a line."""


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _text(body: dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(_text(body).encode("ascii")).hexdigest()


def _free_name(path: Path, word: str) -> Path:
    """Name for what is kept of a log: the first number that no file has."""
    number = 1
    while (name := path.with_name(f"{path.stem}_{word}{number}{path.suffix}")).exists():
        number += 1
    return name
