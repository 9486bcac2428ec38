"""Adapts a model to a centre with a few labelled scans: the work behind ``spanseg adapt``."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from spanseg import adapter_request, checkpoint, files, generation, model, parts, runs, splits
from spanseg import recipe as recipes
from spanseg.errors import SpansegError
from spanseg.export import Description, export, scan_canvas
from spanseg.facts import Facts
from spanseg.images import read_scan
from spanseg.interfaces import Sample, Source, Told
from spanseg.judging import ScanWithTruth
from spanseg.labelled import read_labelled
from spanseg.labels import UNKNOWN, Protocol
from spanseg.participants import participant_of
from spanseg.rebalance import soft_volumes, with_volumes
from spanseg.runtime import open_model
from spanseg.sampling import GENTLE, STILL, LabelledScan, Mixture, RealScans, batch_of
from spanseg.segmenter import SegmentOptions, load_model, segment_scan
from spanseg.sources import synth_options, teller
from spanseg.synth import Generator
from spanseg.told import Telling
from spanseg.train import Trainer, TrainOptions, prepare_for_bf16
from spanseg.volume import Volume, canonical

FEW_SCANS = 3
"""With fewer labelled scans than this only tokens are learned."""


@dataclass(frozen=True)
class AdaptOptions:
    """How a model is adapted.

    Args:
        start: name of a shipped model, or a model folder with weights.
        labels: scheme of the given labels; ``None`` for the BIDS table beside them.
        adaptation: ``tokens_and_head``, ``decoder``, ``lora`` or ``full``; empty to choose by the number of scans.
        replay: folder of label maps that synthetic scans are drawn from, so that the model keeps what it knows; without
            it they are drawn from what the model itself finds in the given scans.
        replay_share: share of synthetic scans among the draws, 0 to 1.
        budget_s: seconds that the training may take, what precedes it included.
        most_steps: optimiser steps at most.
        lr: highest learning rate.
        seed: of all draws.
        keep_unlabelled: let structures that the labels leave out keep what the base model gives them. Manual labels
            without sulcal CSF, say, draw the cortex wide into it; with this, such voxels stay CSF.
    """

    start: str = "default"
    labels: str | None = None
    adaptation: str = ""
    replay: Path | None = None
    replay_share: float = 0.4
    budget_s: float = 45 * 60
    most_steps: int = 240
    lr: float = 1e-3
    seed: int = 0
    keep_unlabelled: bool = True


@dataclass(frozen=True)
class Plan:
    """What a training will do, before it does it.

    Args:
        adaptation: which one, and ``reason`` why.
        reason: why this adaptation.
        step_s: measured seconds of one step.
        steps: how many.
        trained: parameters that may change.
        total: parameters of the model.
    """

    adaptation: str
    reason: str
    step_s: float
    steps: int
    trained: int
    total: int


def choose(scans: int) -> tuple[str, str]:
    """Choose an adaptation for a number of labelled scans, and say why."""
    if scans < FEW_SCANS:
        return "tokens_and_head", f"{scans} labelled scans are few: tokens for the centre and the head, all else frozen"
    return "decoder", f"{scans} labelled scans: decoder and head are trained, the encoder stays"


def recipe_for(options: AdaptOptions, scans: int) -> tuple[dict[str, Any], str]:
    """The recipe of an adaptation: that of the base model, with another ``[adapt]``; and why that one.

    It trains in bf16 if the base model's recipe does.

    Raises:
        SpansegError: the base model holds no weights or no recipe, or has tokens, which would be lost.
    """
    folder = checkpoint.weights_of(options.start).parent
    recipe = recipes.load(str(folder / "recipe.toml"))
    if "tokens" in recipe:
        raise SpansegError(
            f"{folder}: this model has tokens ({recipe['tokens']['name']}), and adapt starts from models without; "
            "start from the one that it was made from, or train a recipe with tokens (docs/tutorials/tell.md)."
        )
    name, reason = (options.adaptation, "as asked for") if options.adaptation else choose(scans)
    recipe["adapt"] = {"name": name}
    if name == "tokens_and_head":
        deepest = [stage for stage in model.backbone(recipe).stages if stage.startswith("decoder")]  # type: ignore[union-attr]
        recipe["tokens"] = {"name": "learned", "stages": deepest[:1], "centres": 1}
    in_bf16 = recipe.get("train", {}).get("bf16", False)
    recipe["train"] = {"start": options.start, "lr": options.lr, "warmup": 10, "ema": 0.98, "seed": options.seed}
    recipe["train"]["bf16"] = in_bf16
    return recipe, reason


def adapt(
    pairs: Sequence[ScanWithTruth],
    folder: Path,
    options: AdaptOptions,
    tell: Callable[[Plan], None],
    report: Callable[[dict[str, float]], None],
    test: Sequence[ScanWithTruth] = (),
) -> Path:
    """Train an adaptation on labelled scans; a finished one is left as it is, a stopped one goes on.

    What was asked for lies beside it; another request into the same folder is refused (:mod:`spanseg.adapter_request`).

    Args:
        pairs: scans and their label images.
        folder: of the adapter.
        options: how.
        tell: is told the plan once a step has been measured.
        report: is told each step.
        test: who is held out, to judge it by; written with who trains to ``split.json``.

    Returns:
        The delta's path.

    Raises:
        SpansegError: scans or labels that cannot be used, an adaptation that the model does not support, or a test
            scan that the model or the adapter was trained on.
    """
    began = time.monotonic()
    start, held_out = checkpoint.weights_of(options.start).parent, splits.scans_in(scan for scan, _ in test)
    for place in (start, folder):
        splits.require_unseen(place, held_out)
    recipe, reason = recipe_for(options, len(pairs))
    request = _request(pairs, recipe, options)
    adapter_request.require_same(folder, request)
    if (folder / checkpoint.DELTA).is_file():
        return folder / checkpoint.DELTA
    network = runs.network_of(recipe)
    objective = dict(recipe["objective"])
    reward = parts.build("objectives", objective.pop("name"), objective)
    found = _found([scan for scan, _ in pairs], options.start)
    maps = _replayed(zip(found, [scan.name for scan, _ in pairs], strict=True), recipe, options)
    labelled = read_labelled(pairs, options.labels, model.protocol_of(recipe))
    left_out = sorted({index for scan in labelled for index in scan.unlabelled}) if options.keep_unlabelled else []
    still = _as_they_are(labelled, recipe)
    volumes = soft_volumes(network, still, left_out)
    source = _source(labelled, found, maps, recipe, options)
    step_s = _measure(network, reward, source, recipe["train"]["bf16"] and prepare_for_bf16(network))
    left_s = options.budget_s - (time.monotonic() - began)
    steps = max(1, min(options.most_steps, int(0.9 * left_s / step_s)))
    tell(_plan(recipe["adapt"]["name"], reason, step_s, steps, network))
    trained = splits.scans_in(scan for scan, _ in pairs) + splits.maps_in(maps)
    splits.write(folder, trained, held_out, [start])
    adapter_request.write(folder, request)
    recipe["train"]["steps"] = steps
    trainer = Trainer(network, reward, source, _train_options(recipe), folder)
    trainer.run(report=report, until_s=began + options.budget_s)
    weights = with_volumes(network, trainer.ema, still, volumes)
    checkpoint.save(folder, {name: value.half() for name, value in weights.items()}, recipe)
    (folder / checkpoint.STATE).unlink(missing_ok=True)
    return folder / checkpoint.DELTA


def _train_options(recipe: dict[str, Any]) -> TrainOptions:
    return runs.rewarded(recipe)[0]


def _request(pairs: Sequence[ScanWithTruth], recipe: dict[str, Any], options: AdaptOptions) -> dict[str, Any]:
    """What decides an adapter's weights, beside how long it is trained, by what it is called in a message."""
    return {
        "base model": files.file_sha256(checkpoint.weights_of(options.start)),
        "adaptation": recipe["adapt"]["name"],
        "set of scans or labels": sorted([files.file_sha256(scan), files.file_sha256(truth)] for scan, truth in pairs),
        "label scheme": options.labels,
        "replay": [str(options.replay) if options.replay else "", options.replay_share],
        "learning rate": options.lr,
        "seed": options.seed,
        "handling of unlabelled structures": options.keep_unlabelled,
    }


