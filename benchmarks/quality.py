"""Fit the quality score of a model on spoilt synthetic people, and measure it on spoilt real ones.

    python benchmarks/quality.py fit DATA/labelmaps      # writes quality.toml into the model folder
    python benchmarks/quality.py measure DATA/malc

A scan counts as bad if it holds no brain, or if its corruption lowered the mean Dice of the 12 nuclei by more than
0.10; as good if it is clean, or lost at most 0.05 (but not if its header is wrong: so are the volumes, whatever the
Dice). What lies between belongs to neither. Real people are never fitted.
Label maps may be a folder or what ``spanseg.generation.save_packed`` wrote. Segmentations are kept in ``--cache``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from quality_cases import Judged, Plan, judged, real_cases, synthetic_cases
from spanseg import quality, splits
from spanseg.deform import Canvas
from spanseg.files import write_text
from spanseg.flags import LIMITS
from spanseg.generation import PackedMap, load_classes, load_packed, read_maps
from spanseg.labels import Protocol
from spanseg.plain_names import plain_name
from spanseg.quality import Features, QualityTable, Usual, Weight
from spanseg.segmenter import Predictor, SegmentOptions, load_model
from spanseg.sources import split_maps

LEFT_OUT = 3
WORST_FALL, HARMLESS_FALL = 0.10, 0.05
PENALTY, EXPECTED = 0.02, 0.3
"""Weights are drawn to ``EXPECTED`` by their squared distance from it: what the few spoilt scans show nothing of counts
all the same, so that a fault that is not among them, and its name, do not get lost."""
LEAST_SPREAD = 0.15
"""Usual volumes spread by no less: label maps and networks draw borders in their own ways."""
LEAST_DEVIATION = 0.2
"""Of a measure over scans: what hardly ever happens in the fit must not weigh all the more when it does."""
DRAWS = 2000


@dataclass(frozen=True)
class Example:
    """One scan as the score sees it.

    Args:
        person, origin, name, kind: whose it is, which map or person it came from, what was done to it, of which family.
        dice, fall: mean Dice of the 12 nuclei, and how much lower it is than that of the clean scan.
        is_good: ``None`` for what belongs to neither side.
        features: the measures.
    """

    person: str
    origin: str
    name: str
    kind: str
    dice: float
    fall: float
    is_good: bool | None
    features: Features


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=("fit", "measure"))
    parser.add_argument("data", type=Path, help="fit: label maps; measure: BIDS data set with label images")
    parser.add_argument("--model", default="default", help="name of a shipped model, or a model folder")
    parser.add_argument("--labels", default="neuromorphometrics", help="measure: label scheme of the truth")
    parser.add_argument("--people", type=int, help="clean scans (fit: 18, measure: 19)")
    parser.add_argument("--spoilt", type=int, help="spoilt scans (fit: 72, measure: 41)")
    parser.add_argument("--cache", type=Path, default=Path("runs/quality_cache"), help="where segmentations are kept")
    parser.add_argument("--threads", type=int, help="threads of the network; all cores by default")
    arguments = parser.parse_args()
    options = SegmentOptions(model=arguments.model, threads=arguments.threads)
    predictor = load_model(options)
    (fit if arguments.verb == "fit" else measure)(arguments, predictor, options)


def fit(arguments: argparse.Namespace, predictor: Predictor, options: SegmentOptions) -> None:
    """Fit the score on left-out label maps and write it beside the model."""
    maps = load_packed(arguments.data) if arguments.data.is_file() else read_maps_of(arguments.data, predictor)
    _, left_out = split_maps(maps, LEFT_OUT)
    splits.require_unseen(predictor.folder.path, splits.maps_in(left_out))
    canvas = Canvas(predictor.folder.canvas_shape, predictor.folder.voxel_mm)
    cases = synthetic_cases(left_out, predictor.protocol, canvas, Plan(arguments.people or 18, arguments.spoilt or 72))
    profile = usual_volumes(maps, predictor.protocol)
    found = examples(list(judged(cases, predictor, options, arguments.cache)), profile)
    table = fitted(found, profile)
    show(found, table)
    values, origins = left_out_scores(found, profile), sorted({one.origin for one in found})
    area = auroc_text(found, values)
    print(f"\nscores of people whose label map was left out of the fit ({len(origins)} folds): AUROC {area}")
    about = {
        "model_sha256": predictor.identity["model_sha256"],
        "good": sum(one.is_good is True for one in found),
        "bad": sum(one.is_good is False for one in found),
        "auroc_left_out_maps": area,
    }
    write_text(predictor.folder.path / quality.NAME, quality.dumps(table, about))
    print(f"written: {predictor.folder.path / quality.NAME}")


def measure(arguments: argparse.Namespace, predictor: Predictor, options: SegmentOptions) -> None:
    """Print how well the shipped score tells bad scans of real people from clean ones."""
    table = quality.load(predictor.folder.path, predictor.identity["model_sha256"])
    if table is None:
        raise SystemExit(f"{predictor.folder.path}: no {quality.NAME} of these weights; run fit first")
    plan = Plan(arguments.people or 19, arguments.spoilt or 41)
    cases = real_cases(arguments.data, arguments.labels, predictor.protocol, plan)
    found = examples(list(judged(cases, predictor, options, arguments.cache)), table.profile)
    show(found, table)
    print(f"\nin all: AUROC {auroc_text(found, [quality.score(one.features, table) for one in found])}")


def read_maps_of(folder: Path, predictor: Predictor) -> list[PackedMap]:
    """Label maps below a folder, packed."""
    return read_maps(folder, load_classes(predictor.protocol))


def usual_volumes(maps: Sequence[PackedMap], protocol: Protocol) -> dict[str, Usual]:
    """Logarithm of each structure's share of the brain in percent, over label maps and both sides."""
    target = load_classes(protocol).target
    found: dict[str, list[float]] = {}
    for packed in maps:
        counts = np.bincount(np.maximum(target[packed.classes], 0).ravel(), minlength=len(protocol))
        brain = counts[protocol.tissue_of_class > 1].sum()
        for structure, count in zip(protocol.structures, counts.tolist(), strict=True):
            name = plain_name(structure.name)
            if count and name in LIMITS and LIMITS[name].least_percent > 0:
                found.setdefault(name, []).append(math.log(100 * count / brain))
    return {name: Usual(float(np.mean(one)), max(float(np.std(one)), LEAST_SPREAD)) for name, one in found.items()}


