"""Does a network use what it is told? Scans in which the age alone tells which of two truths holds.

    python benchmarks/knowledge.py MAPS.npz --out runs/knowledge [--steps 800]

MAPS is what `spanseg train … --pack` writes. Three small networks are trained on scans of `spanseg.ambiguous`: one with
a second channel that shows the grey ribbon, as bright as the unmyelinated band is truly wide (the oracle), one that
sees the ribbon alone, and one that is told the age in a sentence. The oracle shows that there is something to know. The
last one is tested with the right age, none, the mean over ages, and a wrong one: if the wrong age costs no Dice while
the oracle gains some, the path from the sentence to the answer is broken, and the exit code is 1. `spanseg audit` must
see the same, and nothing in a network whose tokens are silenced. A second variant (contrast inverted in newborns, none
at six months) is shown, not judged.

Killed and started again, the benchmark goes on; it writes results.tsv (by person) and summary.json.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from spanseg import checkpoint, files, generation, model, runs
from spanseg import recipe as recipes
from spanseg.ambiguous import Ambiguous, Someone, someone
from spanseg.export import Description, export
from spanseg.facts import Facts
from spanseg.generation import GenerationClasses, PackedMap
from spanseg.images import scan_of
from spanseg.interfaces import Sample, Source, Told
from spanseg.lifespan import Lifespan
from spanseg.segmenter import SegmentOptions, load_model
from spanseg.sentences import load_table
from spanseg.sources import synth_options
from spanseg.stats import PairedTest, paired_test
from spanseg.swaps import swaps
from spanseg.telling import MARGINAL_AGES_YEARS
from spanseg.told import Teller
from spanseg.train import score_sample
from spanseg.volume import Volume, grid_round

GIVEN = {"oracle": "given", "nothing": "hidden"}
"""What the networks that are told nothing find out about the width of the band from their second channel."""
PROMPTED, REALISTIC = "prompted", "realistic"
ROWS = ("right", "missing", "marginalised", "wrong")
STRUCTURES = {"cortex": 2, "white matter": 3}
"""Classes of the tissue protocol; here only cerebral cortex and cerebral white matter are known grey and white."""
LEFT_OUT, SEED = 4, 20_001
"""Label maps and seed of the test scans."""
YOUNGEST_YEARS, GAP = 0.25, 0.05
"""In whom, and by how much Dice of the cortex, the oracle must be better."""
HEARD_PERCENT = 1.0
"""What the audit must report at least: median change of the volumes under one of the ages."""
SETTINGS = (
    *("recipe.protocol=tissue", "canvas.shape=[32, 40, 32]", "canvas.voxel_mm=3.0"),
    *("backbone.widths=[16, 32, 48]", "backbone.head_channels=24", "objective.phases=1"),
    *(
        "train.batch=2",
        "train.lr=5e-3",
        "train.head_rate=5.0",
        "train.warmup=20",
        "train.ema=0.98",
        "train.validate_every=100000",
    ),
)
EASY = (
    *("t1=1.0", "t2=0.0", "flair=0.0", "random=0.0", "infant=0.0", "rotation=8.0", "scaling=0.12", "shear=0.01"),
    *("shift_mm=4.0", "elastic_mm=2.0", "contrast_jitter=0.02", "bias=0.1", "gamma=0.1", "noise=0.04", "thick=0.0"),
    *("ghost=0.0", "strip=1.0", "sloppy=0.0", "cut=0.0", "left_out=0", "silver=0.0"),
)
Line = dict[str, Any]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path, help="packed label maps (.npz)")
    parser.add_argument("--out", type=Path, default=Path("runs/knowledge"), help="runs, results.tsv, summary.json")
    parser.add_argument("--steps", type=int, default=800, help="of each network")
    parser.add_argument("--people", type=int, default=48, help="test scans")
    parser.add_argument("--use-maps", type=int, default=16, help="label maps, the first four of which only test")
    arguments = parser.parse_args()
    maps = generation.load_packed(arguments.maps)[: arguments.use_maps]
    lines = measured(maps, arguments.out, arguments.steps, arguments.people)
    audit = {name: audited(maps, arguments.out, name, arguments.steps) for name in (PROMPTED, "silenced")}
    found = summary(lines) | {"audit_median_change_percent": audit}
    found["passed"] = passed(found)
    write(lines, found, arguments.out)
    show(found)
    sys.exit(0 if found["passed"] else 1)


def recipe_of(kind: str, steps: int) -> dict[str, Any]:
    """The recipe of one of the networks."""
    chosen = recipes.load("step1-res-unet", [*SETTINGS, *(f"synth.{one}" for one in EASY), f"train.steps={steps}"])
    if kind in GIVEN:
        chosen["recipe"]["inputs"] = [{"image": "T1"}, {"image": "the ribbon"}]
    else:
        chosen["tokens"] = {"name": "knowledge", "stages": ["encoder1", "decoder0"], "facts": ["age"]}
    return chosen


class Heard:
    """Tells what a teller tells, and remembers the last age."""

    def __init__(self) -> None:
        self.tell, self.age_years = Teller(load_table(), ["age"]), 0.0

    def __call__(self, facts: Facts, rng: np.random.Generator | None = None) -> Told:
        """Tell one person's age."""
        self.age_years = facts.age_years or 0.0
        return self.tell(facts, rng=rng)


