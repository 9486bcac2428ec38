"""The loop: a run that was interrupted is the run that was not, and only what may change changes."""

import contextlib
import csv
import json
import math
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from spanseg import machine, parts
from spanseg.errors import SpansegError
from spanseg.interfaces import Sample
from spanseg.nets.res_unet import ResUNet
from spanseg.objectives.supervised import Supervised
from spanseg.train import Trainer, TrainOptions, dice_per_class, prepare_for_bf16, rate


class Cubes:
    """Noisy images of one bright cube, another for each index; or always the first one."""

    def __init__(self, always_first: bool = False) -> None:
        self.always_first = always_first

    def draw(self, seed: int, index: int) -> Sample:
        rng = np.random.default_rng([seed, 0 if self.always_first else index])
        target = np.zeros((1, 8, 8, 8), dtype=np.int64)
        a, b, c = rng.integers(0, 4, 3)
        target[0, a : a + 4, b : b + 4, c : c + 4] = 1
        image = target[:, None] + rng.normal(0, 0.1, (1, 1, 8, 8, 8))
        return Sample(torch.from_numpy(image.astype(np.float32)), torch.from_numpy(target))


def trainer(
    folder: Path, *, always_first: bool = False, frozen: bool = False, phases: int = 1, **options: object
) -> Trainer:
    torch.manual_seed(0)
    network = ResUNet(in_channels=1, out_channels=2, widths=(4, 8), head_channels=6)
    for parameter in network.groups()["encoder"] if frozen else []:
        parameter.requires_grad_(False)
    chosen = TrainOptions(**{"steps": 8, "warmup": 2, "lr": 1e-2, "save_every": 3, "ema": 0.9} | options)
    return Trainer(network, Supervised(phases), Cubes(always_first), chosen, folder)


# Seen on an EPYC with torch 2.13: a second run of the same 8 steps differs, or ends in NaN, on 8³ voxels whatever the
# widths; whole canvases of 100 voxels and more trained for hours without.
UNSTEADY = torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()
BF16 = pytest.mark.skipif(UNSTEADY, reason="tiny bf16 convolutions go wrong on AVX-512 bf16 without AMX")


@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=BF16)])
@pytest.mark.parametrize("muon", [True, False])
@pytest.mark.parametrize("stop_at", [3, 5])
def test_a_resumed_run_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, muon: bool, stop_at: int, bf16: bool
) -> None:
    monkeypatch.setattr("spanseg.machine.computes_in_bf16", lambda: True)
    whole = trainer(tmp_path / "whole", muon=muon, bf16=bf16)
    whole.run()
    trainer(tmp_path / "halves", muon=muon, bf16=bf16).run(stop_at=stop_at)
    second = trainer(tmp_path / "halves", muon=muon, bf16=bf16)
    assert second.step == stop_at
    second.run()
    assert second.step == whole.step == 8
    for name, value in whole.trained.items():
        assert torch.equal(second.trained[name], value) and torch.equal(second.ema[name], whole.ema[name])


@pytest.mark.parametrize("can", [pytest.param(True, marks=BF16), False])
def test_bf16_is_f32_on_a_processor_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can: bool) -> None:
    monkeypatch.setattr("spanseg.machine.computes_in_bf16", lambda: can)
    asked, plain = trainer(tmp_path / "asked", bf16=True), trainer(tmp_path / "plain")
    for run in (asked, plain):
        run.run(stop_at=2)
    same = all(torch.equal(asked.trained[name], value) for name, value in plain.trained.items())
    assert same is not can
    assert (
        any(
            one.is_contiguous(memory_format=torch.channels_last_3d)
            for one in asked.trained.values()
            if one.ndim == 5 and one.shape[1] > 1 and one.shape[2] > 1
        )
        is can
    )


def test_networks_of_two_dimensions_train_in_bf16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spanseg.machine.computes_in_bf16", lambda: True)
    network = parts.find("nets", "slice_unet")(in_channels=1, out_channels=2, widths=(4, 8))
    run = Trainer(network, Supervised(0), Cubes(), TrainOptions(bf16=True), tmp_path)
    assert run.bf16 and all(one.ndim < 5 for one in run.trained.values())


