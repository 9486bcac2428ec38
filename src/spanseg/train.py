"""The only training loop, for all methods: plain torch, resumable, seeded by sample index."""

import csv
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spanseg import checkpoint, heap, machine
from spanseg.errors import SpansegError
from spanseg.interfaces import Objective, Sample, Source
from spanseg.labels import UNKNOWN
from spanseg.optim import MuonAdamW
from spanseg.parts import require_bounds
from spanseg.sampling import batch_of

HISTORY = "history.csv"
_BOUNDS = dict.fromkeys(("steps", "batch", "save_every", "validate_every", "validate_draws"), (1, math.inf))
_BOUNDS |= dict.fromkeys(("lr", "warmup", "weight_decay", "clip", "seed", "patience", "head_rate"), (0, math.inf))
_BOUNDS |= dict.fromkeys(("decay", "ema", "keep_start"), (0, 1))


@dataclass(frozen=True)
class TrainOptions:
    """How a model is trained.

    Args:
        steps: optimiser steps.
        batch: samples of one step.
        lr: highest learning rate.
        warmup: steps of linear warm-up.
        decay: share of the steps, at the end, in which the rate falls to 0 along a half cosine; 1 is a full cosine.
        weight_decay: decoupled weight decay.
        muon: Muon for convolution kernels instead of AdamW.
        muon_linear: Muon for the weights of linear layers too, of which transformers are made.
        ema: decay of the averaged weights.
        clip: largest norm of the gradient.
        bf16: bf16 autocast, and Muon's matrices in bf16: 1.4 to 2.6 times faster; f32 on a
            processor that does not compute in it.
        seed: seed of initial weights and draws.
        save_every, validate_every: steps between checkpoints and between looks at the left-out maps.
        validate_draws: left-out draws of one look.
        keep_start: share that the weights which a run started from keep in its final ones, 0 to 1: the mean of the two
            is often better than either on what the run did not show (Wortsman et al., CVPR 2022). What the run added
            to them stays as it was learned.
        head_rate: how many times larger the learning rate of the network's head is. A head of 1×1×1 convolutions that
            reads few channels of unit variance needs long before it can say anything with certainty.
        patience: looks in a row without a better score after which training stops; 0 never stops early.
    """

    steps: int = 2000
    batch: int = 1
    lr: float = 2e-3
    warmup: int = 100
    decay: float = 1.0
    weight_decay: float = 0.01
    muon: bool = True
    muon_linear: bool = False
    ema: float = 0.998
    clip: float = 5.0
    bf16: bool = False
    seed: int = 0
    save_every: int = 100
    validate_every: int = 200
    validate_draws: int = 4
    keep_start: float = 0.0
    patience: int = 0
    head_rate: float = 1.0

    def __post_init__(self) -> None:
        """Refuse what no run could be.

        Raises:
            SpansegError: a number that is too small, too large or none.
        """
        require_bounds(self, _BOUNDS, "train")
        if not (self.lr > 0 and self.clip > 0):
            raise SpansegError(f"the recipe's [train] needs lr > 0 and clip > 0, not {self.lr} and {self.clip}.")


def rate(step: int, options: TrainOptions) -> float:
    """Learning rate of a step: linear warm-up, plateau, half cosine."""
    if step < options.warmup:
        return options.lr * (step + 1) / options.warmup
    start = options.steps - options.decay * (options.steps - options.warmup)
    if step <= start:
        return options.lr
    return options.lr * 0.5 * (1 + math.cos(math.pi * (step - start) / max(1, options.steps - start)))


