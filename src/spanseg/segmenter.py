"""The main job: a scan in, labels, mask and volumes out, on the scan's own grid.

Read → canonical orientation → centre of the brain → one fixed canvas → normalise → one pass → probabilities → the
scan's grid → labels → small islands removed. No PyTorch, but for a GPU and for training runs.
"""

from __future__ import annotations

import functools
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spanseg import __version__, labelling
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.images import Scan
from spanseg.intervals import read_intervals
from spanseg.labels import Protocol, load_protocol
from spanseg.machine import instruction_sets
from spanseg.passes import Looking, View, field_bytes, find_brain
from spanseg.result import OFF_CANVAS, Segmentation, StructureVolume
from spanseg.runtime import Engine, ModelFolder, Words, is_run, open_model, peak_bytes, require_threads
from spanseg.volume import Orientation, Volume, canonical, on_one_grid

if TYPE_CHECKING:
    from spanseg.telling import Teller

LESION_ID = 25
"""FreeSurfer id that voxels of a lesion mask get (Left-Lesion; the mask does not say on which side)."""
LARGEST_LESION_LITRES = 2.0
"""A lesion mask that covers more leaves no brain: hardly any brain is larger than this."""
VOXEL_BYTES = 32
"""Memory that a voxel of the scan takes beside the canvas, at the peak (measured with a head of 256³)."""
PROCESS_BYTES = 64 * 2**20
"""Memory of a process that segments beyond one that runs the network alone: libraries, tables, pictures."""


@dataclass(frozen=True)
class SegmentOptions:
    """How scans are segmented.

    Args:
        model: name of a shipped model, a model folder, or a finished training run of SAM.
        precision: ``f32``, ``bf16`` or ``auto``.
        threads: threads of the network; ``None`` takes all cores.
        max_memory_bytes: refuse before loading when a scan needs more; ``None`` for no limit of our own.
        device: ``cpu``, or ``cuda`` (needs PyTorch).
        trust: ``sform`` or ``qform``, for files whose two forms disagree about left and right.
        facts: what is known about the person.
        facts_policy: ``given``, ``unknown`` or ``marginalise``, for models that are told facts.
        tell_diagnosis: tell the diagnosis too, to models that take it.
        lesion_mask: image whose voxels above 0 are lesion.
        probabilities: keep the class probabilities in the result.
        flip: segment the mirror image too and take the mean: twice the network's time, a little better.
        prompts: what a training run of SAM may prompt itself with: ``none`` (as ``None``), ``box``, ``point`` or
            ``adaptive`` (boxes, then points).
        centre_note: how the model was chosen for a centre, kept as a note; empty if it was not.
    """

    model: str = "default"
    precision: str = "auto"
    threads: int | None = None
    max_memory_bytes: int | None = None
    device: str = "cpu"
    trust: str | None = None
    facts: Facts = field(default_factory=Facts)
    facts_policy: str = "given"
    tell_diagnosis: bool = False
    lesion_mask: str | Path | None = None
    probabilities: bool = False
    centre_note: str = ""
    flip: bool = False
    prompts: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", str(self.model))  # a Path is as good


