"""``spanseg audit``: does a model find what is there, or what it is told?"""

from pathlib import Path
from typing import Annotated

import typer

_MEANING = (
    "The scan is the same in every row, so each change comes from the words alone: 0.00 % means that the network does "
    "not use what it is told; up to about 1 %, as much as turning the head by 5° changes the default model's volumes, "
    "it goes by the scan; several per cent mean that it finds what it is told."
)


def audit(
    scan: Annotated[Path, typer.Argument(help="A scan.")],
    model: Annotated[str, typer.Option(help="Model folder of a model that is told facts.")],
    age: Annotated[str | None, typer.Option(help="True age in years.")] = None,
    sex: Annotated[str | None, typer.Option(help="True sex.")] = None,
    diagnosis: Annotated[str | None, typer.Option(help="True diagnosis.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Table (TSV) of all structures.")] = None,
) -> None:
    """Tell a model other ages, the other sex and other diagnoses about one scan, and show what that changes."""
    from spanseg import files
    from spanseg.facts import Facts, age_from_text
    from spanseg.images import read_scan
    from spanseg.segmenter import SegmentOptions, load_model
    from spanseg.swaps import swaps, swaps_table, swaps_text

    options = SegmentOptions(model=model, facts=Facts(age_from_text(age), sex, diagnosis))
    found = swaps(read_scan(scan), load_model(options), options)
    print(f"{swaps_text(found)}\n{_MEANING}")
    if out is not None:
        files.write_text(out, "".join("\t".join(row) + "\n" for row in swaps_table(found)))
