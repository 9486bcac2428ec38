"""The models that come with the package: their names, and where they lie."""

from importlib import resources
from pathlib import Path

_MODELS = Path(str(resources.files("spanseg"))) / "models"


def shipped_models() -> list[str]:
    """Names of the shipped models."""
    return sorted(folder.name for folder in _MODELS.iterdir() if (folder / "model.toml").is_file())


def shipped_model(name: str) -> Path | None:
    """The folder of a shipped model; it goes before a folder or a recipe of the same name. ``None`` for other names."""
    folder = _MODELS / name
    return folder if name.isidentifier() and (folder / "model.toml").is_file() else None
