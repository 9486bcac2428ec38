"""``spanseg fewshot``: a study of how many labelled scans each way of adapting needs."""

from pathlib import Path
from typing import Annotated

import typer

from spanseg.cli.compare import Budget, Jobs, Out, PlanOnly, Work, run_study

ROWS = "zero_shot,full,decoder,vpt_deep"


def fewshot(
    data: Annotated[Path, typer.Argument(help="BIDS folder with label images below derivatives.")],
    base: Annotated[str, typer.Option(help="Recipe that the rows are written on.")] = "kgpl-res-unet",
    labels: Annotated[str, typer.Option(help="Scheme of the labels; default: the table beside them.")] = "",
    rows: Annotated[str, typer.Option(help="Rows, comma-separated.")] = ROWS,
    shots: Annotated[str, typer.Option(help="How many people train, comma-separated.")] = "1,2,5",
    steps: Annotated[int, typer.Option(min=1, help="Steps of every row.")] = 100,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Override: section.key=value.")] = None,
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
        "rows": [row.strip() for row in rows.split(",")],
        "design": "fewshot",
        "shots": sizes,
        "steps": steps,
        "settings": settings or [],
    }
    table = {"study": section, "centre": {data.name: {"data": str(data.resolve()), "labels": labels}}}
    run_study(study_from(table, f"fewshot-{data.name}", Path(), "fewshot"), out, work, budget, jobs, plan_only)
