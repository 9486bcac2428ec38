"""Clean and spoilt scans with their truth, segmented once and kept, for fitting and measuring the quality score."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from corruptions import CORRUPTIONS, Corruption
from spanseg.deform import Canvas
from spanseg.errors import SpansegError
from spanseg.generation import PackedMap, load_classes
from spanseg.images import Scan, scan_of
from spanseg.labelled import pair_scans, read_labelled
from spanseg.labels import Protocol
from spanseg.result import Segmentation, StructureVolume
from spanseg.segmenter import Predictor, SegmentOptions, segment_scan
from spanseg.simulate import plain_options
from spanseg.synth import Generator
from spanseg.volume import Volume, grid_round

SEED = 23


@dataclass(frozen=True)
class Case:
    """One scan, clean or spoilt, before it is segmented.

    Args:
        person: whose scan it is.
        origin: the label map that a synthetic person was drawn from; the person for a real one.
        corruption: what was done to it; ``None`` for a clean scan.
        scan: voxels in canonical order.
        truth: class indices of the clean scan, shape (i, j, k), -1 where unknown.
    """

    person: str
    origin: str
    corruption: Corruption | None
    scan: Scan
    truth: np.ndarray

    @property
    def name(self) -> str:
        """The corruption, or ``clean``."""
        return "clean" if self.corruption is None else self.corruption.name


@dataclass(frozen=True)
class Judged:
    """A case with its result and how good that is.

    Args:
        case: the scan.
        result: its segmentation.
        dice: mean over the 12 nuclei.
    """

    case: Case
    result: Segmentation
    dice: float


@dataclass(frozen=True)
class Plan:
    """How many scans there are.

    Args:
        people: how many are segmented clean.
        spoilt: how many spoilt scans are spread over them, one corruption after the other.
    """

    people: int
    spoilt: int

    def corruptions(self, person: int) -> list[Corruption]:
        """What is done to one person's scan."""
        return [CORRUPTIONS[n % len(CORRUPTIONS)] for n in range(person, self.spoilt, self.people)]


def synthetic_cases(maps: list[PackedMap], protocol: Protocol, canvas: Canvas, plan: Plan) -> Iterator[Case]:
    """Synthetic people, drawn from one label map after the other."""
    table = load_classes(protocol)
    affine = grid_round(np.zeros(3), canvas.shape, canvas.voxel_mm)
    for number in range(plan.people):
        packed = maps[number % len(maps)]
        image, target, *_ = Generator([packed], table, canvas, plain_options()).draw(SEED, number // len(maps))
        volume = Volume((image[0, 0].numpy() * 1000).astype(np.float32), affine)
        person = f"{packed.name} {number // len(maps)}"
        yield from _variants(person, packed.name, volume, target[0].numpy(), plan.corruptions(number))


def real_cases(dataset: Path, labels: str, protocol: Protocol, plan: Plan) -> Iterator[Case]:
    """Real people with manual labels."""
    pairs = sorted(pair_scans(dataset, dataset / "derivatives"))[: plan.people]
    for number, pair in enumerate(pairs):
        (one,) = read_labelled([pair], labels, protocol)
        affine = np.diag([*one.voxel_mm, 1.0])
        yield from _variants(one.name, one.name, Volume(one.image, affine), one.classes, plan.corruptions(number))


def _variants(
    person: str, origin: str, volume: Volume, truth: np.ndarray, corruptions: list[Corruption]
) -> Iterator[Case]:
    yield Case(person, origin, None, scan_of(volume), truth)
    for corruption in corruptions:
        seed = hashlib.sha256(f"{person} {corruption.name}".encode()).digest()
        spoilt = corruption(volume, np.random.default_rng(list(seed[:8])))
        yield Case(person, origin, corruption, scan_of(spoilt), truth)


def judged(cases: Iterator[Case], predictor: Predictor, options: SegmentOptions, cache: Path) -> Iterator[Judged]:
    """Segment what the cache does not hold yet; scans that are refused are named and left out."""
    cache.mkdir(parents=True, exist_ok=True)
    for case in cases:
        name = f"{case.scan.sha256} {predictor.identity['model_sha256']}"
        path = cache / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.npz"
        if not path.is_file():
            started = time.perf_counter()
            try:
                _keep(path, segment_scan(case.scan, predictor, options))
            except SpansegError as error:
                print(f"{case.person}, {case.name}: refused, {error}", file=sys.stderr)
                continue
            print(f"{case.person}, {case.name}: {time.perf_counter() - started:.1f} s", file=sys.stderr, flush=True)
        result = _kept(path, case.scan, predictor.protocol)
        yield Judged(case, result, nuclei_dice(result, case.truth, predictor.protocol))


def nuclei_dice(result: Segmentation, truth: np.ndarray, protocol: Protocol) -> float:
    """Mean Dice of the 12 nuclei, voxel by voxel, whatever the header says of their size."""
    known = truth >= 0
    scores = []
    for structure_id in protocol.groups["nuclei"]:
        found = (result.labels.data == structure_id) & known
        true = truth == protocol.class_of(structure_id)
        total = int(found.sum()) + int(true.sum())
        if true.any():
            scores.append(2 * int((found & true).sum()) / total)
    return float(np.mean(scores))


def _keep(path: Path, result: Segmentation) -> None:
    words = {
        "volumes": [asdict(row) for row in result.volumes],
        "notes": result.notes,
        "warnings": result.warnings,
        "details": result.details,
    }
    temporary = path.with_suffix(".tmp.npz")
    labels, mask = result.labels.data.astype(np.uint8), result.mask.data.astype(np.uint8)
    np.savez_compressed(temporary, labels=labels, mask=mask, words=np.array(json.dumps(words)))
    temporary.replace(path)


def _kept(path: Path, scan: Scan, protocol: Protocol) -> Segmentation:
    with np.load(path, allow_pickle=False) as stored:
        labels, mask, words = stored["labels"], stored["mask"], json.loads(str(stored["words"]))
    tissue = np.zeros(256, np.uint8)
    tissue[protocol.ids] = protocol.tissue_of_class
    volume = scan.volume
    bare = Segmentation(
        volume.with_data(labels.astype(np.int32)),
        volume.with_data(tissue[labels]),
        volume.with_data(mask),
        None,
        tuple(StructureVolume(**row) for row in words["volumes"]),
        protocol.name,
    )
    return replace(bare, notes=tuple(words["notes"]), warnings=tuple(words["warnings"]), details=words["details"])