class Predictor:
    """A loaded model, ready for any number of scans."""

    def __init__(self, options: SegmentOptions) -> None:
        if is_run(options.model):
            self.folder, self.engine = _run(options)
        else:
            self.folder, self.engine = _exported(options)
        self.protocol: Protocol = load_protocol(self.folder.protocol)
        self.intervals = read_intervals(self.folder.path, self.folder.sha256())
        self._teller: Teller | None = _teller(self.folder)

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What decides the result beside the scan: model, hash, versions, precision, threads, instruction set."""
        return {
            "model": self.folder.table["model"]["name"],
            "model_version": self.folder.table["model"]["version"],
            "model_sha256": self.folder.sha256(),
            "intervals_sha256": self.intervals.sha256,
            "spanseg": __version__,
            "engine": self.engine.name,
            "precision": self.engine.precision,
            "threads": self.engine.threads,
            "instruction_sets": instruction_sets(),
        } | ({"prompted_by": self.engine.policy} if self.engine.policy else {})

    def remarks(self, prompted: dict[int, str]) -> dict[str, Any]:
        """What else the record keeps of the model, and what it prompted each structure of a scan with, if it did."""
        names = [structure.name for structure in self.protocol.structures]
        said = {"licence": self.folder.table["model"]["licence"], "model_title": self.folder.title}
        return said | ({"prompts": {names[index]: kind for index, kind in prompted.items()}} if prompted else {})

    def words_for(self, options: SegmentOptions) -> list[Words]:
        """The sentences that one scan is segmented with; none for a model that is told nothing."""
        if self._teller is None:
            return []
        return self._teller.words(options.facts, options.facts_policy, options.tell_diagnosis)


def _exported(options: SegmentOptions) -> tuple[ModelFolder, Any]:
    """A model folder, and what runs its network."""
    folder = open_model(options.model)
    if folder.answers_prompts:
        raise SpansegError(
            f"{options.model}: this network answers clicks and segments nothing by itself; use it with "
            "'spanseg serve', or segment with another model."
        )
    if options.prompts is not None:
        raise SpansegError(f"{options.model}: this model takes no prompts; --prompts is for training runs of SAM.")
    _check_memory(options, folder)
    return folder, _engine(folder, options)


def _run(options: SegmentOptions) -> tuple[ModelFolder, Any]:
    """A training run in the place of a model folder, and what runs its network."""
    if options.precision not in ("auto", "f32") or options.max_memory_bytes is not None or options.flip:
        raise SpansegError(
            f"{options.model}: --precision bf16, --max-memory and --flip are for exported models, not for a training "
            "run; leave them out."
        )
    if options.threads is not None:
        require_threads(options.threads)
    from spanseg.slice_engine import open_run

    policy = "none" if options.prompts is None else options.prompts
    return open_run(Path(options.model), policy, options.device, options.threads)


def _engine(folder: ModelFolder, options: SegmentOptions) -> Any:
    if options.device == "cpu":
        if folder.needs_first:
            from spanseg.chain import Chain

            return Chain(folder, options.precision, options.threads)
        return Engine(folder, options.precision, options.threads)
    if options.device != "cuda":
        raise SpansegError(f"device must be cpu or cuda, not '{options.device}'.")
    from spanseg.runtime_torch import TorchEngine

    return TorchEngine(folder, options.precision)


def _teller(folder: ModelFolder) -> Teller | None:
    """What finds the words for a person; nothing for a model that is told nothing."""
    if not folder.told_in_all:
        return None
    from spanseg.telling import Teller

    return Teller(folder)


def canvas_bytes(folder: ModelFolder, flip: bool = False) -> int:
    """Memory that a model takes at its peak, but for the scan itself; with the mirror image or without."""
    return peak_bytes(folder) + field_bytes(folder, flip) + PROCESS_BYTES


def _check_memory(options: SegmentOptions, folder: ModelFolder, shape: tuple[int, ...] = (0,)) -> None:
    """Refuse what needs more than is allowed: the canvas before loading, a scan as soon as its shape is known."""
    limit, voxels = options.max_memory_bytes, math.prod(shape)
    canvas = canvas_bytes(folder, options.flip)
    classes = len(folder.table["labels"]["ids"]) if options.probabilities else 0
    needed = canvas + voxels * (VOXEL_BYTES + classes)
    if limit is not None and needed > limit:
        what = f"a scan of {' × '.join(map(str, shape))} voxels" if voxels else "the smallest scan"
        raise SpansegError(
            f"{what} needs up to {needed / 2**20:.0f} MiB with this model ({canvas / 2**20:.0f} of them whatever the "
            f"scan), --max-memory allows {limit / 2**20:.0f} MiB; allow more."
        )


class _Clock:
    """Seconds between marks."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, name: str) -> None:
        """Record the time since the last mark under a name."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 3)
        self._last = now


def load_model(options: SegmentOptions) -> Predictor:
    """Load the model that the options name; slow, once a batch.

    Raises:
        SpansegError: no such model, not enough memory allowed, a precision that the processor does not have, or prompts
            for a network that takes none.
    """
    return Predictor(options)


def segment_scan(scan: Scan, predictor: Predictor, options: SegmentOptions) -> Segmentation:
    """Segment a scan that was read already with a model that was loaded already.

    Raises:
        SpansegError: the scan needs more memory than is allowed, or the lesion mask cannot be read or leaves no brain.
    """
    _check_memory(options, predictor.folder, scan.volume.shape)
    clock = _Clock()
    image, orientation = canonical(scan.volume)
    notes = [*scan.notes, *filter(None, [options.centre_note, predictor.intervals.note])]
    if options.flip and predictor.intervals.factors:
        notes.append("The intervals of volumes and the quality score were fitted without the mirror image (--flip).")
    warnings = list(scan.warnings)
    lesion = _lesion(options, scan, notes)
    turned = None if lesion is None else orientation.to_canonical(lesion).astype(np.float32)
    words = predictor.words_for(options)
    found = find_brain(Looking(predictor, image, turned, words, options.flip), clock.mark)
    view, placement = found.view, found.view.placement
    notes += found.notes
    if view.cut_off:
        warnings.append(OFF_CANVAS)
    labelled = labelling.to_scan(view.answer.probabilities, placement, options.probabilities)
    clock.mark("resample")
    changed = labelling.remove_islands(labelled.classes, len(predictor.protocol), image.voxel_volume_mm3)
    mask = labelling.brain_mask(labelled.classes, predictor.protocol, float(image.voxel_size_mm[2]))
    stripped = labelling.is_stripped(image.data, mask, image.voxel_size_mm)
    clock.mark("clean")
    ids = predictor.protocol.ids[orientation.to_original(labelled.classes)]
    tissue = predictor.protocol.tissue_of_class[orientation.to_original(labelled.classes)]
    if lesion is not None:
        ids[lesion], tissue[lesion] = LESION_ID, 0
    spread = view.answer.spread(view.brain)
    _facts_note(predictor, options, len(words), spread, notes)
    kept = labelled.probabilities
    volumes = _volumes(predictor.protocol, labelled, mask, stripped, turned, image.voxel_volume_mm3)
    return Segmentation(
        labels=scan.volume.with_data(ids),
        tissue=scan.volume.with_data(tissue),
        mask=scan.volume.with_data(orientation.to_original(mask).astype(np.uint8)),
        probabilities=None if kept is None else scan.volume.with_data(orientation.to_original(kept)),
        volumes=tuple(map(predictor.intervals.around, volumes)),
        protocol=predictor.protocol.name,
        notes=tuple(notes),
        warnings=tuple(warnings),
        details=predictor.identity
        | {
            "steps": [*found.steps, f"{changed} voxels of small islands relabelled"],
            "skull_stripped": stripped,
            "relabelled_voxels": changed,
            "confidence": _by_name(predictor.protocol, labelled.confidence),
            "canvas": {"shape": list(placement.canvas_shape), "voxel_mm": placement.canvas_voxel_mm},
            "timings_s": clock.seconds,
        }
        | ({"facts_spread": spread} if spread else {})
        | predictor.remarks(view.prompted),
        facts_std=_facts_std(scan, view, orientation, options),
    )


def _lesion(options: SegmentOptions, scan: Scan, notes: list[str]) -> np.ndarray | None:
    """Read the lesion mask onto the scan's grid, shape (i, j, k), boolean; one that leaves no brain is refused."""
    if options.lesion_mask is None:
        return None
    lesion = _on_scan(options.lesion_mask, scan, notes)
    litres = float(lesion.sum()) * scan.volume.voxel_volume_mm3 / 1e6
    if lesion.all() or litres > LARGEST_LESION_LITRES:
        raise SpansegError(
            f"{options.lesion_mask}: this lesion mask covers {lesion.mean():.0%} of the scan ({litres:.1f} litres) "
            "and leaves no brain; give an image that is above 0 in the lesion alone."
        )
    return lesion


