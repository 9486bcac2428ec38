"""The server: who may ask, what is answered, one sentence for whatever is wrong, and nothing lost when it is killed."""

import base64
import gzip
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest
from fastapi.testclient import TestClient

import fake_corrector
from fake_corrector import AMYGDALA, HIPPOCAMPUS, PROTOCOL, SHAPE, BallCorrector, FakeBelief, write_scan
from spanseg.beginnings import Beginning
from spanseg.cases import find_cases
from spanseg.dataset_audit import inspect_dataset
from spanseg.errors import SpansegError
from spanseg.files import host
from spanseg.labelled import pair_scans
from spanseg.serve import application as applications
from spanseg.serve.application import application
from spanseg.serve.desk import Desk, Means
from spanseg.serve.guard import MOST_BYTES

TOKEN, PORT = "a-secret-of-this-test", 8765
PROGRAM = [sys.executable, str(Path(fake_corrector.__file__)), "serve"]
POINT = {"structure": HIPPOCAMPUS, "kind": "point", "positive": True, "voxels": [[6, 6, 6]]}


def desk_of(tmp_path: Path, corrector: type = BallCorrector, beginning: Beginning | None = None) -> Desk:
    out = tmp_path / "out"
    means = Means(PROTOCOL, FakeBelief(), corrector, beginning or Beginning())
    return Desk(find_cases(tmp_path / "in", out), out, means)


def client_of(desk: Desk, token: str = TOKEN, **headers: str) -> TestClient:
    given = {"X-Spanseg-Token": token} if token else {}
    app = application(desk, TOKEN, PORT)
    return TestClient(app, base_url=f"http://127.0.0.1:{PORT}", headers=given | headers, raise_server_exceptions=False)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    for number, name in enumerate(("anna", "ben")):
        write_scan(tmp_path / "in" / f"{name}.nii.gz", seed=number)
    made = desk_of(tmp_path)
    yield made
    made.close()


@pytest.fixture
def page(desk: Desk) -> TestClient:
    client = client_of(desk)
    assert client.post("/api/open", json={"case": "anna"}).status_code == 200
    return client


