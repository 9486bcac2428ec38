"""A study: which rows are compared, on whose scans, split how; read from a TOML file and checked as a whole."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from importlib import resources
from pathlib import Path
from typing import Any

from spanseg import recipe as recipes
from spanseg.errors import SpansegError

DESIGNS = ("kfold", "fewshot", "leave_one_centre_out", "cross_dataset")
FACTS = ("own", "shuffled", "constant")
AUGMENT = ("gentle", "usual")
PROMPTS = ("none", "auto", "click", "box")
BASE = "zero_shot"
"""The row that is the base model as it is."""
LISTED = {str: "texts", int: "whole numbers", list: "pairs of names"}
LISTS: dict[str, type[Any]] = {
    **dict.fromkeys(("rows", "settings", "base_settings", "only", "train_centres"), str),
    **dict.fromkeys(("seeds", "shots"), int),
    "against": list,
}
"""Keys of ``[study]`` that are lists, and of what."""
KINDS: dict[str, tuple[type[Any], str]] = {
    "str": (str, "a text"),
    "bool": (bool, "true or false"),
    "int": (int, "a whole number"),
}
"""Types of a described key, by how they are written, and their words."""
OF_A_TEST = ("says", "prompts", "weights_of")
"""Keys of a row that tests the weights of another one: what it is besides, that one says."""
SHARED_TOKEN_KEYS = ("stages", "meet", "count", "facts", "table")
"""Of the base's ``[tokens]``: what holds for any source of tokens."""


@dataclass(frozen=True)
class Row:
    """One way of adapting.

    Args:
        name: in tables.
        says: in words.
        trains: whether anything is trained.
        starts: whether from the base model's weights.
        start: a run to start from instead of the base recipe's; empty for that one.
        facts: whose facts a person is told with.
        tokens: replaces the base's section; ``None`` for a network that is told nothing.
        adapt: replaces the base's section.
        settings: ``section.key=value`` overrides for this row alone, after those of the study.
        base: recipe that this row is written on instead of the study's; the study's settings do not apply to it.
        prompts: how a network of slices is asked in the test, one of ``PROMPTS``; empty for as any network is.
        weights_of: another row, whose weights are tested; nothing is trained for this one.
    """

    name: str
    says: str = ""
    trains: bool = True
    starts: bool = True
    start: str = ""
    facts: str = "own"
    tokens: Mapping[str, Any] | None = None
    adapt: Mapping[str, Any] = field(default_factory=lambda: {"name": "full"})
    settings: Sequence[str] = ()
    base: str = ""
    prompts: str = ""
    weights_of: str = ""


@dataclass(frozen=True)
class Centre:
    """A data set of labelled scans.

    Args:
        name: in tables.
        data: BIDS folder.
        labels: scheme of its labels; empty for the table beside them.
        people: how many of its people are used, evenly spread over the ages; 0 for all.
    """

    name: str
    data: Path
    labels: str = ""
    people: int = 0


@dataclass(frozen=True)
class Study:
    """What is compared.

    Args:
        name: of the study: the stem of its file.
        title: of its report.
        base: recipe that all rows are written on.
        rows: what is compared.
        centres: where the scans come from.
        design: how people are split, one of ``DESIGNS``.
        steps: optimiser steps of every row.
        settings: ``section.key=value`` overrides of the base recipe.
        reference: the row that all others are tested against; ``full`` if empty, or the last row where there is none.
        seeds: each is a repetition of the whole.
        folds: of ``kfold``; the share of a centre that tests is 1/folds in the other designs.
        shots: of ``fewshot``: how many people train, each set inside the next.
        validate: people kept out of training in every split to follow the learning curve with.
        base_steps: of ``leave_one_centre_out``: steps in which the base model learns the other centres first.
        base_settings: overrides for that base model alone.
        only: names of the splits that are run, such as ``fold0``; all if empty.
        augment: how scans are varied in training: ``gentle``, as an adaptation does, or ``usual``, as far as the base
            recipe's ``[synth]`` says, for a network that learns from nothing.
        train_centres: of ``cross_dataset``; the others test.
        against: pairs of rows that are tested against each other, beside all against the reference.
    """

    name: str
    title: str
    base: str
    rows: tuple[Row, ...]
    centres: tuple[Centre, ...]
    design: str = "kfold"
    steps: int = 100
    settings: tuple[str, ...] = ()
    reference: str = ""
    seeds: tuple[int, ...] = (0,)
    folds: int = 3
    shots: tuple[int, ...] = (1, 2, 5)
    validate: int = 1
    base_steps: int = 100
    base_settings: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    augment: str = "gentle"
    train_centres: tuple[str, ...] = ()
    against: tuple[Sequence[str], ...] = ()