class Trainer:
    """State of one training run; :meth:`run` continues it from where the folder left off.

    Args:
        network: what is trained; parameters without ``requires_grad`` stay as they are.
        objective: what it is rewarded for.
        source: where training pairs come from.
        options: how.
        folder: where state, history and checkpoints go.
    """

    def __init__(
        self, network: nn.Module, objective: Objective, source: Source, options: TrainOptions, folder: Path
    ) -> None:
        self.network, self.objective, self.source, self.options, self.folder = (
            network,
            objective,
            source,
            options,
            folder,
        )
        self.bf16 = options.bf16 and prepare_for_bf16(network)
        self.trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
        parameters = _groups(network, list(self.trained.values()), options)
        self.optimiser = MuonAdamW(parameters, options.lr, options.weight_decay, options.muon, self.bf16)
        self.ema = {name: parameter.detach().clone() for name, parameter in self.trained.items()}
        self.step, self.best, self.stale = 0, -1.0, 0
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def run(
        self,
        validate: Callable[["Trainer"], float] | None = None,
        report: Callable[[dict[str, float]], None] | None = None,
        stop_at: int | None = None,
        until_s: float = math.inf,
    ) -> None:
        """Train until ``stop_at``, the last step or a time.

        Args:
            validate: returns a score (higher is better) with the averaged weights; the best are kept as a checkpoint.
            report: called after each step with the row that goes into ``history.csv``.
            stop_at: step to stop at, for tests and for chained machines.
            until_s: on the clock of ``time.monotonic``; the step that passes it is the last.

        Raises:
            SpansegError: the loss or its gradient is no longer finite; weights and state stay as they were.
        """
        last = min(self.options.steps, stop_at or self.options.steps)
        with heap.freed_memory_kept():
            while self.step < last and not self.has_stalled and time.monotonic() < until_s:
                row = self._one_step()
                at_end = self.step == last or time.monotonic() >= until_s
                if validate and (at_end or self.step % self.options.validate_every == 0):
                    row["validation"] = self._validate(validate)
                self._log(row)
                if report:
                    report(row)
                if at_end or self.has_stalled or self.step % self.options.save_every == 0:
                    self.save()

    @property
    def has_stalled(self) -> bool:
        """Whether the score has not risen for as many looks as the options allow."""
        return 0 < self.options.patience <= self.stale

    def _one_step(self) -> dict[str, float]:
        options, began = self.options, time.monotonic()
        for group in self.optimiser.param_groups:
            group["lr"] = rate(self.step, options) * group.get("times", 1.0)
        samples = [self.source.draw(options.seed, self.step * options.batch + k) for k in range(options.batch)]
        batch = batch_of(samples, self.step)
        drawn = time.monotonic()
        with torch.autocast(batch.image.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            losses = self.objective(self.network, batch)
        loss = torch.stack(list(losses.values())).sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.trained.values(), options.clip)
        self._check_finite(norm, losses)
        self.optimiser.step()
        self.step += 1
        decay = min(options.ema, self.step / (self.step + 20))
        for name, parameter in self.trained.items():
            self.ema[name].lerp_(parameter.detach(), 1 - decay)
        seconds = {"draw_s": drawn - began, "step_s": time.monotonic() - drawn}
        named = {name: float(value.detach()) for name, value in losses.items()}
        return {"step": self.step, "loss": float(loss.detach()), **named, "norm": float(norm), **seconds}

    def _check_finite(self, norm: Tensor, losses: dict[str, Tensor]) -> None:
        """Stop before a gradient that is not a number reaches the weights; a step later all of them would be lost."""
        if torch.isfinite(norm):
            return
        lost = next((f"the loss '{name}'" for name, value in losses.items() if not torch.isfinite(value)), "")
        arithmetic = " or without [train] bf16" if self.bf16 else ""
        raise SpansegError(
            f"{self.folder}: {lost or 'the gradient'} is not a finite number at step {self.step + 1} of "
            f"{self.options.steps}; what was saved before stays. Look at the images and the recipe's numbers; if they "
            f"are right, begin again in another folder with a lower [train] lr than {self.options.lr:g}{arithmetic}."
        )

    def _validate(self, validate: Callable[["Trainer"], float]) -> float:
        current = {name: parameter.detach().clone() for name, parameter in self.trained.items()}
        self._set(self.ema)
        with torch.no_grad():
            score = validate(self)
        self._set(current)
        self.stale += 1
        if score > self.best:
            self.best, self.stale = score, 0
            checkpoint.save_tensors(self.folder / "best.safetensors", self.ema)
        return score

    def _set(self, values: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(values[name])

    def _log(self, row: dict[str, float]) -> None:
        path = self.folder / HISTORY
        columns = [key for key in row if key != "validation"] + ["validation"]
        is_new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, columns, restval="")
            if is_new:
                writer.writeheader()
            writer.writerow({key: f"{value:.6g}" for key, value in row.items()})

    def history(self) -> list[dict[str, float]]:
        """What was logged, as :func:`read_history` gives it."""
        return read_history(self.folder)

    def save(self) -> None:
        """Write the state that :meth:`run` resumes from."""
        slots = {
            f"{name}/{slot}": value
            for name, parameter in self.trained.items()
            for slot, value in self.optimiser.state[parameter].items()
        }
        weights: dict[str, Tensor] = dict(self.trained)
        best = {"score": torch.tensor(self.best), "stale": torch.tensor(self.stale)}
        groups = {"model": weights, "ema": self.ema, "optimiser": slots, "best": best}
        checkpoint.save_state(self.folder, self.step, groups)

    def _resume(self) -> None:
        stored = checkpoint.load_state(self.folder)
        if stored is None:
            return
        self.step, groups = stored
        if groups["model"].keys() != self.trained.keys():
            raise SpansegError(
                f"{self.folder}: the training that was stopped here trained other parameters than this recipe does; "
                "give another folder, or remove this one to begin again."
            )
        device = next(iter(self.trained.values())).device
        self._set(groups["model"])
        self.ema = {name: value.to(device) for name, value in groups["ema"].items()}
        self.best, self.stale = float(groups["best"]["score"]), int(groups["best"].get("stale", torch.tensor(0)))
        for key, value in groups["optimiser"].items():
            name, _, slot = key.rpartition("/")
            self.optimiser.state[self.trained[name]][slot] = value.to(device if value.ndim else "cpu")


