"""``spanseg info``: what this installation holds, told without loading anything heavy."""

from __future__ import annotations

import json as json_text
import platform
import tomllib
from importlib import resources
from importlib.util import find_spec
from typing import Annotated, Any

import typer

from spanseg import __version__
from spanseg.cli.main import COMMANDS, EXTRAS

LICENCES = {
    "code": "Apache-2.0",
    "label ids, names and colours": "as in FreeSurferColorLUT (FreeSurfer)",
    "MNI152 template of the demo (comes with nilearn)": "ICBM: free with its copyright notice",
}
_NOT_A_DEVICE = "spanseg is a research tool and no medical device: no diagnosis may rest on it."


def info(
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")] = False,
) -> None:
    """Show version, models, protocols, recipes, commands and licences of this installation."""
    found = collect()
    if json:
        print(json_text.dumps(found, indent=1, ensure_ascii=False))
        return
    for line in lines(found):
        print(line)


def collect() -> dict[str, Any]:
    """Everything that ``info`` tells, as plain values."""
    models, protocols = _tables("models"), _tables("protocols")
    return {
        "spanseg": __version__,
        "python": platform.python_version(),
        "models": [_model(name, table) for name, table in models.items()],
        "protocols": [
            {
                "name": name,
                "title": table["title"],
                "structures": len(table["structures"]) - 1,
                "schemes": _schemes(name, protocols),
            }
            for name, table in protocols.items()
        ],
        "recipes": [
            {"name": name, "title": table.get("recipe", {}).get("title", "")}
            for name, table in _tables("recipes").items()
        ],
        "commands": dict(COMMANDS),
        "extras": _extras(),
        "licences": LICENCES | {f"model {name}": table["model"]["licence"] for name, table in models.items()},
        "notice": _NOT_A_DEVICE,
    }


def _tables(folder: str) -> dict[str, dict[str, Any]]:
    """TOML tables of a folder of the package, by name: ``NAME.toml``, or ``NAME/model.toml``."""
    found = {}
    for entry in sorted(
        (resources.files("spanseg") / folder).iterdir(), key=lambda entry: entry.name.removesuffix(".toml")
    ):
        file = entry / "model.toml" if entry.is_dir() else entry
        if file.name.endswith(".toml") and file.is_file():
            found[entry.name.removesuffix(".toml")] = tomllib.loads(file.read_text(encoding="utf-8"))
    return found


def _schemes(name: str, protocols: dict[str, dict[str, Any]]) -> list[str]:
    """Label schemes that a protocol takes: its own, its cross-walks, and those of the protocol that it is part of."""
    table = protocols[name]
    whole = _schemes(table["part_of"], protocols) if "part_of" in table else []
    return list(dict.fromkeys((name, *table.get("crosswalks", {}), *whole)))


def _model(name: str, table: dict[str, Any]) -> dict[str, Any]:
    return {"name": name} | table["model"] | {key: table[key] for key in ("canvas", "metrics") if key in table}


def _extras() -> dict[str, bool]:
    """Whether all packages of each extra are installed (found, not imported)."""
    names = sorted(set(EXTRAS.values()))
    return {name: all(find_spec(package) for package, extra in EXTRAS.items() if extra == name) for name in names}


def lines(found: dict[str, Any]) -> list[str]:
    """What :func:`collect` found, for people."""
    text = [f"spanseg {found['spanseg']} (Python {found['python']})", "", "models"]
    text += [f"  {line}" for model in found["models"] for line in _model_lines(model)] or [
        "  none in this installation"
    ]
    text += ["", "protocols (label sets)"]
    for protocol in found["protocols"]:
        text += [f"  {protocol['name']}: {protocol['title']}", f"    label schemes: {', '.join(protocol['schemes'])}"]
    text += ["", "recipes (what 'spanseg train' takes)"]
    text += [f"  {r['name']}: {r['title']}" for r in found["recipes"]]
    text += ["", "commands"]
    text += [f"  {name:<10} {line}" for name, line in found["commands"].items()]
    text += ["", "extras"]
    for name, there in found["extras"].items():
        how = f"not installed (in a clone: pip install -c constraints.txt '.[{name}]')"
        text.append(f"  {name}: {'installed' if there else how}")
    text += ["", "licences"]
    text += [f"  {what}: {licence}" for what, licence in found["licences"].items()]
    return [*text, "", found["notice"]]


def _model_lines(model: dict[str, Any]) -> list[str]:
    rows = [f"{model['name']} {model['version']} ({model['licence']}), protocol {model['protocol']}"]
    if "canvas" in model:
        shape = " × ".join(f"{n * model['canvas']['voxel_mm']:g}" for n in model["canvas"]["shape"])
        rows.append(f"  canvas {shape} mm at {model['canvas']['voxel_mm']:g} mm")
    rows += [f"  {key}: {model[key]}" for key in ("data", "told") if model.get(key)]
    rows += [f"  {name}: {value}" for name, value in model.get("metrics", {}).items()]
    return rows
