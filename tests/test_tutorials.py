"""Every command of the tutorials, as it stands there, on a head of 4 mm and a network of two stages."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from spanseg import checkpoint, export, model, recipe
from spanseg.cli import main as cli

DOCS = Path(__file__).parents[1] / "docs" / "tutorials"


def commands(page: str) -> list[list[str]]:
    """The lines of a page's code blocks."""
    blocks = re.findall(r"```\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return [line.split()[1:] for block in blocks for line in block.strip().splitlines()]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with the labels that the demo makes and a small model, to work in."""
    (tmp_path / "demo-out").mkdir()
    tiny.write_map(tmp_path / "demo-out" / "mni152_T1w_dseg.nii.gz")
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "run", model.build(tiny.recipe()).state_dict(), tiny.recipe())
    canvas = np.random.default_rng(0).random((32, 32, 32), dtype=np.float32)
    description = export.Description("tiny", "1", "Apache-2.0", "nothing")
    export.export(tmp_path / "run", tmp_path / "base", description, [canvas])
    shutil.rmtree(tmp_path / "run")
    told = recipe.load("kgpl-default")
    small = tiny.recipe()
    told |= {"canvas": small["canvas"], "backbone": small["backbone"], "train": {"start": "base", "steps": 2}}
    told["tokens"]["stages"] = ["encoder1"]
    (tmp_path / "kgpl-tiny.toml").write_text(recipe.dumps(told), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMALL = {"kgpl-default": ["kgpl-tiny.toml"], "train.steps=40": ["train.steps=2"], "60": ["10"]}
MORE = {"simulate": ["--voxel-mm", "3"], "adapt": ["--from", "base"]}


def run(words: list[str]) -> None:
    """Run a command with a smaller model; it must succeed."""
    smaller = [word for given in words for word in SMALL.get(given, [given])] + MORE.get(words[0], [])
    if words[0] == "segment" and "--model" not in words:
        smaller += ["--model", "base"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(smaller)
    assert stopped.value.code == 0, words


def test_adapt(desk, capsys):
    for words in commands("adapt.md"):
        run(words)
    said = capsys.readouterr().out
    assert "new centre, 5 scans" in said and "5 scans to train on, 5 to test on" in said
    assert (desk / "spanseg-adapters" / "my-centre" / "before_after.tsv").is_file()
    assert list((desk / "results-adapted").rglob("*_dseg.nii.gz"))
    assert said.rstrip().endswith("\nverified")


def test_tell(desk, capsys):
    for words in commands("tell.md"):
        run(words)
    said = capsys.readouterr().out
    assert "brain MRI of a female who is six months old" in said
    assert "median |change|" in said
    assert said.rstrip().endswith("\nverified")
    assert list((desk / "results-told").rglob("*_dseg.nii.gz")) and list((desk / "averaged").rglob("*_dseg.nii.gz"))
