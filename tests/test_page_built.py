"""The page that lies in the package: built from web/ as it is, small, and content with this server."""

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WEB, PAGE = ROOT / "web", ROOT / "src" / "spanseg" / "serve" / "page"
MOST_BYTES = 4 * 2**20
TEXTS = [path for path in sorted(PAGE.rglob("*")) if path.suffix in {".html", ".js", ".css"}]


def hashes() -> dict[str, str]:
    """Of each source of the page and the lock file, with line ends as git stores them."""
    paths = [path for path in WEB.rglob("*") if path.is_file() and "node_modules" not in path.parts]
    return {
        path.relative_to(WEB).as_posix(): hashlib.sha256(path.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
        for path in paths
    }


def test_the_page_was_built_from_these_sources() -> None:
    lines = (PAGE / "sources.sha256").read_text(encoding="utf-8").splitlines()
    built = {name: value for value, name in (line.split("  ", 1) for line in lines)}
    now = hashes()
    changed = sorted(name for name in built.keys() | now.keys() if built.get(name) != now.get(name))
    assert not changed, f"the page is older than {', '.join(changed)}: run 'make web'"
    assert {"package-lock.json", "index.html", "src/main.ts"} <= set(now)


def test_the_page_is_small_and_names_its_licences() -> None:
    assert sum(path.stat().st_size for path in PAGE.rglob("*") if path.is_file()) <= MOST_BYTES
    licences = (PAGE / "licences.txt").read_text(encoding="utf-8")
    bundled = {line.split()[0] for line in licences.splitlines() if re.fullmatch(r"\S+ \d[\w.]* \(.+\)", line)}
    assert {"@niivue/niivue", "gl-matrix", "nifti-reader-js", "fflate"} <= bundled
    assert "Redistributions in binary form" in licences


class References(HTMLParser):
    """What a browser loads with a page, and what would run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note one element."""
        given = dict(attrs)
        self.loaded += [str(given[name]) for name in ("src", "href") if name in given]
        self.inline += [name for name in given if name == "style" or name.startswith("on")]
        if tag == "style" or (tag == "script" and "src" not in given):
            self.inline.append(tag)


def test_the_page_loads_its_own_files_and_runs_nothing_inline() -> None:
    found = References()
    found.feed((PAGE / "index.html").read_text(encoding="utf-8"))
    assert not found.inline
    own = [reference for reference in found.loaded if reference != "data:,"]  # an empty icon, or browsers ask for one
    assert len(own) == 2 and all((PAGE / reference.lstrip("/")).is_file() for reference in own)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name[:5] + path.suffix)
def test_the_page_names_no_other_server_and_no_folder_of_the_builder(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"""(fetch|import|Worker|WebSocket|EventSource)\(\s*["'`](https?:|wss?:)?//""", text)
    assert not re.search(r"url\(\s*[\"']?(https?:)?//", text)
    assert not re.search(r"/(home|root|work|Users|tmp)/\w", text) and "node_modules" not in text
    assert "sourceMappingURL" not in text


def test_the_lock_file_names_no_registry() -> None:
    lock = (WEB / "package-lock.json").read_text(encoding="utf-8")
    assert '"resolved"' not in lock and '"integrity"' in lock
