"""Labelled scans looked over before anything is trained on them: what would spoil it is refused, with reasons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from spanseg.errors import SpansegError
from spanseg.geometry import Placement
from spanseg.images import Scan, read_labels, read_scan
from spanseg.labels import UNKNOWN, Crosswalk, Protocol
from spanseg.participants import participant_of
from spanseg.schemes import find_scheme, find_table, names_in
from spanseg.volume import Volume, canonical, on_one_grid, voxel_to_world

IN_PLANE_MM, SLICE_MM = 3.0, 6.0
"""Coarser voxels than these show too little of the structures to learn from."""
SAME_SIZE = 0.1
"""Voxel sizes that differ by more than this part are worth a note."""
APART_MM = 2.0
"""Left and right are told apart by the middles of a structure and its mirror when they lie this far apart."""
LEAST_ON_HEAD = 0.5
"""Part of the labelled voxels that must lie on the head, not on air."""
AIR = 0.1
"""Part of the way from the darkest to the brightest that still counts as air."""
SAME_IMAGE = 0.995
"""Correlation of coarse images above which two scans are one. Two people of one scanner reached 0.984 at most."""
_COARSE_VOXELS, _COARSE_MM = 24, 8.0
_MOST_NAMED, _MOST_IDS = 3, 100

Pair = tuple[Path, Path]
_T = TypeVar("_T")


@dataclass(frozen=True)
class AuditReport:
    """What was found in a set of labelled scans.

    Args:
        notes: worth knowing, one sentence each.
        refusals: reasons not to train on them, one sentence each.
    """

    notes: tuple[str, ...]
    refusals: tuple[str, ...]


@dataclass
class _Case:
    """What is kept of one scan to compare it with the others."""

    scan: Path
    hashes: tuple[str, str] = ("", "")
    voxel_mm: np.ndarray | None = None
    coarse: np.ndarray | None = None
    expected: frozenset[int] = frozenset()
    present: frozenset[int] | None = None


@dataclass
class _Ledger:
    """Findings as they come up; one sentence is written once."""

    notes: dict[str, None] = field(default_factory=dict)
    refusals: dict[str, None] = field(default_factory=dict)
    unmapped: dict[int, list[Path]] = field(default_factory=dict)
    unknown_structures: dict[str, list[Path]] = field(default_factory=dict)
    without_scheme: list[Path] = field(default_factory=list)

    def attempt(self, read: Callable[[], _T]) -> _T | None:
        """Read something; what refuses it is written down."""
        try:
            return read()
        except SpansegError as error:
            self.refuse(str(error))
            return None

    def note(self, sentence: str) -> None:
        self.notes[sentence] = None

    def refuse(self, sentence: str) -> None:
        self.refusals[sentence] = None


def audit_dataset(pairs: Sequence[Pair], protocol: Protocol, labels: str | None) -> AuditReport:
    """Look over labelled scans and refuse a set that would spoil a training.

    Args:
        pairs: scans with their label images.
        protocol: of the model that shall be trained.
        labels: scheme of the labels, or a table of it; ``None`` for the BIDS table beside them.

    Returns:
        Notes, and no refusals.

    Raises:
        SpansegError: all reasons against the set at once, numbered, one line each.
    """
    report = inspect_dataset(pairs, protocol, labels)
    if report.refusals:
        count = len(report.refusals)
        scans = "this labelled scan" if len(pairs) == 1 else f"these {len(pairs)} labelled scans"
        title = f"{scans} cannot be trained on, for {'one reason' if count == 1 else f'{count} reasons'}:"
        lines = (f"{number}. {sentence}" for number, sentence in enumerate(report.refusals, start=1))
        raise SpansegError("\n".join([title, *lines]))
    return report


def inspect_dataset(pairs: Sequence[Pair], protocol: Protocol, labels: str | None) -> AuditReport:
    """Look over labelled scans without refusing them; the arguments are those of :func:`audit_dataset`."""
    ledger = _Ledger()
    if not pairs:
        ledger.refuse("there is no labelled scan; give a folder with scans and one with their label images.")
    cases = [_look_at(scan, truth, protocol, labels, ledger) for scan, truth in pairs]
    _sum_up_schemes(ledger, protocol)
    _compare_sizes(cases, ledger)
    _find_same_people(cases, ledger)
    _find_empty_classes(cases, protocol, ledger)
    return AuditReport(tuple(ledger.notes), tuple(ledger.refusals))


def _look_at(scan: Path, truth: Path, protocol: Protocol, labels: str | None, ledger: _Ledger) -> _Case:
    """Read one scan with its labels, and find what is wrong within it."""
    case = _Case(scan)
    image = ledger.attempt(lambda: read_scan(scan))
    found = ledger.attempt(lambda: read_labels(truth))
    if labels is None and find_table(truth) is None:
        ledger.without_scheme.append(truth)
        scheme = None
    else:
        scheme = ledger.attempt(lambda: find_scheme(labels, protocol, truth))
    for path, read in ((scan, image), (truth, found)):
        for warning in read.warnings if read else ():
            ledger.note(f"{path}: {warning}")
    if image is not None:
        _check_voxels(scan, image, ledger)
        case.voxel_mm, case.coarse = np.sort(image.volume.voxel_size_mm), _coarse(image.volume)
    case.hashes = (image.sha256 if image else "", found.sha256 if found else "")
    if found is None or scheme is None:
        return case
    voxels = np.argwhere(found.volume.data != 0)
    ids = found.volume.data[tuple(voxels.T)]
    unmapped = [int(value) for value in np.unique(ids) if int(value) not in scheme.classes]
    classes = _classes_of(ids, scheme)
    structures = voxels[classes > 0], classes[classes > 0]
    case.expected = frozenset(scheme.classes.values()) - {0, UNKNOWN, *scheme.unlabelled}
    case.present = frozenset(np.unique(structures[1]).tolist())
    if unmapped:
        _file_unmapped(unmapped, truth, labels, ledger)
    elif not case.present:
        ledger.refuse(f"{truth}: no voxel is a structure of protocol '{protocol.name}'; give labels that hold some.")
    else:
        _check_sides(truth, found.volume.affine, structures, protocol, ledger)
    if image is not None:
        _check_overlap(scan, truth, image.volume, found.volume, structures[0], ledger)
    return case


def _check_voxels(path: Path, scan: Scan, ledger: _Ledger) -> None:
    _, in_plane, slices = np.sort(scan.volume.voxel_size_mm)
    if in_plane > IN_PLANE_MM or slices > SLICE_MM:
        sizes = " × ".join(f"{size:.3g}" for size in scan.volume.voxel_size_mm)
        ledger.refuse(
            f"{path}: voxels of {sizes} mm are too coarse; expected at most {IN_PLANE_MM:g} mm in plane and "
            f"{SLICE_MM:g} mm between slices."
        )


def _classes_of(ids: np.ndarray, scheme: Crosswalk) -> np.ndarray:
    """Class index of each id, ``UNKNOWN`` for those without an entry."""
    present = np.unique(ids)
    table = np.array([scheme.classes.get(int(value), UNKNOWN) for value in present], dtype=np.int64)
    return table[np.searchsorted(present, ids)]


def _file_unmapped(ids: list[int], truth: Path, labels: str | None, ledger: _Ledger) -> None:
    """Write down the ids without an entry: by name where a table has one, for then it is a structure of its own."""
    table = find_table(truth) if labels is None else Path(labels)
    names = names_in(table) if table is not None and table.is_file() else {}
    for value in ids:
        if value in names:
            ledger.unknown_structures.setdefault(f"{names[value]} ({value})", []).append(truth)
        else:
            ledger.unmapped.setdefault(value, []).append(truth)


def _check_sides(
    truth: Path, affine: np.ndarray, structures: tuple[np.ndarray, np.ndarray], protocol: Protocol, ledger: _Ledger
) -> None:
    """Refuse left structures that lie to the right of their mirrored ones, by the world's axis."""
    voxels, classes = structures
    right_mm = voxel_to_world(affine, voxels)[:, 0]
    counts = np.bincount(classes, minlength=len(protocol))
    middles = np.bincount(classes, right_mm, minlength=len(protocol)) / np.maximum(counts, 1)
    both = [(left, right) for left, right in protocol.lateral_pairs if counts[left] and counts[right]]
    swapped = [left for left, right in both if middles[left] - middles[right] > APART_MM]
    if len(swapped) > len(both) / 2:
        ledger.refuse(
            f"{truth}: left and right are swapped: {len(swapped)} of {len(both)} left structures lie to the right of "
            "their mirrored ones; correct the header or the ids."
        )
    elif swapped:
        names = _listed([protocol.structures[left].name for left in swapped])
        ledger.refuse(
            f"{truth}: {names} lie{'s' * (len(swapped) == 1)} to the right of the mirrored structure, the others do "
            "not; correct the ids of these labels."
        )


