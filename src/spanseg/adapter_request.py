"""What an adapter was asked for, beside it: another request into the same folder is refused, the same one goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from spanseg import files
from spanseg.errors import SpansegError

NAME = "request.json"


def require_same(folder: Path, request: dict[str, Any]) -> None:
    """Refuse to go on in a folder that holds what another request made.

    Args:
        folder: of an adapter, which may not be there yet.
        request: JSON values by what they are called in a message.

    Raises:
        SpansegError: something is there, and it was asked for with other values, or nobody knows with which.
    """
    path = folder / NAME
    if not path.is_file():
        if any((folder / name).exists() for name in ("delta.safetensors", "state.safetensors", "model.toml")):
            raise SpansegError(
                f"{folder}: there is an adapter or a model without a record of how it was asked for ({NAME}); give "
                "another --centre or --out, or remove the folder."
            )
        return
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        other = [name for name in request if earlier.get(name) != json.loads(json.dumps(request[name]))]
    except (OSError, ValueError, AttributeError) as error:
        raise SpansegError(f"{path}: this record cannot be read ({error}); remove the folder.") from error
    if other:
        raise SpansegError(
            f"{folder}: what is there was made with another {', another '.join(other)}; give another --centre or "
            "--out, or remove the folder to begin again."
        )


def write(folder: Path, request: dict[str, Any]) -> None:
    """Write a request into its folder."""
    files.write_text(folder / NAME, json.dumps(request, indent=1, ensure_ascii=False) + "\n")
