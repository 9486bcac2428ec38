"""Model folders: a whole one opens, and what is damaged or put together by hand is refused with one sentence."""

import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from spanseg import recipe, runtime
from spanseg.errors import SpansegError

SHIPPED = Path(str(resources.files("spanseg"))) / "models" / "default"
NETWORK = b"pretend that this is a network"


def folder_with(tmp_path: Path, network: bytes = NETWORK, **changes: object) -> Path:
    """A model folder whose ``model.toml`` is the shipped one's; ``section__key`` changes a value, ``None`` drops it."""
    table = runtime.open_model("default").table
    table["model"].pop("sha256")
    for name, value in changes.items():
        section, key = name.split("__")
        table[section].pop(key, None)
        if value is not None:
            table[section][key] = value
    (tmp_path / "model.toml").write_text(recipe.dumps(table), encoding="utf-8")
    (tmp_path / "model.onnx").write_bytes(network)
    return tmp_path


def test_a_whole_folder_opens(tmp_path: Path) -> None:
    assert runtime.open_model(str(folder_with(tmp_path))).protocol == "aseg"
    assert runtime.open_model("default").path == SHIPPED


@pytest.mark.parametrize(
    "change",
    [
        {"model__name": None},
        {"model__licence": None},
        {"model__version": 1},
        {"model__protocol": ""},
        {"canvas__shape": [80, 112]},
        {"canvas__shape": [0, 112, 80]},
        {"canvas__shape": ["a", "b", "c"]},
        {"canvas__voxel_mm": 0},
        {"canvas__voxel_mm": float("nan")},
        {"labels__ids": None},
        {"runtime__peak_mib": "lots"},
        {"runtime__peak_mib": float("inf")},
    ],
)
def test_a_table_that_makes_no_sense_is_refused(change: dict[str, object], tmp_path: Path) -> None:
    key = next(iter(change)).split("__")[1]
    with pytest.raises(SpansegError, match=rf"model\.toml: '{key}' in \[\w+\] is missing or makes no sense"):
        runtime.open_model(str(folder_with(tmp_path, **change)))


def test_a_run_that_is_not_finished_is_told_from_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(SpansegError, match=r"found no model\.toml"):
        runtime.open_model(str(tmp_path))
    (tmp_path / "recipe.toml").write_text("[recipe]", encoding="utf-8")
    with pytest.raises(SpansegError, match="this training run is not finished; go on with it with 'spanseg train'"):
        runtime.open_model(str(tmp_path))


def test_windows_are_declared_or_not_there(tmp_path: Path) -> None:
    assert not runtime.open_model("default").windows
    assert runtime.open_model(str(folder_with(tmp_path, canvas__windows=True))).windows
    with pytest.raises(SpansegError, match=r"'windows' in \[canvas\] is true or false"):
        runtime.open_model(str(folder_with(tmp_path, canvas__windows="yes")))


@pytest.mark.parametrize("text", ["", "model = [1]\ncanvas = 3\n", "[model", "\xff"])
def test_a_table_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (folder_with(tmp_path) / "model.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(SpansegError, match=r"model\.toml: "):
        runtime.open_model(str(tmp_path))


def test_labels_of_another_version_of_the_protocol_are_refused(tmp_path: Path) -> None:
    ids = runtime.open_model("default").table["labels"]["ids"]
    with pytest.raises(SpansegError, match="labels are not those of the protocol 'aseg'"):
        runtime.open_model(str(folder_with(tmp_path, labels__ids=[*ids[:-1], 999])))


def test_a_network_that_was_changed_is_refused(tmp_path: Path) -> None:
    shutil.copy(SHIPPED / "model.toml", folder_with(tmp_path))
    with pytest.raises(SpansegError, match=r"not the network that model\.toml records"):
        runtime.open_model(str(tmp_path))


def test_a_name_that_no_file_system_takes_is_refused() -> None:
    with pytest.raises(SpansegError, match="cannot be read"):
        runtime.open_model("x" * 400)


@pytest.mark.parametrize("threads", [0, -1, runtime.MOST_THREADS + 1, 10**30])
def test_numbers_of_threads_that_make_no_sense(threads: int) -> None:
    with pytest.raises(SpansegError, match="threads must be 1 to"):
        runtime.Engine(runtime.open_model("default"), threads=threads)


def test_what_is_no_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpansegError, match="cannot be loaded"):
        runtime.Engine(runtime.open_model(str(folder_with(tmp_path))), "f32", 1)


def test_a_canvas_that_is_not_the_networks_is_refused(tmp_path: Path) -> None:
    network = (SHIPPED / "model.onnx").read_bytes()
    folder = runtime.open_model(str(folder_with(tmp_path, network, canvas__shape=[8, 8, 8])))
    with pytest.raises(SpansegError, match=r"declares \(1, 1, 8, 8, 8\)"):
        runtime.Engine(folder, "f32", 1)


def test_probabilities_are_bytes_that_add_up() -> None:
    folder = runtime.open_model("default")
    found = runtime.Engine(folder, "f32", 1)(np.zeros(folder.canvas_shape, dtype=np.float32))
    assert found.dtype == np.uint8
    assert found.shape == (len(folder.table["labels"]["ids"]), *folder.canvas_shape)
    assert np.abs(found.sum(axis=0, dtype=int) - 255).max() <= 16


def test_a_shipped_model_goes_before_a_folder_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spanseg import checkpoint

    (tmp_path / "default").mkdir()
    (tmp_path / "default" / "delta.safetensors").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert checkpoint.weights_of("default").parent == runtime.open_model("default").path
    assert checkpoint.weights_of("./default") == Path("default/delta.safetensors")
    assert not runtime.is_run("default") and runtime.is_run("./default")
