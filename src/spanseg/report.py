"""The report of one scan: a single HTML file with pictures, volumes, asymmetry and quality flags."""

from __future__ import annotations

import base64
import string
from collections.abc import Iterable
from html import escape
from importlib import resources
from typing import TYPE_CHECKING, Any

from spanseg.asymmetry import Pair, lateral_pairs
from spanseg.flags import LIMITS, quality_flags
from spanseg.plain_names import plain_name, row_name
from spanseg.report_pictures import MARGIN_MM, MASK_COLOUR, Slice, brain_slices, contour_colours
from spanseg.result import Segmentation, StructureVolume
from spanseg.sentences import with_reader

if TYPE_CHECKING:
    from spanseg.images import Scan

_HEADINGS = {
    ("axial", False): "Axial, from below upwards",
    ("coronal", False): "Coronal, from back to front",
    ("sagittal", False): "Sagittal, from the person's left to the right",
    ("coronal", True): "Deep nuclei close up, coronal, from back to front",
}
_ENDS = {"axial": ("L", "R"), "coronal": ("L", "R"), "sagittal": ("P", "A")}
_AXES = {"axial": "z", "coronal": "y", "sagittal": "x"}
_CHART_PERCENT = 50.0
_INTERVALS = (
    " In brackets the interval for the true volume that held for nine in ten synthetic people: it knows the errors of "
    "the network, and not that others may draw the borders of a structure by other rules."
)