def examples(cases: Sequence[Judged], profile: dict[str, Usual]) -> list[Example]:
    """Measure every scan and say which side it belongs to."""
    clean = {one.case.person: one.dice for one in cases if one.case.corruption is None}
    found = []
    for one in cases:
        corruption, fall = one.case.corruption, clean[one.case.person] - one.dice
        is_brain = corruption is None or corruption.is_brain
        is_bad = not is_brain or fall > WORST_FALL
        kind = "clean" if corruption is None else corruption.kind
        is_harmless = fall <= HARMLESS_FALL and kind != "header"
        is_good = False if is_bad else (True if is_harmless else None)
        features = quality.measure(one.case.scan, one.result, profile)
        found.append(Example(one.case.person, one.case.origin, one.case.name, kind, one.dice, fall, is_good, features))
    return found


def fitted(found: Sequence[Example], profile: dict[str, Usual]) -> QualityTable:
    """Logistic regression with a penalty, good and bad scans weighing the same, no measure allowed to do good."""
    from scipy.optimize import minimize

    used = [one for one in found if one.is_good is not None]
    names = list(used[0].features)
    values = np.array([[one.features[name] for name in names] for one in used])
    good = np.array([one.is_good for one in used])
    typical, spread = values[good].mean(0), np.maximum(values.std(0), LEAST_DEVIATION)
    scaled = (values - typical) / spread
    share = np.where(good, 0.5 / good.sum(), 0.5 / (~good).sum())
    sign = np.where(good, 1.0, -1.0)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (parameters[0] - scaled @ parameters[1:])
        slope = -share * sign / (1 + np.exp(margin))
        off = parameters[1:] - EXPECTED
        gradient = np.concatenate([[slope.sum()], 2 * PENALTY * off - slope @ scaled])
        return float(share @ np.logaddexp(0, -margin) + PENALTY * (off**2).sum()), gradient

    bounds = [(None, None)] + [(0.0, None)] * len(names)
    found_best = minimize(loss, np.zeros(len(names) + 1), jac=True, bounds=bounds).x
    weights = {
        name: Weight(*map(float, row)) for name, *row in zip(names, typical, spread, found_best[1:], strict=True)
    }
    return QualityTable(float(found_best[0]), weights, profile)


