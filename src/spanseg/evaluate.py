"""Judge predictions by a truth: pair the files, map the labels, score every structure, sum up over subjects."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spanseg import __version__
from spanseg.errors import SpansegError
from spanseg.evaluation import (
    CaseScores,
    RowSummary,
    case_table,
    cases_json,
    summarise,
    summary_json,
    summary_table,
)
from spanseg.files import write_text
from spanseg.images import read_labels
from spanseg.inputs import stem_of
from spanseg.labels import Crosswalk, Protocol, load_protocol
from spanseg.metrics import Scores, score_classes
from spanseg.outputs import tsv
from spanseg.pairing import Pair, pair_images
from spanseg.schemes import find_scheme
from spanseg.segmenter import LESION_ID
from spanseg.sidecar import read_if_any
from spanseg.volume import SAME_GRID_MM, Volume, canonical, farthest_mm

DEFINITIONS = {
    "surface": "voxels that share a face with a voxel outside the structure; centre to centre, real voxel size",
    "asd_mm": "mean over the distances of both directions, pooled",
    "hd95_mm": "the larger of the two directions' 95th percentiles",
    "surface_dice": "share of both surfaces' voxels within the tolerance of the other surface",
    "volume_error": "predicted minus true volume",
    "missing": "structures in prediction or truth only: Dice and surface Dice 0, no distance",
    "empty": "structures in neither: they enter no mean",
    "group": "mean over the structures of the group",
    "interval": "95 % percentile bootstrap over subjects; scans of one subject are averaged first",
}
"""How the figures are meant; written beside them."""


@dataclass(frozen=True)
class EvaluateOptions:
    """How predictions are judged.

    Args:
        protocol: name of the protocol whose ids the predictions hold.
        labels: label scheme of the truth, see :func:`spanseg.schemes.find_scheme`.
        tolerance_mm: of the surface Dice.
        seed: of the bootstrap.

    Raises:
        SpansegError: the tolerance is no number of mm.
    """

    protocol: str = "aseg"
    labels: str | None = None
    tolerance_mm: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance_mm < math.inf:
            raise SpansegError(f"the tolerance of the surface Dice takes a number of mm, not {self.tolerance_mm:g}.")


@dataclass(frozen=True)
class Evaluation:
    """Scores of all cases and their summary.

    Args:
        options: how it was done.
        cases: scores of every scan.
        summary: one row a group and structure.
        notes: what the reader must know, one sentence each: images without a partner, headers that were repaired.
        title: which models made the predictions, as far as sidecars beside them say.
    """

    options: EvaluateOptions
    cases: tuple[CaseScores, ...]
    summary: tuple[RowSummary, ...]
    notes: tuple[str, ...]
    title: str = "Evaluation"


def evaluate(
    predictions: Path,
    truths: Path,
    options: EvaluateOptions | None = None,
    watch: Callable[[Pair, int], None] | None = None,
) -> Evaluation:
    """Score predictions against the truth.

    Args:
        predictions: a label image, or a folder of them.
        truths: likewise; see :func:`spanseg.pairing.pair_images` for which belong together.
        options: how.
        watch: is told each pair before it is read, and how many there are.

    Raises:
        SpansegError: files that cannot be read or paired, other grids, or labels that the scheme does not map.
    """
    chosen = options or EvaluateOptions()
    protocol = load_protocol(chosen.protocol)
    pairs, unpaired = pair_images(predictions, truths)
    notes = []
    if unpaired:
        notes.append(f"left out, because no partner was found: {', '.join(path.name for path in unpaired)}.")
    cases = []
    for pair in pairs:
        if watch is not None:
            watch(pair, len(pairs))
        cases.append(_score_pair(pair, protocol, chosen, notes))
    summary = tuple(summarise(cases, protocol, chosen.seed))
    return Evaluation(chosen, tuple(cases), summary, tuple(notes), _title(pair.prediction for pair in pairs))


def score_volumes(
    predicted: Volume, truth: Volume, protocol: Protocol, crosswalk: Crosswalk, tolerance_mm: float, where: str
) -> dict[int, Scores]:
    """Score a prediction against a truth on the same grid, whatever the order of their axes.

    Args:
        predicted: ids of the protocol.
        truth: ids of the cross-walk's scheme.
        protocol: names the classes.
        crosswalk: from the truth's ids to classes.
        tolerance_mm: of the surface Dice.
        where: names the case in errors.

    Returns:
        Class index to scores.

    Raises:
        SpansegError: the grids differ, or there are ids that are not mapped.
    """
    predicted, truth = canonical(predicted)[0], canonical(truth)[0]
    _check_grids(predicted, truth, where)
    no_structure = {LESION_ID: 0}  # what the lesion mask of the user became
    own = Crosswalk(protocol.name, no_structure | protocol.crosswalk(protocol.name).classes)
    return score_classes(
        own.apply(predicted.data, f"{where}, prediction"),
        crosswalk.apply(truth.data, f"{where}, truth"),
        truth.voxel_size_mm,
        range(len(protocol)),
        crosswalk.unlabelled,
        tolerance_mm,
    )


def write_evaluation(evaluation: Evaluation, out: Path) -> list[Path]:
    """Write ``evaluation_cases.tsv``, ``evaluation_summary.tsv`` and ``evaluation.json`` into a folder.

    Raises:
        SpansegError: the folder cannot be written.
    """
    protocol = load_protocol(evaluation.options.protocol)
    contents = {
        "evaluation_cases.tsv": tsv(case_table(evaluation.cases, protocol)),
        "evaluation_summary.tsv": tsv(summary_table(evaluation.summary)),
        "evaluation.json": json.dumps(evaluation_json(evaluation), indent=1, allow_nan=False) + "\n",
    }
    for name, content in contents.items():
        write_text(out / name, content)
    return [out / name for name in contents]


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation as JSON values: settings, definitions, summary, and every structure of every case."""
    return {
        "title": evaluation.title,
        "spanseg": __version__,
        "protocol": evaluation.options.protocol,
        "tolerance_mm": evaluation.options.tolerance_mm,
        "seed": evaluation.options.seed,
        "definitions": DEFINITIONS,
        "notes": list(evaluation.notes),
        "summary": summary_json(evaluation.summary),
        "cases": cases_json(evaluation.cases, load_protocol(evaluation.options.protocol)),
    }


