"""Many scans: what is skipped, what a failure leaves, and real processes that are killed while they work."""

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import fake_segmenter
from spanseg import report, segmenter
from spanseg.batch import Batch, Outcome
from spanseg.batch_table import write_batch_table
from spanseg.facts import Facts
from spanseg.files import host
from spanseg.images import Scan
from spanseg.inputs import find_jobs
from spanseg.result import Segmentation
from spanseg.segmenter import SegmentOptions
from spanseg.sidecar import OutputOptions

PER_SCAN = 9  # files of one scan, its sidecar among them


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segmenter, "load_model", fake_segmenter.FakePredictor)
    monkeypatch.setattr(segmenter, "segment_scan", fake_segmenter.segment_scan)
    monkeypatch.setattr(report, "render_report", lambda scan, result: "<html></html>\n")


def make_scans(root: Path, count: int) -> Path:
    for number in range(count):
        fake_segmenter.write_scan(root / "in" / f"sub-{number:02d}" / f"sub-{number:02d}_T1w.nii.gz", number)
    return root / "in"


def run(
    source: Path, out: Path, options: SegmentOptions | None = None, outputs: OutputOptions | None = None, **given: bool
) -> list[Outcome]:
    batch = Batch(find_jobs([source], out), options or SegmentOptions(), outputs or OutputOptions(), **given)
    return list(batch.run())


def states(outcomes: list[Outcome]) -> list[str]:
    return [outcome.state for outcome in outcomes]


def files_under(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob("*") if path.is_file())


def hidden(out: Path) -> list[Path]:
    """Temporaries and claims."""
    return [path for path in out.rglob("*") if path.name.startswith(".")]


def sidecars(out: Path) -> list[Path]:
    """Sidecars under their final names."""
    return [path for path in out.rglob("*_dseg.json") if not path.parent.name.startswith(".")]


def check_whole(out: Path) -> None:
    """No file under a final name is half-written, and no sidecar promises what is not there."""
    for path in files_under(out):
        if any(part.startswith(".") for part in path.relative_to(out).parts):
            continue
        if path.name.endswith(".gz"):
            gzip.decompress(path.read_bytes())
        elif path.suffix == ".json":
            record = json.loads(path.read_text(encoding="utf-8"))
            assert all((path.parent / name).is_file() for name in record["outputs"])
        else:
            assert path.read_bytes().endswith(b"\n")


def test_finished_scans_are_skipped(tmp_path: Path) -> None:
    data, out = make_scans(tmp_path, 2), tmp_path / "out"
    assert states(run(data, out)) == ["done", "done"]
    before = {path: path.stat().st_mtime_ns for path in files_under(out)}
    assert len(before) == 2 * PER_SCAN
    assert states(run(data, out)) == ["skipped", "skipped"]
    assert {path: path.stat().st_mtime_ns for path in files_under(out)} == before
    assert states(run(data, out, overwrite=True)) == ["done", "done"]
    assert all(path.stat().st_mtime_ns > before[path] for path in files_under(out))
    assert hidden(out) == []


def test_what_makes_a_scan_unfinished(tmp_path: Path) -> None:
    data, out = make_scans(tmp_path, 1), tmp_path / "out"
    run(data, out)
    (sidecar,) = out.rglob("*_dseg.json")
    (page,) = out.rglob("*_report.html")
    for change in (
        sidecar.unlink,
        page.unlink,
        lambda: sidecar.write_text("{ cut off", encoding="utf-8"),
    ):
        change()
        assert states(run(data, out)) == ["done"]
        assert states(run(data, out)) == ["skipped"]
    assert states(run(data, out, SegmentOptions(facts=Facts(30)))) == ["done"]


@pytest.mark.parametrize(
    "change", [{"outputs": None}, {"outputs": [5]}, {"outputs": ["x" * 300]}, {"warnings": 5}, {"settings_sha256": []}]
)
def test_a_sidecar_edited_out_of_shape_makes_its_scan_unfinished(change: dict[str, object], tmp_path: Path) -> None:
    data, out = make_scans(tmp_path, 2), tmp_path / "out"
    run(data, out)
    sidecar = min(out.rglob("*_dseg.json"))
    whole = sidecar.read_text(encoding="utf-8")
    for overwrite in (False, True):
        sidecar.write_text(json.dumps(json.loads(whole) | change), encoding="utf-8")
        assert states(run(data, out, overwrite=overwrite)).count("done") == 1 + overwrite
        assert write_batch_table(out) == 2