def left_out_scores(found: Sequence[Example], profile: dict[str, Usual]) -> list[float]:
    """Score each scan with a table that was fitted without its label map."""
    origins = {one.origin for one in found}
    tables = {origin: fitted([one for one in found if one.origin != origin], profile) for origin in origins}
    return [quality.score(one.features, tables[one.origin]) for one in found]


def auroc(good: Sequence[float], bad: Sequence[float]) -> float:
    """Probability that a clean scan scores higher than a bad one, ties counting half."""
    difference = np.subtract.outer(np.asarray(good), np.asarray(bad))
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean()) if difference.size else math.nan


def auroc_text(found: Sequence[Example], values: Sequence[float]) -> str:
    """AUROC of bad against clean scans, with a 95 % interval from people drawn with replacement."""
    people = sorted({one.person for one in found})
    of_person: dict[str, tuple[list[float], list[float]]] = {person: ([], []) for person in people}
    for one, value in zip(found, values, strict=True):
        if one.kind == "clean":
            of_person[one.person][0].append(value)
        elif one.is_good is False:
            of_person[one.person][1].append(value)
    pooled: Callable[[Sequence[str]], float] = lambda chosen: auroc(  # noqa: E731
        [value for person in chosen for value in of_person[person][0]],
        [value for person in chosen for value in of_person[person][1]],
    )
    rng = np.random.default_rng(0)
    draws = [pooled(rng.choice(people, len(people)).tolist()) for _ in range(DRAWS)]
    low, high = np.nanquantile(draws, [0.025, 0.975])
    counts = f"{sum(len(a) for a, _ in of_person.values())} clean, {sum(len(b) for _, b in of_person.values())} bad"
    return f"{pooled(people):.3f} [{low:.3f}, {high:.3f}] ({counts})"


def show(found: Sequence[Example], table: QualityTable) -> None:
    """Print the weights, then each kind of corruption."""
    print("weight of each measure: " + ", ".join(f"{name} {row.weight:.2f}" for name, row in table.weights.items()))
    print(
        f"\n{'':16}{'scans':>6}{'bad':>5}{'Dice':>7}{'score':>7}{'bad: AUROC':>12}"
        f"{'bad, found low':>16}{'others, low':>13}"
    )
    scores = {id(one): quality.score(one.features, table) for one in found}
    clean = [scores[id(one)] for one in found if one.kind == "clean"]
    for kind in dict.fromkeys(one.kind for one in found):
        there = [one for one in found if one.kind == kind]
        bad = [scores[id(one)] for one in there if one.is_good is False]
        others = [scores[id(one)] for one in there if one.is_good is not False]
        print(
            f"{kind:16}{len(there):6d}{len(bad):5d}{np.mean([one.dice for one in there]):7.3f}"
            f"{np.mean([scores[id(one)] for one in there]):7.3f}{auroc(clean, bad):12.3f}"
            f"{_low(bad):>16}{_low(others):>13}"
        )
    for one in sorted(found, key=lambda one: scores[id(one)]):
        why = "; ".join(quality.reasons(one.features, table))
        print(f"{scores[id(one)]:.2f}  fall {one.fall:+.3f}  {one.name:26}{one.person:30}{why}")


def _low(scores: Sequence[float]) -> str:
    return f"{sum(score < quality.LOW for score in scores)} of {len(scores)}"


if __name__ == "__main__":
    main()