def source_of(kind: str, recipe: dict[str, Any], maps: Sequence[PackedMap], tell: Any) -> Source:
    """What a network is trained and tested on."""
    table: GenerationClasses = generation.load_classes(model.protocol_of(recipe))
    options, canvas = synth_options(recipe), model.canvas_of(recipe)
    if kind == REALISTIC:
        return Lifespan(maps, table, canvas, options, tell)
    return Ambiguous(maps, table, canvas, options, tell if kind == PROMPTED else None, GIVEN.get(kind, ""))


def network_of(kind: str, maps: Sequence[PackedMap], out: Path, steps: int) -> nn.Module:
    """The trained network; training goes on where it was stopped."""
    folder, recipe = out / f"{kind}-{steps}", recipe_of(kind, steps)
    if not (folder / checkpoint.DELTA).is_file():
        source = source_of(kind, recipe, maps[LEFT_OUT:], Teller(load_table(), ["age"]))
        trainer, _ = runs.prepare_on(recipe, source, None, folder)
        trainer.run(report=lambda row: progress(kind, row))
        runs.finish(trainer, recipe)
    return checkpoint.restore(folder)[1].eval()


def progress(kind: str, row: dict[str, float]) -> None:
    """Print every 50th step."""
    if row["step"] % 50 == 0:
        print(
            f"{kind} step {row['step']:.0f}  loss {row['loss']:.3f}  {row['draw_s'] + row['step_s']:.2f} s", flush=True
        )


def measured(maps: Sequence[PackedMap], out: Path, steps: int, people: int) -> list[Line]:
    """Train the networks and test them on the same people: one line a network, row, person and structure."""
    lines: list[Line] = []
    for kind in (*GIVEN, PROMPTED, REALISTIC):
        network, heard = network_of(kind, maps, out, steps), Heard()
        source = source_of(kind, recipe_of(kind, steps), maps[:LEFT_OUT], heard)
        for index in range(people):
            sample = source.draw(SEED, index)
            age = heard.age_years if kind == REALISTIC else someone(SEED, index).age_years
            for row, dice in scores(kind, network, sample, age, heard.tell):
                head = {"network": kind, "row": row, "person": index, "age_years": round(age, 4)}
                lines += [head | {"structure": name, "dice": float(dice[k])} for name, k in STRUCTURES.items()]
        told(kind, lines)
    return lines


def told(kind: str, lines: Sequence[Line]) -> None:
    """Print the mean Dice of the cortex as soon as a network is tested, of all people and of the youngest."""
    for row in dict.fromkeys(line["row"] for line in lines if line["network"] == kind):
        means = [
            np.nanmean([line["dice"] for line in _side(lines, (kind, row)) if line["age_years"] < years])
            for years in (math.inf, YOUNGEST_YEARS)
        ]
        print(f"{kind}, {row}: cortex {means[0]:.3f}, of the youngest {means[1]:.3f}", flush=True)


def _side(lines: Sequence[Line], side: tuple[str, str]) -> list[Line]:
    """The cortex of one network and row."""
    return [line for line in lines if (line["network"], line["row"]) == side and line["structure"] == "cortex"]


def scores(
    kind: str, network: nn.Module, sample: Sample, age_years: float, tell: Teller
) -> Iterable[tuple[str, torch.Tensor]]:
    """Dice of each class for each row."""
    rows = {row: facts_of(row, age_years) for row in ROWS} if kind not in GIVEN else {"as it is": [None]}
    for row, facts in rows.items():
        with torch.no_grad():
            answers = [network(sample.image, **({} if one is None else {"told": tell(one)})) for one in facts]
        predicted = torch.stack([torch.softmax(answer, 1) for answer in answers]).mean(0).argmax(1)
        yield row, score_sample(predicted, sample, answers[0].shape[1])


def facts_of(row: str, age_years: float) -> list[Facts]:
    """What is told in a row; the answers to several are averaged."""
    return {
        "right": [Facts(age_years=age_years)],
        "missing": [Facts()],
        "marginalised": [Facts(age_years=age) for age in MARGINAL_AGES_YEARS],
        "wrong": [Facts(age_years=40.0 if age_years < 0.5 else 0.0)],
    }[row]