def test_a_damaged_volumes_table_is_left_out_of_the_batch_table(tmp_path: Path) -> None:
    data, out = make_scans(tmp_path, 2), tmp_path / "out"
    run(data, out)
    table = min(out.rglob("*_volumes.tsv"))
    for content in (b"", b"\xff\xfe", b"name\tmm3\n" + b"x" * 200_000 + b"\t1\n"):
        table.write_bytes(content)
        assert write_batch_table(out) in (1, 2)


def test_what_may_be_no_brain_is_warned_of_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing_found(scan: Scan, predictor: object, options: SegmentOptions) -> Segmentation:
        result = fake_segmenter.segment_scan(scan, predictor, options)
        return replace(result, tissue=scan.volume.with_data(0 * result.tissue.data))

    monkeypatch.setattr(segmenter, "segment_scan", nothing_found)
    data, out = make_scans(tmp_path, 1), tmp_path / "out"
    (outcome,) = run(data, out)
    record = json.loads(next(out.rglob("*_dseg.json")).read_text(encoding="utf-8"))
    for sentences in (outcome.messages, record["warnings"], record["quality_flags"]):
        assert "No brain was found in this scan." in sentences


def test_other_settings_leave_nothing_of_the_earlier_result(tmp_path: Path) -> None:
    data, out = make_scans(tmp_path, 1), tmp_path / "out"
    run(data, out, outputs=OutputOptions(brain=True))
    (out / "sub-00" / "sub-00_T1w_notes.txt").write_text("of the user", encoding="utf-8")
    (outcome,) = run(data, out, outputs=OutputOptions(only_labels=True))
    assert outcome.state == "done"
    assert any("results of other settings (brain, only_labels) were replaced" in note for note in outcome.notes)
    names = {path.name for path in files_under(out)}
    assert names == {"sub-00_T1w_dseg.nii.gz", "sub-00_T1w_dseg.json", "sub-00_T1w_notes.txt"}


def test_the_list_in_a_sidecar_cannot_remove_other_files(tmp_path: Path) -> None:
    data, out = make_scans(tmp_path, 1), tmp_path / "out"
    run(data, out)
    (sidecar,) = out.rglob("*_dseg.json")
    record = json.loads(sidecar.read_text(encoding="utf-8"))
    targets = [tmp_path / "precious.txt", out / "sub-00" / "other.txt", out / "sub-00" / "sub-00_T1w_x" / "deep.txt"]
    for target in targets:
        target.parent.mkdir(exist_ok=True)
        target.write_text("keep", encoding="utf-8")
    record["outputs"] += ["../../precious.txt", "other.txt", "sub-00_T1w_x/deep.txt", str(targets[0])]
    sidecar.write_text(json.dumps(record), encoding="utf-8")
    run(data, out, overwrite=True)
    assert all(target.exists() for target in targets)


def test_a_failing_scan_does_not_stop_the_rest(tmp_path: Path) -> None:
    data, out = make_scans(tmp_path, 3), tmp_path / "out"
    fake_segmenter.write_scan(data / "sub-01" / "sub-01_T1w.nii.gz", broken=True)
    (data / "sub-02" / "sub-02_T1w.nii.gz").write_bytes(b"\x1f\x8bnot gzip")
    outcomes = run(data, out)
    assert states(outcomes) == ["done", "failed", "failed"]
    assert "error of its own (ZeroDivisionError" in outcomes[1].messages[0]
    assert "sub-02_T1w.nii.gz" in outcomes[2].messages[0]
    assert len(files_under(out)) == PER_SCAN
    fake_segmenter.write_scan(data / "sub-01" / "sub-01_T1w.nii.gz", 1)
    assert states(run(data, out)) == ["skipped", "done", "failed"]


def test_a_failure_while_writing_leaves_the_earlier_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = make_scans(tmp_path, 1), tmp_path / "out"
    run(data, out)
    before = {path: path.read_bytes() for path in files_under(out)}

    def no_room(scan: object, result: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report, "render_report", no_room)
    (outcome,) = run(data, out, overwrite=True)
    assert outcome.state == "failed"
    assert "No space left" in outcome.messages[0]
    assert {path: path.read_bytes() for path in files_under(out)} == before
    assert hidden(out) == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_without_permission_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    (outcome,) = run(make_scans(tmp_path, 1), tmp_path / "out")
    assert (outcome.state, "choose another one (-o)" in outcome.messages[0]) == ("failed", True)


