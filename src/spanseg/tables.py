"""Tab-separated tables that people write by hand or with a spreadsheet."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from spanseg.errors import SpansegError


def read_tsv(path: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Read the names of the columns, in small letters, and the rows with their line numbers.

    Cells have no spaces round them; a row that is too short has empty ones.

    Raises:
        SpansegError: the file cannot be read, or it is no table.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")  # spreadsheets put a mark in front
    except UnicodeDecodeError as error:
        raise SpansegError(f"{path}: expected UTF-8 text; save the table as tab-separated text again.") from error
    except OSError as error:
        raise SpansegError(f"{path}: this table cannot be read ({error.strerror}).") from error
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter="\t", restval="", quoting=csv.QUOTE_NONE)
    try:
        columns = [name.strip().lower() for name in reader.fieldnames or []]
        reader.fieldnames = columns
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise SpansegError(f"{path}: this is no table of tab-separated text ({error}).") from error
    named = [(line, {name: cell.strip() for name, cell in row.items() if isinstance(name, str)}) for line, row in rows]
    return columns, named
