"""Facts: what is accepted, what is refused and how, and what may be kept of a person."""

import math

import numpy as np
import pytest

from spanseg.errors import SpansegError
from spanseg.facts import DIAGNOSES, SEXES, Facts, age_from_text


def test_everything_may_be_unknown() -> None:
    assert Facts().known == {}
    assert Facts(None, "unknown", "n/a", " ", "Unknown") == Facts()
    assert Facts().decade() is None


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ("MCI", "mild cognitive impairment"),
        ("AD", "alzheimer's disease"),
        ("Alzheimer’s_Disease", "alzheimer's disease"),
        ("Multiple-Sclerosis", "multiple sclerosis"),
        ("tumor", "tumour"),
        ("HC", "healthy"),
    ],
)
def test_short_forms_mean_one_word(given: str, word: str) -> None:
    assert Facts(diagnosis=given).diagnosis == word


def test_no_short_form_means_two_words() -> None:
    for table in (SEXES, DIAGNOSES):
        forms = [form for word, others in table.items() for form in (word, *others)]
        assert len(forms) == len(set(forms))


def test_equal_facts_are_equal_however_written() -> None:
    assert Facts(34, "F", "ms") == Facts(34.0, "female", "multiple sclerosis")
    assert Facts(np.int64(34)).age_years == 34.0


@pytest.mark.parametrize(
    ("age", "decade"),
    [(0, "0-9"), (9.99, "0-9"), (10, "10-19"), (34, "30-39"), (89.9, "80-89"), (90, "90+"), (130, "90+")],
)
def test_decade(age: float, decade: str) -> None:
    assert Facts(age).decade() == decade


@pytest.mark.parametrize("age", [-1, 130.5, math.nan, math.inf, True])
def test_impossible_ages_are_refused(age: float) -> None:
    with pytest.raises(SpansegError, match="age"):
        Facts(age)


def test_age_from_text() -> None:
    assert age_from_text("0.5") == 0.5
    assert age_from_text(None) is None
    assert age_from_text("n/a") is None
    with pytest.raises(SpansegError, match=r"six months are 0\.5; .* not '6 months'"):
        age_from_text("6 months")
    with pytest.raises(SpansegError, match="between 0 and 130"):
        Facts(age_from_text("nan"))


def test_a_wrong_word_gets_the_nearest_one_and_the_list() -> None:
    with pytest.raises(
        SpansegError, match=r"diagnosis has no word 'alzhiemer' \(did you mean 'alzheimer's disease'\?\)"
    ):
        Facts(diagnosis="alzhiemer")
    with pytest.raises(
        SpansegError, match=r"sex has no word 'femal' \(did you mean 'female'\?\); it takes: female, male"
    ):
        Facts(sex="femal")
    with pytest.raises(SpansegError, match=r"diagnosis has no word 'xyzzy'; it takes: healthy, .*stroke, unknown"):
        Facts(diagnosis="xyzzy")
