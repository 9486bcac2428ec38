"""A small scan, ``spanseg serve`` with it, and its page in a browser as a user sees it, for the tests of the page."""

import gzip
import hashlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
from nibabel.orientations import axcodes2ornt, ornt_transform
from PIL import Image

import fake_corrector
from fake_corrector import HIPPOCAMPUS, WHITE

FAKE = [sys.executable, str(Path(fake_corrector.__file__)), "serve"]
"""The real server with a corrector that paints balls."""
REAL = [sys.executable, "-m", "spanseg", "serve"]
PATIENCE_S = 300  # a head without a graphics card, on a busy computer
SHAPE_RAS = (40, 50, 37)
SIZE_MM = (2.0, 2.0, 2.5)
BLOCK_RAS = np.s_[8:16, 20:30, 14:22]
"""Where the left hippocampus of the small scan is: on one side in every direction."""


def write_case(folder: Path, codes: str = "LAS", name: str = "anna") -> tuple[Path, Path]:
    """Write a small scan with labels, stored in some order of axes; returns both paths."""
    grids = np.meshgrid(*(np.linspace(-1, 1, size) for size in SHAPE_RAS), indexing="ij")
    inside = sum(axis**2 for axis in grids) < 0.8
    noise = np.random.default_rng(0).uniform(0, 20, SHAPE_RAS)
    labels = np.where(inside, WHITE, 0)
    labels[BLOCK_RAS] = HIPPOCAMPUS
    affine = np.diag([*SIZE_MM, 1.0])
    affine[:3, 3] = (-38, -60, -41)
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    folder.mkdir(parents=True, exist_ok=True)
    paths = (folder / f"{name}.nii.gz", folder.parent / f"{name}_labels.nii.gz")
    for path, data in zip(paths, ((40 * inside + noise).astype(np.float32), labels.astype(np.int16)), strict=True):
        nibabel.save(nibabel.Nifti1Image(data, affine).as_reoriented(turn), path)
    return paths


@contextmanager
def serving(command: list[str], *options: Any) -> Iterator[str]:
    """Run ``spanseg serve`` and yield the address of its page."""
    words = [*command, *map(str, options), "--no-browser"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
        try:
            assert process.stdout is not None
            address = re.search(r"http://\S+", process.stdout.readline())
            assert address, "the server ended at once"
            yield address[0]
        finally:
            process.terminate()


class Page:
    """The page as a user sees it, and what it asked for.

    Args:
        browser: of the tests.
        address: with the token.
    """

    def __init__(self, browser: Any, address: str) -> None:
        self.address, (self.origin, self.token) = address, address.split("/?token=")
        self.tab = browser.new_page(viewport={"width": 1280, "height": 800})
        self.outside: list[str] = []
        self.complaints: list[str] = []
        self.prompts: list[dict[str, Any]] = []
        self.tab.on("request", self._note)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("console", lambda line: line.type == "error" and self.complaints.append(line.text))
        self.tab.goto(address)

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.origin, "data:", "blob:")):
            self.outside.append(request.url)
        if request.url.endswith("/api/prompt"):
            self.prompts.append(request.post_data_json)

    def run(self, script: str, *given: Any) -> Any:
        """Run JavaScript in the page."""
        return self.tab.evaluate(script, *given)

    def until(self, script: str) -> None:
        """Wait until JavaScript is true (the page's policy forbids the browser's own way of waiting)."""
        end = time.monotonic() + PATIENCE_S
        while not self.run(script):
            assert time.monotonic() < end, f"never came true: {script}; the page says: {self.said()}"
            time.sleep(0.1)

    def ready(self) -> "Page":
        """Wait until a scan is shown and nothing is being done."""
        self.until("() => window.spanseg?.state != null && !window.spanseg.busy")
        return self

    def said(self) -> str:
        """What the line at the bottom says."""
        return str(self.run("() => ['message', 'error'].map(id => document.getElementById(id).textContent).join('')"))

    def do(self, act: Callable[[], None]) -> None:
        """Do something that changes the labels, and wait for the answer."""
        before = self.state()["events"]
        act()
        self.until(f"() => window.spanseg.state.events > {before} && !window.spanseg.busy")

    def press(self, key: str) -> None:
        """Press a key."""
        self.tab.keyboard.press(key)

    def choose(self, name: str) -> None:
        """Find a structure with the filter and choose it."""
        self.tab.get_by_label("Filter structures").fill(name)
        self.tab.get_by_role("button", name=name).click()
        self.tab.get_by_label("Filter structures").fill("")
        self.press("Escape")  # out of the filter: other keys are shortcuts again

    def state(self) -> dict[str, Any]:
        """What the page believes of the scan."""
        return dict(self.run("() => window.spanseg.state"))

    def labels(self) -> str:
        """Hash of the labels that the page shows, in the file's order."""
        script = """async () => {
            const digest = await crypto.subtle.digest("SHA-256", window.spanseg.planes.labels);
            return [...new Uint8Array(digest)].map(byte => byte.toString(16).padStart(2, "0")).join("");
        }"""
        return str(self.run(script))

    def served(self) -> np.ndarray:
        """The labels that the server holds."""
        answer = httpx.get(f"{self.origin}/api/labels.nii.gz", headers={"X-Spanseg-Token": self.token}, timeout=60)
        return read(answer.content)

    def go_to(self, voxel: tuple[int, ...]) -> None:
        """Move the crosshair to a voxel of the file."""
        self.run("voxel => { window.spanseg.planes.crosshair = voxel }", list(voxel))

    def place_of(self, voxel: tuple[int, ...], normal: int) -> tuple[float, float]:
        """Where the plane across an axis shows a voxel on the screen, in whole pixels as a mouse moves."""
        script = "([voxel, normal]) => window.spanseg.planes.placesOf(voxel).find(place => place.normal === normal)"
        place = self.run(script, [list(voxel), normal])
        left, top = self.corner()
        return round(left + place["x"]), round(top + place["y"])

    def corner(self) -> tuple[float, float]:
        """Of the planes on the screen."""
        box = self.tab.locator("#planes").bounding_box()
        return box["x"], box["y"]

    def picture(self) -> np.ndarray:
        """What the planes look like, shape (row, column, 3)."""
        return np.asarray(Image.open(BytesIO(self.tab.locator("#views").screenshot())).convert("RGB")).astype(int)

    def close(self) -> None:
        """Close the page; it must not have asked anyone else, nor complained."""
        self.tab.close()
        assert not self.outside
        assert not self.complaints


@contextmanager
def showing(browser: Any, address: str) -> Iterator[Page]:
    """A page that shows its scan."""
    page = Page(browser, address)
    yield page.ready()
    page.close()


def read(content: bytes | Path) -> np.ndarray:
    """Voxels of a label file."""
    if isinstance(content, Path):
        content = content.read_bytes()
    image = nibabel.Nifti1Image.from_stream(BytesIO(gzip.decompress(content)))
    return np.asanyarray(image.dataobj)


def hash_of(labels: np.ndarray) -> str:
    """Hash as the page makes it: uint16, first axis fastest."""
    return hashlib.sha256(labels.astype("<u2").tobytes(order="F")).hexdigest()


def block_in_file(labels: Path) -> tuple[np.ndarray, tuple[int, ...]]:
    """Voxels of the hippocampus in the file, and one in their middle."""
    voxels = np.argwhere(read(labels) == HIPPOCAMPUS)
    return voxels, tuple(int(value) for value in (voxels.min(0) + voxels.max(0)) // 2)
