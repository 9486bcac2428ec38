"""The files of the built page: a list that is made once, so that no path of a request ever reaches the disk."""

from __future__ import annotations

from importlib import resources
from importlib.resources.abc import Traversable

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".woff2": "font/woff2",
    ".txt": "text/plain; charset=utf-8",
}
"""Kinds of files that a page consists of; others in its folder are not served."""


def page_files() -> dict[str, tuple[bytes, str]]:
    """Content and type of each file, by its path on the server; ``/`` is the page itself."""
    folder = resources.files("spanseg") / "serve" / "page"
    found = dict(_under(folder, "")) if folder.is_dir() else {}
    served = {f"/{name}": (entry.read_bytes(), kind) for name, (entry, kind) in found.items()}
    if "/index.html" in served:
        served["/"] = served.pop("/index.html")
    return served


def _under(folder: Traversable, above: str) -> list[tuple[str, tuple[Traversable, str]]]:
    found: list[tuple[str, tuple[Traversable, str]]] = []
    for entry in folder.iterdir():
        name = f"{above}{entry.name}"
        ending = f".{entry.name.rpartition('.')[2]}"
        if entry.is_dir():
            found += _under(entry, f"{name}/")
        elif ending in KINDS:
            found.append((name, (entry, KINDS[ending])))
    return found
