"""A correction session of one scan: first labels, an event log, and the labels that follow from both."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from spanseg import sidecar
from spanseg.beliefs import Belief, Piece, next_piece
from spanseg.cases import Case
from spanseg.changes import Change, between
from spanseg.claims import keep_claim
from spanseg.errors import SpansegError
from spanseg.events import Event, EventLog, now
from spanseg.images import Scan
from spanseg.labels import Protocol
from spanseg.prompts import Prompt

if TYPE_CHECKING:
    from spanseg.correcting import Corrects


@dataclass(eq=False)
class Session:
    """A session that this process holds; made by ``session_folder.open_session``, given back by :meth:`close`.

    Args:
        case: which scan, and where its files lie.
        scan: the scan as it was read.
        protocol: whose structures are corrected.
        origin: where the first labels came from.
        labels: the labels now, int32 ids on the scan's grid.
        belief: what the default model believes; ``None`` if it could not be asked.
        log: where events are written.
        notes: what must be known, one sentence each.
    """

    case: Case
    scan: Scan
    protocol: Protocol
    origin: dict[str, Any]
    labels: np.ndarray
    belief: Belief | None
    log: EventLog
    notes: list[str]
    events: list[Event] = field(default_factory=list)
    _done: list[Event] = field(default_factory=list)
    _undone: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._counts = np.bincount(self.labels.ravel(), minlength=int(self.protocol.ids.max()) + 1)
        self._settled = np.zeros(self.labels.shape, dtype=np.uint16)

    @property
    def can_undo(self) -> bool:
        """Whether a prompt is in force."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether the last thing that happened to a prompt is that it was undone."""
        return bool(self._undone)

    @property
    def in_force(self) -> tuple[Event, ...]:
        """Prompts that were not undone, newest last."""
        return tuple(self._done)

    def voxels_of(self, structure_id: int) -> int:
        """How many voxels a structure has now."""
        return int(self._counts[structure_id])

    def prompt(self, structure_id: int, prompt: Prompt, corrector: Corrects) -> Event:
        """Let a corrector answer a prompt; on the disk when this returns. What was undone cannot be redone then.

        Args:
            structure_id: id of the structure that the prompt is about.
            prompt: what the user said.
            corrector: who answers.

        Raises:
            SpansegError: a structure that the protocol does not know, a prompt outside the image, or a full disk.
        """
        name = self.protocol.structures[self.protocol.class_of(structure_id)].name
        if structure_id == 0:
            raise SpansegError(f"{name} is no structure to correct; put a negative point on the structure instead.")
        prompt.checked(self.scan.volume.shape)
        earlier = [event.prompt for event in self._done if event.structure == structure_id]
        answer = np.asarray(corrector.correct(self.labels, structure_id, [*earlier, prompt]))
        self._check_answer(answer, structure_id)
        answer = self._with_what_was_said(answer, prompt)
        meant = structure_id, prompt, corrector.name
        return self._add("prompt", len(self.events) + 1, meant, between(self.labels, answer), answer)

    def undo(self) -> Event:
        """Take back the newest prompt in force.

        Raises:
            SpansegError: there is none, or the disk is full.
        """
        if not self._done:
            raise SpansegError("there is nothing to undo; no prompt is in force.")
        return self._again("undo", self._done[-1], self._done[-1].change.reversed())

    def redo(self) -> Event:
        """Make the prompt again that was undone last.

        Raises:
            SpansegError: there is none, or the disk is full.
        """
        if not self._undone:
            raise SpansegError("there is nothing to redo; nothing was undone since the last prompt.")
        return self._again("redo", self._undone[-1], self._undone[-1].change)

    def doubt(self) -> np.ndarray | None:
        """How little the default model believes in each label, float32; 0 where the user has said what is right."""
        if self.belief is None:
            return None
        settled = self._settled > 0
        settled[tuple(self._prompted().T)] = True
        return self.belief.doubt(self.labels, self.protocol, settled)

    def next(self) -> tuple[Piece, int] | None:
        """Where a look is worth most, and the id of the structure in question; ``None`` if nothing is doubted."""
        doubt = self.doubt()
        if doubt is None or self.belief is None:
            return None
        piece = next_piece(doubt, self._prompted(), self.scan.volume.voxel_size_mm)
        if piece is None:
            return None
        return piece, self.belief.suggestion(piece.voxel, int(self.labels[piece.voxel]), self.protocol)

    def close(self) -> None:
        """Give the session back, so that others may open it."""
        if keep_claim(self.case.claim):
            self.case.claim.unlink(missing_ok=True)

    def keep(self) -> None:
        """Say that the session is still in use, so that nobody takes it for abandoned.

        Raises:
            SpansegError: somebody did.
        """
        if not keep_claim(self.case.claim):
            raise SpansegError(f"{self.case.session}: another process has taken this session; open it again.")

    def follow(self, event: Event) -> None:
        """Let an event take effect.

        Raises:
            SpansegError: it does not follow from those before it.
        """
        before, after = event.change.labels()
        stack, other = (self._undone, self._done) if event.kind == "redo" else (self._done, self._undone)
        is_prompt = event.kind == "prompt" and event.of == event.number
        if not is_prompt and not (event.kind in ("undo", "redo") and stack and stack[-1].number == event.of):
            raise SpansegError(f"its '{event.kind}' does not follow from the events before it")
        event.change.apply(self.labels)
        if is_prompt:
            self._undone.clear()
            self._done.append(event)
        else:
            other.append(stack.pop())
        size = len(self._counts)
        self._counts += np.bincount(after.ravel(), minlength=size) - np.bincount(before.ravel(), minlength=size)
        differs = (before != after).astype(np.uint16)
        if event.kind == "undo":
            self._settled[event.change.where] -= differs
        else:
            self._settled[event.change.where] += differs
        self.events.append(event)

    def _again(self, kind: str, event: Event, change: Change) -> Event:
        after = self.labels.copy()
        change.apply(after)
        return self._add(kind, event.number, (event.structure, event.prompt, event.corrector), change, after)

    def _add(self, kind: str, of: int, meant: tuple[int, Prompt, str], change: Change, after: np.ndarray) -> Event:
        """Write an event, then let it take effect."""
        self.keep()
        number = len(self.events) + 1
        event = Event(number, kind, of, *meant, now(), change, sidecar.labels_sha256(after))
        self.log.append(event)
        self.follow(event)
        return event

    def _prompted(self) -> np.ndarray:
        """Voxels that prompts in force name, (n, 3)."""
        return np.array([v for event in self._done for v in event.prompt.voxels], dtype=np.int64).reshape(-1, 3)

    def _with_what_was_said(self, answer: np.ndarray, newest: Prompt) -> np.ndarray:
        """An answer in which voxels that points and scribbles in force name stay as they are, but for the newest's."""
        spoken = {voxel for event in self._done if event.prompt.kind != "box" for voxel in event.prompt.voxels}
        kept = np.array(list(spoken - set(newest.voxels)), dtype=np.int64).reshape(-1, 3)
        answer = answer.copy()
        answer[tuple(kept.T)] = self.labels[tuple(kept.T)]
        return answer

    def _check_answer(self, answer: np.ndarray, structure_id: int) -> None:
        """A corrector may give voxels to the structure or take them from it, and nothing else."""
        if answer.shape != self.labels.shape or answer.dtype.kind not in "iu":
            raise TypeError(f"the corrector gave {answer.dtype} of shape {answer.shape}")
        differs = answer != self.labels
        before, now_there = self.labels[differs], answer[differs]
        if ((before != structure_id) & (now_there != structure_id)).any():
            raise ValueError("the corrector changed voxels of other structures")
        if not np.isin(now_there, self.protocol.ids).all():
            raise ValueError("the corrector gave ids that the protocol does not have")
