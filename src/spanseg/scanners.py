"""Scanners that do not exist: centres with a known shift, to see what is lost at a new centre and what helps."""

from dataclasses import replace
from typing import Any

from spanseg.errors import SpansegError
from spanseg.sources import PLAIN
from spanseg.synth import SynthOptions

POSED: dict[str, Any] = {"rotation": 6.0, "scaling": 0.06, "shift_mm": 2.0}
"""People laid into the scanner with care: turned, sized and shifted less than training asks for, so that they fit."""


def _scanner(contrast: tuple[float, float], **others: Any) -> SynthOptions:
    """T1-like scans on which grey lies below white matter by this share of the usual contrast, from and to."""
    family = {"t1": 0.0, "infant": 1.0, "infant_contrast": contrast}
    return replace(SynthOptions(), **PLAIN | POSED | family | others)


SCANNERS: dict[str, SynthOptions] = {
    "low_field": _scanner((0.35, 0.5), noise=0.16, blur_mm=1.6, bias=0.1, thick=1.0, thickness_mm=5.0, strip=0.0),
    "seven_tesla": _scanner((1.3, 1.5), bias=0.8, gamma=0.1, noise=0.03, blur_mm=0.3, strip=1.0),
    "thick_slices": _scanner((0.7, 0.9), thick=1.0, thickness_mm=8.0, ghost=0.3, noise=0.06, strip=0.0),
    "early_inversion": _scanner((-0.5, -0.3), noise=0.05, bias=0.2, strip=1.0),
}
"""Weak contrast, noise and 5 mm slices of whole heads; strong contrast and bias; slices of up to 8 mm; grey brighter
than white matter, as on T1-weighted scans read out early after inversion. Skull-stripped where ``strip`` is 1."""


def scanner_named(name: str) -> SynthOptions:
    """How far the generator goes at a synthetic centre.

    Raises:
        SpansegError: there is no such centre.
    """
    if name not in SCANNERS:
        raise SpansegError(f"there is no synthetic centre '{name}'; choose one of {', '.join(SCANNERS)}.")
    return SCANNERS[name]
