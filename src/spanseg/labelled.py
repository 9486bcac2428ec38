"""Real scans with labels, read for training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spanseg.errors import SpansegError
from spanseg.images import read_labels, read_scan
from spanseg.inputs import find_jobs
from spanseg.labels import Protocol
from spanseg.pairing import case_key, label_images
from spanseg.sampling import LabelledScan
from spanseg.schemes import find_scheme
from spanseg.volume import canonical


@dataclass(frozen=True)
class RealOptions:
    """Real scans in the mixture.

    Args:
        data: folder of scans.
        truth: folder of their label images.
        labels: scheme of the labels, or a table of it.
        share: share of the draws, 0 to 1.
    """

    data: str
    truth: str
    labels: str
    share: float


def labelled_scans(real: RealOptions, protocol: Protocol) -> list[LabelledScan]:
    """Read pairs of scans and labels into RAS+ order.

    Raises:
        SpansegError: no pair, a pair on two grids, or ids that the scheme does not map.
    """
    loaded = []
    for scan, truth in pair_scans(Path(real.data), Path(real.truth)):
        image, labels = read_scan(scan).volume, read_labels(truth).volume
        if image.shape != labels.shape or not np.allclose(image.affine, labels.affine, atol=1e-2):
            raise SpansegError(f"{truth}: these labels are not on the grid of {scan.name}; resample them first.")
        classes = find_scheme(real.labels, protocol, truth).apply(labels.data, str(truth))
        turned, orientation = canonical(image)
        loaded.append(LabelledScan(scan.name, turned.data, orientation.to_canonical(classes), turned.voxel_size_mm))
    return loaded


def pair_scans(scans: Path, truths: Path) -> list[tuple[Path, Path]]:
    """Pair scans with the label images whose names tell of the same person and session.

    Raises:
        SpansegError: no pair was found.
    """
    found = {tuple(sorted(case_key(job.path).items())): job.path for job in find_jobs([scans], Path("out"))}
    keys = {truth: tuple(sorted(case_key(truth).items())) for truth in label_images(truths)}
    pairs = [(found[key], truth) for truth, key in keys.items() if key in found]
    if not pairs:
        raise SpansegError(f"{truths}: no label image belongs to a scan of {scans}; expected names with the same sub-…")
    return pairs
