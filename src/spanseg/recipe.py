"""A recipe is data: which backbone, what it is told, what may change, what it is rewarded for, how it is trained."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

from spanseg.errors import SpansegError
from spanseg.sentences import load_table, with_reader

SECTIONS = (
    "recipe",
    "canvas",
    "backbone",
    "tokens",
    "adapt",
    "objective",
    "synth",
    "real",
    "cascade",
    "train",
    "paper",
)


def shipped() -> list[str]:
    """Names of the recipes inside the package."""
    folder = resources.files("spanseg") / "recipes"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load(name_or_path: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Read a recipe by its shipped name or from a TOML file, and apply ``section.key=value`` overrides.

    Raises:
        SpansegError: no such recipe, an unknown section, or an override that cannot be read.
    """
    path = Path(name_or_path)
    if name_or_path in shipped():
        text = (resources.files("spanseg") / "recipes" / f"{name_or_path}.toml").read_text(encoding="utf-8")
    elif path.suffix == ".toml" and path.is_file():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise SpansegError(f"{path}: a recipe is text in UTF-8, and this file is not; save it as such.") from error
    else:
        raise SpansegError(
            f"there is no recipe '{name_or_path}'; shipped are {', '.join(shipped())}, or give the path of a TOML file."
        )
    recipe = _parse(text, name_or_path)
    for override in overrides or []:
        _apply(recipe, override)
    return recipe


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        recipe = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpansegError(f"{where}: this recipe is not valid TOML ({error}).") from error
    unknown = [section for section in recipe if section not in SECTIONS]
    if unknown:
        raise SpansegError(f"{where}: a recipe has the sections {', '.join(SECTIONS)}, not {', '.join(unknown)}.")
    values = [section for section, table in recipe.items() if not isinstance(table, dict)]
    if values:
        raise SpansegError(f"{where}: {', '.join(values)} must be a section with keys, such as [{values[0]}].")
    return recipe


def _apply(recipe: dict[str, Any], override: str) -> None:
    """Apply one ``section.key=value``, the value written as in TOML (text may go without quotes)."""
    target, equals, value = override.partition("=")
    section, dot, key = target.partition(".")
    if not (equals and dot and key and section in SECTIONS):
        raise SpansegError(f"--set takes section.key=value with a section of {', '.join(SECTIONS)}, not '{override}'.")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    recipe.setdefault(section, {})[key] = parsed


def title_of(recipe: dict[str, Any], otherwise: str) -> str:
    """A recipe's title, with who reads the sentences that its network is told.

    Args:
        recipe: any.
        otherwise: title of a recipe that has none.
    """
    title, tokens = str(recipe.get("recipe", {}).get("title", otherwise)), recipe.get("tokens", {})
    return with_reader(title, load_table(tokens.get("table")).encoder if tokens.get("name") == "knowledge" else "")


def dumps(recipe: dict[str, Any]) -> str:
    """Write a recipe as TOML (two levels: sections of plain values and lists)."""
    lines = []
    for section, table in recipe.items():
        lines += [f"[{section}]", *(f"{key} = {toml_value(value)}" for key, value in table.items()), ""]
    return "\n".join(lines)


def toml_value(value: Any) -> str:
    """Write one plain value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml_value(item)}" for key, item in value.items()) + " }"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