def _found(scans: Sequence[Path], start: str) -> list[Volume]:
    """What the base model itself makes of the given scans."""
    options = SegmentOptions(model=start)
    predictor = load_model(options)
    return [segment_scan(read_scan(path), predictor, options).labels for path in scans]


def _replayed(
    found: Iterable[tuple[Volume, str]], recipe: dict[str, Any], options: AdaptOptions
) -> list[generation.PackedMap]:
    """Label maps to draw synthetic scans from, given or found by the base model; none where none are wanted."""
    if not options.replay_share:
        return []
    table = generation.load_classes(model.protocol_of(recipe))
    if options.replay is not None:
        return generation.read_maps(options.replay, table)
    return [generation.pack(labels, table, name) for labels, name in found]


def _as_they_are(labelled: Sequence[LabelledScan], recipe: dict[str, Any]) -> list[Sample]:
    """The scans of a centre on the network's canvas, neither deformed nor degraded."""
    protocol, canvas = model.protocol_of(recipe), model.canvas_of(recipe)
    samples = [RealScans([scan], protocol, canvas, STILL).draw(0, 0) for scan in labelled]
    told = _of_the_centre(recipe)
    return samples if told is None else [sample._replace(told=told) for sample in samples]


def _of_the_centre(recipe: dict[str, Any]) -> Told | None:
    """What a network with tokens of the centre is told: that a scan is of it."""
    tell = teller(recipe)
    return None if tell is None else tell(Facts(), 0)


