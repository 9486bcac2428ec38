"""Figures of a training run for TensorBoard."""

from pathlib import Path


class Board:
    """Writes a run's figures for TensorBoard, if TensorBoard is installed; ``history.csv`` is written in any case.

    Args:
        folder: the run; event files go into its subfolder ``tensorboard``.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._writer = None
        else:
            self._writer = SummaryWriter(str(folder / "tensorboard"))

    def add(self, row: dict[str, float]) -> None:
        """Record one row of the history at its step."""
        if self._writer:
            for key, value in row.items():
                self._writer.add_scalar(key, value, int(row["step"]))

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, *failure: object) -> None:
        if self._writer:
            self._writer.close()
