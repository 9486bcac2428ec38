"""``spanseg audit``: does a model find what is there, or what it is told?"""

from pathlib import Path
from typing import Annotated

import typer


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
    print(swaps_text(found))
    if out is not None:
        files.write_text(out, "".join("\t".join(row) + "\n" for row in swaps_table(found)))
