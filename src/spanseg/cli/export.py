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
    for sentence in _sentences(export(run, to, Description(name, version, licence, data), canvases)):
        print(sentence)
    print(f"written: {to}; use it: spanseg segment SCAN --model {to}")


def _sentences(measured: dict[str, float]) -> list[str]:
    """What was measured, in plain words."""
    said = [
        f"The exported network agrees with PyTorch on {measured['f32_against_pytorch']:.2%} of the brain voxels; "
        f"with two threads instead of one, {measured['f32_threads']:.2%} of them stay the same.",
        f"It has {measured['parameters']:,.0f} parameters and takes {measured['peak_mib']:,.0f} MiB of memory.",
    ]
    if "bf16" in measured:
        said.append(f"In bf16 it agrees with f32 on {measured['bf16']:.2%} of the brain voxels.")
    else:
        said.append("bf16 was not tried: this processor does not have it, so the model computes in f32.")
    return said
