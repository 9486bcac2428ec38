"""Adapters of centres: where they lie, and which model a centre's scans are segmented with."""

from __future__ import annotations

import re
from pathlib import Path

from spanseg.errors import SpansegError
from spanseg.runtime import open_model

ADAPTERS = Path("spanseg-adapters")
"""Folder of adapters, below the folder that one works in."""


def folder_of(centre: str, adapters: Path = ADAPTERS) -> Path:
    """The folder of a centre's adapter, whether it is there or not.

    Raises:
        SpansegError: a name that cannot be a folder's.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", centre):
        raise SpansegError(
            f"'{centre}' cannot be the name of a centre: expected up to 64 letters, digits, '.', '_' or '-'."
        )
    return adapters / centre


def model_of(centre: str, base: str, adapters: Path = ADAPTERS) -> tuple[str, str]:
    """Find what a centre's scans are segmented with: its adapter, or the base model if it has none.

    Args:
        centre: name of the centre.
        base: shipped model or model folder that adapters belong to.
        adapters: folder of adapters.

    Returns:
        The model to use, and a note for the result's record.

    Raises:
        SpansegError: the adapter belongs to another base model, or is damaged.
    """
    folder = folder_of(centre, adapters)
    if not folder.is_dir():
        return base, f"The centre '{centre}' has no adapter in {adapters.name}: the base model was used."
    belongs = open_model(str(folder)).table.get("adapter", {}).get("base_sha256")
    weights = open_model(base).table["model"].get("weights_sha256")
    if belongs != weights:
        raise SpansegError(
            f"{folder}: this adapter belongs to another base model than '{base}' (weights {str(belongs)[:12]}, "
            f"expected {str(weights)[:12]}); name the base that it was made from with --model, or adapt again."
        )
    return str(folder), f"Adapter of the centre '{centre}' on the base model '{Path(base).name}'."
