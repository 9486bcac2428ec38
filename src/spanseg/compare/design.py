"""Who trains and who tests: four designs, each a list of splits by person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spanseg.compare.people import Person
from spanseg.compare.study import Study
from spanseg.errors import SpansegError

NEW, OLD = "new", "old"


@dataclass(frozen=True)
class Split:
    """One division of the people.

    Args:
        name: in tables.
        train: whom the rows learn from.
        validate: whom the learning curve is followed on; they neither train nor test.
        new: tests of the centre that is adapted to.
        old: tests of what was known before; empty where nothing was.
        before: whom the base model learns from first.
        watched_before: whom the base's learning curve is followed on.
    """

    name: str
    train: tuple[Person, ...]
    validate: tuple[Person, ...]
    new: tuple[Person, ...]
    old: tuple[Person, ...] = ()
    before: tuple[Person, ...] = ()
    watched_before: tuple[Person, ...] = ()

    @property
    def learned(self) -> tuple[Person, ...]:
        """Whom anything is learned from, or a learning curve followed on."""
        return (*self.train, *self.validate, *self.before, *self.watched_before)

    @property
    def tested(self) -> tuple[Person, ...]:
        """Whom rows are tested on."""
        return (*self.new, *self.old)


def splits_of(study: Study, people: Sequence[Person]) -> list[Split]:
    """The splits of a study, checked.

    Raises:
        SpansegError: a person on both sides, nobody to train on or to test on, too few people.
    """
    design = {
        "kfold": _kfold,
        "fewshot": _fewshot,
        "leave_one_centre_out": _leave_one_centre_out,
        "cross_dataset": _cross_dataset,
    }[study.design]
    splits = design(study, people)
    strangers = [name for name in study.only if name not in [split.name for split in splits]]
    if strangers:
        known = ", ".join(split.name for split in splits)
        raise SpansegError(f"{study.name}: only names {', '.join(strangers)}; its splits are {known}.")
    splits = [split for split in splits if not study.only or split.name in study.only]
    for split in splits:
        _check(split, study)
    return splits


def folds_of(people: Sequence[Person], folds: int) -> list[list[Person]]:
    """Deal people into folds, by age, so that each fold has young and old; entries of one person stay together."""
    ages: dict[str, float] = {}
    for person in people:
        ages.setdefault(person.identity, person.facts.age_years if person.facts.age_years is not None else -1.0)
    order = sorted(ages, key=lambda identity: (ages[identity], identity))
    fold_of = {identity: _snake(number, folds) for number, identity in enumerate(order)}
    return [[person for person in people if fold_of[person.identity] == fold] for fold in range(folds)]


def _snake(number: int, folds: int) -> int:
    """Deal there and back, so that no fold always gets the older one."""
    turn, place = divmod(number, folds)
    return place if turn % 2 == 0 else folds - 1 - place


def _kfold(study: Study, people: Sequence[Person]) -> list[Split]:
    dealt = folds_of(people, study.folds)
    splits = []
    for number, tests in enumerate(dealt):
        others = [person for fold in dealt if fold is not tests for person in fold]
        train, validate = _without_watched(others, study.validate)
        splits.append(Split(f"fold{number}", train, validate, tuple(tests)))
    return splits


def _fewshot(study: Study, people: Sequence[Person]) -> list[Split]:
    """Each training set holds the one before it, and all are tested on the same people."""
    tests, *others = folds_of(people, study.folds)
    pool, validate = _without_watched([person for fold in others for person in fold], study.validate)
    order = np.random.default_rng(0).permutation(len(pool))
    sizes = sorted(set(study.shots))
    if not sizes or sizes[0] < 1 or sizes[-1] > len(pool):
        raise SpansegError(f"{study.name}: shots must lie between 1 and {len(pool)}, the people who may train.")
    return [Split(f"{size}shot", tuple(pool[k] for k in order[:size]), validate, tuple(tests)) for size in sizes]


def _leave_one_centre_out(study: Study, people: Sequence[Person]) -> list[Split]:
    """The base learns all centres but one; the rows learn that one; both parts are tested."""
    if len(study.centres) < 2:
        raise SpansegError(f"{study.name}: leave_one_centre_out needs at least two centres.")
    sides = {}
    for centre in study.centres:
        tests, *others = folds_of([person for person in people if person.centre == centre.name], study.folds)
        sides[centre.name] = *_without_watched([person for fold in others for person in fold], study.validate), tests
    splits = []
    for name, (train, watched, tests) in sides.items():
        rest = [side for other, side in sides.items() if other != name]
        before, watched_before, old = (tuple(one for side in rest for one in side[kind]) for kind in range(3))
        splits.append(Split(name, train, watched, tuple(tests), old, before, watched_before))
    return splits


def _cross_dataset(study: Study, people: Sequence[Person]) -> list[Split]:
    if not study.train_centres:
        raise SpansegError(f"{study.name}: cross_dataset needs train_centres, the data sets that train.")
    mine = [person for person in people if person.centre in study.train_centres]
    train, validate = _without_watched(mine, study.validate)
    tests = tuple(person for person in people if person.centre not in study.train_centres)
    return [Split("+".join(study.train_centres), train, validate, tests)]


def _without_watched(people: Sequence[Person], count: int) -> tuple[tuple[Person, ...], tuple[Person, ...]]:
    """Keep some people, from the middle of the ages, to follow the learning curve with."""
    by_age = sorted(people, key=lambda person: (person.facts.age_years or 0, person.subject))
    first = max(0, (len(by_age) - count) // 2)
    watched = {person.identity for person in by_age[first : first + count]}
    train = tuple(person for person in people if person.identity not in watched)
    return train, tuple(person for person in people if person.identity in watched)


def _check(split: Split, study: Study) -> None:
    """Refuse a split that would let a test person be learned from, or that leaves one side empty."""
    learned = {person.identity for person in split.learned}
    both = sorted({person.identity for person in split.tested} & learned)
    if both:
        more = f" and {len(both) - 3} more" if len(both) > 3 else ""
        raise SpansegError(
            f"{study.name}, split {split.name}: {', '.join(both[:3])}{more} would train and test; keep them apart "
            "(who is one person in two data sets, same_person_as in participants.tsv says)."
        )
    for what, members in (("train on", split.train), ("test on", split.new)):
        if not members:
            raise SpansegError(
                f"{study.name}, split {split.name}: nobody is left to {what}; use fewer folds or more people."
            )