def _title(predictions: Iterable[Path]) -> str:
    """Name the models that made the predictions, from the sidecars beside them."""
    records = [read_if_any(path.with_name(f"{stem_of(path)}.json")) for path in predictions]
    models = sorted({str(record.get("model_title", record["model"])) for record in records if record})
    return f"Evaluation of {', '.join(models)}" if models else "Evaluation"


def _score_pair(pair: Pair, protocol: Protocol, options: EvaluateOptions, notes: list[str]) -> CaseScores:
    crosswalk = find_scheme(options.labels, protocol, pair.truth)
    predicted, truth = read_labels(pair.prediction), read_labels(pair.truth)
    for path, scan in ((pair.prediction, predicted), (pair.truth, truth)):
        notes += [f"{path.name}: {note}" for note in (*scan.notes, *scan.warnings)]
    where = f"{pair.prediction.name} against {pair.truth.name}"
    if pair.prediction.samefile(pair.truth):
        notes.append(f"{where}: this is one and the same file.")
    scores = score_volumes(predicted.volume, truth.volume, protocol, crosswalk, options.tolerance_mm, where)
    return CaseScores(pair.case, pair.subject, pair.prediction.name, pair.truth.name, crosswalk.name, scores)


def _check_grids(predicted: Volume, truth: Volume, where: str) -> None:
    """Refuse grids whose shapes or corners differ."""
    apart_mm = 0.0
    if predicted.shape == truth.shape:
        apart_mm = farthest_mm(predicted.affine, truth.affine, truth.shape)
        if apart_mm <= SAME_GRID_MM:
            return
    raise SpansegError(
        f"{where}: they must lie on one grid, but the prediction has {_grid(predicted)} and the truth {_grid(truth)}"
        f"{f', and corners lie up to {apart_mm:.3g} mm apart' if apart_mm else ''}; "
        "segment the scan on which the truth was drawn."
    )


def _grid(volume: Volume) -> str:
    size = " × ".join(f"{edge:.4g}" for edge in volume.voxel_size_mm)
    return f"{' × '.join(map(str, volume.shape))} voxels of {size} mm"