def _check_overlap(scan: Path, truth: Path, image: Volume, labels: Volume, voxels: np.ndarray, ledger: _Ledger) -> None:
    """Refuse labels on another grid than their scan, or on air."""
    if not on_one_grid(image, labels):
        ledger.refuse(f"{truth}: these labels are not on the grid of {scan.name}; resample them first.")
        return
    low, high = np.quantile(image.data[::2, ::2, ::2], [0.005, 0.98])
    on_head = image.data[tuple(voxels.T)] > low + AIR * (high - low)
    if on_head.size and on_head.mean() < LEAST_ON_HEAD:
        ledger.refuse(
            f"{truth}: only {on_head.mean():.0%} of the labelled voxels lie on the head in {scan.name}, the others on "
            "air; the labels are shifted or belong to another scan."
        )


def _coarse(volume: Volume) -> np.ndarray:
    """A small image round the middle of what is bright, for comparing scans whatever their grid."""
    image, _ = canonical(volume)
    bright = np.clip(image.data - np.median(image.data[::4, ::4, ::4]), 0, None)
    total = max(float(bright.sum(dtype=np.float64)), 1e-9)
    sums = [bright.sum(axis=others, dtype=np.float64) for others in ((1, 2), (0, 2), (0, 1))]
    middle = np.array([along @ np.arange(len(along)) / total for along in sums]) * image.voxel_size_mm
    shape = (_COARSE_VOXELS, _COARSE_VOXELS, _COARSE_VOXELS)
    canvas = Placement(image.shape, image.voxel_size_mm, shape, _COARSE_MM, middle).to_canvas(image.data, 0.0).ravel()
    return canvas - canvas.mean()


