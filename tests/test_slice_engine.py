"""Training runs of SAM segment scans by themselves: the same files as every model, and what prompted each structure."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from spanseg import checkpoint, files, model
from spanseg.cli.main import main
from spanseg.errors import SpansegError
from spanseg.images import scan_of
from spanseg.labels import load_protocol
from spanseg.network_predictor import NetworkPredictor
from spanseg.segmenter import SegmentOptions, load_model, segment_scan
from spanseg.slice_engine import SliceEngine
from spanseg.verify import verify
from spanseg.volume import Volume

pytest.importorskip("transformers")
NAMES = [structure.name for structure in load_protocol("subcortical").structures[1:]]
KINDS = {"none", "box", "point"}
Segmented = Callable[..., tuple[int, str]]


def saved(folder: Path, recipe: dict[str, Any]) -> Path:
    torch.manual_seed(0)
    checkpoint.save(folder, dict(model.build(recipe).named_parameters()), recipe)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny network, as it began."""
    recipe = {
        "recipe": {"protocol": "subcortical", "title": "tiny"},
        "canvas": {"shape": [16, 16, 16], "voxel_mm": 4.0},
        "backbone": {"name": "sam", "size": "tiny", "side": 32},
        "adapt": {"name": "full"},
    }
    return saved(tmp_path_factory.mktemp("runs") / "tiny-sam", recipe)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bright block in a grey head, in voxels of 2 mm."""
    values = np.zeros((40, 44, 36), dtype=np.float32)
    values[6:34, 6:38, 6:30] = 50
    values[14:20, 16:26, 12:22] = 100
    path = tmp_path_factory.mktemp("scans") / "block.nii.gz"
    nib.save(nib.Nifti1Image(values, np.diag([-2.0, 2.0, 2.0, 1.0])), path)
    return path


@pytest.fixture
def segmented(capsys: pytest.CaptureFixture[str]) -> Segmented:
    """Runs ``spanseg segment``; exit code and all that it printed."""

    def run_it(*words: Any) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["segment", *map(str, words)])
        return int(ended.value.code or 0), "".join(capsys.readouterr())

    return run_it


def test_a_network_in_memory_says_what_prompted_each_structure(run: Path) -> None:
    recipe, network = checkpoint.restore(run)
    values = np.zeros((20, 20, 20), dtype=np.float32)
    values[6:14, 6:14, 6:14] = 100
    predictor = NetworkPredictor(recipe, network, SliceEngine(network.eval(), "adaptive"))
    result = segment_scan(scan_of(Volume(values, np.diag([4.0, 4.0, 4.0, 1.0]))), predictor, SegmentOptions())
    assert result.labels.data.shape == values.shape and result.protocol == "subcortical"
    assert list(result.details["prompts"]) == NAMES
    assert set(result.details["prompts"].values()) <= KINDS


def test_the_command_writes_what_prompted_each_structure(
    run: Path, scan: Path, tmp_path: Path, segmented: Segmented
) -> None:
    code, said = segmented(scan, "--model", run, "-o", tmp_path, "--prompts", "adaptive")
    assert code == 0, said
    record = json.loads((tmp_path / "block_dseg.json").read_text())
    assert list(record["prompts"]) == NAMES and set(record["prompts"].values()) <= KINDS
    assert (record["model"], record["model_title"], record["prompted_by"]) == ("tiny-sam", "tiny", "adaptive")
    assert record["model_version"] == files.file_sha256(run / checkpoint.DELTA)[:12]
    assert (tmp_path / "block_dseg.nii.gz").is_file() and (tmp_path / "block_report.html").is_file()


def test_another_policy_is_another_result(run: Path, scan: Path, tmp_path: Path, segmented: Segmented) -> None:
    assert "done in" in segmented(scan, "--model", run, "-o", tmp_path)[1]
    assert "finished before" in segmented(scan, "--model", run, "-o", tmp_path)[1]
    record = json.loads((tmp_path / "block_dseg.json").read_text())
    assert set(record["prompts"].values()) == {"none"} and record["prompted_by"] == "none"
    assert "done in" in segmented(scan, "--model", run, "-o", tmp_path, "--prompts", "box")[1]


def test_a_result_can_be_made_again(run: Path, scan: Path, tmp_path: Path, segmented: Segmented) -> None:
    assert segmented(scan, "--model", run, "-o", tmp_path, "--prompts", "box", "--threads", 1)[0] == 0
    assert verify(tmp_path / "block_dseg.json", scan, model=str(run)).same


def test_prompts_for_a_model_that_takes_none_are_refused(scan: Path, tmp_path: Path, segmented: Segmented) -> None:
    code, said = segmented(scan, "--prompts", "box", "-o", tmp_path / "out")
    assert code == 2 and "default: this model takes no prompts" in said
    assert not (tmp_path / "out").exists()


def test_nuclei_alone_are_no_brain(run: Path, scan: Path, tmp_path: Path, segmented: Segmented) -> None:
    said = segmented(scan, "--model", run, "-o", tmp_path)[1]
    assert "the mask is of these and not of the brain" in said
    assert "human brain" not in said and "for this brain" not in said
    rows = dict(line.split("\t")[1:3] for line in (tmp_path / "block_volumes.tsv").read_text().splitlines()[1:])
    assert {rows[name] for name in ("IntraCranialVol", "Total-GM", "Total-WM", "Total-CSF")} == {"n/a"}


def test_another_recipe_is_another_result(run: Path, scan: Path, tmp_path: Path, segmented: Segmented) -> None:
    changed = tmp_path / "changed"
    shutil.copytree(run, changed)
    assert "done in" in segmented(scan, "--model", changed, "-o", tmp_path / "out")[1]
    recipe = changed / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("voxel_mm = 4.0", "voxel_mm = 5.0"))
    assert "done in" in segmented(scan, "--model", changed, "-o", tmp_path / "out")[1]


@pytest.mark.parametrize(
    ("old", "new", "said_of_it"),
    [
        ("[backbone]", "[paper]", "this recipe is damaged"),
        ("voxel_mm = 4.0", "", "this recipe is damaged"),
        ("[16, 16, 16]", '["a", 16, 16]', "this recipe is damaged"),
        ("tiny", "\udcff", "a recipe is text in UTF-8"),
    ],
)
def test_a_damaged_recipe_is_one_sentence(
    run: Path, scan: Path, tmp_path: Path, segmented: Segmented, old: str, new: str, said_of_it: str
) -> None:
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged)
    text = (damaged / "recipe.toml").read_text().replace(old, new)
    (damaged / "recipe.toml").write_bytes(text.encode("utf-8", "surrogateescape"))
    code, said = segmented(scan, "--model", damaged, "-o", tmp_path / "out")
    assert code == 2 and f"recipe.toml: {said_of_it}" in said and said.count("\n") == 1


def test_a_name_that_is_no_run_is_answered_as_before(scan: Path, tmp_path: Path, segmented: Segmented) -> None:
    code, said = segmented(scan, "--model", "a" * 300, "-o", tmp_path)
    assert code == 2 and "this model folder cannot be read" in said


def test_a_folder_may_be_given_as_a_path(run: Path) -> None:
    assert load_model(SegmentOptions(model=run)).identity["model"] == "tiny-sam"  # type: ignore[arg-type]


def test_a_run_that_can_be_exported_says_so(tmp_path: Path) -> None:
    recipe = {
        "recipe": {"protocol": "aseg"},
        "canvas": {"shape": [16, 16, 16], "voxel_mm": 4.0},
        "backbone": {"name": "unet", "widths": [4, 8]},
    }
    with pytest.raises(SpansegError, match=r"spanseg export .* --to FOLDER --check SCAN"):
        load_model(SegmentOptions(model=str(saved(tmp_path / "unet", recipe))))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("precision", "bf16"),
        ("max_memory_bytes", 2**30),
        ("flip", True),
        ("device", "tpu"),
        ("prompts", "atlas"),
        ("prompts", ""),
        ("threads", 0),
    ],
)
def test_what_such_a_network_does_not_have_is_refused(run: Path, option: str, value: Any) -> None:
    with pytest.raises(SpansegError, match=r"leave them out|must be cpu or cuda|a policy is one of|threads must be"):
        load_model(SegmentOptions(model=str(run), **{option: value}))
