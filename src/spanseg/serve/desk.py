"""The desk: the cases that may be opened, the one that is, and what the page asks of it, one request after another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spanseg.beginnings import Beginning
from spanseg.beliefs import Believes
from spanseg.cases import Case
from spanseg.corrected import is_saved, save
from spanseg.corrected_dataset import export_dataset
from spanseg.correcting import Corrects
from spanseg.errors import SpansegError
from spanseg.events import Event
from spanseg.labels import Protocol
from spanseg.prompts import prompt_from
from spanseg.serve.niftis import as_stored, nifti
from spanseg.serve.wire import change_of, state_of
from spanseg.session import Session
from spanseg.session_folder import open_session
from spanseg.volume import Volume

NOT_FOUND, CONFLICT = 404, 409


class RefusedError(SpansegError):
    """A request that is refused, with the status of HTTP that says why.

    Args:
        sentence: for the user.
        status: 4xx.
    """

    def __init__(self, sentence: str, status: int) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Means:
    """What a desk works with.

    Args:
        protocol: whose structures are corrected.
        believes: the default model.
        corrector: makes what answers the prompts about one scan.
        beginning: where new sessions begin.
        restore: go on from the events before a damaged line of a log.
    """

    protocol: Protocol
    believes: Believes
    corrector: Callable[[Volume, Protocol], Corrects]
    beginning: Beginning
    restore: bool = False


class Desk:
    """All that the page can ask for; each call waits for the one before it.

    Args:
        cases: which may be opened.
        out: folder under which everything is written.
        means: what to work with.
    """

    def __init__(self, cases: Sequence[Case], out: Path, means: Means) -> None:
        self.out = out
        self._cases = {case.name: case for case in cases}
        self._means = means
        self._lock = threading.Lock()
        self._open_now: tuple[Session, Corrects] | None = None
        self._state: dict[str, Any] | None = None
        self._image: bytes | None = None

    def cases(self) -> dict[str, Any]:
        """Names of the cases, which of them have events, and which is open and need not be opened again."""
        with self._lock:
            rows = [{"name": case.name, "edited": _is_edited(case)} for case in self._cases.values()]
            return {"cases": rows, "open": self._kept}

    def open(self, body: dict[str, Any]) -> dict[str, Any]:
        """Open a case and close the one before it; the one that is open already stays, unless another took it."""
        name = body.get("case")
        with self._lock:
            if not isinstance(name, str) or name not in self._cases:
                raise RefusedError(
                    f"there is no case '{str(name)[:100]}' here; open one of those in the list.", NOT_FOUND
                )
            if self._kept != name:
                self._open(self._cases[name])
            return self._said()

    def state(self) -> dict[str, Any]:
        """What the page shows of the open case."""
        with self._lock:
            return self._said()

    def image(self) -> bytes:
        """The scan as NIfTI."""
        with self._lock:
            session = self._session
            self._image = self._image or nifti(as_stored(session.scan.volume.data), session.scan)
            return self._image

    def labels(self) -> bytes:
        """The labels as NIfTI, uint16."""
        with self._lock:
            session = self._session
            return nifti(session.labels.astype(np.uint16), session.scan)

    def doubt(self) -> bytes:
        """The doubt as NIfTI, float32; 0 everywhere where the default model could not be asked."""
        with self._lock:
            session = self._session
            doubt = session.doubt()
            return nifti(np.zeros(session.labels.shape, np.float32) if doubt is None else doubt, session.scan)

    def prompt(self, body: dict[str, Any]) -> dict[str, Any]:
        """Let the corrector answer a prompt."""
        structure = body.get("structure")
        if type(structure) is not int:
            raise SpansegError("a prompt needs 'structure', the whole number of a structure of the protocol.")
        with self._lock:
            session = self._expected(body)
            return self._changed(session.prompt(structure, prompt_from(body), self._held[1]))

    def undo(self, body: dict[str, Any]) -> dict[str, Any]:
        """Take back the newest prompt in force."""
        with self._lock:
            return self._changed(self._expected(body).undo())

    def redo(self, body: dict[str, Any]) -> dict[str, Any]:
        """Make the prompt again that was undone last."""
        with self._lock:
            return self._changed(self._expected(body).redo())

    def save(self, body: dict[str, Any]) -> dict[str, Any]:
        """Write the corrected labels with their tables and record."""
        with self._lock:
            written = save(self._session)
            self._state = None
            return {"files": written, "state": self._said()}

    def export(self, body: dict[str, Any]) -> dict[str, Any]:
        """Write all saved cases, the open one among them, as a data set to train on."""
        with self._lock:
            session, folder = self._session, self.out / "export"
            if session.events and not is_saved(session):
                save(session)
                self._state = None
            export_dataset(list(self._cases.values()), session.protocol, folder)
            return {"folder": str(folder), "state": self._said()}

    def keep(self) -> None:
        """Say that the open session is still in use; called every few minutes."""
        with self._lock:
            if self._open_now is not None:
                self._session.keep()

    def close(self) -> None:
        """Give the open session back."""
        with self._lock:
            if self._open_now is not None:
                self._session.close()
            self._open_now = self._state = self._image = None

    def _open(self, case: Case) -> None:
        session = open_session(
            case, self._means.protocol, self._means.believes, self._means.beginning, self._means.restore
        )
        try:
            corrector = self._means.corrector(session.scan.volume, session.protocol)
        except BaseException:
            session.close()
            raise
        if self._open_now is not None and self._session.case != case:  # the same one was lost: its claim is the new one
            self._session.close()
        self._open_now, self._state, self._image = (session, corrector), None, None

    @property
    def _kept(self) -> str | None:
        """Name of the open case; ``None`` if there is none, or another process has taken it."""
        try:
            self._session.keep()
        except SpansegError:
            return None
        return self._session.case.name

    @property
    def _held(self) -> tuple[Session, Corrects]:
        if self._open_now is None:
            raise RefusedError("no case is open; open one first.", CONFLICT)
        return self._open_now

    @property
    def _session(self) -> Session:
        return self._held[0]

    def _expected(self, body: dict[str, Any]) -> Session:
        """The open session, if the page knows all of its events."""
        session, counted = self._session, body.get("events")
        if type(counted) is not int:
            raise SpansegError("a change needs 'events', the number of events that the page knows of.")
        if counted != len(session.events):
            raise RefusedError(
                f"the page shows an older state (it knows of {counted} events, there are {len(session.events)}); "
                "reload it.",
                CONFLICT,
            )
        return session

    def _changed(self, event: Event) -> dict[str, Any]:
        self._state = None
        return change_of(event.change) | {"state": self._said()}

    def _said(self) -> dict[str, Any]:
        """The state, worked out once for each event."""
        session, corrector = self._held
        if self._state is None:
            self._state = state_of(session, corrector.name)
        return self._state


def _is_edited(case: Case) -> bool:
    try:
        return case.log.stat().st_size > 0
    except OSError:
        return False
