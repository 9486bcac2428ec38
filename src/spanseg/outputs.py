"""The files of one result: label images, tables and report, in the formats that other programs read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from spanseg.affines import UNCERTAIN_SIDES
from spanseg.files import write_text
from spanseg.labels import Protocol, load_protocol
from spanseg.result import Segmentation, StructureVolume
from spanseg.sidecar import OutputOptions

if TYPE_CHECKING:
    from spanseg.images import Scan

BIDS_TISSUES = {"GM": 1, "WM": 2, "CSF": 3}
"""Labels of the table that BIDS gives for ``mapping``."""
BIDS_LESION = 7
LESION_COLOUR = (255, 165, 0)
VOLUME_COLUMNS = ("id", "name", "mm3", "mm3_labels", "low90_mm3", "high90_mm3", "note")


def write_result(folder: Path, stem: str, scan: Scan, result: Segmentation, options: OutputOptions) -> list[str]:
    """Write the files of one result into an empty folder and return their names; the sidecar is not among them.

    Args:
        folder: where to write; it must exist.
        stem: what the names begin with.
        scan: the scan, as it was read.
        result: its segmentation.
        options: which files are written.

    Raises:
        SpansegError: the folder cannot be written, or the disk is full.
    """
    _write_images(folder, stem, scan, result, options)
    if not options.only_labels:
        _write_tables(folder, stem, result)
        _write_report(folder, stem, scan, result)
    return sorted(path.name for path in folder.iterdir())


def _write_images(folder: Path, stem: str, scan: Scan, result: Segmentation, options: OutputOptions) -> None:
    from spanseg.images import write_image, write_labels

    write_labels(folder / f"{stem}_dseg.nii.gz", result.labels.data, scan)
    if options.only_labels:
        return
    write_labels(folder / f"{stem}_tissue_dseg.nii.gz", result.tissue.data, scan)
    write_labels(folder / f"{stem}_desc-brain_mask.nii.gz", result.mask.data, scan)
    if result.probabilities is not None:
        write_image(folder / f"{stem}_probseg.nii.gz", result.probabilities.data, scan, slope=1 / 255)
    if result.facts_std is not None:
        write_image(folder / f"{stem}_desc-facts_std.nii.gz", result.facts_std.data, scan)
    if options.brain:
        brain = np.where(result.mask.data > 0, scan.volume.data, 0).astype(np.float32)
        write_image(folder / f"{stem}_desc-brain.nii.gz", brain, scan)


def _write_tables(folder: Path, stem: str, result: Segmentation) -> None:
    protocol = load_protocol(result.protocol)
    write_text(folder / f"{stem}_volumes.tsv", volumes_table(result, protocol))
    write_text(folder / f"{stem}_dseg.tsv", label_table(protocol, result.volumes))
    write_text(folder / f"{stem}_tissue_dseg.tsv", tissue_table(protocol))
    write_text(folder / f"{stem}_lut.txt", colour_lut(protocol, result.volumes))


def _write_report(folder: Path, stem: str, scan: Scan, result: Segmentation) -> None:
    from spanseg.report import render_report

    named = replace(result, details=result.details | {"name": stem})
    write_text(folder / f"{stem}_report.html", render_report(scan, named))


def volumes_table(result: Segmentation, protocol: Protocol) -> str:
    """Volumes as TSV: one row a structure, mm³ from probabilities and from labels, the 90 % interval; ``n/a``: none."""
    return volume_rows(result.volumes, protocol, any(UNCERTAIN_SIDES in warning for warning in result.warnings))


def volume_rows(volumes: Iterable[StructureVolume], protocol: Protocol, uncertain_sides: bool) -> str:
    """The table of volumes, with a note at what has two sides where those are uncertain."""
    sided = {structure.id for structure in protocol.structures if structure.mirror != structure.id}
    doubtful = sided if uncertain_sides else set()
    rows = []
    for volume in volumes:
        note = volume.note or (UNCERTAIN_SIDES if volume.id in doubtful else "n/a")
        sizes = (volume.mm3, volume.mm3_labels, volume.low_mm3, volume.high_mm3)
        rows.append((volume.id or "n/a", volume.name, *map(_mm3, sizes), note))
    return tsv([VOLUME_COLUMNS, *rows])


def label_table(protocol: Protocol, volumes: Iterable[StructureVolume]) -> str:
    """Label table of the structures as BIDS writes it: index, name, colour, and the label of BIDS' own table."""
    rows: list[tuple[object, ...]] = [
        (structure.id, structure.name, _hex(structure.colour), BIDS_TISSUES.get(structure.tissue, 0))
        for structure in protocol.structures
    ]
    rows += [(row.id, row.name, _hex(LESION_COLOUR), BIDS_LESION) for row in _lesions(protocol, volumes)]
    return tsv([("index", "name", "color", "mapping"), *rows])


def tissue_table(protocol: Protocol) -> str:
    """Label table of the tissues as BIDS writes it."""
    rows: list[tuple[object, ...]] = [(0, "Background", "#000000", 0)]
    for name, index in sorted(protocol.tissues.items(), key=lambda item: item[1]):
        rows.append((index, name, _hex(protocol.tissue_colours[name]), BIDS_TISSUES.get(name, 0)))
    return tsv([("index", "name", "color", "mapping"), *rows])


def colour_lut(protocol: Protocol, volumes: Iterable[StructureVolume]) -> str:
    """Colour table of the structures as FreeSurfer writes it: id, name, red, green, blue, transparency."""
    rows = [(structure.id, structure.name, structure.colour) for structure in protocol.structures]
    rows += [(row.id, row.name, LESION_COLOUR) for row in _lesions(protocol, volumes)]
    lines = [f"{index:<5d} {name:<32s} {red:3d} {green:3d} {blue:3d} 0" for index, name, (red, green, blue) in rows]
    return "\n".join(lines) + "\n"


def tsv(rows: Iterable[Iterable[object]]) -> str:
    """Write rows as tab-separated text; what would break a row inside a cell becomes a space."""
    return "".join("\t".join(" ".join(str(cell).split()) for cell in row) + "\n" for row in rows)


def _lesions(protocol: Protocol, volumes: Iterable[StructureVolume]) -> list[StructureVolume]:
    """Labels that the protocol does not have: those of a lesion mask."""
    own = {structure.id for structure in protocol.structures}
    return [volume for volume in volumes if volume.id not in own]


def _mm3(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.2f}"


def _hex(colour: Iterable[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in colour)
