"""``spanseg export``: from a training run to a model folder that runs without PyTorch."""

from pathlib import Path
from typing import Annotated

import typer


def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished training run.")],
    to: Annotated[Path, typer.Option("--to", help="Model folder to write.")],
    check: Annotated[list[Path], typer.Option("--check", help="Scans on which the export must agree with PyTorch.")],
    name: Annotated[str, typer.Option(help="Short name of the model.")] = "custom",
    version: Annotated[str, typer.Option(help="Version of the weights.")] = "1",
    licence: Annotated[str, typer.Option(help="SPDX identifier of the weights' licence.")] = "LicenseRef-unspecified",
    data: Annotated[str, typer.Option(help="What the weights were trained on.")] = "not stated",
) -> None:
    """Export, compare with PyTorch on the given scans, and only then write the folder."""
    from spanseg.export import Description, export, scan_canvas

    canvases = [scan_canvas(path, run) for path in check]
    for key, value in export(run, to, Description(name, version, licence, data), canvases).items():
        print(f"{key}: {value:.5g}")