def error_of(answer: httpx.Response, status: int) -> str:
    """The sentence of a refusal: JSON, one line, nothing else."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert list(body) == ["error"] and "\n" not in body["error"] and "Traceback" not in body["error"]
    return str(body["error"])


def image_of(answer: httpx.Response) -> Any:
    return nibabel.Nifti1Image.from_stream(io.BytesIO(gzip.decompress(answer.content)))


def test_a_case_is_opened_corrected_undone_and_saved(page: TestClient, tmp_path: Path) -> None:
    state = page.get("/api/state").json()
    assert (state["case"], state["protocol"], state["shape"], state["events"]) == ("anna", "aseg", list(SHAPE), 0)
    assert state["next"] == {"voxel": [10, 10, 10], "structure": 17, "doubt": pytest.approx(1 - 55 / 255, abs=1e-3)}
    before = image_of(page.get("/api/labels.nii.gz"))
    assert before.get_data_dtype() == np.uint16
    change = page.post("/api/prompt", json=POINT | {"events": 0}).json()
    i, j, k, a, b, c = change["box"]
    values = np.frombuffer(base64.b64decode(change["labels"]), "<u2").reshape((a - i, b - j, c - k), order="F")
    shown = np.asanyarray(before.dataobj).copy()
    shown[i:a, j:b, k:c] = values
    after = np.asanyarray(image_of(page.get("/api/labels.nii.gz")).dataobj)
    assert np.array_equal(shown, after) and change["changed"] == int((after == HIPPOCAMPUS).sum()) > 0
    sizes = {row["id"]: row["mm3"] for row in change["state"]["structures"]}
    assert sizes[HIPPOCAMPUS] == change["changed"] * 27 and change["state"]["can_undo"]
    undone = page.post("/api/undo", json={"events": 1}).json()
    assert undone["state"]["can_redo"] and undone["changed"] == change["changed"]
    redone = page.post("/api/redo", json={"events": 2}).json()
    assert redone["labels"] == change["labels"] and redone["state"]["events"] == 3 and not redone["state"]["saved"]
    saved = page.post("/api/save", json={}).json()
    assert saved["state"]["saved"] and saved["files"][0] == "anna_desc-corrected_dseg.nii.gz"
    written = nibabel.load(tmp_path / "out" / "anna" / saved["files"][0])
    assert np.array_equal(np.asanyarray(written.dataobj), after)


def test_images_lie_on_the_scans_own_grid(page: TestClient, tmp_path: Path) -> None:
    scan = nibabel.load(tmp_path / "in" / "anna.nii.gz")
    image, doubt = (image_of(page.get(f"/api/{name}.nii.gz")) for name in ("image", "doubt"))
    assert np.allclose(image.get_fdata(), scan.get_fdata()) and np.allclose(image.affine, scan.affine)
    assert doubt.get_data_dtype() == np.float32 and 0 <= doubt.get_fdata().min() < doubt.get_fdata().max() <= 1


def test_cases_are_listed_and_only_one_is_open(page: TestClient, desk: Desk, tmp_path: Path) -> None:
    page.post("/api/prompt", json=POINT | {"events": 0})
    listed = page.get("/api/cases").json()
    assert listed == {"cases": [{"name": "anna", "edited": True}, {"name": "ben", "edited": False}], "open": "anna"}
    assert page.post("/api/open", json={"case": "ben"}).json()["events"] == 0
    other = desk_of(tmp_path)
    assert other.open({"case": "anna"})["events"] == 1  # it was given back
    assert "another process" in error_of(page.post("/api/open", json={"case": "anna"}), 400)
    assert page.get("/api/state").json()["case"] == "ben"  # what was open stays open
    other.close()


def test_a_case_that_was_taken_away_is_opened_again(page: TestClient, desk: Desk, tmp_path: Path) -> None:
    page.post("/api/prompt", json=POINT | {"events": 0})
    claim = tmp_path / "out" / "anna" / "session" / ".claim"
    claim.unlink()
    other = desk_of(tmp_path)
    other.open({"case": "anna"})
    other.prompt(POINT | {"events": 1})
    held = claim.read_bytes()
    claim.write_text(f"{host()} {os.getppid()} abc", encoding="utf-8")  # another process has it
    assert "open it again" in error_of(page.post("/api/prompt", json=POINT | {"events": 1}), 400)
    assert page.get("/api/cases").json()["open"] is None  # a page that is loaded anew opens it
    assert "another process" in error_of(page.post("/api/open", json={"case": "anna"}), 400)
    assert page.get("/api/state").json()["events"] == 1
    claim.write_bytes(held)
    other.close()
    assert page.post("/api/open", json={"case": "anna"}).json()["events"] == 2
    assert page.post("/api/prompt", json=POINT | {"events": 2}).json()["state"]["events"] == 3
    assert page.get("/api/cases").json()["open"] == "anna"


def test_saved_cases_are_exported_as_scans_to_train_on(page: TestClient, tmp_path: Path) -> None:
    page.post("/api/prompt", json=POINT | {"events": 0})
    answer = page.post("/api/export", json={}).json()
    assert answer["folder"] == str(tmp_path / "out" / "export") and answer["state"]["saved"]
    pairs = pair_scans(Path(answer["folder"]), Path(answer["folder"]) / "derivatives")
    assert [scan.name for scan, _ in pairs] == ["sub-anna_T1w.nii.gz"]
    assert not inspect_dataset(pairs, PROTOCOL, None).refusals


def test_health_needs_the_token_and_nothing_else(desk: Desk) -> None:
    assert client_of(desk).get("/api/health").json()["api"] == 1
    assert client_of(desk, token="").get(f"/api/health?token={TOKEN}").status_code == 200
    for token in ("", "wrong", TOKEN[:-1], f"{TOKEN}x"):
        assert "token" in error_of(client_of(desk, token).get("/api/health"), 403)
    assert "token" in error_of(client_of(desk).get("/api/health?token=wrong"), 403)
    assert "token" in error_of(client_of(desk, token="").get("/"), 403)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": f"localhost:{PORT}"}, 200),
        ({"host": "evil.example"}, 403),
        ({"host": f"evil.example:{PORT}"}, 403),
        ({"host": "127.0.0.1:1"}, 403),
        ({"origin": f"http://127.0.0.1:{PORT}"}, 200),
        ({"origin": f"http://localhost:{PORT}"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": f"https://127.0.0.1:{PORT}"}, 403),
    ],
)
def test_other_hosts_and_sites_are_refused(desk: Desk, headers: dict[str, str], status: int) -> None:
    assert client_of(desk, **headers).get("/api/health").status_code == status


def test_every_answer_carries_the_security_headers(page: TestClient) -> None:
    for answer in (page.get("/api/state"), page.get("/nothing"), page.get("/api/state", headers={"host": "evil"})):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe-eval" not in policy and "worker-src 'self' blob:" in policy
        assert (
            answer.headers["x-content-type-options"] == "nosniff"
            and "access-control-allow-origin" not in answer.headers
        )
        assert answer.headers["referrer-policy"] == "no-referrer" and answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"voxels": [[21, 0, 0]]}, "voxel 21, 0, 0 lies outside the image, which has 21 × 24 × 22 voxels"),
        ({"voxels": [[-1, 0, 0]]}, "outside the image"),
        ({"structure": 999}, "protocol 'aseg' has no structure with the id 999"),
        ({"structure": "17"}, "'structure', the whole number"),
        ({"structure": True}, "'structure', the whole number"),
        ({"structure": 0}, "no structure to correct"),
        ({"voxels": [[1.5, 0, 0]]}, "three whole numbers"),
        ({"voxels": []}, "a point has 1 voxel"),
        ({"kind": "star"}, "a prompt is one of point, box, scribble"),
        ({"events": None}, "'events'"),
        ({"kind": "scribble", "voxels": [[1, 1, 1]] * 10_001}, "1 to 10,000 voxels"),
    ],
)
def test_bad_prompts_get_a_sentence_and_change_nothing(page: TestClient, body: dict[str, Any], sentence: str) -> None:
    page.post("/api/prompt", json=POINT | {"events": 0})
    labels = page.get("/api/labels.nii.gz").content
    assert sentence in error_of(page.post("/api/prompt", json=POINT | {"events": 1} | body), 400)
    assert page.get("/api/labels.nii.gz").content == labels and page.get("/api/state").json()["events"] == 1


def test_a_page_that_is_behind_is_told_to_reload(page: TestClient) -> None:
    page.post("/api/prompt", json=POINT | {"events": 0})
    for action, body in (("prompt", POINT), ("undo", {}), ("redo", {})):
        assert "the page shows an older state" in error_of(page.post(f"/api/{action}", json=body | {"events": 0}), 409)
    assert page.get("/api/state").json()["events"] == 1


def test_what_is_not_there_is_said_in_a_sentence(desk: Desk) -> None:
    client = client_of(desk)
    assert "no case is open" in error_of(client.get("/api/state"), 409)
    assert "no case is open" in error_of(client.post("/api/undo", json={"events": 0}), 409)
    for body in ({"case": "carl"}, {"case": 7}, {"case": "../anna"}, {}):
        assert "no case" in error_of(client.post("/api/open", json=body), 404)
    for path in ("/api/nothing", "/docs", "/openapi.json", "/redoc", "/assets/../../serve/desk.py", "/api/state/"):
        assert "nothing at this address" in error_of(client.get(path), 404)
    assert "this kind of request" in error_of(client.get("/api/prompt"), 405)
    assert "this kind of request" in error_of(client.delete("/api/state"), 405)


def test_uploads_and_what_is_no_json_are_refused(page: TestClient) -> None:
    upload = page.post("/api/save", files={"file": ("brain.nii.gz", b"0" * 1000)})
    assert "takes JSON only" in error_of(upload, 415)
    assert "takes JSON only" in error_of(page.post("/api/save", content=b"{}"), 415)
    kind = {"content-type": "application/json"}
    for content in (b"", b"{", b"\xff", b"[" * 100_000, b'{"events": 1' + b"0" * 5000 + b"}"):
        assert "not JSON" in error_of(page.post("/api/undo", content=content, headers=kind), 400)
    assert "not an object" in error_of(page.post("/api/undo", content=b"[]", headers=kind), 400)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no file names that are no text")
def test_a_file_name_that_is_no_text_is_opened_saved_and_exported(desk: Desk, tmp_path: Path) -> None:
    write_scan(tmp_path / "in" / os.fsdecode(b"m\xfcller.nii.gz"))
    made = desk_of(tmp_path)
    client = client_of(made)
    names = [row["name"] for row in client.get("/api/cases").json()["cases"]]
    assert names == ["anna", "ben", "m\udcfcller"]
    sent = json.dumps({"case": names[2]}).encode()  # as a browser escapes it
    kind = {"content-type": "application/json"}
    assert client.post("/api/open", content=sent, headers=kind).json()["case"] == names[2]
    client.post("/api/prompt", json=POINT | {"events": 0})
    assert client.post("/api/save", json={}).json()["files"][0] == f"{names[2]}_desc-corrected_dseg.nii.gz"
    for _ in range(2):
        folder = Path(client.post("/api/export", json={}).json()["folder"])
    (pair,) = pair_scans(folder, folder / "derivatives")
    assert re.fullmatch(r"sub-mller[0-9a-f]{6}_T1w\.nii\.gz", pair[0].name)
    made.close()


def test_half_a_character_in_a_request_is_refused_in_a_sentence(page: TestClient) -> None:
    kind = {"content-type": "application/json"}
    opened = page.post("/api/open", content=rb'{"case": "\ud800"}', headers=kind)
    assert "there is no case" in error_of(opened, 404)
    body = json.dumps(POINT | {"events": 0, "kind": "\ud800"}).encode()
    assert "a prompt is one of" in error_of(page.post("/api/prompt", content=body, headers=kind), 400)


def test_bodies_over_a_megabyte_are_refused_whether_announced_or_in_chunks(page: TestClient) -> None:
    kind = {"content-type": "application/json"}
    chunks = (b" " * 2**16 for _ in range(17))
    for content in (b" " * (MOST_BYTES + 1), chunks):
        assert "larger than 1 MB" in error_of(page.post("/api/undo", content=content, headers=kind), 413)
    padded = json.dumps({"events": 0}).encode().ljust(MOST_BYTES)
    assert "nothing to undo" in error_of(page.post("/api/undo", content=padded, headers=kind), 400)


def test_an_error_of_our_own_shows_no_traceback(desk: Desk, tmp_path: Path) -> None:
    class Failing(BallCorrector):
        def correct(self, *given: Any) -> np.ndarray:
            raise ZeroDivisionError("a secret path")

    failing = client_of(desk_of(tmp_path, Failing))
    failing.post("/api/open", json={"case": "ben"})
    sentence = error_of(failing.post("/api/prompt", json=POINT | {"events": 0}), 500)
    assert "ZeroDivisionError" in sentence and "secret" not in sentence
    assert failing.get("/api/state").json()["events"] == 0


def test_labels_on_another_grid_and_damaged_logs_are_told_when_opened(desk: Desk, tmp_path: Path) -> None:
    client = client_of(desk)
    client.post("/api/open", json={"case": "anna"})
    for events in range(3):
        client.post("/api/prompt", json=POINT | {"events": events})
    client.post("/api/open", json={"case": "ben"})
    log = tmp_path / "out" / "anna" / "session" / "events.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(lines[0] + lines[1][:200] + b"\n" + lines[2])
    assert "line 2 of this event log is damaged" in error_of(client.post("/api/open", json={"case": "anna"}), 400)
    (tmp_path / "out" / "ben" / "session" / "events.jsonl").write_bytes(lines[0])
    again = client_of(desk_of(tmp_path))
    desk.close()
    assert "belongs to another session" in error_of(again.post("/api/open", json={"case": "ben"}), 400)


def test_the_page_and_its_files_are_served_from_a_fixed_list(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/": (b"<html></html>", "text/html; charset=utf-8"), "/assets/page.js": (b"1", "text/javascript")}
    monkeypatch.setattr(applications, "page_files", lambda: files)
    client = client_of(desk, token="")
    assert client.get(f"/?token={TOKEN}").text == "<html></html>"
    assert client.get("/assets/page.js").headers["content-type"].startswith("text/javascript")
    for path in ("/assets/other.js", "/assets/%2e%2e/%2e%2e/desk.py", "/assets//page.js", "/index.html"):
        error_of(client.get(path), 404)


class Server:
    """``spanseg serve`` as a process of its own."""

    def __init__(self, *words: object) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, *map(str, words), "--no-browser"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        found = re.search(r"(http://127\.0\.0\.1:\d+)/\?token=([\w-]{43})$", line.strip())
        assert found, line + self.process.stderr.read()  # type: ignore[union-attr]
        self.page = httpx.Client(base_url=found[1], headers={"X-Spanseg-Token": found[2]}, timeout=60)

    def end(self, with_signal: int) -> tuple[int, str, str]:
        """Send a signal and wait for the end."""
        self.page.close()
        self.process.send_signal(with_signal)
        out, error = self.process.communicate(timeout=60)
        return self.process.returncode, out, error


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_killed_server_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    scan, out = write_scan(tmp_path / "head.nii.gz"), tmp_path / "out"
    original = scan.read_bytes()
    first = Server(scan, "-o", out)
    first.page.post("/api/open", json={"case": "head"})
    for events in range(4):
        body = {"structure": (HIPPOCAMPUS, AMYGDALA)[events % 2], "voxels": [[5 + 2 * events, 8, 8]], "events": events}
        assert first.page.post("/api/prompt", json=POINT | body).status_code == 200
    first.page.post("/api/undo", json={"events": 4})
    labels = first.page.get("/api/labels.nii.gz").content
    first.end(signal.SIGKILL)
    log = out / "head" / "session" / "events.jsonl"
    with log.open("ab") as stream:
        stream.write(b'{"session":"torn off')
    second = Server(scan, "-o", out)
    state = second.page.post("/api/open", json={"case": "head"}).json()
    assert state["events"] == 5 and state["can_redo"] and "events_torn1.jsonl" in state["notes"][-1]
    assert second.page.get("/api/labels.nii.gz").content == labels
    too_large = second.page.post("/api/undo", content=b" " * (3 * MOST_BYTES), headers={"content-type": "text/plain"})
    assert "larger than 1 MB" in error_of(too_large, 413)
    busy = Desk(find_cases(scan, out), out, Means(PROTOCOL, FakeBelief(), BallCorrector, Beginning()))
    with pytest.raises(SpansegError, match="another process has this session open"):
        busy.open({"case": "head"})
    code, printed, errors = second.end(signal.SIGINT)
    assert code == 0 and str(out) in printed and not errors
    assert not (log.parent / ".claim").exists() and scan.read_bytes() == original
    assert not list(log.parent.glob("*.tmp"))
