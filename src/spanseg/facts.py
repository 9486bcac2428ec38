"""What is known about the person and the scan beside the image; every field may be unknown."""

from __future__ import annotations

import difflib
import math
import numbers
from dataclasses import asdict, dataclass
from typing import Any

from spanseg.errors import SpansegError

OLDEST_YEARS = 130
SEXES: dict[str, tuple[str, ...]] = {"female": ("f", "woman", "girl"), "male": ("m", "man", "boy")}
DIAGNOSES: dict[str, tuple[str, ...]] = {
    "healthy": ("control", "healthy control", "hc", "cn", "normal"),
    "mild cognitive impairment": ("mci",),
    "alzheimer's disease": ("alzheimer", "alzheimers", "alzheimer's", "alzheimer disease", "ad"),
    "autism": ("asd", "autism spectrum disorder"),
    "adhd": ("attention deficit hyperactivity disorder",),
    "multiple sclerosis": ("ms",),
    "parkinson's disease": ("parkinson", "parkinsons", "parkinson's", "parkinson disease", "pd"),
    "schizophrenia": ("scz", "sz"),
    "epilepsy": (),
    "tumour": ("tumor", "brain tumour", "brain tumor", "glioma", "glioblastoma"),
    "stroke": (),
}
UNKNOWN_WORDS = ("unknown", "n/a", "na", "")


@dataclass(frozen=True)
class Facts:
    """Facts about a person and a scan; ``None`` is unknown.

    Args:
        age_years: 0 to 130; infants as fractions of a year.
        sex: ``female`` or ``male``, or a short form of them.
        diagnosis: a key of ``DIAGNOSES``, or a short form of it.
        site: name of the centre.
        modality: kind of contrast, such as ``T1w``.

    Example:
        >>> Facts(age_years=34, sex="F", diagnosis="MCI")
        Facts(age_years=34.0, sex='female', diagnosis='mild cognitive impairment', site=None, modality=None)

    Raises:
        SpansegError: an age out of range, or a word that is not in the list.
    """

    age_years: float | None = None
    sex: str | None = None
    diagnosis: str | None = None
    site: str | None = None
    modality: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "age_years", _checked_age(self.age_years))
        object.__setattr__(self, "sex", _word("sex", self.sex, SEXES))
        object.__setattr__(self, "diagnosis", _word("diagnosis", self.diagnosis, DIAGNOSES))
        object.__setattr__(self, "site", _text(self.site))
        object.__setattr__(self, "modality", _text(self.modality))

    @property
    def known(self) -> dict[str, Any]:
        """The fields that are not unknown."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def decade(self) -> str | None:
        """Decade of age, such as ``30-39``; ``90+`` from 90 years on, when an age begins to name a person."""
        if self.age_years is None:
            return None
        first = int(self.age_years // 10) * 10
        return f"{first}-{first + 9}" if first < 90 else "90+"


def age_from_text(text: str | None) -> float | None:
    """Read an age in years as people type it; ``unknown``, ``n/a`` and nothing are ``None``.

    Raises:
        SpansegError: not a number.
    """
    if text is None or text.strip().lower() in UNKNOWN_WORDS:
        return None
    try:
        return float(text)
    except ValueError:
        raise SpansegError(
            f"age takes a number of years (six months are 0.5; leave it out if it is unknown), not '{text}'."
        ) from None


def _checked_age(age_years: float | None) -> float | None:
    if age_years is None:
        return None
    if isinstance(age_years, bool) or not isinstance(age_years, numbers.Real):
        raise SpansegError(f"age takes a number of years, not {age_years!r}.")
    if not (math.isfinite(age_years) and 0 <= age_years <= OLDEST_YEARS):
        raise SpansegError(f"age must be between 0 and {OLDEST_YEARS} years, not {age_years:g}.")
    return float(age_years)


def _word(field: str, text: str | None, words: dict[str, tuple[str, ...]]) -> str | None:
    """Find the word of a closed list that a text means."""
    meant = " ".join((text or "").lower().replace("’", "'").replace("_", " ").replace("-", " ").split())
    if meant in UNKNOWN_WORDS:
        return None
    meanings = {form: word for word, forms in words.items() for form in (word, *forms)}
    if meant in meanings:
        return meanings[meant]
    close = difflib.get_close_matches(meant, meanings, n=1)
    hint = f" (did you mean '{meanings[close[0]]}'?)" if close else ""
    raise SpansegError(f"{field} has no word '{text}'{hint}; it takes: {', '.join(words)}, unknown.")


def _text(text: str | None) -> str | None:
    stripped = (text or "").strip()
    return None if stripped.lower() in UNKNOWN_WORDS else stripped