@pytest.mark.parametrize("asked", [False, True])
def test_weights_of_linear_layers_take_muon_if_asked(tmp_path: Path, asked: bool) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.table = nn.Linear(4, 4), nn.Embedding(4, 4)

    network = Net()
    run = Trainer(network, Supervised(0), Cubes(False), TrainOptions(muon_linear=asked), tmp_path)
    chosen = [one for group in run.optimiser.param_groups if group["matrices"] for one in group["params"]]
    assert [one is network.linear.weight for one in chosen] == [True] * asked
    assert sum(len(group["params"]) for group in run.optimiser.param_groups) == 3


def test_a_run_stops_when_its_time_is_over_and_goes_on_later(tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole")
    whole.run()
    first = trainer(tmp_path / "parts")
    first.run(until_s=time.monotonic())
    assert first.step == 0
    soon = iter([0.0, 0.0, *[1e12] * 99])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("spanseg.train.time.monotonic", lambda: next(soon))
        first.run(until_s=1e9)
    assert first.step == 1
    again = trainer(tmp_path / "parts")
    assert again.step == 1
    again.run()
    assert all(torch.equal(again.trained[name], value) for name, value in whole.trained.items())


def test_the_state_of_another_recipe_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path, frozen=True).run(stop_at=3)
    with pytest.raises(SpansegError, match="trained other parameters than this recipe does"):
        trainer(tmp_path)


def test_what_is_written_can_be_read_by_others(tmp_path: Path) -> None:
    trainer(tmp_path).run(stop_at=3)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes["state.safetensors"] == modes["history.csv"]


def test_a_killed_run_goes_back_to_its_last_checkpoint(tmp_path: Path) -> None:
    first = trainer(tmp_path)

    def die(row: dict[str, float]) -> None:
        if row["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        first.run(report=die)
    assert trainer(tmp_path).step == 3


class Broken(Cubes):
    """Cubes, but the fifth image holds a voxel without a value."""

    def draw(self, seed: int, index: int) -> Sample:
        sample = super().draw(seed, index)
        if index == 4:
            sample.image[0, 0, 0, 0, 0] = float("nan")
        return sample


def test_a_loss_without_a_value_stops_the_run_before_the_weights_are_lost(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.source = Broken()
    with pytest.raises(SpansegError, match=r"the loss 'dice' is not a finite number at step 5 of 8; .* than 0.01\.$"):
        run.run()
    assert run.step == 4 and all(value.isfinite().all() for value in [*run.trained.values(), *run.ema.values()])
    assert trainer(tmp_path).step == 3


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("keep_start", 2.0), ("keep_start", math.nan), ("ema", -1.0), ("clip", math.nan), ("head_rate", -1.0)),
        *(("decay", 1.5), ("lr", math.inf), ("lr", 0.0), ("steps", 0), ("patience", -1)),
    ],
)
def test_numbers_that_cannot_be_are_refused(option: str, value: float) -> None:
    with pytest.raises(SpansegError, match=rf"\[train\] .*{option} .*{value}"):
        TrainOptions(**{option: value})


def test_nothing_frozen_moves_and_all_else_does(tmp_path: Path) -> None:
    run = trainer(tmp_path, frozen=True, phases=8)
    before = {name: parameter.detach().clone() for name, parameter in run.network.named_parameters()}
    run.run()
    for name, parameter in run.network.named_parameters():
        is_frozen = name.startswith(("stem.", "encoder.", "down."))
        assert torch.equal(parameter, before[name]) == is_frozen, name
        assert (name in run.ema) != is_frozen


def test_the_loss_falls_on_a_fixed_pair(tmp_path: Path) -> None:
    rows: list[dict[str, float]] = []
    trainer(tmp_path, always_first=True, steps=60, lr=3e-2).run(report=rows.append)
    first, last = (np.mean([row["loss"] for row in part]) for part in (rows[:5], rows[-5:]))
    assert last < 0.1 * first


