"""``spanseg simulate``: synthetic scans with their truth from label maps."""

from pathlib import Path
from typing import Annotated

import typer


def simulate(
    labels: Annotated[list[Path], typer.Argument(help="Label maps with FreeSurfer ids.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="BIDS folder to write; must be empty or absent.")],
    count: Annotated[int, typer.Option("-n", help="Number of people.")] = 10,
    voxel_mm: Annotated[float, typer.Option(help="Edge length of the voxels in mm.", min=0.5, max=4.0)] = 1.5,
    seed: Annotated[int, typer.Option(help="The same seed gives the same scans.")] = 0,
    invent_facts: Annotated[bool, typer.Option("--invent-facts", help="Invent an age and a sex for each.")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Every contrast, thick slices and cut fields of view.")] = False,
    centre: Annotated[str, typer.Option(help="As a scanner with a known shift: low_field, seven_tesla, …")] = "",
) -> None:
    """Draw people from label maps: deformed, painted with T1-like (or any) contrast, with noise and bias field."""
    from spanseg.errors import SpansegError
    from spanseg.files import require_folder
    from spanseg.scanners import scanner_named
    from spanseg.simulate import simulate
    from spanseg.synth import SynthOptions

    if wide and centre:
        raise SpansegError("simulate takes --wide or --centre, not both.")
    require_folder(out)
    options = scanner_named(centre) if centre else SynthOptions() if wide else None
    scans = simulate(labels, out, count, voxel_mm, seed, options, invent_facts)
    print(f"{len(scans)} scans and their truth written to {out}")
