"""``spanseg info``: quick, complete, and the same told to people and to programs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from spanseg import __version__
from spanseg.cli import info
from spanseg.cli.main import COMMANDS
from spanseg.labels import load_protocol, protocol_names
from spanseg.recipe import shipped

MODEL_TOML = """
[model]
name = "small"
version = "3"
licence = "CC0-1.0"
protocol = "aseg"
data = "Label maps of nobody."
told = []
[canvas]
shape = [112, 144, 112]
voxel_mm = 1.5
[metrics]
nuclei_dice = 0.7
"""


def spanseg(*words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from spanseg.cli.main import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, *words], capture_output=True, text=True, encoding="utf-8", timeout=60, check=False
    )


def test_json_names_everything_that_is_shipped() -> None:
    done = spanseg("info", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["spanseg"] == __version__
    assert [row["name"] for row in found["protocols"]] == protocol_names()
    assert [row["name"] for row in found["recipes"]] == shipped()
    assert found["commands"] == COMMANDS
    assert found["licences"]["code"] == "Apache-2.0"
    for row in found["protocols"]:
        assert sorted(row["schemes"]) == load_protocol(row["name"]).crosswalk_names
    assert next(row["structures"] for row in found["protocols"] if row["name"] == "aseg") == 32


def test_text_names_the_same() -> None:
    done = spanseg("info")
    assert done.returncode == 0
    assert "label schemes: aseg, synthseg, freesurfer" in done.stdout and "ibsr, candi, lpba40, hammers" in done.stdout
    for word in (__version__, *COMMANDS, *protocol_names(), *shipped(), "no medical device"):
        assert word in done.stdout


def test_a_models_card_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("models/small", "models/unfinished", "protocols", "recipes"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "models/small/model.toml").write_text(MODEL_TOML, encoding="utf-8")
    monkeypatch.setattr(info.resources, "files", lambda package: tmp_path)
    found = info.collect()
    assert [model["name"] for model in found["models"]] == ["small"]
    assert found["licences"]["model small"] == "CC0-1.0"
    text = "\n".join(info.lines(found))
    for words in ("small 3 (CC0-1.0), protocol aseg", "168 × 216 × 168 mm at 1.5 mm", "Label maps of nobody.", "0.7"):
        assert words in text


def test_it_loads_nothing_heavy_and_is_quick() -> None:
    """Processor time, not time on the clock: other work on the machine must not decide."""
    code = (
        "import sys, time\nfrom spanseg.cli.main import main\n"
        "try:\n    main(['info', '--json'])\nexcept SystemExit:\n    pass\n"
        "print(time.process_time(), *{m.partition('.')[0] for m in sys.modules}, file=sys.stderr)"
    )
    seconds = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        used, *loaded = done.stderr.split()
        seconds.append(float(used))
        assert not set(loaded) & {"torch", "openvino", "numpy", "scipy", "nibabel", "PIL", "pydantic", "pandas"}
    assert min(seconds) < 0.3
