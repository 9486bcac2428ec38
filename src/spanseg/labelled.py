"""Real scans with labels, read for training."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.images import read_labels, read_scan
from spanseg.inputs import find_jobs
from spanseg.labels import Crosswalk, Protocol
from spanseg.pairing import case_key, label_images
from spanseg.participants import find_table, participant_of, read_participants
from spanseg.sampling import LabelledScan
from spanseg.schemes import find_scheme
from spanseg.volume import canonical, on_one_grid


@dataclass(frozen=True)
class RealOptions:
    """Real scans in the mixture.

    Args:
        data: folder of scans; facts about people come from its ``participants.tsv``, where there is one.
        truth: folder of their label images; ``derivatives`` in that of the scans by default.
        labels: scheme of the labels, or a table of it; empty for the table beside them.
        share: share of the draws, 0 to 1.
        subjects: whose scans are used, all if empty.
        gentle: deform and degrade them little, as an adaptation does.
    """

    data: str = ""
    truth: str = ""
    labels: str = ""
    share: float = 1.0
    subjects: tuple[str, ...] = ()
    gentle: bool = False


def labelled_scans(real: RealOptions, protocol: Protocol, is_told: bool = False) -> list[LabelledScan]:
    """Read pairs of scans and labels into RAS+ order.

    Args:
        real: which.
        protocol: where the labels are mapped to.
        is_told: whether the network is told facts, so that everybody must have a row in ``participants.tsv``.

    Raises:
        SpansegError: what :func:`chosen_pairs` and :func:`read_labelled` refuse, or a person of whom nothing is known
            where something is told.
    """
    pairs = chosen_pairs(real)
    table = find_table(Path(real.data))
    people = read_participants(table) if table else {}
    strangers = sorted({participant_of(scan) for scan, _ in pairs} - people.keys())
    if is_told and strangers:
        raise SpansegError(
            f"{real.data}: the network is told facts about people, and participants.tsv has no row for "
            f"{', '.join(strangers[:4])}{' …' if len(strangers) > 4 else ''}; add them, n/a for what is not known."
        )
    scans = read_labelled(pairs, real.labels or None, protocol)
    return [replace(scan, facts=people.get(scan.name, Facts())) for scan in scans]


def chosen_pairs(real: RealOptions) -> list[tuple[Path, Path]]:
    """The scans that are trained on, with their label images.

    Raises:
        SpansegError: no folder is named, no pair is in it, or a person that is named has none.
    """
    if not real.data:
        raise SpansegError("the recipe trains on real scans; say which: --set real.data=BIDS --set real.labels=SCHEME.")
    pairs = pair_scans(Path(real.data), Path(real.truth or f"{real.data}/derivatives"))
    if not real.subjects:
        return pairs
    named = {name if name.startswith("sub-") else f"sub-{name}" for name in real.subjects}
    missing = named - {participant_of(scan) for scan, _ in pairs}
    if missing:
        raise SpansegError(f"{real.data}: no labelled scan of {', '.join(sorted(missing))}.")
    return [pair for pair in pairs if participant_of(pair[0]) in named]


def read_labelled(pairs: Sequence[tuple[Path, Path]], labels: str | None, protocol: Protocol) -> list[LabelledScan]:
    """Read scans with their label images into RAS+ order.

    Args:
        pairs: scans and label images.
        labels: scheme of the labels; ``None`` for the table beside them.
        protocol: where the labels are mapped to.

    Raises:
        SpansegError: a pair on two grids, ids that the scheme does not map, or labels without a known structure.
    """
    loaded = []
    for scan, truth in pairs:
        image, found = read_scan(scan).volume, read_labels(truth).volume
        if not on_one_grid(image, found):
            raise SpansegError(f"{truth}: these labels are not on the grid of {scan.name}; resample them first.")
        scheme = find_scheme(labels, protocol, truth)
        turned, orientation = canonical(image)
        classes = orientation.to_canonical(mapped(found.data, scheme, protocol, truth))
        name = participant_of(scan)
        loaded.append(LabelledScan(name, turned.data, classes, turned.voxel_size_mm, scheme.unlabelled))
    return loaded


def mapped(labels: np.ndarray, scheme: Crosswalk, protocol: Protocol, truth: Path) -> np.ndarray:
    """Map labels to the classes of a protocol, shape as given.

    Raises:
        SpansegError: ids that the scheme does not map, or labels without a known structure; names the file ``truth``.
    """
    classes = scheme.apply(labels, str(truth))
    if not (classes > 0).any():
        raise SpansegError(
            f"{truth}: by the scheme '{scheme.name}' these labels hold no structure of the protocol "
            f"'{protocol.name}'; give the scheme that they are in, or leave this scan out."
        )
    return classes


def pair_scans(scans: Path, truths: Path) -> list[tuple[Path, Path]]:
    """Pair scans with the label images whose names tell of the same person and session.

    Raises:
        SpansegError: no pair was found, or two scans or two label images would be in one pair.
    """
    if not truths.exists():
        raise SpansegError(
            f"{truths}: there are no label images here; put them below {scans / 'derivatives'}, or say "
            "with --truth where they are."
        )
    found = _by_key(job.path for job in find_jobs([scans], Path("out")))
    true = _by_key(label_images(truths))
    shared = [key for key in true if key in found]
    for same in (one for key in shared for one in (found[key], true[key]) if len(one) > 1):
        raise SpansegError(
            f"{same[0]} and {same[1]}: by their names both are of the same person and session, so which scan belongs "
            "to which labels is not certain; leave out all but one, name the one folder of labels (--truth, or [real] "
            "truth), or name scans and labels sub-…_ses-…."
        )
    pairs = [(found[key][0], true[key][0]) for key in shared]
    if not pairs:
        raise SpansegError(f"{truths}: no label image belongs to a scan of {scans}; expected names with the same sub-…")
    return pairs


def left_out_of_pairs(scans: Path, truths: Path) -> list[str]:
    """A note about the scans that :func:`pair_scans` leaves out, for no label image belongs to them; none without."""
    true = _by_key(label_images(truths))
    found = _by_key(job.path for job in find_jobs([scans], Path("out")))
    names = sorted(str(path.relative_to(scans)) for key, paths in found.items() if key not in true for path in paths)
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{scans}: no label image belongs to {', '.join(names[:3])}{more}; left out."]


def _by_key(paths: Iterable[Path]) -> dict[tuple[tuple[str, str], ...], list[Path]]:
    """The images of each person and session, by what their names tell."""
    found: dict[tuple[tuple[str, str], ...], list[Path]] = {}
    for path in paths:
        found.setdefault(tuple(sorted(case_key(path).items())), []).append(path)
    return found
