"""The figures of a study as SVG: rows with their intervals, and learning curves."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Mapping, Sequence

from spanseg.stats import MeanInterval

WIDTH, LEFT, RIGHT, LINE = 720, 170, 30, 26
COLOURS = ("#1b6ca8", "#c8553d", "#3c8d53", "#8e5ea2", "#b8860b", "#4d4d4d", "#2aa7a0", "#d1478c")


def intervals(rows: Mapping[str, MeanInterval], title: str) -> str:
    """Means with their 95 % intervals, one line a row."""
    known = {name: one for name, one in rows.items() if not math.isnan(one.mean)}
    if not known:
        return ""
    lows = [one.low if not math.isnan(one.low) else one.mean for one in known.values()]
    highs = [one.high if not math.isnan(one.high) else one.mean for one in known.values()]
    low, high = min(lows), max(highs)
    margin = 0.08 * (high - low) or 0.01
    scale = _scale(low - margin, high + margin, LEFT, WIDTH - RIGHT)
    drawn = []
    for place, (name, one) in enumerate(known.items()):
        y = 40 + LINE * place
        drawn.append(_text(LEFT - 10, y + 4, name, "end"))
        if not math.isnan(one.low):
            drawn.append(_line(scale(one.low), scale(one.high), y, y, COLOURS[0], 2))
        drawn.append(f'<circle cx="{scale(one.mean):.1f}" cy="{y}" r="5" fill="#1b6ca8"/>')
    height = 70 + LINE * len(known)
    for tick in _ticks(low, high):
        drawn.append(_text(scale(tick), height - 12, f"{tick:.3g}", "middle"))
        drawn.append(_line(scale(tick), scale(tick), 28, height - 28))
    return _svg(height, title, drawn)


def curves(lines: Mapping[str, Sequence[tuple[float, float]]], title: str) -> str:
    """One curve a row: step and Dice on the people who are kept to watch."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return ""
    steps, scores = zip(*points, strict=True)
    height = 320
    across = _scale(0, max(steps), LEFT, WIDTH - RIGHT)
    up = _scale(min(scores), max(scores) + 1e-9, height - 50, 40)
    drawn = []
    for tick in _ticks(min(scores), max(scores)):
        drawn.append(_text(LEFT - 10, up(tick) + 4, f"{tick:.3g}", "end"))
        drawn.append(_line(LEFT, WIDTH - RIGHT, up(tick), up(tick)))
    for place, (name, line) in enumerate(lines.items()):
        colour = COLOURS[place % len(COLOURS)]
        path = " ".join(f"{across(step):.1f},{up(score):.1f}" for step, score in sorted(line))
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        drawn.append(_text(10, 50 + 18 * place, name, "start", colour))
    drawn.append(_text(WIDTH - RIGHT, height - 20, f"{max(steps):.0f} steps", "end"))
    return _svg(height, title, drawn)


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def _ticks(low: float, high: float) -> list[float]:
    span = high - low
    if span <= 0:
        return [low]
    step = 10 ** math.floor(math.log10(span / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 6)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step) + 1)]


def _line(x1: float, x2: float, y1: float, y2: float, colour: str = "#ddd", width: int = 1) -> str:
    ends = f'x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"/>'


def _text(x: float, y: float, words: str, anchor: str, colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{html.escape(words)}</text>'


def _svg(height: int, title: str, drawn: Sequence[str]) -> str:
    words = _text(10, 18, title, "start")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="13" role="img" aria-label="{html.escape(title)}">{words}{"".join(drawn)}</svg>'
    )
