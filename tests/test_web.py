"""The page in a real browser, with the real server behind it: what is seen is what the server holds and saves.

``make test-web`` runs these alone and fails without a browser; elsewhere they are skipped where there is none.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest

from fake_corrector import AMYGDALA, HIPPOCAMPUS
from spanseg.errors import SpansegError
from spanseg.runtime import open_model
from web_page import FAKE, REAL, Page, block_in_file, hash_of, read, serving, showing, write_case

sync = pytest.importorskip("playwright.sync_api")

pytestmark = [pytest.mark.web, pytest.mark.timeout(600)]

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        reason = "needs Chromium (Debian: apt-get install chromium)"
        (pytest.fail if os.environ.get("SPANSEG_WEB") == "required" else pytest.skip)(reason)
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    with sync.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if as_root else [])
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the small scan and what is saved of it lie."""
    return tmp_path_factory.mktemp("web")


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """Of a server with the small scan."""
    scan, labels = write_case(folder / "in")
    with serving(FAKE, scan, "--labels", labels, "-o", folder / "out") as started:
        yield started


@pytest.fixture
def anna(browser: Any, address: str) -> Iterator[Page]:
    """The small scan as it was in the beginning, open in a fresh page."""
    with showing(browser, address) as page:
        while page.state()["can_undo"]:
            page.do(lambda: page.press("Control+z"))
        yield page


def correct_and_save(page: Page, structure: str, voxel: tuple[int, ...], out: Path) -> None:
    """Click, undo, redo, save and reload; the page shows what the server holds all the while."""
    first = page.labels()
    assert first == hash_of(page.served())
    page.choose(structure)
    page.go_to(voxel)
    page.press("a")
    page.do(lambda: page.tab.mouse.click(*page.place_of(voxel, 2)))
    clicked = page.labels()
    assert page.prompts[-1]["voxels"] == [list(voxel)] and page.prompts[-1]["positive"]
    assert clicked != first and clicked == hash_of(page.served())
    page.do(lambda: page.press("Control+z"))
    assert page.labels() == first == hash_of(page.served())
    page.do(lambda: page.press("Control+Shift+Z"))
    assert page.labels() == clicked == hash_of(page.served())
    page.press("Control+s")
    page.until("() => window.spanseg.state.saved && !window.spanseg.busy")
    assert "Saved" in page.said()
    page.tab.reload()
    assert page.ready().labels() == clicked
    (saved,) = out.rglob("*_desc-corrected_dseg.nii.gz")
    assert hash_of(read(saved)) == clicked


def test_what_is_clicked_is_seen_undone_redone_and_saved(anna: Page, folder: Path) -> None:
    voxels, middle = block_in_file(folder / "anna_labels.nii.gz")
    beside = (middle[0], int(voxels[:, 1].max()) + 2, middle[2])
    before = anna.picture()
    correct_and_save(anna, "Left-Hippocampus", beside, folder / "out")
    anna.go_to(beside)
    assert (np.abs(anna.picture() - before).max(-1) > 40).sum() > 50  # the new piece is drawn
    sizes = {row["id"]: row["mm3"] for row in anna.state()["structures"]}
    assert sizes[HIPPOCAMPUS] == pytest.approx((anna.served() == HIPPOCAMPUS).sum() * 10.0)


