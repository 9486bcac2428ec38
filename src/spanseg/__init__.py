"""Segment brain MR images on a laptop, offline, in seconds.

Importing this package is quick: numpy, nibabel and the inference engine are loaded when first needed, PyTorch never on
the path that segments.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = ["SpansegError", "Volume", "__version__", "segment"]

_LAZY = {"segment": "spanseg.api", "Volume": "spanseg.volume", "SpansegError": "spanseg.errors"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'spanseg' has no attribute '{name}'")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
