"""Scanners that do not exist: centres with a known shift, to see what is lost at a new centre and what helps."""

from dataclasses import replace
from typing import Any

from spanseg.errors import SpansegError
from spanseg.sources import PLAIN
from spanseg.synth import SynthOptions

POSED: dict[str, Any] = {"rotation": 6.0, "scaling": 0.06, "shift_mm": 2.0}
"""People laid into the scanner with care: turned, sized and shifted less than training asks for, so that they fit."""


def _scanner(contrast: dict[str, Any], **others: Any) -> SynthOptions:
    """A scanner with one family of contrasts."""
    return replace(SynthOptions(), **PLAIN | POSED | {"t1": 0.0} | contrast | others)


def _grey(low: float, high: float) -> dict[str, Any]:
    """T1-like scans on which grey lies below white matter by this multiple of the usual contrast, from and to."""
    return {"infant": 1.0, "infant_contrast": (low, high)}


def _t2(low: float, high: float, fluid: float) -> dict[str, Any]:
    """Scans with grey matter and CSF brighter than white, CSF up to this multiple of what the contrast gives."""
    return {"t2": 1.0, "t2_contrast": (low, high), "t2_csf": (0.9 * fluid, fluid)}


SCANNERS: dict[str, SynthOptions] = {
    "low_field": _scanner(
        _t2(0.45, 0.65, 2.0), noise=0.25, blur_mm=1.0, bias=0.1, thick=1.0, thickness_mm=5.0, ghost=0.2, strip=0.0
    ),
    "seven_tesla": _scanner(_grey(1.9, 2.2), bias=1.2, gamma=0.1, noise=0.03, blur_mm=0.3, strip=1.0),
    "early_inversion": _scanner(_grey(-1.8, -1.5), noise=0.05, bias=0.6, strip=1.0),
}
"""A portable scanner: T2-weighted, noise, slices of up to 5 mm; grey matter nearly as dark as CSF and a strong bias;
grey far brighter than white matter, as on T1-weighted scans read out early after inversion.
Skull-stripped where ``strip`` is 1. Milder shifts (T1-like contrast, noise, bias and slices as here) cost a network
that had seen the others nothing (docs/experiments.md)."""


def scanner_named(name: str) -> SynthOptions:
    """How far the generator goes at a synthetic centre.

    Raises:
        SpansegError: there is no such centre.
    """
    if name not in SCANNERS:
        raise SpansegError(f"there is no synthetic centre '{name}'; choose one of {', '.join(SCANNERS)}.")
    return SCANNERS[name]
