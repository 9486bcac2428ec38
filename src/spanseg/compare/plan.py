"""The plan of a study: who trains, who tests, in which order, and what each row and split stands for."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spanseg import checkpoint
from spanseg import recipe as recipes
from spanseg import splits as records
from spanseg.compare.checks import require_distinct_scans, require_known_labels, require_sound_recipes
from spanseg.compare.design import Split, splits_of
from spanseg.compare.origins import fingerprint, joined
from spanseg.compare.people import Person, people_of, scans_of
from spanseg.compare.results import STARTS, Cell, Results
from spanseg.compare.study import Row, Study, base_row, recipe_of
from spanseg.errors import SpansegError
from spanseg.files import file_sha256


@dataclass(frozen=True)
class Plan:
    """Everything that a study will do, known before anything runs.

    Args:
        study: what is compared.
        people: everybody.
        splits: who trains and who tests.
        cells: in the order in which they run: a seed, a split, then every row, so that each prefix compares all rows
            on the same people as far as it got. Where a base model learns other centres first, the rows that train
            nothing run before all others: whether a new centre loses anything is known before anything adapts to it.
    """

    study: Study
    people: tuple[Person, ...]
    splits: tuple[Split, ...]
    cells: tuple[Cell, ...]

    @property
    def meaning(self) -> dict[str, Any]:
        """What each row and each split stands for, as JSON values: recipes, and who trains and tests."""
        beside = {} if self.study.augment == "gentle" else {"augment": self.study.augment}
        rows = {
            f"row {row.name}": recipe_of(self.study, row, 0) | {"facts": row.facts} | beside | _test_of(row)
            for row in self.study.rows
        }
        sides = ("train", "validate", "new", "old", "before", "watched_before")
        splits: dict[str, dict[str, Any]] = {}
        prints = {f"{one.centre}/{one.subject}": fingerprint(one) for one in self.people}
        for split in self.splits:
            groups = {side: vars(split)[side] for side in sides}
            named = {side: [f"{one.centre}/{one.subject}" for one in people] for side, people in groups.items()}
            data = joined(prints[name] for names in named.values() for name in names)
            splits[f"split {split.name}"] = named | {"data": data}
        before = recipe_of(replace(self.study, steps=self.study.base_steps), base_row(self.study), 0)
        for split in self.splits:
            if split.before:
                splits[f"split {split.name}"]["base"] = before
        return rows | splits | {STARTS: self._starts()}

    def _starts(self) -> dict[str, str]:
        """Short hashes of the weights that rows start from, as far as they are here."""
        first = (base_row(self.study),) if self.study.design == "leave_one_centre_out" else ()
        rows = (*first, *self.study.rows)
        named = {recipe_of(self.study, row, 0)["train"].get("start", "") for row in rows} - {""}
        found = {}
        for start in sorted(named):
            with contextlib.suppress(SpansegError):  # a finished study does without them
                found[start] = file_sha256(checkpoint.weights_of(start))[: records.SHORT]
        return found


def _test_of(row: Row) -> dict[str, str]:
    """How a row is tested, where it is not as it was trained."""
    return {key: value for key, value in (("prompts", row.prompts), ("weights_of", row.weights_of)) if value}


def plan_of(study: Study) -> Plan:
    """Plan a study.

    Raises:
        SpansegError: a row that cannot be built, data that cannot be used, or people who would be learned from and
            tested.
    """
    require_sound_recipes(study)
    people = people_of(study.centres)
    require_known_labels(study, people)
    splits = splits_of(study, people)
    require_distinct_scans(study, splits)
    cells = [Cell(seed, split.name, row.name) for seed in study.seeds for split in splits for row in study.rows]
    if study.design == "leave_one_centre_out":
        untrained = {row.name for row in study.rows if not row.trains}
        cells.sort(key=lambda cell: cell.row not in untrained)
    return Plan(study, tuple(people), tuple(splits), tuple(cells))


def require_starts(plan: Plan, results: Results) -> None:
    """Find the weights that the cells start from which are still to be run, and look whom they were trained on.

    Raises:
        SpansegError: weights that are not there, the name of a recipe in their place, or weights that were trained on
            somebody who is tested, or on whom a learning curve is followed.
    """
    study = plan.study
    to_do = [row for row in study.rows if any(c.row == row.name and not results.finished(c) for c in plan.cells)]
    rows = [base_row(study)] if to_do and study.design == "leave_one_centre_out" else to_do
    starts = dict.fromkeys(recipe_of(study, row, 0)["train"].get("start", "") for row in rows)
    for weights in [_found(start, study.name) for start in starts if start]:
        if seen := records.seen_by(weights.parent):
            _require_unseen(plan, weights, seen)


def _require_unseen(plan: Plan, weights: Path, seen: frozenset[str]) -> None:
    """Refuse weights that were trained on somebody whom a split holds out."""
    nobody = ", or follow the learning curve on nobody (validate = 0)"
    for split in plan.splits:
        held_out = [(person, "tested", "") for person in split.tested]
        held_out += [(person, "watched", nobody) for person in (*split.validate, *split.watched_before)]
        for person, how, advice in held_out:
            if any(one.sha256[: records.SHORT] in seen for one in records.scans_in(scans_of([person]))):
                raise SpansegError(
                    f"{plan.study.name}, split {split.name}: {'/'.join(person.entry)} would be {how}, and the weights "
                    f"to start from were trained on this person's scan ({weights}); start from others, or leave the "
                    f"person out{advice}."
                )


def _found(start: str, study: str) -> Path:
    """The weights that rows start from."""
    if start in recipes.shipped() and not checkpoint.is_model(start):
        raise SpansegError(
            f"{study}: its rows start from the recipe '{start}'; train it once (spanseg train {start} --data "
            f'LABELMAPS) and name the run in the study: settings = ["train.start=runs/{start}"].'
        )
    try:
        return checkpoint.weights_of(start)
    except SpansegError as error:
        name = Path(start).name
        hint = f" Train it: spanseg train {name} --data LABELMAPS --out {start}" if name in recipes.shipped() else ""
        raise SpansegError(f"{study}: {error} It is looked for from where you are.{hint}") from error
