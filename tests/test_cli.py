"""The command line: exit codes, sentences instead of tracebacks, and how little ``--help`` loads."""

import contextlib
import importlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import pytest

import fake_segmenter
import spanseg
from fake_segmenter import FakePredictor
from spanseg import batch, report, segmenter
from spanseg.cli.main import COMMANDS, main
from spanseg.cli.segment import bytes_from_text
from spanseg.errors import SpansegError

HEAVY = ("numpy", "nibabel", "scipy", "PIL", "rich", "openvino", "torch", "spanseg.segmenter")


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(segmenter, "load_model", fake_segmenter.FakePredictor)
    monkeypatch.setattr(segmenter, "segment_scan", fake_segmenter.segment_scan)
    monkeypatch.setattr(report, "render_report", lambda scan, result: "<html></html>\n")
    monkeypatch.chdir(tmp_path)


def exit_code(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main([str(word) for word in words])
    return int(caught.value.code or 0)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--version") == 0
    assert capsys.readouterr().out == f"spanseg {spanseg.__version__}\n"


def test_help_lists_every_command_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("--help") == 0
    text = capsys.readouterr().out
    assert all(re.search(rf"^  {name} +\w", text, re.MULTILINE) for name in COMMANDS)
    assert "Exit codes: 0" in text


def test_every_file_of_the_folder_is_a_command() -> None:
    folder = Path(importlib.import_module("spanseg.cli").__file__ or "").parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "main"}
    assert files == {name.replace("-", "_") for name in COMMANDS}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_own_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code(name, "--help") == 0
    text = capsys.readouterr().out
    assert f"Usage: spanseg {name}" in text
    options = set(re.findall(r"^  (?:-\w, )?(--[a-z-]+)", text, re.MULTILINE)) - {"--help"}
    assert options, "a command without options cannot be told anything"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom spanseg.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


@pytest.mark.skipif(os.name == "nt", reason="counts processor time as POSIX does")
@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_takes_less_than_three_tenths_of_a_second(words: list[str]) -> None:
    seconds = []
    for _ in range(5):
        before = os.times()
        subprocess.run([sys.executable, "-m", "spanseg", *words], capture_output=True, check=True)
        after = os.times()  # of the process itself: a busy machine makes the wall clock say anything
        seconds.append(after.children_user + after.children_system - before.children_user - before.children_system)
    assert min(seconds) < 0.3


def test_one_scan_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_segmenter.write_scan(tmp_path / "Zoë 1.nii.gz")
    assert exit_code("segment", "Zoë 1.nii.gz") == 0
    out = capsys.readouterr().out
    assert re.fullmatch(r"Zoë 1: done in \d+\.\d s, spanseg-out/Zoë 1_\*\n".replace("/", re.escape(os.sep)), out)
    assert (tmp_path / "spanseg-out" / "Zoë 1_dseg.json").is_file()
    assert not (tmp_path / "spanseg-out" / "volumes.tsv").exists()
    assert exit_code("segment", "Zoë 1.nii.gz") == 0
    assert "finished before" in capsys.readouterr().out


def test_a_folder_is_listed_segmented_and_tabled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("b", "a"):
        fake_segmenter.write_scan(tmp_path / "in" / f"{name}.nii.gz", seed=ord(name))
    assert exit_code("segment", "in", "-o", "out", "--dry-run") == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split(" -> ")[0] for line in listed[:2]] == [
        str(Path("in") / "a.nii.gz"),
        str(Path("in") / "b.nii.gz"),
    ]
    assert listed[2] == "2 scans"
    assert not (tmp_path / "out").exists()
    assert exit_code("segment", "in", "-o", "out", "--probabilities", "--brain") == 0
    out = capsys.readouterr().out
    assert "2 done, 0 finished before, 0 failed" in out
    assert (tmp_path / "out" / "volumes.tsv").is_file()
    assert {"a_probseg.nii.gz", "a_desc-brain.nii.gz"} <= {path.name for path in (tmp_path / "out").iterdir()}


def test_options_reach_the_segmenter_under_their_own_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[segmenter.SegmentOptions] = []
    monkeypatch.setattr(segmenter, "load_model", lambda options: seen.append(options) or FakePredictor(options))
    fake_segmenter.write_scan(tmp_path / "a.nii.gz")
    fake_segmenter.write_scan(tmp_path / "lesion.nii.gz")
    words = "--probabilities --lesion-mask lesion.nii.gz --threads 3 --max-memory 4G --precision f32 --trust sform"
    assert exit_code("segment", "a.nii.gz", "--age", 34, *words.split()) == 0
    (options,) = seen
    assert (options.probabilities, options.threads, options.max_memory_bytes) == (True, 3, 4 * 2**30)
    assert (options.lesion_mask, options.trust, options.precision) == (Path("lesion.nii.gz"), "sform", "f32")
    assert (options.facts.age_years, options.device, options.model) == (34.0, "cpu", "default")


