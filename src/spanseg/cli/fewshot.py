"""``spanseg fewshot``: a study of how many labelled scans each way of adapting needs."""

from pathlib import Path
from typing import Annotated

import typer

from spanseg.cli.compare import Base, Budget, Jobs, Out, PlanOnly, Rows, Settings, Steps, Work, rows_in, run_study

ROWS = "zero_shot,full,decoder,vpt_deep"


def fewshot(
    data: Annotated[Path, typer.Argument(help="BIDS folder with label images below derivatives.")],
    base: Base = "kgpl-res-unet",
    labels: Annotated[str, typer.Option(help="Scheme of the labels; default: the table beside them.")] = "",
    rows: Rows = ROWS,
    shots: Annotated[str, typer.Option(help="How many people train, comma-separated.")] = "1,2,5",
    steps: Steps = 100,
    settings: Settings = None,
    out: Out = None,
    work: Work = None,
    budget: Budget = "",
    jobs: Jobs = 1,
    plan_only: PlanOnly = False,
) -> None:
    """Train each row on 1, 2, 5 … people and test all on the same others; the same path as ``compare``."""
    from spanseg.compare.study import study_from
    from spanseg.errors import SpansegError

    try:
        sizes = [int(one) for one in shots.split(",")]
    except ValueError as error:
        raise SpansegError(f"--shots takes whole numbers such as 1,2,5, not '{shots}'.") from error
    section = {
        "title": f"Few shots on {data.name}",
        "base": base,
        "rows": rows_in(rows),
        "design": "fewshot",
        "shots": sizes,
        "steps": steps,
        "settings": settings or [],
    }
    table = {"study": section, "centre": {data.name: {"data": str(data.resolve()), "labels": labels}}}
    run_study(study_from(table, f"fewshot-{data.name}", Path(), "fewshot"), out, work, budget, jobs, plan_only)