def _on_scan(path: str | Path, scan: Scan, notes: list[str]) -> np.ndarray:
    """Where a mask is above 0 on the scan's grid, shape (i, j, k), boolean."""
    from spanseg.images import read_labels

    mask = read_labels(path).volume
    if on_one_grid(mask, scan.volume):
        return mask.data > 0
    from scipy import ndimage

    notes.append("The lesion mask lay on another grid and was resampled to the scan's (nearest voxel).")
    to_mask = np.linalg.inv(mask.affine) @ scan.volume.affine
    moved = ndimage.affine_transform(
        (mask.data > 0).astype(np.uint8), to_mask[:3, :3], to_mask[:3, 3], scan.volume.shape, order=0
    )
    return moved > 0


def _volumes(
    protocol: Protocol,
    labelled: labelling.Labelled,
    mask: np.ndarray,
    stripped: bool,
    lesion: np.ndarray | None,
    voxel_mm3: float,
) -> tuple[StructureVolume, ...]:
    """One row a structure, then tissues and the intracranial volume; lesions are taken out of all of them."""
    classes = labelled.classes if lesion is None else np.where(lesion > 0, 0, labelled.classes)
    counts = np.bincount(classes.ravel(), minlength=len(protocol)) * voxel_mm3
    soft = labelled.volumes_mm3
    if lesion is not None:
        soft = _outside_lesion(labelled, lesion, soft)
    rows = [
        StructureVolume(structure.id, structure.name, float(soft[index]), float(counts[index]))
        for index, structure in enumerate(protocol.structures)
        if index
    ]
    rows += _sums(protocol, soft, counts, None if stripped else float(mask.sum()) * voxel_mm3)
    if lesion is not None:
        size = float((lesion > 0).sum()) * voxel_mm3
        rows.append(StructureVolume(LESION_ID, "Lesion", size, size))
    return tuple(rows)


