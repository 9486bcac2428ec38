"""``spanseg leave-one-centre-out``: a study in which every centre in turn is new."""

from pathlib import Path
from typing import Annotated

import typer

from spanseg.cli.compare import Base, Budget, Jobs, Out, PlanOnly, Rows, Settings, Steps, Work, rows_in, run_study
from spanseg.cli.cross_domain import centre_of


def leave_one_centre_out(
    centres: Annotated[list[str], typer.Argument(help="BIDS folders, as FOLDER or FOLDER:SCHEME.")],
    base: Base = "vpt-swin-unetr",
    rows: Rows = "zero_shot,decoder,full,vpt_shallow,vpt_deep",
    steps: Steps = 100,
    base_steps: Annotated[int, typer.Option(min=1, help="Steps in which the base learns the other centres.")] = 100,
    settings: Settings = None,
    out: Out = None,
    work: Work = None,
    budget: Budget = "",
    jobs: Jobs = 1,
    plan_only: PlanOnly = False,
) -> None:
    """Leave out one centre after the other, adapt to it, and test new and old; the same path as ``compare``."""
    from spanseg.compare.study import study_from

    section = {
        "title": "One centre left out",
        "base": base,
        "rows": rows_in(rows),
        "design": "leave_one_centre_out",
        "steps": steps,
        "base_steps": base_steps,
        "settings": settings or [],
    }
    table = {"study": section, "centre": dict(centre_of(one) for one in centres)}
    study = study_from(table, "leave-one-centre-out", Path(), "leave-one-centre-out")
    run_study(study, out, work, budget, jobs, plan_only)
