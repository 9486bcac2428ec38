"""``spanseg cross-domain``: a study that trains on one data set and tests on others."""

from pathlib import Path
from typing import Annotated

import typer

from spanseg.cli.compare import Base, Budget, Jobs, Out, PlanOnly, Rows, Settings, Steps, Work, rows_in, run_study


def cross_domain(
    train: Annotated[list[str], typer.Option(help="BIDS folder to train on, as FOLDER or FOLDER:SCHEME.")],
    test: Annotated[list[str], typer.Option(help="BIDS folder to test on, likewise.")],
    base: Base = "kgpl-res-unet",
    rows: Rows = "zero_shot,full,decoder,vpt_deep",
    steps: Steps = 100,
    settings: Settings = None,
    out: Out = None,
    work: Work = None,
    budget: Budget = "",
    jobs: Jobs = 1,
    plan_only: PlanOnly = False,
) -> None:
    """Train each row on some data sets and test it on others; the same path as ``compare``."""
    from spanseg.compare.study import study_from

    centres = {name: values for one in [*train, *test] for name, values in [centre_of(one)]}
    section = {
        "title": "Across data sets",
        "base": base,
        "rows": rows_in(rows),
        "design": "cross_dataset",
        "train_centres": [centre_of(one)[0] for one in train],
        "steps": steps,
        "settings": settings or [],
    }
    study = study_from({"study": section, "centre": centres}, "cross-domain", Path(), "cross-domain")
    run_study(study, out, work, budget, jobs, plan_only)


def centre_of(words: str) -> tuple[str, dict[str, str]]:
    """Read ``FOLDER`` or ``FOLDER:SCHEME``; the folder's name is the centre's."""
    folder, _, labels = words.rpartition(":") if ":" in words[2:] else (words, "", "")  # C:\ on Windows
    return Path(folder).name, {"data": str(Path(folder).resolve()), "labels": labels}