def test_an_output_folder_that_is_a_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"")
    (outcome,) = run(make_scans(tmp_path, 1), tmp_path / "out")
    assert (outcome.state, "results cannot be written" in outcome.messages[0]) == ("failed", True)


def test_temporaries_of_dead_processes_go_and_others_stay(tmp_path: Path) -> None:
    data, out = make_scans(tmp_path, 1), tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    (out / "sub-00").mkdir(parents=True)
    dead_folder = out / "sub-00" / f".spanseg-{host()}-{ended.pid}-00000000.tmp"
    dead_file = out / "sub-00" / f".spanseg-{host()}-{ended.pid}-00000001.tmp"
    living = out / "sub-00" / f".spanseg-{host()}-{os.getppid()}-00000002.tmp"
    elsewhere = out / "sub-00" / f".spanseg-elsewhere-{ended.pid}-00000003.tmp"
    for folder in (dead_folder, living, elsewhere):
        folder.mkdir()
        (folder / "x_dseg.nii.gz").write_bytes(b"half")
    dead_file.write_bytes(b"half")
    run(data, out)
    assert sorted(path.name for path in hidden(out)) == sorted([living.name, elsewhere.name])


def test_the_table_of_a_batch_has_a_row_for_every_finished_scan(tmp_path: Path) -> None:
    data, out = make_scans(tmp_path, 3), tmp_path / "out"
    assert write_batch_table(out) == 0
    assert not out.exists()
    run(data / "sub-01", out / "sub-01")
    assert write_batch_table(out) == 1
    run(data, out)
    (out / ".spanseg-x-1-00000000.tmp").mkdir()
    (out / ".spanseg-x-1-00000000.tmp" / "y_dseg.json").write_text("{}", encoding="utf-8")
    (out / "of_somebody_else_dseg.json").write_text("{}", encoding="utf-8")
    assert write_batch_table(out) == 3
    with (out / "volumes.tsv").open(encoding="utf-8", newline="") as stream:
        table = list(csv.DictReader(stream, delimiter="\t"))
    assert [row["scan"] for row in table] == [f"sub-{number:02d}/sub-{number:02d}_T1w" for number in range(3)]
    with (out / "sub-02" / "sub-02_T1w_volumes.tsv").open(encoding="utf-8", newline="") as stream:
        own = {row["name"]: row["mm3"] for row in csv.DictReader(stream, delimiter="\t")}
    assert {name: table[2][name] for name in own} == own
    assert table[0]["IntraCranialVol"] == "n/a"
    assert "tested" in table[0]["warnings"]  # the fake scans have 8 mm voxels


# Real processes


