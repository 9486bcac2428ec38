"""The people of a study: whose scans there are, and what is known about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spanseg.compare.identity import Identities
from spanseg.compare.study import Centre
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.judging import ScanWithTruth
from spanseg.labelled import pair_scans
from spanseg.participants import find_table, participant_of, read_participants

Told = Mapping[tuple[str, str], Facts]
"""The facts that each person is told with, by centre and subject."""


@dataclass(frozen=True)
class Person:
    """Somebody whose scans a study uses.

    Args:
        centre: name of the data set.
        subject: such as ``sub-01``.
        scans: scans with their label images.
        facts: what is known about the person.
        identity: equal for entries that are one person.
        labels: scheme of the label images; empty for the table beside them.
    """

    centre: str
    subject: str
    scans: tuple[ScanWithTruth, ...]
    facts: Facts
    identity: str
    labels: str = ""

    @property
    def entry(self) -> tuple[str, str]:
        """Centre and subject, which no two entries share."""
        return self.centre, self.subject


def scans_of(people: Iterable[Person]) -> list[Path]:
    """The scans of people, without their label images."""
    return [scan for person in people for scan, _ in person.scans]


def people_of(centres: Sequence[Centre]) -> list[Person]:
    """Everybody with a labelled scan, centre after centre, by name.

    Raises:
        SpansegError: a data set without a labelled scan, or a table that cannot be read.
    """
    identities = Identities(centres)
    return [person for centre in centres for person in _of_one(centre, identities)]


def _of_one(centre: Centre, identities: Identities) -> list[Person]:
    scans: dict[str, list[ScanWithTruth]] = {}
    for pair in sorted(pair_scans(centre.data, centre.data / "derivatives")):
        scans.setdefault(participant_of(pair[0]), []).append(pair)
    table = find_table(centre.data)
    facts = read_participants(table) if table else {}
    people = [
        Person(
            centre.name,
            subject,
            tuple(pairs),
            facts.get(subject, Facts()),
            identities.of(centre.name, subject),
            centre.labels,
        )
        for subject, pairs in scans.items()
    ]
    if centre.people > len(people):
        raise SpansegError(f"{centre.data}: {centre.people} people are asked for; {len(people)} have labelled scans.")
    return _spread(people, centre.people) if centre.people else people


def _spread(people: list[Person], count: int) -> list[Person]:
    """So many people from the youngest to the oldest; those of unknown age come first."""
    by_age = sorted(people, key=lambda person: person.facts.age_years or -1.0)
    places = np.linspace(0, len(people) - 1, count).round()
    chosen = {by_age[int(place)].subject for place in places}
    return [person for person in people if person.subject in chosen]


def told_facts(people: Sequence[Person], how: str, seed: int) -> list[Person]:
    """The people, each with the facts that they are told with.

    Args:
        people: everybody of the study.
        how: ``own``; ``shuffled``, somebody else's, the same in all data sets of a person; ``constant``, for everybody
            those of the person in the middle of the ages.
        seed: of the shuffling, in which nobody keeps their own.

    Raises:
        SpansegError: fewer than two people to shuffle.
    """
    if how == "own":
        return list(people)
    if how == "constant":
        by_age = sorted(people, key=lambda person: person.facts.age_years or 0)
        one = by_age[len(by_age) // 2].facts
        return [replace(person, facts=one) for person in people]
    own: dict[str, Facts] = {}
    for person in people:
        own.setdefault(person.identity, person.facts)
    if len(own) < 2:
        raise SpansegError("facts = 'shuffled' needs at least two people.")
    names = list(own)
    ring = [names[k] for k in np.random.default_rng([seed, 7]).permutation(len(names))]
    giver = {taker: ring[(k + 1) % len(ring)] for k, taker in enumerate(ring)}  # one ring: nobody's own
    return [replace(person, facts=own[giver[person.identity]]) for person in people]
