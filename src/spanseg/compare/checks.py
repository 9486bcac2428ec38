"""What is wrong with a study's recipes and labels, found before anything runs instead of hours later."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from spanseg import model, params, runs, splits
from spanseg.compare.design import Split
from spanseg.compare.people import Person, scans_of
from spanseg.compare.study import Study, base_row, recipe_of
from spanseg.errors import SpansegError
from spanseg.images import read_labels
from spanseg.labelled import mapped
from spanseg.schemes import find_scheme
from spanseg.sources import synth_options, teller

_EMPTY = hashlib.sha256().hexdigest()


def require_sound_recipes(study: Study) -> None:
    """Build every row's network, loss and teller once.

    Raises:
        SpansegError: a setting that does not exist, or parts that do not fit each other.
    """
    first = (base_row(study),) if study.design == "leave_one_centre_out" else ()
    for row in (*first, *study.rows):
        recipe = recipe_of(study, row, 0)
        try:
            if any("image" not in one for one in model.inputs_of(recipe)):
                raise SpansegError("a study takes networks that see a scan alone, no cascades and no click networks.")
            params.count(recipe)
            runs.rewarded(recipe)
            synth_options(recipe)
            teller(recipe)
        except SpansegError as error:
            raise SpansegError(f"{study.name}, row {row.name}: {error}") from error


def require_known_labels(study: Study, people: Sequence[Person]) -> None:
    """Find the label scheme of every truth, and read the first truth of every data set by it.

    Raises:
        SpansegError: a scheme that the study's protocol does not have, a table that cannot be read, or labels that are
            not in the scheme.
    """
    protocol, read = model.protocol_of(recipe_of(study, study.rows[0], 0)), set()
    for person in people:
        for _, truth in person.scans:
            scheme = find_scheme(person.labels or None, protocol, truth)
            if person.centre not in read:
                read.add(person.centre)
                mapped(read_labels(truth).volume.data, scheme, protocol, truth)


def require_distinct_scans(study: Study, divided: Sequence[Split]) -> None:
    """Compare, by their bytes, the scans that test or follow a curve with those that are learned from.

    Raises:
        SpansegError: one scan, under two names, on both sides.
    """
    for split in divided:
        trained, watched = (*split.train, *split.before), (*split.validate, *split.watched_before)
        for learned, held_out, how in (
            ((*trained, *watched), split.tested, "tested with"),
            (trained, watched, "watched with"),
        ):
            names = {sha256: person for person in learned for sha256 in _hashes(person)}
            for person in held_out:
                for sha256 in _hashes(person) & names.keys():
                    raise SpansegError(
                        f"{study.name}, split {split.name}: {'/'.join(person.entry)} would be {how} the scan of "
                        f"{'/'.join(names[sha256].entry)}, which is learned from; {_way_out(study)}."
                    )


def _hashes(person: Person) -> set[str]:
    """Hashes of a person's scans; empty files are no scans."""
    return {one.sha256 for one in splits.scans_in(scans_of([person]))} - {_EMPTY}


def _way_out(study: Study) -> str:
    """What to do about one scan under two names: folds keep the entries of one person together."""
    if study.design in ("kfold", "fewshot"):
        return "leave one out, or say in participants.tsv (same_person_as) that they are one person"
    return "leave one of them out"
