"""What reading one file brings up: repairs worth a note, doubts worth a warning, and the sentence that refuses it."""

from __future__ import annotations

from dataclasses import dataclass, field

from spanseg.errors import SpansegError


@dataclass
class Findings:
    """Notes and warnings about one file, collected while it is read.

    Args:
        file: the file as the user named it; it stands in refusals only, never in a note or a warning.
        notes: what was repaired or guessed, one sentence each.
        warnings: what the user must know before trusting the result, one sentence each.
    """

    file: str
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> None:
        """Record a repair or a guess."""
        self.notes.append(sentence)

    def warn(self, sentence: str) -> None:
        """Record a doubt."""
        self.warnings.append(sentence)

    def refusal(self, reason: str) -> SpansegError:
        """Build the error that refuses the file: what came, what was expected, what to do."""
        return SpansegError(f"{self.file}: {reason}")