def read_history(folder: Path) -> list[dict[str, float]]:
    """What a run logged, one row a step (of a step done again after a kill, the last); NaN where there is none."""
    with (folder / HISTORY).open(newline="", encoding="utf-8") as stream:
        rows = [{key: float(value or "nan") for key, value in row.items()} for row in csv.DictReader(stream)]
    return list({row["step"]: row for row in rows}.values())


def prepare_for_bf16(network: nn.Module) -> bool:
    """Lay three-dimensional kernels as convolutions in bf16 are fastest (in place), up to twice as fast as before.

    Returns:
        Whether the network's device computes in bf16; if not, nothing is changed.
    """
    if next(network.parameters()).device.type == "cpu" and not machine.computes_in_bf16():
        return False
    for parameter in network.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return True


def _groups(network: nn.Module, trained: list[nn.Parameter], options: TrainOptions) -> list[dict[str, Any]]:
    """Groups of the optimiser: the head apart if its rate differs, weights of linear layers apart if they take Muon."""
    backbone: Any = getattr(network, "backbone", network)
    head = {id(parameter) for parameter in backbone.groups()["head"]} if options.head_rate != 1 else set()
    layers = [part for part in network.modules() if isinstance(part, nn.Linear)] if options.muon_linear else []
    linear = {id(layer.weight) for layer in layers}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in trained:
        groups.setdefault((id(parameter) in head, id(parameter) in linear), []).append(parameter)
    return [
        {"params": inside, "times": options.head_rate if in_head else 1.0, "matrices": is_linear}
        for (in_head, is_linear), inside in groups.items()
    ]


def dice_per_class(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Dice of each class over known voxels; NaN where a class is in neither, shape (class,)."""
    known = target != UNKNOWN
    predicted, target = predicted[known], target[known]
    both = torch.bincount(target[predicted == target], minlength=classes)
    sizes = torch.bincount(target, minlength=classes) + torch.bincount(predicted, minlength=classes)
    return 2 * both / sizes


def score_sample(predicted: Tensor, sample: Sample, classes: int) -> Tensor:
    """Dice of each class of one sample; NaN where a class is in neither or its truth is not labelled, shape (class,).

    A prediction of an unlabelled class counts as background, for the truth's 0 may be just that.
    """
    unlabelled = torch.tensor(sample.unlabelled, dtype=torch.long, device=predicted.device)
    predicted = torch.where(torch.isin(predicted, unlabelled), 0, predicted)
    dice = dice_per_class(predicted, sample.target, classes)
    return dice.index_fill(0, unlabelled, torch.nan)


def validation_score(source: Source, classes: int, draws: int) -> Callable[[Trainer], float]:
    """Mean foreground Dice over fixed draws of a source of left-out cases."""

    def score(trainer: Trainer) -> float:
        table = []
        for index in range(draws):
            sample = source.draw(10_007, index)
            told = {} if sample.told is None else {"told": sample.told}
            predicted = trainer.network(sample.image, **told).argmax(1)
            table.append(score_sample(predicted, sample, classes)[1:])
        return float(torch.stack(table).nanmean())

    return score
