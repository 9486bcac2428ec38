"""Which predicted label image belongs to which true one, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from spanseg.errors import SpansegError
from spanseg.inputs import SUFFIXES, stem_of

_ABOUT_LABELS = frozenset({"atlas", "den", "desc", "label", "res", "seg", "space"})
"""BIDS entities that say how labels were made, not whose they are."""
_NOT_IN_NAMES = frozenset(
    {"aseg", "brain", "dseg", "flair", "label", "labelmap", "labels", "manual", "seg", "segmentation", "synthseg"}
    | {"t1", "t1w", "t2", "t2w"}
)
"""Words at the end of other names that say what is in the file, not whose it is."""
_NO_STRUCTURES = frozenset({"brain", "brainmask", "flair", "mask", "probseg", "t1w", "t2w"})
"""Words that names of masks, probabilities and scans end with."""


@dataclass(frozen=True)
class Pair:
    """A prediction and its truth.

    Args:
        case: name of the scan.
        subject: whose scan it is.
        prediction: label image to judge.
        truth: label image to judge it by.
    """

    case: str
    subject: str
    prediction: Path
    truth: Path


def pair_images(predictions: Path, truths: Path) -> tuple[list[Pair], list[Path]]:
    """Pair the label images of two files or folders by subject, session and what else both names tell.

    Args:
        predictions: a label image or a folder of them.
        truths: likewise; two files are a pair whatever their names.

    Returns:
        The pairs, and the images without a partner.

    Raises:
        SpansegError: nothing there, no pair, or an image with several possible partners.
    """
    guessed, true = label_images(predictions), label_images(truths)
    if not predictions.is_dir() and not truths.is_dir():
        return [_pair(predictions, truths)], []
    keys = {path: case_key(path) for path in guessed}
    pairs: dict[Path, Pair] = {}
    for truth in true:
        partners = [path for path in guessed if _agree(keys[path], case_key(truth))]
        taken = [pairs[path].truth for path in partners if path in pairs]
        if len(partners) > 1 or taken:
            raise SpansegError(_ambiguous(truth, partners, taken))
        if partners:
            pairs[partners[0]] = _pair(partners[0], truth)
    if not pairs:
        raise SpansegError(
            f"{predictions} and {truths} have no case in common: expected names with one subject, such as "
            f"sub-01_dseg.nii.gz, but found {guessed[0].name} and {true[0].name}; give the two files themselves."
        )
    paired = {path for pair in pairs.values() for path in (pair.prediction, pair.truth)}
    return list(pairs.values()), [path for path in (*guessed, *true) if path not in paired]


def label_images(source: Path) -> list[Path]:
    """List the label images with structures that a file or a folder stands for.

    From a folder: ``*_dseg`` images if there are any, else ``mri/aseg.mgz``, else every image; masks, tissues and
    scans are left out by their names, and so is what is hidden.

    Raises:
        SpansegError: there is none.
    """
    if not source.is_dir():
        if not source.exists():
            raise SpansegError(f"{source}: there is no such file or folder.")
        return [source]
    found = [path for path in sorted(source.rglob("*")) if _may_hold_structures(path.relative_to(source))]
    kinds = (
        [path for path in found if stem_of(path).endswith("_dseg")],
        [path for path in found if path.name == "aseg.mgz" and path.parent.name == "mri"],
        found,
    )
    for chosen in kinds:
        if chosen:
            return chosen
    raise SpansegError(f"{source}: found no label image in this folder; expected names such as sub-01_dseg.nii.gz.")


def case_key(path: Path) -> dict[str, str]:
    """What a name tells about the scan: the BIDS entities of the person and the recording, or else ``name``."""
    words = stem_of(path).split("_")
    entities = dict(word.split("-", 1) for word in words if re.fullmatch(r"[A-Za-z]+-[^-]+", word))
    if "sub" in entities:
        return {name: value for name, value in entities.items() if name not in _ABOUT_LABELS}
    if path.parent.name == "mri":  # FreeSurfer names the folder of a subject, not its files
        return {"name": path.absolute().parents[1].name}
    while len(words) > 1 and words[-1].lower() in _NOT_IN_NAMES:
        words.pop()
    return {"name": "_".join(words)}


def _may_hold_structures(path: Path) -> bool:
    if any(part.startswith(".") for part in path.parts) or not path.name.lower().endswith(SUFFIXES):
        return False
    words = re.split(r"[^a-z0-9]+", stem_of(path).lower())
    return words[-1] not in _NO_STRUCTURES and "tissue" not in words


def _agree(first: dict[str, str], second: dict[str, str]) -> bool:
    """Whether two names tell of one scan: they share a subject or a name, and contradict each other nowhere."""
    shared = first.keys() & second.keys()
    return not shared.isdisjoint({"sub", "name"}) and all(first[name] == second[name] for name in shared)


def _pair(prediction: Path, truth: Path) -> Pair:
    key = case_key(truth)
    case = key.get("name") or "_".join(f"{name}-{value}" for name, value in key.items())
    return Pair(case, key.get("name") or f"sub-{key['sub']}", prediction, truth)


def _ambiguous(truth: Path, partners: Iterable[Path], taken: Iterable[Path]) -> str:
    names = ", ".join(str(path) for path in (*partners, *taken))
    return (
        f"{truth}: this could belong together with each of {names}; "
        "give folders with one label image a scan, or the two files themselves."
    )