def audited(maps: Sequence[PackedMap], out: Path, name: str, steps: int) -> dict[str, float]:
    """What `spanseg audit` says of the exported model about one newborn: median change in per cent, by swap."""
    run = out / f"{PROMPTED}-{steps}"
    recipe, network = checkpoint.restore(run)
    if name != PROMPTED:
        run = out / f"{name}-{steps}"
        silence(network)
        checkpoint.save(run, dict(network.named_parameters()), recipe)
    source = source_of(PROMPTED, recipe, maps[:1], None)
    assert isinstance(source, Ambiguous)
    image = source.scan_of(Someone(age_years=0.05, thickness_mm=0.0), SEED, 0).image[0, 0].numpy()
    folder, canvas = out / f"model-{name}", model.canvas_of(recipe)
    export(run, folder, Description(name, "0", "Apache-2.0", "synthetic scans"), [image])
    affine = grid_round(np.zeros(3), canvas.shape, canvas.voxel_mm)
    options = SegmentOptions(model=str(folder), facts=Facts(age_years=0.05))
    found = swaps(scan_of(Volume(image, affine)), load_model(options), options)
    return {swap.value: round(swap.median_percent, 3) for swap in found}


def silence(network: nn.Module) -> None:
    """Set what the tokens do to the features to 0, as it is before training."""
    with torch.no_grad():
        for place in network.meetings.values():  # type: ignore[operator]
            for last in (place.read_tokens.out_proj, place.scale):
                last.weight.zero_()
                last.bias.zero_()


def summary(lines: Sequence[Line]) -> dict[str, Any]:
    """Mean Dice of every row, and the paired differences on which the verdict rests."""
    means: dict[str, Any] = {}
    for line in lines:
        of_row = means.setdefault(f"{line['network']}, {line['row']}", {})
        of_row.setdefault(line["structure"], []).append(line["dice"])
    means = {row: {name: float(np.nanmean(dice)) for name, dice in found.items()} for row, found in means.items()}
    compared = {
        "oracle - nothing, cortex of the youngest": paired(
            lines, ("nothing", "as it is"), ("oracle", "as it is"), YOUNGEST_YEARS
        ),
        "oracle - nothing, cortex": paired(lines, ("nothing", "as it is"), ("oracle", "as it is")),
        **{
            f"{kind}: {row} - right, cortex": paired(lines, (kind, "right"), (kind, row))
            for kind in (PROMPTED, REALISTIC)
            for row in ROWS[1:]
        },
    }
    return {"dice": means, "differences": {name: asdict(test) for name, test in compared.items()}}


def paired(
    lines: Sequence[Line], first: tuple[str, str], second: tuple[str, str], below_years: float = math.inf
) -> PairedTest:
    """Second minus first in Dice of the cortex, person by person."""
    sides = [
        [line["dice"] for line in _side(lines, side) if line["age_years"] < below_years] for side in (first, second)
    ]
    return paired_test(*sides)


def passed(found: dict[str, Any]) -> bool:
    """Whether there was something to know, a wrong age cost Dice, and the audit saw it, and nothing once silenced."""
    gap = found["differences"]["oracle - nothing, cortex of the youngest"]["difference"]
    wrong = found["differences"][f"{PROMPTED}: wrong - right, cortex"]["difference"]
    heard, silent = (max(found["audit_median_change_percent"][name].values()) for name in (PROMPTED, "silenced"))
    checks = {
        "the oracle is better by at least 5 points": gap["mean"] >= GAP and gap["low"] > 0,
        "a wrong age lowers Dice": wrong["high"] < 0,
        "the audit reports a change": heard >= HEARD_PERCENT,
        "and none once the tokens are silenced": silent == 0,
    }
    found["checks"] = checks
    return all(checks.values())


def write(lines: Sequence[Line], found: dict[str, Any], out: Path) -> None:
    """Write both tables."""
    rows = [
        list(lines[0]),
        *([f"{value:.5f}" if isinstance(value, float) else str(value) for value in line.values()] for line in lines),
    ]
    files.write_text(out / "results.tsv", "".join("\t".join(row) + "\n" for row in rows))
    files.write_text(out / "summary.json", json.dumps(found, indent=1) + "\n")


def show(found: dict[str, Any]) -> None:
    """Print the tables and the verdict."""
    print(f"{'Dice':36}{'cortex':>10}{'white matter':>15}")
    for row, dice in found["dice"].items():
        print(f"{row:36}{dice['cortex']:10.3f}{dice['white matter']:15.3f}")
    print(f"\n{'difference':44}{'mean':>8}{'95 % interval':>20}{'Wilcoxon p':>12}{'detectable':>12}")
    for name, test in found["differences"].items():
        one = test["difference"]
        span = f"{one['low']:+.3f} to {one['high']:+.3f}"
        print(f"{name:44}{one['mean']:+8.3f}{span:>20}{test['wilcoxon_p']:12.2g}{test['detectable']:12.3f}")
    print("\naudit of a newborn, median |change| of volume in per cent, by what is told instead:")
    for name, changes in found["audit_median_change_percent"].items():
        print(f"{name:12}" + "  ".join(f"{value} {change:.2f}" for value, change in changes.items()))
    for name, holds in found["checks"].items():
        print(f"{'yes' if holds else 'NO':5}{name}")
    if found["checks"]["the oracle is better by at least 5 points"] and not found["checks"]["a wrong age lowers Dice"]:
        print("the oracle gains and a wrong age costs nothing: the path from the sentence to the answer is broken")


if __name__ == "__main__":
    main()
