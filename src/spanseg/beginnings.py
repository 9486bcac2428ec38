"""The labels that a correction begins with: a file's, the default model's, or none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spanseg.errors import SpansegError
from spanseg.images import Scan, read_labels
from spanseg.labels import UNKNOWN, Protocol
from spanseg.schemes import find_scheme
from spanseg.sidecar import labels_sha256
from spanseg.volume import on_one_grid


@dataclass(frozen=True)
class Beginning:
    """Where a correction begins, as the user asked.

    Args:
        labels: label image; ``None`` for the default model's labels.
        scheme: scheme of its labels, or a table of it; ``None`` for the table beside it or the protocol's own ids.
        empty: begin with no label at all.
    """

    labels: Path | None = None
    scheme: str | None = None
    empty: bool = False

    def __post_init__(self) -> None:
        if self.empty and self.labels is not None:
            raise SpansegError(
                "--empty begins without labels and --labels with those of a file; give one or the other."
            )
        if self.scheme is not None and self.labels is None:
            raise SpansegError("--scheme says what the ids of a label file mean; give that file with --labels.")

    def require_same(self, record: dict[str, Any], where: Path, scan: Scan, protocol: Protocol) -> None:
        """Refuse a session that began with other labels than the user asks for; whoever asks for none gets any.

        Args:
            record: of the session.
            where: its file, for the message.
            scan, protocol: on whose grid, and whose ids, the labels are.

        Raises:
            SpansegError: it did, or the labels cannot be read by the scheme that is asked for.
        """
        if self.labels is not None:
            labels, _ = labels_from(self.labels, self.scheme, scan, protocol)
            same = record["start_sha256"] == labels_sha256(labels)
        else:
            same = not self.empty or record["start"].get("from") == "empty"
        if not same:
            raise SpansegError(
                f"{where}: the session in this folder began with other labels ({record['start'].get('name')}) or by "
                "another scheme; leave out --labels, --scheme and --empty to go on with it, or begin another one in "
                "another folder (-o)."
            )


def labels_from(path: Path, scheme: str | None, scan: Scan, protocol: Protocol) -> tuple[np.ndarray, list[str]]:
    """Read a label image as ids of a protocol, on the grid of its scan.

    Args:
        path: the image.
        scheme: of its labels; ``None`` for the table beside it or the protocol's own ids.
        scan: the scan.
        protocol: whose ids are wanted.

    Returns:
        The labels, int32, and notes.

    Raises:
        SpansegError: the image cannot be read, lies on another grid, or holds ids that the scheme does not map.
    """
    found = read_labels(path)
    labels, grid = found.volume, scan.volume
    if not on_one_grid(labels, grid):
        raise SpansegError(
            f"{path}: these labels ({_size(labels.shape)} voxels) are not on the grid of the scan "
            f"({_size(grid.shape)} voxels, its own place); resample them to it first."
        )
    crosswalk = find_scheme(scheme, protocol, path)
    try:
        classes = crosswalk.apply(labels.data, str(path))
    except SpansegError as error:
        names = ", ".join(protocol.crosswalk_names)
        raise SpansegError(f"{str(error).rstrip('.')}; or name their scheme with --scheme ({names}).") from error
    unknown = classes == UNKNOWN
    notes = list(found.notes)
    if unknown.any():
        ids = ", ".join(map(str, np.unique(labels.data[unknown]).tolist()[:20]))
        notes.append(
            f"{int(unknown.sum())} voxels of {path.name} with ids that are no structure here began as 0: {ids}."
        )
    return np.where(unknown, 0, protocol.ids[classes]).astype(np.int32), notes


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))