def start(tmp_path: Path, seconds: float, *words: str, **environment: object) -> "subprocess.Popen[str]":
    """Run the command line with the fake; ``die_at_rename`` and ``gate`` are what its environment takes."""
    program = Path(fake_segmenter.__file__)
    return subprocess.Popen(
        [sys.executable, str(program), str(seconds), str(tmp_path / "log"), "segment", str(tmp_path / "in"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=os.environ | {name.upper(): str(value) for name, value in environment.items()},
    )


def wait_for(condition: Callable[[], object], process: "subprocess.Popen[str]") -> None:
    """Wait until something is there, or the process has ended."""
    for _ in range(6000):
        if condition() or process.poll() is not None:
            return
        time.sleep(0.01)
    raise AssertionError("nothing happened for a minute")


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, error = process.communicate(timeout=120)
    return process.returncode, out, error


def check_complete(tmp_path: Path, count: int) -> None:
    out = tmp_path / "spanseg-out"
    check_whole(out)
    assert hidden(out) == []
    assert len(files_under(out)) == count * PER_SCAN + 1
    assert len((out / "volumes.tsv").read_text(encoding="utf-8").splitlines()) == count + 1


def done_in(log: Path) -> int:
    return len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0


@pytest.mark.slow
def test_killed_again_and_again_the_batch_is_completed(tmp_path: Path) -> None:
    count, out, log = 12, tmp_path / "spanseg-out", tmp_path / "log"
    make_scans(tmp_path, count)
    found_half_way = 0
    for round_ in range(4):
        process, before = start(tmp_path, 0.05), done_in(log)

        def has_begun_another(before: int = before, least: int = round_) -> bool:
            return done_in(log) > before and len(sidecars(out)) >= least

        wait_for(has_begun_another, process)
        time.sleep(0.037 * round_)
        process.kill()
        process.communicate()
        check_whole(out)
        found_half_way += bool(hidden(out))
    assert found_half_way  # at least one kill hit a process at work
    finished = len(sidecars(out))
    assert 0 < finished < count
    code, text, error = finish(start(tmp_path, 0.05))
    assert (code, error) == (0, "") or "warning" in error
    assert f"{count - finished} done, {finished} finished before, 0 failed" in text
    check_complete(tmp_path, count)


@pytest.mark.slow
def test_killed_at_any_rename_no_sidecar_stands_for_a_mixture(tmp_path: Path) -> None:
    out = tmp_path / "spanseg-out"
    make_scans(tmp_path, 1)
    assert finish(start(tmp_path, 0.0, "--brain"))[0] == 0
    (sidecar,) = out.rglob("*_dseg.json")
    with_brain = sidecar.read_bytes()
    for moment in (1, PER_SCAN, PER_SCAN + 1, PER_SCAN + 4, 2 * PER_SCAN - 1):
        code, _, _ = finish(start(tmp_path, 0.0, "--overwrite", die_at_rename=moment))
        assert code == (signal.SIGTERM if os.name == "nt" else -signal.SIGKILL)
        check_whole(out)
        if moment <= PER_SCAN:  # everything so far lies in the temporary folder
            assert sidecar.read_bytes() == with_brain
        else:
            assert not sidecar.exists()
        assert hidden(out)
    assert (
        finish(start(tmp_path, 0.0, die_at_rename=2 * PER_SCAN))[0] != 0
    )  # the scan is finished, its claim is still there
    assert sidecar.exists()
    code, text, _ = finish(start(tmp_path, 0.0))
    assert (code, "1 finished before" in text) == (0, True)
    check_complete(tmp_path, 1)


@pytest.mark.slow
def test_two_processes_share_a_batch(tmp_path: Path) -> None:
    count = 8
    make_scans(tmp_path, count)
    (tmp_path / "gate").mkdir()
    both = [start(tmp_path, 0.4, gate=tmp_path / "gate") for _ in range(2)]
    wait_for(lambda: len(list((tmp_path / "gate").iterdir())) == 2, both[0])
    (tmp_path / "gate" / "open").touch()
    results = [finish(process) for process in both]
    assert [code for code, _, _ in results] == [0, 0]
    check_complete(tmp_path, count)
    log = (tmp_path / "log").read_text(encoding="utf-8").splitlines()
    assert len(log) == len(set(log)) == count  # each scan was segmented once
    shares = [int(text.split(" done,")[0].split()[-1]) for _, text, _ in results]
    assert sum(shares) == count
    assert min(shares) > 0


@pytest.mark.slow
def test_the_other_process_completes_what_a_killed_one_held(tmp_path: Path) -> None:
    count, out = 4, tmp_path / "spanseg-out"
    make_scans(tmp_path, count)
    first = start(tmp_path, 600.0)  # stays at its first scan
    wait_for(lambda: list(out.rglob(".*.claim")), first)
    second = start(tmp_path, 0.05)
    wait_for(lambda: len(sidecars(out)) == count - 1, second)
    time.sleep(1)
    assert second.poll() is None  # it waits for the living process
    first.kill()
    first.communicate()
    code, text, error = finish(second)
    assert code == 0
    assert f"{count} done" in text
    assert "another process is at this scan" in error
    check_complete(tmp_path, count)


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_interrupted_it_cleans_up_and_says_so(tmp_path: Path) -> None:
    count, out, log = 6, tmp_path / "spanseg-out", tmp_path / "log"
    make_scans(tmp_path, count)
    process = start(tmp_path, 0.3)
    wait_for(lambda: done_in(log) > 1, process)
    process.send_signal(signal.SIGINT)
    code, _, error = finish(process)
    assert code == 130
    assert "interrupted" in error
    assert "Traceback" not in error
    assert hidden(out) == []
    check_whole(out)
    assert finish(start(tmp_path, 0.0))[0] == 0
    check_complete(tmp_path, count)
