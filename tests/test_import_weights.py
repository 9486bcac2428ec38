"""Published weights come in under our names or not at all, and no file can run code."""

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from spanseg import parts
from spanseg.checkpoint import load_backbone
from spanseg.errors import SpansegError
from spanseg.import_weights import LoadReport, load_swin_unetr, read_tensors

TRANSFORMER = 0.12
"""A little less than the transformer's share of the parameters of the small network."""


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Weights of a small SwinUNETR that was never ours."""
    stock = pytest.importorskip("monai.networks.nets.swin_unetr")
    torch.manual_seed(1)
    return stock.SwinUNETR(in_channels=1, out_channels=3, feature_size=12).state_dict()


def network(in_channels: int = 1, out_channels: int = 3) -> nn.Module:
    pytest.importorskip("monai")
    torch.manual_seed(0)
    swin = parts.find("nets", "swin_unetr")
    return swin(in_channels=in_channels, out_channels=out_channels, feature_size=12)


def self_supervised(published: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The transformer alone under the names of MONAI's ``model_swinvit.pt``, with what else lies in that file."""
    inner = {key.removeprefix("swinViT."): value for key, value in published.items() if key.startswith("swinViT.")}
    named = {prefix + re.sub(r"\.linear([12])\.", r".fc\1.", key): value for key, value in inner.items()}
    return named | {f"{prefix}norm.weight": torch.ones(192), "module.rotation_head.weight": torch.ones(4, 192)}


