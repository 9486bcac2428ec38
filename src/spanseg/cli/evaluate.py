"""``spanseg evaluate``: label images against the truth."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    predictions: Annotated[Path, typer.Argument(metavar="PRED", help="Label image, or a folder of them.")],
    truths: Annotated[Path, typer.Argument(metavar="TRUTH", help="True label image, or a folder of them.")],
    protocol: Annotated[str, typer.Option(help="Protocol whose ids the predictions hold.")] = "aseg",
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="SCHEME|FILE",
            help="Labels of the truth: a shipped scheme (see spanseg info), or a table with index, name and maps_to. "
            "By default the BIDS *_dseg.tsv beside the truth, else the ids of the protocol.",
        ),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the tables.")] = Path("spanseg-out"),
    tolerance: Annotated[float, typer.Option(min=0, help="Of the surface Dice (NSD), in mm.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap intervals.")] = 0,
) -> None:
    """Compare label images with the truth: Dice, surface distances, volumes; per case and over subjects.

    Images of two folders belong together if their names share the subject and contradict each other nowhere. Voxels
    whose truth is unknown enter no score.

    Exit codes: 0 done; 2 bad input, nothing written.
    """
    from spanseg.evaluate import EvaluateOptions, write_evaluation
    from spanseg.evaluate import evaluate as run
    from spanseg.evaluation import summary_text
    from spanseg.files import require_folder

    require_folder(out)
    options = EvaluateOptions(protocol, labels, tolerance, seed)
    evaluation = run(predictions, truths, options, lambda pair, _: print(f"{pair.case} ...", file=sys.stderr))
    written = write_evaluation(evaluation, out)  # first: a pipe such as "| head" may close what is printed to
    print(evaluation.title)
    print(summary_text(evaluation.summary))
    schemes = sorted({case.scheme for case in evaluation.cases})
    count = f"{len(evaluation.cases)} {'case' if len(evaluation.cases) == 1 else 'cases'}"
    print(f"{count}; labels of the truth: {', '.join(schemes)}; NSD at {tolerance:g} mm")
    for note in evaluation.notes:
        print(f"note: {note}", file=sys.stderr)
    for path in written:
        print(path)