def _sum_up_schemes(ledger: _Ledger, protocol: Protocol) -> None:
    """One refusal for the whole set about each way in which labels are not understood."""
    if ledger.without_scheme:
        ledger.refuse(
            f"nothing says what the labels of {_files(ledger.without_scheme)} mean: give --labels with one of "
            f"{', '.join(protocol.crosswalk_names)} or a table, or put a BIDS table (*_dseg.tsv) beside them."
        )
    if ledger.unknown_structures:
        named = _listed(list(ledger.unknown_structures), most=_MOST_IDS)
        ledger.refuse(
            f"the model does not have the structures {named} of {_files(_all(ledger.unknown_structures))}; map each to "
            "a structure of the model, 'background' or 'unknown' in the column maps_to."
        )
    if ledger.unmapped:
        ids = _listed([str(value) for value in sorted(ledger.unmapped)], most=_MOST_IDS)
        ledger.refuse(
            f"the scheme does not map the label ids {ids} of {_files(_all(ledger.unmapped))}; add them to its table."
        )


def _compare_sizes(cases: list[_Case], ledger: _Ledger) -> None:
    sizes = [case.voxel_mm for case in cases if case.voxel_mm is not None]
    if not sizes:
        return
    finest, coarsest = np.min(sizes, axis=0), np.max(sizes, axis=0)
    if (coarsest > finest * (1 + SAME_SIZE)).any():
        texts = (" × ".join(f"{size:.3g}" for size in ends) for ends in (finest, coarsest))
        ledger.note(f"Voxel sizes differ between the scans: from {' mm to '.join(texts)} mm.")


def _find_same_people(cases: list[_Case], ledger: _Ledger) -> None:
    """Refuse two files of one person: one could be trained on and the other tested on."""
    seen: list[_Case] = []
    for case in cases:
        for other in seen:
            reason = _why_same(other, case)
            if reason:
                ledger.refuse(f"{other.scan} and {case.scan} show the same person ({reason}); keep one of them.")
                break
        seen.append(case)


def _why_same(first: _Case, second: _Case) -> str:
    if participant_of(first.scan) == participant_of(second.scan):
        return f"both are named {participant_of(first.scan)}"
    for what, one, other in zip(("images", "label images"), first.hashes, second.hashes, strict=True):
        if one and one == other:
            return f"their {what} are the same file"
    if first.coarse is None or second.coarse is None:
        return ""
    norm = float(np.linalg.norm(first.coarse) * np.linalg.norm(second.coarse))
    correlation = float(first.coarse @ second.coarse) / max(norm, 1e-9)
    return f"their images correlate by {correlation:.4f}" if correlation > SAME_IMAGE else ""


def _find_empty_classes(cases: list[_Case], protocol: Protocol, ledger: _Ledger) -> None:
    """Note structures that the scheme can label and that are not there."""
    read = [case for case in cases if case.present is not None]
    for index, structure in enumerate(protocol.structures):
        labelled = [case for case in read if index in case.expected]
        without = [case.scan for case in labelled if case.present is not None and index not in case.present]
        if without and len(without) == len(labelled):
            ledger.note(f"No scan has a voxel of {structure.name}: nothing new is learned of it.")
        elif without:
            ledger.note(f"{structure.name} is missing in {_files(without)}.")


def _all(found: dict[str, list[Path]] | dict[int, list[Path]]) -> list[Path]:
    return list(dict.fromkeys(path for paths in found.values() for path in paths))


def _files(paths: Sequence[Path]) -> str:
    return _listed([str(path) for path in paths])


def _listed(words: Sequence[str], most: int = _MOST_NAMED) -> str:
    """Words with commas; of many, the first few and how many more."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return ", ".join(words[:most]) + more