def click_on_what_is_drawn(page: Page, labels: Path) -> None:
    """Click on the yellow of the hippocampus in each plane; the prompts must lie in it, as it is stored."""
    voxels, middle = block_in_file(labels)
    page.go_to(middle)
    page.choose("Left-Hippocampus")
    page.press("a")
    page.tab.mouse.move(5, 790)
    picture, (x0, y0) = page.picture(), page.corner()
    height, width = (size // 2 for size in picture.shape[:2])
    for top, left in ((0, 0), (0, width), (height, 0)):
        red, green, blue = np.moveaxis(picture[top : top + height, left : left + width], -1, 0)
        yellow = np.argwhere((red - blue > 60) & (green - blue > 60))
        assert len(yellow) > 200, "no hippocampus in this plane"
        y, x = np.quantile(yellow, 0.1, axis=0) + 4  # off the middle, where the crosshair lies
        page.do(lambda x=x0 + left + x, y=y0 + top + y: page.tab.mouse.click(x, y))
        assert (voxels == page.prompts[-1]["voxels"][0]).all(1).any()
        page.go_to(middle)


def test_a_click_on_what_is_drawn_names_the_voxel_of_the_file(anna: Page, folder: Path) -> None:
    click_on_what_is_drawn(anna, folder / "anna_labels.nii.gz")


@pytest.mark.parametrize("codes", ["PSR", "IRP"])
def test_a_click_names_the_voxel_of_the_file_in_other_orders_of_axes(browser: Any, tmp_path: Path, codes: str) -> None:
    scan, labels = write_case(tmp_path / "in", codes)
    _, middle = block_in_file(labels)
    with serving(FAKE, scan, "--labels", labels, "-o", tmp_path / "out") as address, showing(browser, address) as page:
        page.go_to(middle)
        mm = page.run(
            "() => [...window.spanseg.planes.niivue.frac2mm(window.spanseg.planes.niivue.scene.crosshairPos)]"
        )
        assert np.allclose(mm[:3], (nibabel.load(scan).affine @ [*middle, 1])[:3], atol=1e-3)
        click_on_what_is_drawn(page, labels)


def test_left_is_on_the_left_until_it_is_asked_for_on_the_right(anna: Page, folder: Path) -> None:
    _, middle = block_in_file(folder / "anna_labels.nii.gz")
    anna.go_to(middle)
    x, _ = anna.place_of(middle, 2)
    assert x < anna.corner()[0] + 484 / 2  # the block is in the person's left half
    anna.tab.get_by_label("left on the right").check()
    mirrored, y = anna.place_of(middle, 2)
    assert mirrored > anna.corner()[0] + 484 / 2
    anna.tab.mouse.click(mirrored, y)
    assert anna.run("() => window.spanseg.planes.crosshair") == list(middle)


def test_a_box_is_as_deep_as_its_shorter_side(anna: Page, folder: Path) -> None:
    _, (i, j, k) = block_in_file(folder / "anna_labels.nii.gz")
    corner, opposite = (i - 4, j - 6, k), (i + 3, j + 5, k)  # 8 by 12 voxels of 2 mm: 16 mm, and 6 of 2.5 mm are 15 mm
    anna.choose("Left-Hippocampus")
    anna.go_to((i, j, k))
    anna.press("b")

    def drag() -> None:
        anna.tab.mouse.move(*anna.place_of(corner, 2))
        anna.tab.mouse.down()
        anna.tab.mouse.move(*anna.place_of((i, j, k), 2))
        anna.tab.mouse.move(*anna.place_of(opposite, 2))
        anna.tab.mouse.up()

    def click_twice() -> None:
        anna.tab.mouse.click(*anna.place_of(corner, 2))
        anna.tab.mouse.click(*anna.place_of(opposite, 2))

    for act in (drag, click_twice):
        anna.do(act)
        assert anna.prompts[-1]["kind"] == "box" and anna.prompts[-1]["positive"]
        low, high = np.sort(anna.prompts[-1]["voxels"], axis=0)
        assert np.array_equal(low, [i - 4, j - 6, k - 3]) and np.array_equal(high, [i + 3, j + 5, k + 3])
    assert anna.labels() == hash_of(anna.served())


def test_a_scribble_has_no_gaps_and_shift_turns_it_round(anna: Page, folder: Path) -> None:
    _, (i, j, k) = block_in_file(folder / "anna_labels.nii.gz")
    anna.choose("Left-Hippocampus")
    anna.go_to((i, j, k))
    anna.press("d")

    def draw() -> None:
        anna.tab.mouse.move(*anna.place_of((i - 5, j - 5, k), 2))
        anna.tab.mouse.down()
        anna.tab.mouse.move(*anna.place_of((i + 5, j + 3, k), 2))  # one long step
        anna.tab.mouse.up()

    anna.do(draw)
    path = np.array(anna.prompts[-1]["voxels"])
    assert anna.prompts[-1]["kind"] == "scribble" and anna.prompts[-1]["positive"]
    assert np.array_equal(path[0], [i - 5, j - 5, k]) and np.array_equal(path[-1], [i + 5, j + 3, k])
    assert (np.abs(np.diff(path, axis=0)).sum(1) <= 2).all() and len({tuple(voxel) for voxel in path}) == len(path)
    anna.tab.keyboard.down("Shift")
    anna.do(draw)
    anna.tab.keyboard.up("Shift")
    assert not anna.prompts[-1]["positive"] and anna.labels() == hash_of(anna.served())


def test_a_click_before_a_structure_is_chosen_is_answered_with_a_sentence(anna: Page, folder: Path) -> None:
    voxels, middle = block_in_file(folder / "anna_labels.nii.gz")
    anna.go_to(middle)
    anna.press("r")
    anna.tab.mouse.click(*anna.place_of(middle, 1))
    assert "Choose the structure to correct first" in anna.said() and not anna.prompts
    anna.press("p")  # the mouse is over the hippocampus
    assert anna.tab.locator("#chosen-name").text_content() == "Left-Hippocampus"
    assert "Left-Hippocampus · 6,400 mm³" in str(anna.tab.locator("#readout").text_content())
    anna.do(lambda: anna.tab.mouse.click(*anna.place_of(middle, 1)))
    assert not anna.prompts[-1]["positive"] and (anna.served() == HIPPOCAMPUS).sum() < len(voxels)


def test_where_next_goes_to_the_doubt_and_the_map_shows_it(anna: Page) -> None:
    anna.tab.get_by_role("button", name="Where next").click()
    following = anna.state()["next"]
    assert anna.run("() => window.spanseg.planes.crosshair") == following["voxel"]
    assert anna.run("() => window.spanseg.chosen") == following["structure"]
    plain = anna.picture()
    anna.press("u")
    anna.ready()
    assert (np.abs(anna.picture() - plain).max(-1) > 40).sum() > 100
    anna.press("u")
    anna.ready()
    anna.press("h")
    anna.tab.wait_for_timeout(500)
    assert (np.abs(anna.picture() - plain).max(-1) > 40).sum() > 100  # the labels are hidden
    anna.press("?")
    assert anna.tab.get_by_role("dialog").is_visible()
    anna.press("Escape")
    assert not anna.tab.get_by_role("dialog").is_visible()


def test_a_page_that_fell_behind_catches_up(anna: Page, folder: Path) -> None:
    _, middle = block_in_file(folder / "anna_labels.nii.gz")
    anna.choose("Left-Hippocampus")
    before = anna.state()["events"]
    prompt = {"structure": AMYGDALA, "kind": "point", "positive": True, "voxels": [list(middle)], "events": before}
    told = httpx.post(f"{anna.origin}/api/prompt", json=prompt, headers={"X-Spanseg-Token": anna.token}, timeout=60)
    assert told.status_code == 200
    anna.go_to(middle)
    anna.press("a")
    anna.tab.mouse.click(*anna.place_of(middle, 0))
    anna.until(f"() => window.spanseg.state.events === {before + 1} && !window.spanseg.busy")
    assert "older state" in anna.said() and anna.labels() == hash_of(anna.served())
    anna.complaints.clear()  # the browser notes the refusal
    anna.do(lambda: anna.tab.mouse.click(*anna.place_of(middle, 0)))
    assert anna.labels() == hash_of(anna.served())


def test_the_page_says_that_the_server_is_gone_and_goes_on_when_it_is_back(anna: Page, folder: Path) -> None:
    _, middle = block_in_file(folder / "anna_labels.nii.gz")
    anna.choose("Left-Hippocampus")
    anna.go_to(middle)
    anna.press("r")
    anna.tab.context.set_offline(True)
    anna.tab.mouse.click(*anna.place_of(middle, 2))
    anna.until("() => document.getElementById('error').textContent.includes('The server does not answer')")
    anna.tab.context.set_offline(False)
    anna.until("() => document.getElementById('message').textContent === 'The server is back.'")
    anna.complaints.clear()  # the browser notes each request that failed
    anna.do(lambda: anna.tab.mouse.click(*anna.place_of(middle, 2)))
    assert anna.labels() == hash_of(anna.served())


def test_a_server_that_was_started_anew_has_another_address(anna: Page) -> None:
    anna.tab.route("**/api/**", lambda route: route.abort())
    anna.press("Control+s")
    anna.until("() => document.getElementById('error').textContent.includes('does not answer')")
    anna.tab.unroute("**/api/**")
    refusal = {"status": 403, "json": {"error": "the token is missing or wrong."}}
    anna.tab.route("**/api/**", lambda route: route.fulfill(**refusal))
    anna.until("() => document.getElementById('error').textContent.includes('open the address that it printed')")
    anna.complaints.clear()  # the browser notes each request that failed


def test_one_of_several_scans_is_picked(browser: Any, tmp_path: Path) -> None:
    for name, codes in (("anna", "LAS"), ("ben", "PSR")):
        write_case(tmp_path / "in", codes, name)
    with serving(FAKE, tmp_path / "in", "-o", tmp_path / "out") as address:
        page = Page(browser, address)
        page.until("() => document.getElementById('invitation').textContent === 'Choose a scan above.'")
        for name in ("anna", "ben"):
            page.tab.get_by_label("Scan", exact=True).select_option(name)
            page.until(f"() => window.spanseg.state?.case === '{name}' && !window.spanseg.busy")
            assert page.labels() == hash_of(page.served())
        page.close()


@pytest.mark.slow
def test_a_real_head_is_corrected_in_the_page(browser: Any, tmp_path: Path, shared_data: Path) -> None:
    scan = shared_data / "heads" / "t1_crop.nii.gz"
    if not scan.is_file():
        pytest.skip("needs ../shared/data/heads/t1_crop.nii.gz (not part of the repository)")
    try:
        open_model("click")
    except SpansegError as error:
        pytest.skip(f"needs the click network: {error}")
    with serving(REAL, scan, "-o", tmp_path / "out") as address, showing(browser, address) as page:
        hippocampus = np.argwhere(page.served() == HIPPOCAMPUS)
        beside = hippocampus[hippocampus[:, 2].argmax()] + [0, 0, 2]
        correct_and_save(page, "Left-Hippocampus", tuple(int(index) for index in beside), tmp_path / "out")