def _source(
    labelled: Sequence[LabelledScan],
    found: Sequence[Volume],
    maps: list[generation.PackedMap],
    recipe: dict[str, Any],
    options: AdaptOptions,
) -> Source:
    """The centre's own scans, mixed with synthetic ones against forgetting."""
    protocol, canvas = model.protocol_of(recipe), model.canvas_of(recipe)
    if options.keep_unlabelled:
        of_base = zip(labelled, found, strict=True)
        labelled = [with_unlabelled(one, labels, protocol) for one, labels in of_base]
    source: Source = RealScans(labelled, protocol, canvas, GENTLE)
    told = _of_the_centre(recipe)
    if maps:
        source = Mixture([source, _synthetic(maps, recipe)], [1 - options.replay_share, options.replay_share])
    return source if told is None else Telling(source, told)


def _synthetic(maps: list[generation.PackedMap], recipe: dict[str, Any]) -> Source:
    """Synthetic scans as the base model learned from."""
    table = generation.load_classes(model.protocol_of(recipe))
    return Generator(maps, table, model.canvas_of(recipe), synth_options(recipe))


def with_unlabelled(scan: LabelledScan, found: Volume, protocol: Protocol) -> LabelledScan:
    """Label what the truth leaves out as the base model does; nothing is unlabelled any more.

    Such a structure keeps its voxels also where the truth gives them to a neighbour: manual labels without sulcal CSF
    draw the cortex wide into it. (To let these voxels teach nothing was not enough: docs/experiments.md, §8.)

    Args:
        scan: with its truth.
        found: the base model's labels of the same scan, on its own grid.
        protocol: of both.
    """
    classes = protocol.crosswalk(protocol.name).apply(canonical(found)[0].data, scan.name)
    left_out = np.isin(classes, scan.unlabelled) & (scan.classes != UNKNOWN)
    labelled = np.where(left_out, classes, scan.classes).astype(scan.classes.dtype)
    return replace(scan, classes=labelled, unlabelled=())


def _measure(network: nn.Module, reward: Any, source: Source, bf16: bool) -> float:
    """Seconds of a step after the first: drawing, forward and backward; nothing is changed."""
    seconds = 0.0
    for index in range(2):
        began = time.monotonic()
        sample = source.draw(0, index)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses = reward(network, batch_of([sample], index))
        torch.stack(list(losses.values())).sum().backward()
        seconds = time.monotonic() - began
    network.zero_grad(set_to_none=True)
    return seconds


def _plan(name: str, reason: str, step_s: float, steps: int, network: nn.Module) -> Plan:
    parameters = list(network.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    return Plan(name, reason, step_s, steps, trained, sum(p.numel() for p in parameters))


def exported(folder: Path, centre: str, options: AdaptOptions, scan: Path) -> dict[str, float]:
    """Export a trained adapter into its own folder, checked on one of its scans.

    Returns:
        What was measured; empty if it was exported before.
    """
    if (folder / "model.toml").is_file():
        return {}
    base = open_model(options.start)
    description = Description(
        f"{base.table['model']['name']}-{centre}", "1", base.table["model"]["licence"], "not stated"
    )
    first = base.table.get("adapter")  # an adapter on an adapter belongs to what the first one belongs to
    if first is None:
        first = {"base": options.start, "base_sha256": base.table["model"]["weights_sha256"]}
    adapter = {"centre": centre, "base": first["base"], "base_sha256": first["base_sha256"]}
    return export(folder, folder, description, [scan_canvas(scan, folder)], adapter=adapter)


def split_people(
    pairs: Sequence[ScanWithTruth], subjects: Sequence[str]
) -> tuple[list[ScanWithTruth], list[ScanWithTruth]]:
    """Separate the people to train on from those to test on; every scan of a person stays on one side.

    Args:
        pairs: all scans.
        subjects: names of those to train on; empty to hold out one person in five, and the last at least.

    Raises:
        SpansegError: a named person has no scan.
    """
    people = sorted({participant_of(scan) for scan, _ in pairs})
    named = {name if name.startswith("sub-") else f"sub-{name}" for name in subjects}
    missing = sorted(named - set(people))
    if missing:
        raise SpansegError(f"no labelled scan of {', '.join(missing)}; there are {', '.join(people)}.")
    held_out = set(people[4::5]) or set(people[1:][-1:])
    chosen = named or set(people) - held_out
    train = [pair for pair in pairs if participant_of(pair[0]) in chosen]
    return train, [pair for pair in pairs if participant_of(pair[0]) not in chosen]