def shipped_rows() -> dict[str, dict[str, Any]]:
    """The rows that are known by name."""
    text = (resources.files("spanseg") / "compare" / "rows.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def read_study(path: Path, data: Path | None = None) -> Study:
    """Read a study.

    Args:
        path: the TOML file: ``[study]``, one ``[centre.NAME]`` a data set, and ``[row.NAME]`` for rows that are not
            shipped or differ from the shipped ones.
        data: folder that the data sets' paths are relative to; that of the file by default.

    Raises:
        SpansegError: the file cannot be read, an unknown key, row or design, or a data set that is not there.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpansegError(f"{path}: this study cannot be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpansegError(f"{path}: this study is not valid TOML ({error}).") from error
    return study_from(table, path.stem, data or path.parent, str(path))


def study_from(table: Mapping[str, Any], name: str, data: Path, where: str) -> Study:
    """Check the tables of a study; arguments as for :func:`read_study`."""
    _check_keys(table, ("study", "centre", "row"), where, "section")
    own, centre = table.get("row", {}), table.get("centre", {})
    for kind, one in (("study", table.get("study", {})), ("row", own), ("centre", centre)):
        _need_table(one, f"{where} [{kind}]")
    section = dict(table.get("study", {}))
    plain = [f.name for f in fields(Study) if f.name not in ("name", "centres")]
    _check_keys(section, plain, f"{where} [study]", "key")
    _need(section, ("title", "base", "rows"), f"{where} [study]")
    _check_kinds(section, Study, f"{where} [study]")
    _check_lists(section, f"{where} [study]")
    if "shots" in section and section.get("design") != "fewshot":
        raise SpansegError(f'{where} [study]: shots is for design = "fewshot"; leave it out, or name that design.')
    names = list(section["rows"])
    _check_keys(own, names, f"{where} [row]", "row (it is not among [study] rows)")
    alone = {one: _row(one, own.get(one, {}), where) for one in names}
    rows = tuple(_with_weights(row, own.get(one, {}), alone, where) for one, row in alone.items())
    centres = tuple(_centre(one, values, data, where) for one, values in centre.items())
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in section.items()}
    values |= {"name": name, "centres": centres, "rows": rows}
    study = Study(**values)
    _check(study, where)
    return study


def _row(name: str, own: Mapping[str, Any], where: str) -> Row:
    """A shipped row, changed by the study's own keys."""
    known = shipped_rows()
    if name not in known and not own:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise SpansegError(
            f"{where}: there is no row '{name}'; {hint}shipped are {', '.join(known)}, or describe it in [row.{name}]."
        )
    _need_table(own, f"{where} [row.{name}]")
    _check_keys(own, [f.name for f in fields(Row) if f.name != "name"], f"{where} [row.{name}]", "key")
    settings = own.get("settings", [])
    if not isinstance(settings, list) or not all(isinstance(one, str) for one in settings):
        raise SpansegError(f"{where} [row.{name}]: settings must be a list of texts, not {settings!r}.")
    for part in ("tokens", "adapt"):
        if part in own and not (isinstance(own[part], Mapping) and own[part].get("name")):
            raise SpansegError(f'{where} [row.{name}]: {part} must be a table with a name, such as {{ name = "…" }}.')
    _check_kinds(own, Row, f"{where} [row.{name}]")
    row = Row(name, **(known.get(name, {}) | dict(own)))
    if row.facts not in FACTS:
        raise SpansegError(f"{where} [row.{name}]: facts must be {', '.join(FACTS)}, not '{row.facts}'.")
    if row.prompts and row.prompts not in PROMPTS:
        raise SpansegError(f"{where} [row.{name}]: prompts must be {', '.join(PROMPTS)}, not '{row.prompts}'.")
    return row


def _with_weights(row: Row, own: Mapping[str, Any], rows: Mapping[str, Row], where: str) -> Row:
    """A row that tests another one's weights is that row, but for its name and its test."""
    if not row.weights_of:
        return row
    here = f"{where} [row.{row.name}]"
    _check_keys(own, OF_A_TEST, here, "key beside weights_of")
    trained = rows.get(row.weights_of)
    if trained is None:
        raise SpansegError(f"{here}: weights_of is '{row.weights_of}', which is not among [study] rows.")
    if trained.weights_of:
        raise SpansegError(
            f"{here}: weights_of is '{trained.name}', which itself tests the weights of '{trained.weights_of}'; "
            "name the row that trains."
        )
    if not trained.trains:
        raise SpansegError(f"{here}: weights_of is '{trained.name}', which trains nothing; name a row that trains.")
    return replace(trained, name=row.name, says=row.says, prompts=row.prompts, weights_of=row.weights_of)


def _centre(name: str, values: Mapping[str, Any], data: Path, where: str) -> Centre:
    _need_table(values, f"{where} [centre.{name}]")
    _check_keys(values, ("data", "labels", "people"), f"{where} [centre.{name}]", "key")
    _check_kinds(values, Centre, f"{where} [centre.{name}]")
    given = values.get("data", name)
    if not isinstance(given, str):
        raise SpansegError(f"{where} [centre.{name}]: data must be a text, not {given!r}.")
    folder = next((one for one in (data / given, Path(given)) if one.is_dir()), None)
    if folder is None:
        raise SpansegError(
            f"{where} [centre.{name}]: there is no folder {data / given}; say with --data where the data sets are."
        )
    people = values.get("people", 0)
    if people < 0:
        raise SpansegError(f"{where} [centre.{name}]: people must be a whole number, 0 for all, not {people!r}.")
    return Centre(name, folder, values.get("labels", ""), people)


def _check(study: Study, where: str) -> None:
    """Refuse what would fail, or mean nothing, hours later."""
    if study.design not in DESIGNS:
        raise SpansegError(f"{where} [study]: design must be one of {', '.join(DESIGNS)}, not '{study.design}'.")
    if study.augment not in AUGMENT:
        raise SpansegError(f"{where} [study]: augment must be {' or '.join(AUGMENT)}, not '{study.augment}'.")
    if not study.centres:
        raise SpansegError(f"{where}: a study needs at least one [centre.NAME] with data and labels.")
    for key, least in (("steps", 1), ("base_steps", 1), ("folds", 2), ("validate", 0)):
        value = getattr(study, key)
        if value < least:
            raise SpansegError(f"{where} [study]: {key} must be a whole number of at least {least}, not {value!r}.")
    _check_rows(study, where)
    centres = [centre.name for centre in study.centres]
    unknown = [name for name in study.train_centres if name not in centres]
    if unknown:
        raise SpansegError(
            f"{where} [study]: train_centres names {', '.join(unknown)}; there are {', '.join(centres)}."
        )
    folders: dict[Path, str] = {}
    for centre in study.centres:
        other = folders.setdefault(centre.data.resolve(), centre.name)
        if other != centre.name:
            raise SpansegError(f"{where} [centre.{centre.name}]: it is the folder of [centre.{other}]; name it once.")
    for row in study.rows:
        _check_recipe(study, row, where)


def _check_rows(study: Study, where: str) -> None:
    """Refuse tests against rows that are not there."""
    named = [row.name for row in study.rows]
    if study.reference and study.reference not in named:
        raise SpansegError(f"{where} [study]: reference is '{study.reference}', which is not among its rows.")
    if study.design == "leave_one_centre_out" and BASE not in named:
        raise SpansegError(
            f"{where} [study]: leave_one_centre_out needs the row {BASE}, by which gain and forgetting are measured."
        )
    for row in study.rows:
        if row.start and study.design == "leave_one_centre_out":
            raise SpansegError(f"{where} [row.{row.name}]: in {study.design} all start from the base; leave out start.")
    for pair in study.against:
        if len(pair) != 2 or pair[0] == pair[1] or any(one not in named for one in pair):
            raise SpansegError(f"{where} [study]: against takes pairs of its rows, not {list(pair)}.")


def _check_lists(section: Mapping[str, Any], where: str) -> None:
    """Refuse keys that are no list of what they should list, or that name something twice."""
    for key, kind in LISTS.items():
        value = section.get(key, [])
        if not isinstance(value, list) or not all(type(one) is kind for one in value):
            raise SpansegError(f"{where}: {key} must be a list of {LISTED[kind]}, not {value!r}.")
        if key == "seeds" and any(one < 0 for one in value):
            raise SpansegError(f"{where}: seeds must be 0 or more, not {value!r}.")
        if key in ("rows", "seeds") and key in section and (not value or len(set(value)) < len(value)):
            raise SpansegError(f"{where}: {key} must name one or more, each once, not {value!r}.")


def _check_kinds(table: Mapping[str, Any], described: type[Any], where: str) -> None:
    """Refuse what is no text, truth value or whole number where the class that describes the table says so."""
    for one in fields(described):
        if one.name in table and str(one.type) in KINDS:
            kind, words = KINDS[str(one.type)]
            if type(table[one.name]) is not kind:  # true is no whole number
                raise SpansegError(f"{where}: {one.name} must be {words}, not {table[one.name]!r}.")


def _check_recipe(study: Study, row: Row, where: str) -> None:
    """Refuse prompts that the row's network cannot take, and a base whose classes are not the study's."""
    recipe = recipe_of(study, row, 0)
    if not isinstance(recipe["train"].get("start", ""), str):
        raise SpansegError(f"{where} [row.{row.name}]: train.start must be a text, not {recipe['train']['start']!r}.")
    if recipe["train"].get("patience") or recipe["train"].get("keep_start"):
        raise SpansegError(
            f"{where} [row.{row.name}]: set train.patience and train.keep_start to 0; one would give rows different "
            "numbers of steps, and rows are tested as they were trained."
        )
    backbone = recipe.get("backbone", {}).get("name", "")
    if row.prompts and backbone != "sam":
        raise SpansegError(
            f"{where} [row.{row.name}]: prompts are for networks of slices that take them (backbone sam), and this "
            f"row's backbone is {backbone}; leave prompts out."
        )
    ours = recipes.load(study.base, list(study.settings))
    known, own = (one.get("recipe", {}).get("protocol", "aseg") for one in (ours, recipe))
    if row.base and own != known:
        raise SpansegError(
            f"{where} [row.{row.name}]: its base '{row.base}' labels the protocol '{own}' and the study's base "
            f"'{known}'; only rows with the same structures can be compared."
        )
    if row.base and row.starts and study.design == "leave_one_centre_out":
        raise SpansegError(
            f"{where} [row.{row.name}]: it has a base of its own and would start from the weights of another network; "
            "give it starts = false."
        )


def base_row(study: Study) -> Row:
    """How the base model of ``leave_one_centre_out`` is trained: everything, told nothing."""
    return Row("base", settings=study.base_settings)


def recipe_of(study: Study, row: Row, seed: int) -> dict[str, Any]:
    """The recipe of a row: that of the study with the row's own sections, the common number of steps and a seed."""
    base = row.base or study.base
    recipe = recipes.load(base, [*(() if row.base else study.settings), *row.settings])
    given = recipe.pop("tokens", {})
    if row.tokens is not None:
        same = given if given.get("name") == row.tokens["name"] else {}
        recipe["tokens"] = {key: given[key] for key in SHARED_TOKEN_KEYS if key in given} | same | dict(row.tokens)
        if "stages" not in recipe["tokens"]:
            raise SpansegError(f"row '{row.name}': the base recipe '{base}' does not say which stages are fed.")
    policy = recipe.get("adapt", {})
    same_change = policy if policy.get("name") == row.adapt["name"] else {}
    recipe["adapt"] = same_change | dict(row.adapt)
    train = recipe.setdefault("train", {})
    train |= {"steps": study.steps, "seed": seed, "validate_every": max(1, study.steps // 6)}
    for key in ("real", "paper"):
        recipe.pop(key, None)
    if row.start:
        train["start"] = row.start
    if not row.starts:
        train.pop("start", None)
    return recipe


def _check_keys(table: Mapping[str, Any], known: Any, where: str, what: str) -> None:
    known = list(known)
    for key in table:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            hint = f" (did you mean '{close[0]}'?)" if close else ""
            raise SpansegError(f"{where}: '{key}' is no {what} here{hint}; there are {', '.join(known)}.")


def _need_table(value: Any, where: str) -> None:
    if not isinstance(value, Mapping):
        raise SpansegError(f"{where}: this must be a table of keys and values, not {value!r}.")


def _need(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    missing = [key for key in keys if not table.get(key)]
    if missing:
        raise SpansegError(f"{where}: {', '.join(missing)} must be given.")