def nested(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """The transformer as MONAI's ``ssl_pretrained_weights.pth`` names it."""
    inner = {key.removeprefix("swinViT."): value for key, value in published.items() if key.startswith("swinViT.")}
    named = {"encoder." + re.sub(r"^(layers\d\.0)\.", r"\1.0.", key): value for key, value in inner.items()}
    return named | {"encoder.mask_token": torch.zeros(1, 1, 12)}


def is_loaded(ours: nn.Module, published: dict[str, Tensor], start: str) -> bool:
    return all(torch.equal(p, published[name]) for name, p in ours.named_parameters() if name.startswith(start))


@pytest.mark.parametrize("spoilt", [lambda one: one * torch.nan, lambda one: one.to(torch.int8)])
def test_weights_that_are_no_numbers_are_refused(
    published: dict[str, Tensor], spoilt: Callable[[Tensor], Tensor]
) -> None:
    name = next(name for name in published if name.endswith("weight"))
    ours = network()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(SpansegError, match=r"1 of .* tensors hold no finite floating-point numbers"):
        load_swin_unetr(ours, published | {name: spoilt(published[name])}, 0.5)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_whole_network_loads_completely(published: dict[str, Tensor], prefix: str) -> None:
    ours = network()
    report = load_swin_unetr(ours, {prefix + key: value for key, value in published.items()}, 1.0)
    assert report == LoadReport(1.0, 1.0, dict.fromkeys(ours.groups(), 1.0), (), (), ())
    assert is_loaded(ours, published, "")


@pytest.mark.parametrize("prefix", ["", "module.", "swin_vit.", "module.swin_vit.", "swinViT.", "module.swinViT."])
def test_the_transformer_alone_loads_by_its_key_map(published: dict[str, Tensor], prefix: str) -> None:
    ours = network()
    report = load_swin_unetr(ours, self_supervised(published, prefix), TRANSFORMER)
    assert report.groups == {"encoder": 1.0, "skips": 0.0, "decoder": 0.0, "head": 0.0}
    assert is_loaded(ours, published, "swinViT.") and not is_loaded(ours, published, "encoder1.")
    assert sorted(report.unexpected) == ["rotation_head.weight", "swinViT.norm.weight"]
    assert not report.mismatched
    assert {name.partition(".")[0] for name in report.missing} == {
        *(f"encoder{n}" for n in (1, 2, 3, 4, 10)),
        *(f"decoder{n}" for n in (1, 2, 3, 4, 5)),
        "out",
    }


def test_the_nested_form_loads(published: dict[str, Tensor]) -> None:
    ours = network()
    report = load_swin_unetr(ours, nested(published), TRANSFORMER)
    assert report.groups["encoder"] == 1.0 and report.unexpected == ("swinViT.mask_token",)
    assert is_loaded(ours, published, "swinViT.")


def test_coverage_counts_tensors_and_parameters(published: dict[str, Tensor]) -> None:
    ours = network()
    one = {"out.conv.conv.bias": published["out.conv.conv.bias"]}
    report = load_swin_unetr(ours, one, 0.0)
    own = list(ours.parameters())
    assert report.tensors == 1 / len(own)
    assert report.parameters == 3 / sum(p.numel() for p in own)
    assert len(report.missing) == len(own) - 1
    assert report.lines()[0].startswith("loaded ") and "not in the file: " in report.lines()[1]


def test_other_channels_and_classes_are_reported_and_left(published: dict[str, Tensor]) -> None:
    ours = network(in_channels=4, out_channels=5)
    before = ours.out.conv.conv.weight.clone()
    report = load_swin_unetr(ours, published, 0.9)
    assert "swinViT.patch_embed.proj.weight (12, 1, 2, 2, 2) for (12, 4, 2, 2, 2)" in report.mismatched
    assert "out.conv.conv.bias (3,) for (5,)" in report.mismatched
    assert not report.missing and not report.unexpected
    assert torch.equal(ours.out.conv.conv.weight, before)


def test_too_little_is_refused_and_changes_nothing(published: dict[str, Tensor]) -> None:
    ours = network()
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(SpansegError, match=r"hold 1\d\.\d% of .* 50\.0% are needed; .*encoder1"):
        load_swin_unetr(ours, self_supervised(published, "module."), 0.5)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


def test_a_refused_file_is_named_and_what_to_do(published: dict[str, Tensor], tmp_path: Path) -> None:
    name = next(name for name in published if name.endswith("weight"))
    torch.save(published | {name: published[name] * torch.nan}, tmp_path / "nan.pt")
    with pytest.raises(SpansegError, match=r"nan\.pt: these weights cannot be used"):
        load_backbone(network(), tmp_path / "nan.pt")
    torch.save({name: published[name]}, tmp_path / "part.pt")
    with pytest.raises(SpansegError, match=r"part\.pt: these weights hold 0\.\d% .* lower \[train\] start_minimum"):
        load_backbone(network(), tmp_path / "part.pt")


TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_tensors_are_found_in_what_training_scripts_save(tmp_path: Path, suffix: str, wrapper: str | None) -> None:
    path = tmp_path / f"weights{suffix}"
    stored = (
        TENSORS if wrapper is None else {wrapper: TENSORS, "epoch": 3, "best_acc": np.float64(0.8), "optimizer": {}}
    )
    torch.save(stored, path)
    found = read_tensors(path)
    assert found.keys() == TENSORS.keys() and all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "weights.safetensors")
    assert torch.equal(read_tensors(tmp_path / "weights.safetensors")["a.weight"], TENSORS["a.weight"])


class Attack:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, (self.path, "w")


def test_a_file_that_would_run_code_is_refused_before_it_does(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    torch.save({"state_dict": TENSORS, "extra": Attack(str(victim))}, tmp_path / "weights.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Attack(str(victim))))
    for name in ("weights.pt", "bare.pt"):
        with pytest.raises(SpansegError, match=rf"{name}: only plain tensors .* as safetensors"):
            read_tensors(tmp_path / name)
    assert not victim.exists()


def test_what_holds_no_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "weights.pt")
    (tmp_path / "notes.txt").write_text("weights", encoding="utf-8")
    with pytest.raises(SpansegError, match="expected named tensors"):
        read_tensors(tmp_path / "weights.pt")
    for name in ("notes.txt", "missing.pth", "missing.safetensors"):
        with pytest.raises(SpansegError, match=name):
            read_tensors(tmp_path / name)