def render_report(scan: Scan, result: Segmentation) -> str:
    """Write the report of one scan as HTML that needs no other file and no network.

    The title names the scan only if ``result.details["name"]`` does; the pictures show no face. Flags that
    :func:`spanseg.flags.with_flags` left in the details are not worked out again.

    Args:
        scan: the scan as read.
        result: its segmentation, on the same grid.
    """
    known = result.details.get("quality_flags")
    flags = quality_flags(scan, result) if known is None else known
    slices = brain_slices(scan, result)
    pairs = lateral_pairs(result)
    name = result.details.get("name")
    title = f"Brain segmentation: {name}" if name else "Brain segmentation"
    page = string.Template((resources.files("spanseg") / "report.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=escape(with_reader(title, result.details.get("model_title", ""))),
        scan=_scan_line(scan),
        quality=_quality_line(result),
        mood="look" if flags else "good",
        verdict=_verdict(flags, found=bool(slices), scored=bool(result.details.get("quality"))),
        flags=_list(flags) if flags else "",
        pictures=_pictures(slices, result) if slices else "<p>No brain was found, so there is nothing to show.</p>",
        pairs=_pair_table(pairs),
        chart=_chart(pairs),
        totals=_total_table(result, pairs),
        notes=_list(dict.fromkeys([*scan.notes, *result.notes, *_islands(result)])) or "<p>Nothing.</p>",
        details=_details(scan, result),
    )


def _islands(result: Segmentation) -> list[str]:
    """What was repaired in the labels themselves."""
    voxels = result.details.get("relabelled_voxels", 0)
    return [f"Small islands of labels were given to what surrounds them: {voxels} voxels."] if voxels else []


def _scan_line(scan: Scan) -> str:
    shape = " × ".join(str(n) for n in scan.volume.shape)
    sizes = " × ".join(f"{size:.2f}".rstrip("0").rstrip(".") for size in scan.volume.voxel_size_mm)
    return f"Scan of {shape} voxels of {sizes} mm"


def _quality_line(result: Segmentation) -> str:
    """The score, and why it is low if it is."""
    found = result.details.get("quality")
    if not found:
        return "Quality n/a: the model folder has no table of the quality score that was fitted to these weights."
    why = f": {'; '.join(found['reasons'])}." if found["reasons"] else " (0 is unusable, 1 is good)"
    return escape(f"Quality {found['score']:.2f}{why}")


def _verdict(flags: list[str], *, found: bool, scored: bool) -> str:
    if not found:
        return "No brain was found."
    if not flags:
        unscored = "" if scored else ", but the result has no quality score"
        return f"Nothing unusual was noticed automatically{unscored}. Look at the pictures all the same."
    points = "One point needs" if len(flags) == 1 else f"{len(flags)} points need"
    return f"{points} a look before the numbers are used:"


def _list(sentences: Iterable[str]) -> str:
    items = "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences)
    return f"<ul>{items}</ul>" if items else ""


def _pictures(slices: list[Slice], result: Segmentation) -> str:
    parts = [
        "<p>The left of the person is on the left of the picture (neurological convention; see the letters L and R). "
        f"What is further than {MARGIN_MM:g} mm from the brain is blacked out, so that no face is shown. "
        "Positions are the scan's world coordinates in mm. Hold the pointer over a picture to hide its contours.</p>",
        _legend(result),
    ]
    for (plane, close_up), heading in _HEADINGS.items():
        chosen = [(n, one) for n, one in enumerate(slices) if (one.plane, one.close_up) == (plane, close_up)]
        if chosen:
            figures = "".join(_figure(one, n) for n, one in chosen)
            parts.append(f'<h3>{heading}</h3><div class="slices">{figures}</div>')
    plain = "".join(_plain_figure(one, n) for n, one in enumerate(slices) if not one.close_up)
    parts.append(f'<h3>The same slices without contours</h3><div class="slices plain">{plain}</div>')
    return "\n".join(parts)


def _figure(one: Slice, number: int) -> str:
    width, height = one.size
    position = f"{_AXES[one.plane]} = {round(one.position_mm)} mm".replace("-", "−")
    pictures = "".join(
        f'<image {mark} width="{width}" height="{height}" href="data:image/{form};base64,{_base64(data)}"/>'
        for mark, form, data in (
            (f'id="slice{number}"', "jpeg", one.scan_jpeg),
            ('class="contours"', "png", one.contours_png),
        )
    )
    return (
        f'<figure><svg role="img" aria-label="{one.plane} slice, {position}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">{pictures}{_letters(one)}</svg><figcaption>{position}</figcaption></figure>'
    )


def _plain_figure(one: Slice, number: int) -> str:
    width, height = one.size
    return (
        f'<figure><svg role="img" aria-label="{one.plane} slice without contours" viewBox="0 0 {width} {height}" '
        f'width="{width // 2}" height="{height // 2}"><use href="#slice{number}"/>{_letters(one)}</svg></figure>'
    )


def _letters(one: Slice) -> str:
    """Name the left and right edge of a picture."""
    width, height = one.size
    first, last = _ENDS[one.plane]
    y = height / 2 + 5
    return f'<text x="5" y="{y:g}">{first}</text><text x="{width - 5}" y="{y:g}" text-anchor="end">{last}</text>'


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _legend(result: Segmentation) -> str:
    colours = contour_colours(result)
    named = {plain_name(row.name): colours[row.id] for row in result.volumes if row.id in colours}
    named["Brain mask"] = MASK_COLOUR
    items = "".join(
        f'<li><span class="swatch" style="background:rgb{colour}"></span>{escape(name)}</li>'
        for name, colour in named.items()
    )
    return f'<ul class="legend">{items}</ul>'


def _mm3(value: float | None) -> str:
    return "n/a" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def _with_interval(row: StructureVolume) -> str:
    """A volume and, in brackets, its 90 % interval, if the model has one."""
    if row.low_mm3 is None or row.high_mm3 is None:
        return _mm3(row.mm3)
    return f'{_mm3(row.mm3)} <span class="quiet">[{_mm3(row.low_mm3)}, {_mm3(row.high_mm3)}]</span>'


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{round(value, 1) + 0.0:+.1f}".replace("-", "−").replace("+0.0", "0.0")


def _table(caption: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Build a table; all cells must be escaped already."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _pair_table(pairs: list[Pair]) -> str:
    rows = (
        (
            escape(pair.name),
            _with_interval(pair.left),
            _with_interval(pair.right),
            _percent(pair.asymmetry_percent),
            _mm3(pair.left.mm3_labels),
            _mm3(pair.right.mm3_labels),
        )
        for pair in pairs
    )
    caption = (
        "Volumes in mm³ from class probabilities, which count voxels in part, and from the labels. Asymmetry is the "
        "left minus the right in percent of the mean of both."
    )
    if any(side.low_mm3 is not None for pair in pairs for side in (pair.left, pair.right)):
        caption += _INTERVALS
    return _table(caption, ("Structure", "Left", "Right", "Asymmetry %", "Left, labels", "Right, labels"), rows)


def _total_table(result: Segmentation, pairs: list[Pair]) -> str:
    paired = {side.id for pair in pairs for side in (pair.left, pair.right)}
    rows = [row for row in result.volumes if row.id == 0 or row.id not in paired]
    cells = [(escape(row_name(row)), _with_interval(row), _mm3(row.mm3_labels), escape(row.note)) for row in rows]
    heads = ("Structure", "Volume", "From labels", "Note" if any(row.note for row in rows) else "")
    return _table("Midline structures, tissues and totals, in mm³", heads, cells)


def _chart(pairs: list[Pair]) -> str:
    """Bars towards the larger side, with the limits beyond which a flag is raised."""
    middle, half, step = 330, 150, 22
    height = step * len(pairs) + 46
    parts = [
        f'<text class="quiet" x="{middle - half}" y="14">left larger</text>',
        f'<text class="quiet" x="{middle + half}" y="14" text-anchor="end">right larger</text>',
        f'<path d="M{middle} 22V{height - 24}" stroke="var(--quiet)"/>',
    ]
    for percent in (-50, -25, 0, 25, 50):
        x = middle + half * percent / _CHART_PERCENT
        parts.append(f'<text class="quiet" x="{x:g}" y="{height - 6}" text-anchor="middle">{abs(percent)} %</text>')
    for place, pair in enumerate(pairs):
        y = 26 + step * place
        parts.append(f'<text x="0" y="{y + 12}">{escape(pair.name)}</text>')
        parts.append(_bar(pair, middle, half, y))
    return (
        '<figure class="chart"><figcaption>Asymmetry in percent of the mean of both sides. Beyond the dotted marks a '
        f"flag is raised; bars end at {_CHART_PERCENT:g} %.</figcaption>"
        f'<svg role="img" aria-label="Asymmetry of left and right" width="552" height="{height}" '
        f'viewBox="0 0 552 {height}">{"".join(parts)}</svg></figure>'
    )


def _bar(pair: Pair, middle: int, half: int, y: int) -> str:
    percent = pair.asymmetry_percent
    if percent is None:
        return f'<text class="quiet" x="{middle + half + 66}" y="{y + 12}" text-anchor="end">n/a</text>'
    limit = LIMITS[pair.name].asymmetry_percent if pair.name in LIMITS else None
    scale = half / _CHART_PERCENT
    length = min(abs(percent), _CHART_PERCENT) * scale
    start = middle - length if percent > 0 else middle
    colour = "var(--out)" if limit is not None and abs(percent) > limit else "var(--bar)"
    marks = ""
    if limit is not None and limit <= _CHART_PERCENT:
        marks = "".join(
            f'<path d="M{middle + sign * limit * scale:g} {y + 1}v14" stroke="var(--quiet)" stroke-dasharray="2 2"/>'
            for sign in (-1, 1)
        )
    return (
        f'<rect x="{start:.1f}" y="{y + 3}" width="{length:.1f}" height="10" fill="{colour}"/>{marks}'
        f'<text x="{middle + half + 66}" y="{y + 12}" text-anchor="end">{_percent(percent)}</text>'
    )


def _details(scan: Scan, result: Segmentation) -> str:
    rows = {"protocol": result.protocol, "scan_sha256": scan.sha256, **result.details}
    cells = (
        (escape(_plain_key(key)), escape(_plain_value(rows[key])))
        for key in rows
        if key not in ("name", "quality_flags", "quality", "confidence")
    )
    body = "".join(f'<tr><th scope="row">{key}</th><td class="words">{value}</td></tr>' for key, value in cells)
    return f"<table><tbody>{body}</tbody></table>"


def _plain_key(key: str) -> str:
    """Turn the name of a sidecar's field into words, its unit in brackets.

    Example:
        >>> _plain_key("timings_s")
        'Timings (s)'
    """
    words, _, last = key.rpartition("_")
    plain = f"{words} ({last})" if words and last in ("s", "mm", "mm3", "bytes", "years") else key
    return plain[:1].upper() + plain[1:].replace("_", " ")


def _plain_value(value: Any) -> str:
    """Write a JSON value in one line, without brackets."""
    if isinstance(value, dict):
        return ", ".join(f"{_plain_key(key).lower()} {_plain_value(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain_value(part) for part in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)