def test_what_was_guessed_or_repaired_is_said_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scan = nibabel.load(fake_segmenter.write_scan(tmp_path / "a.nii.gz"))
    nibabel.save(nibabel.Nifti1Image(scan.get_fdata()[..., None], scan.affine), tmp_path / "a.nii.gz")
    assert exit_code("segment", "a.nii.gz") == 0
    assert "a: note: An image of 4 dimensions with one frame" in capsys.readouterr().err


def test_a_centre_without_an_adapter_is_warned_of_even_when_nothing_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_segmenter.write_scan(tmp_path / "a.nii.gz")
    (tmp_path / "spanseg-adapters" / "ours").mkdir(parents=True)
    (tmp_path / "spanseg-adapters" / "ours" / "model.toml").touch()
    for words in (["--dry-run"], []):
        assert exit_code("segment", "a.nii.gz", "--centre", "oors", *words) == 0
        error = capsys.readouterr().err
        assert "warning: the centre 'oors' has no adapter in spanseg-adapters (adapters there: ours)" in error


def test_exit_codes_tell_some_from_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_segmenter.write_scan(tmp_path / "in" / "good.nii.gz")
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"no image")
    assert exit_code("segment", "in") == 1
    assert exit_code("segment", "in/bad.nii.gz") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("spanseg: in")
    assert "bad.nii.gz" in error
    fake_segmenter.write_scan(tmp_path / "in" / "bug.nii.gz", broken=True)
    assert exit_code("segment", "in/bug.nii.gz") == 1
    assert exit_code("segment", "in/bad.nii.gz", "in/bug.nii.gz") == 1


def test_a_folder_in_the_way_of_a_result_is_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_segmenter.write_scan(tmp_path / "a.nii.gz")
    (tmp_path / "spanseg-out" / "a_report.html").mkdir(parents=True)
    assert exit_code("segment", "a.nii.gz") == 2
    assert "a_report.html: the results could not be written" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="closes file descriptors as POSIX shells do")
def test_closed_output_streams_stop_nothing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        fake_segmenter.write_scan(tmp_path / "in" / f"{name}.nii.gz")
    program = [sys.executable, fake_segmenter.__file__, "0", str(tmp_path / "log"), "segment", "in"]
    command = "import os, sys; os.close(1); os.close(2); os.execv(sys.argv[1], sys.argv[1:])"
    assert subprocess.run([sys.executable, "-c", command, *program]).returncode == 0
    assert len(list((tmp_path / "spanseg-out").glob("*_dseg.json"))) == 2


