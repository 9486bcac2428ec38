"""People of a study: how they are split, told and recognised."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from spanseg.compare import origins
from spanseg.compare.design import folds_of, splits_of
from spanseg.compare.identity import Identities
from spanseg.compare.people import Person, told_facts
from spanseg.compare.study import Centre, Study
from spanseg.errors import SpansegError
from spanseg.facts import Facts


def person(name: str, age: float | None, centre: str = "a", identity: str = "") -> Person:
    return Person(centre, name, (), Facts(age_years=age), identity or f"{centre}/{name}")


def test_folds_hold_young_and_old_and_keep_one_person_together() -> None:
    people = [person(f"sub-{n}", 20 + 5 * n) for n in range(9)] + [person("sub-x", 20, "b", "a/sub-0")]
    folds = folds_of(people, 3)
    assert sorted(len(fold) for fold in folds) == [3, 3, 4]
    means = [sum(one.facts.age_years or 0 for one in fold[:3]) / 3 for fold in folds]
    assert max(means) - min(means) < 12
    assert any({"sub-0", "sub-x"} <= {one.subject for one in fold} for fold in folds)


def study(**changes: object) -> Study:
    from spanseg.compare.study import Row

    fixed = {"name": "s", "title": "t", "base": "kgpl-res-unet", "rows": (Row("full"),), "centres": ()}
    centres = tuple(Centre(name, Path()) for name in changes.pop("named", ("a",)))  # type: ignore[attr-defined]
    return Study(**(fixed | {"centres": centres} | changes))  # type: ignore[arg-type]


def test_few_shots_are_nested_and_tested_on_the_same_people() -> None:
    splits = splits_of(study(design="fewshot", shots=(1, 2, 5)), [person(f"sub-{n}", 20 + n) for n in range(12)])
    sizes = [{one.subject for one in split.train} for split in splits]
    assert [len(size) for size in sizes] == [1, 2, 5] and sizes[0] < sizes[1] < sizes[2]
    assert len({split.new for split in splits}) == 1


def test_a_left_out_centre_is_new_and_the_others_are_old() -> None:
    people = [person(f"sub-{n}", 30 + n, centre) for centre in "abc" for n in range(6)]
    splits = splits_of(study(design="leave_one_centre_out", named=("a", "b", "c"), folds=3), people)
    assert [split.name for split in splits] == ["a", "b", "c"]
    first = splits[0]
    assert {one.centre for one in (*first.train, *first.new)} == {"a"}
    assert {one.centre for one in (*first.before, *first.old)} == {"b", "c"}
    assert not {one.identity for one in first.old} & {one.identity for one in first.before}


def test_one_person_in_two_data_sets_may_not_train_and_test() -> None:
    people = [person("sub-1", 20), person("sub-2", 30), person("sub-x", 20, "b", "a/sub-1")]
    with pytest.raises(SpansegError, match="a/sub-1 would train and test"):
        splits_of(study(design="cross_dataset", named=("a", "b"), train_centres=("a",), validate=0), people)


def data_set(folder: Path, **same: str) -> Path:
    """An empty data set whose table says who stands elsewhere."""
    folder.mkdir(parents=True)
    rows = [f"{who.replace('_', '-')}\t{other}" for who, other in same.items()]
    (folder / "participants.tsv").write_text("\n".join(["participant_id\tsame_person_as", *rows]) + "\n")
    return folder


def test_a_person_is_recognised_whatever_the_study_calls_the_data_sets(tmp_path: Path) -> None:
    malc, other = data_set(tmp_path / "MALC", sub_1="n/a"), data_set(tmp_path / "other", sub_x="malc/1", y="sub-x")
    (tmp_path / "link").symlink_to(malc)
    for centre in (Centre("malc", malc), Centre("neuro", malc), Centre("neuro", tmp_path / "link")):
        identities = Identities([Centre("second", other), centre])
        assert (
            identities.of("second", "sub-x") == identities.of(centre.name, "sub-1") == identities.of("second", "sub-y")
        )
        assert identities.of("second", "sub-1") != identities.of(centre.name, "sub-1")
    alone = Identities([Centre("other", other)])
    assert alone.of("other", "sub-x") == "malc/sub-1" and alone.of("other", "sub-z") == "other/sub-z"


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_data_set_behind_a_link_has_the_name_of_both(tmp_path: Path) -> None:
    data_set(tmp_path / "real", sub_1="n/a")
    (tmp_path / "malc").symlink_to(tmp_path / "real")
    other = data_set(tmp_path / "other", sub_x="malc/sub-1", sub_y="real/sub-2")
    both = Identities([Centre("a", tmp_path / "malc"), Centre("b", other)])
    assert both.of("a", "sub-1") == both.of("b", "sub-x") and both.of("a", "sub-2") == both.of("b", "sub-y")


@pytest.mark.parametrize("unknown", ["N/A", "na", "unknown", ""])
def test_people_of_whom_nothing_is_said_are_not_one_person(tmp_path: Path, unknown: str) -> None:
    one = Identities([Centre("a", data_set(tmp_path / "a", sub_1=unknown, sub_2=unknown))])
    assert one.of("a", "sub-1") != one.of("a", "sub-2")


def test_two_tables_that_name_each_other_and_two_rows_of_one_person_name_one_person(tmp_path: Path) -> None:
    first, second = data_set(tmp_path / "a", sub_1="b/sub-2"), data_set(tmp_path / "b", sub_2="a/SUB-1")
    (first / "participants.tsv").open("a").write("sub-1\tdeep/c/sub-3\n")
    both = Identities([Centre("p", first), Centre("q", second)])
    assert both.of("p", "sub-1") == both.of("q", "sub-2") == "c/sub-3"
    assert both.of("p", "sub-7") != both.of("q", "sub-7")


def test_two_data_sets_below_one_table_hold_the_same_people(tmp_path: Path) -> None:
    root = data_set(tmp_path / "root", sub_1="n/a")
    (root / "dataset_description.json").write_text("{}")
    for name in ("s1", "s2"):
        (root / name).mkdir()
    both = Identities([Centre("a", root / "s1"), Centre("b", root / "s2")])
    assert both.of("a", "sub-1") == both.of("b", "sub-1")


@pytest.mark.parametrize(
    ("says", "message"),
    [("bids/sub-1", r"names the data set 'bids', which may be \[centre"), ("x/", "takes a data set")],
)
def test_what_cannot_be_told_apart_is_refused(tmp_path: Path, says: str, message: str) -> None:
    folders = [data_set(tmp_path / site / "bids") for site in "ab"] + [data_set(tmp_path / "c", sub_1=says)]
    with pytest.raises(SpansegError, match=message):
        Identities([Centre(f"site{number}", folder) for number, folder in enumerate(folders)])


def test_a_table_without_participants_is_refused_with_a_sentence(tmp_path: Path) -> None:
    folder = data_set(tmp_path / "a")
    (folder / "participants.tsv").write_text("subject\tsame_person_as\n1\tn/a\n")
    with pytest.raises(SpansegError, match="expected tab-separated columns participant_id"):
        Identities([Centre("a", folder)])


def test_shuffled_facts_are_nobodys_own_and_constant_ones_everybodys() -> None:
    people = [person(f"sub-{n}", 20.0 + n) for n in range(7)]
    shuffled = told_facts(people, "shuffled", 3)
    assert all(a.facts != b.facts for a, b in zip(people, shuffled, strict=True))
    assert sorted(one.facts.age_years or 0 for one in shuffled) == [20.0 + n for n in range(7)]
    assert {one.facts.age_years for one in told_facts(people, "constant", 0)} == {23.0}


def test_a_person_in_two_data_sets_keeps_own_facts_and_never_gets_them_by_shuffling() -> None:
    people = [person("sub-1", 20), person("sub-2", 30), person("sub-x", None, "b", "a/sub-1"), person("sub-3", 40)]
    assert [one.facts for one in told_facts(people, "own", 0)] == [one.facts for one in people]
    for seed in range(9):
        one, _, again, _ = told_facts(people, "shuffled", seed)
        assert one.facts == again.facts and one.facts.age_years in (30, 40)


def test_a_fingerprint_follows_the_table_that_labels_are_read_by(tmp_path: Path) -> None:
    table = tmp_path / "labels.tsv"
    table.write_text("index\tname\n1\tBrain-Stem\n", encoding="utf-8")
    one = replace(person("sub-1", 20), labels=str(table))
    before = origins.fingerprint(one)
    table.write_text("index\tname\n2\tBrain-Stem\n", encoding="utf-8")
    assert origins.fingerprint(one) != before
    assert len({origins.fingerprint(replace(one, labels=name)) for name in ("", "muse", "freesurfer")}) == 3
