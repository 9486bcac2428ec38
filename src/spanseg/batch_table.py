"""The table of a batch: one row a scan, one column a structure, made anew from what lies in the output folder."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from spanseg import sidecar
from spanseg.files import remove_dead_temporaries, write_text
from spanseg.outputs import tsv

NAME = "volumes.tsv"
_TRIES = 5


def write_batch_table(out: Path) -> int:
    """Write ``volumes.tsv`` of an output folder from its finished scans and return how many it holds; none, no table.

    Volumes are those from probabilities, in mm³. If another process finishes a scan meanwhile, the table is made again.

    Raises:
        SpansegError: the folder cannot be written.
    """
    remove_dead_temporaries(out)
    found, rows = _sidecars(out), []
    for _ in range(_TRIES):
        rows = [row for path in found if (row := _row(out, path))]
        if rows or (out / NAME).is_file():
            write_text(out / NAME, _table(rows))
        before, found = found, _sidecars(out)
        if before == found:
            break
    return len(rows)


def _sidecars(out: Path) -> list[Path]:
    """Sidecars below a folder, temporary ones left out."""
    found = out.rglob("*_dseg.json")
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(out).parts))


def _row(out: Path, path: Path) -> dict[str, str] | None:
    """Values of one scan; ``None`` where only labels were written, or the files are being replaced."""
    record = sidecar.read_if_any(path)
    stem = path.name.removesuffix("_dseg.json")
    if record is None:
        return None
    try:
        text = (path.parent / f"{stem}_volumes.tsv").read_text(encoding="utf-8")
        lines = csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
        volumes = {line["name"]: line["mm3"] for line in lines}
    except (OSError, KeyError, ValueError, csv.Error):
        return None
    scan = (path.parent / stem).relative_to(out).as_posix()
    return {"scan": scan, "quality": _quality(record), **volumes, "warnings": " ".join(record["warnings"]) or "n/a"}


def _quality(record: dict[str, Any]) -> str:
    """The quality score that a sidecar records; ``n/a`` where the model has none."""
    found = record.get("quality")
    value = found.get("score") if isinstance(found, dict) else None
    return f"{value:.2f}" if isinstance(value, float | int) else "n/a"


def _table(rows: list[dict[str, str]]) -> str:
    names = dict.fromkeys(name for row in rows for name in row if name not in ("scan", "warnings"))
    columns = ["scan", *names, "warnings"]
    return tsv([columns, *([row.get(column, "n/a") for column in columns] for row in rows)])
