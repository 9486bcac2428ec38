"""The picture of the correcting page in the README: the MNI152 T1 template, masked to the brain, in a real browser.

Needs Chromium and ``pip install 'spanseg[demo,serve]' playwright``; run ``python examples/page_picture.py``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from demo import write_template

PICTURE = Path("docs/pictures/page.png")
STRUCTURE = "Left-Hippocampus"
CROSSHAIR_MM = (-27, -22, -14)
PATIENCE_S = 300


def picture(address: str, path: Path) -> None:
    """Open the page, choose a structure, go there and take its picture."""
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = started.new_page(viewport={"width": 1280, "height": 800})
        page.goto(address)
        _wait(page)
        page.get_by_role("button", name=STRUCTURE).click()
        page.keyboard.press("a")
        page.evaluate(
            """mm => {
                const { planes } = window.spanseg;
                planes.crosshair = planes.grid.voxelAt(planes.niivue.mm2frac(mm));
                planes.enlarge(1.25);
            }""",
            list(CROSSHAIR_MM),
        )
        page.mouse.move(640, 790)  # off the planes: the line at the bottom then speaks of the crosshair
        page.wait_for_timeout(5000)  # 3D comes last
        page.screenshot(path=path)
        started.close()


def _wait(page: Any) -> None:
    end = time.monotonic() + PATIENCE_S
    while not page.evaluate("() => window.spanseg?.state != null && !window.spanseg.busy"):
        if time.monotonic() > end:
            sys.exit("the page never showed the scan")
        time.sleep(0.2)


def main() -> None:
    """Write the template, serve it, and take the picture."""
    with tempfile.TemporaryDirectory() as folder:
        scan = write_template(Path(folder))
        serving = [sys.executable, "-m", "spanseg", "serve", str(scan), "-o", folder, "--no-browser"]
        with subprocess.Popen(serving, stdout=subprocess.PIPE, text=True, encoding="utf-8") as process:
            try:
                address = re.search(r"http://\S+", process.stdout.readline() if process.stdout else "")
                if address is None:
                    sys.exit("the server did not start")
                picture(address[0], PICTURE)
            finally:
                process.terminate()
    print(PICTURE)


if __name__ == "__main__":
    main()