def _sums(
    protocol: Protocol, soft: np.ndarray, counts: np.ndarray, intracranial_mm3: float | None
) -> list[StructureVolume]:
    """Rows of the tissues and of the intracranial volume, ``None`` where the scan is stripped."""
    names = [f"Total-{tissue}" for tissue in protocol.tissues]  # CSF is the name of a structure too
    if not protocol.covers_brain:
        reason = f"the structures of '{protocol.name}' are not all of a brain"
        return [StructureVolume(0, name, None, None, reason) for name in (*names, "IntraCranialVol")]
    rows = []
    for name, value in zip(names, protocol.tissues.values(), strict=True):
        members = protocol.tissue_of_class == value
        rows.append(StructureVolume(0, name, float(soft[members].sum()), float(counts[members].sum())))
    stripped = "the scan is skull-stripped: what lay between brain and skull is not in it"
    reason = stripped if intracranial_mm3 is None else ""
    return [*rows, StructureVolume(0, "IntraCranialVol", intracranial_mm3, intracranial_mm3, reason)]


def _by_name(protocol: Protocol, confidence: np.ndarray) -> dict[str, float]:
    """Mean probability of each structure where it was labelled, rounded for the record."""
    named = zip(protocol.structures[1:], confidence[1:].tolist(), strict=True)
    return {structure.name: round(value, 3) for structure, value in named}


def _outside_lesion(labelled: labelling.Labelled, lesion: np.ndarray, soft: np.ndarray) -> np.ndarray:
    """Scale each structure's volume by the share of its labelled voxels that lie outside the lesion."""
    before = np.bincount(labelled.classes.ravel(), minlength=len(soft))
    after = np.bincount(labelled.classes[lesion == 0].ravel(), minlength=len(soft))
    return soft * after / np.maximum(before, 1)


def _facts_std(scan: Scan, view: View, orientation: Orientation, options: SegmentOptions) -> Volume | None:
    """How much the answers to several sentences differ, on the scan's grid, where probabilities are kept."""
    if view.answer.std is None or not options.probabilities:
        return None
    return scan.volume.with_data(orientation.to_original(labelling.map_to_scan(view.answer.std, view.placement)))


def _facts_note(
    predictor: Predictor, options: SegmentOptions, sentences: int, spread: dict[str, float], notes: list[str]
) -> None:
    """Say plainly what facts did, or that they did nothing."""
    if sentences > 1:
        notes.append(f"The answers for {sentences} ages were averaged, which takes {sentences} times as long.")
    if spread:
        notes.append(f"At {spread['label_differs_share']:.1%} of the brain's voxels the label depends on the age.")
    if (options.facts != Facts() or options.facts_policy != "given") and not predictor.folder.told_in_all:
        notes.append(
            f"The model '{predictor.folder.table['model']['name']}' is not told age, sex or diagnosis: "
            "they changed nothing."
        )
