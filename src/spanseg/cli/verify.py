"""``spanseg verify``: does a scan still give the result that is there?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def verify(
    sidecar: Annotated[Path, typer.Argument(help="The *_dseg.json of the result.")],
    scan: Annotated[Path, typer.Argument(help="The scan that it was made from.")],
    age: Annotated[str | None, typer.Option(help="Age in years, if the result was made with it.")] = None,
    sex: Annotated[str | None, typer.Option(help="female or male, if the result was made with it.")] = None,
    diagnosis: Annotated[str | None, typer.Option(help="If the result was made with it.")] = None,
    lesion_mask: Annotated[Path | None, typer.Option(help="If the result was made with it.")] = None,
    model: Annotated[str | None, typer.Option(help="Name or folder of the model, if it is not found.")] = None,
) -> None:
    """Run a scan again with the recorded precision and threads, and compare the labels.

    Exit codes: 0 the same, voxel by voxel; 1 not the same; 2 bad input or usage.
    """
    from spanseg.facts import Facts, age_from_text
    from spanseg.verify import verify

    facts = Facts(age_from_text(age), sex, diagnosis)
    verdict = verify(sidecar, scan, facts, lesion_mask, model)
    for finding in verdict.findings:
        print(finding)
    print("verified" if verdict.same else "not verified")
    if not verdict.same:
        raise typer.Exit(1)
