"""The registry: a part is a file in ``nets``, ``tokens``, ``adapt`` or ``objectives`` that holds one public class."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import inspect
import math
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from spanseg.errors import SpansegError

_KINDS: dict[type, tuple[Any, str]] = {
    bool: (bool, "true or false"),
    int: (int, "a whole number"),
    float: (int | float, "a number"),
    str: (str | Path, "a text"),
    tuple: (tuple | list, "a list"),
}
"""By the kind of an option's default: what it takes, and in words. An option without a default takes anything."""


def names(folder: str) -> list[str]:
    """List the parts of a folder: adding one is adding a file."""
    files = (resources.files("spanseg") / folder).iterdir()
    return sorted(f.name[:-3] for f in files if f.name.endswith(".py") and not f.name.startswith("_"))


def find(folder: str, name: str) -> type:
    """Import ``folder/name.py`` and return its one public class.

    Raises:
        SpansegError: there is no such part; the message lists those that exist.
    """
    if name not in names(folder):
        raise SpansegError(
            f"there is no '{name}' in {folder}; there are {', '.join(names(folder))}.{_hint(name, names(folder))}"
        )
    module = importlib.import_module(f"spanseg.{folder}.{name}")
    (found,) = [
        member
        for key, member in vars(module).items()
        if inspect.isclass(member) and member.__module__ == module.__name__ and not key.startswith("_")
    ]
    return found


def build(folder: str, name: str, options: dict[str, Any], **given: Any) -> Any:
    """Construct a part from the keyword arguments written in a recipe.

    Args:
        folder: ``nets``, ``tokens``, ``adapt`` or ``objectives``.
        name: file name of the part, without ``.py``.
        options: the recipe's keyword arguments.
        given: further arguments that the caller supplies, such as the number of classes.

    Raises:
        SpansegError: an option that the constructor does not take, with the nearest one that it does, or a value of
            another kind than its default.
    """
    part = find(folder, name)
    takes = {key: one.default for key, one in inspect.signature(part).parameters.items() if key not in given}
    _require_known(options, list(takes), f"{folder}.{part.__name__}")
    _require_kinds(options, takes, f"{folder}.{part.__name__}")
    return part(**options, **given)


def options_from(kind: type[Any], table: dict[str, Any], where: str) -> Any:
    """Build an options dataclass from a section of a recipe.

    Args:
        kind: the dataclass.
        table: its fields as the recipe writes them.
        where: name of the section.

    Raises:
        SpansegError: an unknown key, with the nearest one that exists, or a value of another kind than its default.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    _require_known(table, list(defaults), f"the recipe's [{where}]")
    _require_kinds(table, defaults, f"the recipe's [{where}]")
    return kind(**table)


def require_bounds(options: Any, bounds: Mapping[str, tuple[float, float]], where: str) -> None:
    """Refuse numbers outside what they may be.

    Args:
        options: holds them as attributes.
        bounds: lowest and highest value by name; the highest may be infinite, a value never.
        where: name of the recipe's section.

    Raises:
        SpansegError: a number is too small, too large, infinite or none.
    """
    for key, (low, high) in bounds.items():
        value = getattr(options, key)
        if not (math.isfinite(value) and low <= value <= high):
            words = f"{low:g} or more" if math.isinf(high) else f"from {low:g} to {high:g}"
            raise SpansegError(f"the recipe's [{where}] {key} must be {words}, not {value}.")


def _require_kinds(options: dict[str, Any], defaults: Mapping[str, Any], who: str) -> None:
    """Refuse values of another kind than their defaults."""
    for key, value in options.items():
        takes, words = _KINDS.get(type(defaults[key]), (object, ""))
        if not isinstance(value, takes) or (isinstance(value, bool) and takes not in (bool, object)):
            raise SpansegError(f"{who} {key} must be {words}, not {value!r}.")


def _require_known(options: dict[str, Any], takes: list[str], who: str) -> None:
    """Refuse options that somebody does not take."""
    for key in options:
        if key not in takes:
            raise SpansegError(f"{who} has no option '{key}'{_hint(key, takes)}; it takes: {', '.join(takes)}.")


def _hint(word: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(word, candidates, n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