def test_a_table_that_cannot_be_written_is_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake_segmenter.write_scan(tmp_path / "in" / "a.nii.gz")
    (tmp_path / "spanseg-out" / "volumes.tsv").mkdir(parents=True)
    assert exit_code("segment", "in") == 1
    assert "volumes.tsv: the file could not be written" in capsys.readouterr().err
    assert (tmp_path / "spanseg-out" / "a_dseg.json").is_file()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["absent.nii"], "there is no such file"),
        (["a.nii", "--age", "six"], "age takes a number of years"),
        (["a.nii", "--age", "-3"], "between 0 and 130"),
        (["a.nii", "--sex", "femal"], "did you mean 'female'"),
        (["a.nii", "--diagnosis", "autsim"], "did you mean 'autism'"),
        (["a.nii", "--max-memory", "lots"], "such as 4G"),
        (["a.nii", "--only", "labels", "--brain"], "one or the other"),
        (["a.nii", "b.nii", "--lesion-mask", "a.nii"], "belongs to one scan"),
        (["a.nii", "--lesion-mask", "absent.nii"], "cannot be read"),
        (["a.nii", "x/a.nii"], "would both write"),
        (["a.nii", "-o", "labels.nii.gz"], "labels.nii.gz: results go into a folder"),
        (["a.nii", "--threads", "0"], "0"),
        (["a.nii", "--precision", "f16"], "f16"),
        (["a.nii", "--facts", "lupus"], "spanseg: invalid value for '--facts'"),
        ([], "spanseg: missing argument"),
    ],
)
def test_bad_requests_are_one_sentence_and_code_2(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.nii", "b.nii", "x/a.nii"):
        fake_segmenter.write_scan(tmp_path / name)
    assert exit_code("segment", *words) == 2
    captured = capsys.readouterr()
    assert sentence in captured.err
    assert "Traceback" not in captured.err
    assert not (tmp_path / "spanseg-out").exists()


@pytest.mark.parametrize("words", [("simulate", "a.nii"), ("evaluate", "a.nii", "b.nii")])
def test_the_name_of_a_file_is_no_folder_for_results(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code(*words, "-o", "x/results.tsv") == 2
    assert "x/results.tsv: results go into a folder" in capsys.readouterr().err and not Path("x").exists()


def test_debug_shows_the_traceback_from_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_code("segment", "absent.nii", "--debug") == 2
    assert "Traceback" in capsys.readouterr().err
    fake_segmenter.write_scan(tmp_path / "bug.nii.gz", broken=True)
    assert exit_code("--debug", "segment", "bug.nii.gz") == 1
    assert "fake was told to fail" in capsys.readouterr().err.split("Traceback")[1]


def test_errors_of_our_own_are_named_as_such(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(segmenter, "load_model", lambda options: {}["no such key"])
    fake_segmenter.write_scan(Path("a.nii"))
    assert exit_code("segment", "a.nii") == 1
    assert "an error of its own (KeyError" in capsys.readouterr().err


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def load(options: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr(segmenter, "load_model", load)
    fake_segmenter.write_scan(Path("a.nii"))
    assert exit_code("segment", "a.nii") == 2
    assert "pip install -c constraints.txt '.[train]'" in capsys.readouterr().err


def test_an_interrupt_is_130(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupt(*given: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(batch, "read_scan", interrupt)
    fake_segmenter.write_scan(tmp_path / "a.nii")
    assert exit_code("segment", "a.nii") == 130
    assert not (tmp_path / "spanseg-out").exists()


@pytest.mark.parametrize(
    ("text", "count"),
    [("4G", 4 * 2**30), ("3500M", 3500 * 2**20), ("1.5 GiB", 3 * 2**29), ("800mb", 800 * 2**20), ("123", 123)],
)
def test_amounts_of_memory(text: str, count: int) -> None:
    assert bytes_from_text(text) == count


@pytest.mark.parametrize("text", ["", "0", "0G", "-1G", "4X", "G", "1e9", "nan", "9" * 400])
def test_amounts_that_are_none(text: str) -> None:
    with pytest.raises(SpansegError, match="such as 4G"):
        bytes_from_text(text)


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are no text exist on Linux only")
def test_a_name_that_is_no_text_survives(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    fake_segmenter.write_scan(folder / "ok.nii").rename(folder / os.fsdecode(b"Zo\xeb.nii"))
    fake_segmenter.write_scan(folder / "b.nii")
    program = [sys.executable, fake_segmenter.__file__, "0", str(tmp_path / "log"), "segment", "in"]
    done = subprocess.run(program, capture_output=True)
    assert (done.returncode, b"2 done" in done.stdout) == (0, True), done.stderr
    assert b"2 finished before" in subprocess.run(program, capture_output=True).stdout
    assert b"Zo\\udceb" in (tmp_path / "spanseg-out" / "volumes.tsv").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_progress_goes_to_the_terminal_and_results_to_the_pipe(tmp_path: Path) -> None:
    import pty

    for name in ("a", "b", "c"):
        fake_segmenter.write_scan(tmp_path / "in" / f"{name}.nii")
    terminal, side = pty.openpty()
    done = subprocess.run(
        [sys.executable, fake_segmenter.__file__, "0.2", str(tmp_path / "log"), "segment", "in"],
        stdout=subprocess.PIPE,
        stderr=side,
        text=True,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "100"},
    )
    os.close(side)
    shown = _all_that_is_left(terminal).decode()
    os.close(terminal)
    assert "a: done in" in done.stdout
    assert "\x1b" not in done.stdout
    assert "1/3" in shown
    assert re.search(r"0:00:0\d", shown)


def _all_that_is_left(terminal: int) -> bytes:
    """Read a pseudo-terminal whose other side is closed; one read may end inside a letter."""
    content = b""
    with contextlib.suppress(OSError):  # Linux ends with an error, macOS with nothing
        while part := os.read(terminal, 4096):
            content += part
    return content


def test_import_of_the_package_is_quick() -> None:
    started = time.process_time()
    importlib.reload(spanseg)
    assert time.process_time() - started < 0.05