def test_a_batch_takes_consecutive_samples(tmp_path: Path) -> None:
    drawn: list[int] = []
    run = trainer(tmp_path, batch=2, steps=3)
    draw = run.source.draw
    run.source.draw = lambda seed, index: (drawn.append(index), draw(seed, index))[1]
    run.run()
    assert drawn == [0, 1, 2, 3, 4, 5]


def test_the_state_is_safetensors_and_nothing_else(tmp_path: Path) -> None:
    trainer(tmp_path).run(validate=lambda run: 0.5)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".csv"}
    for path in tmp_path.glob("*.safetensors"):
        raw = path.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        assert 8 + length + max(ends) == len(raw), "every byte must belong to the header or to a tensor"


def test_history_has_a_row_for_each_step(tmp_path: Path) -> None:
    trainer(tmp_path, validate_every=4).run(validate=lambda run: run.step / 10)
    with (tmp_path / "history.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(range(1, 9))
    assert {row["step"]: float(row["validation"]) for row in rows if row["validation"]} == {"4": 0.4, "8": 0.8}


def test_validation_sees_the_averaged_weights_and_gives_the_others_back(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    seen: list[bool] = []

    def validate(running: Trainer) -> float:
        seen.append(all(torch.equal(p, running.ema[name]) for name, p in running.trained.items()))
        return 1.0

    run.run(validate=validate)
    assert seen == [True]
    assert not all(torch.equal(p, run.ema[name]) for name, p in run.trained.items())


@pytest.mark.parametrize(("step", "expected"), [(0, 0.1), (9, 1.0), (10, 1.0), (55, 0.5), (100, 0.0)])
def test_the_rate_warms_up_and_falls_along_a_cosine(step: int, expected: float) -> None:
    options = TrainOptions(steps=100, warmup=10, lr=1.0, decay=1.0)
    assert rate(step, options) == pytest.approx(expected, abs=1e-9)


def test_the_rate_can_stay_up_until_the_end() -> None:
    assert rate(99, TrainOptions(steps=100, warmup=10, lr=1.0, decay=0.0)) == 1.0


def test_dice_per_class_by_hand() -> None:
    predicted = torch.tensor([0, 1, 1, 2, 2, 1])
    target = torch.tensor([0, 1, 2, 2, -1, -1])
    found = dice_per_class(predicted, target, 4)
    torch.testing.assert_close(found[:3], torch.tensor([1.0, 2 / 3, 2 / 3]))
    assert found[3].isnan()


def test_training_stops_when_the_score_no_longer_rises(tmp_path: Path) -> None:
    scores = iter([0.1, 0.5, 0.4, 0.5, 0.3, 0.2])
    early = trainer(tmp_path, steps=50, validate_every=2, patience=3)
    early.run(validate=lambda t: next(scores))
    assert early.step == 10  # best at the second look, and three without a better one
    again = trainer(tmp_path, steps=50, validate_every=2, patience=3)
    again.run(validate=lambda t: 1.0)
    assert again.step == 10


def test_freed_memory_is_kept_during_the_steps_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = False

    @contextlib.contextmanager
    def keep() -> Iterator[None]:
        nonlocal kept
        kept = True
        yield
        kept = False

    monkeypatch.setattr("spanseg.heap.freed_memory_kept", keep)
    seen: list[bool] = []
    trainer(tmp_path).run(report=lambda row: seen.append(kept))
    assert seen == [True] * 8 and not kept


@pytest.mark.parametrize("computes", [True, False])
def test_kernels_are_laid_for_bf16_only_where_it_is_computed(monkeypatch: pytest.MonkeyPatch, computes: bool) -> None:
    monkeypatch.setattr(machine, "computes_in_bf16", lambda: computes)
    layer = nn.Conv3d(4, 6, 3)
    before = layer.weight.detach().clone()
    assert prepare_for_bf16(layer) is computes
    assert layer.weight.is_contiguous(memory_format=torch.channels_last_3d) is computes
    assert torch.equal(layer.weight, before)
