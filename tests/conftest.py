"""What all tests share: checked tensor shapes, a small label map, and where real data may lie."""

from pathlib import Path

import numpy as np
import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

from spanseg.volume import Volume

ROOT = Path(__file__).parents[1]
CHECKED = ["spanseg.nets", "spanseg.losses", "spanseg.optim", "spanseg.objectives", "spanseg.synth"]
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do where a float is asked for

install_import_hook(CHECKED, "conftest.checked")  # before the first import: shapes in annotations are then checked


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real scans and label maps that are not part of the repository; tests that need them skip without them."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data (real scans, not part of the repository)")
    return folder


@pytest.fixture(scope="session")
def demo_labels() -> Path:
    """The label map that ``make demo`` wrote."""
    found = sorted((ROOT / "demo-out").rglob("*_dseg.nii.gz"))
    labels = [path for path in found if "_tissue_" not in path.name]
    if not labels:
        pytest.skip("needs the label map of 'make demo' (run it first)")
    return labels[0]


def box(shape: tuple[int, int, int], low: tuple[float, ...], high: tuple[float, ...]) -> np.ndarray:
    """Voxels between two corners given as shares of the array's edges, 0 to 1."""
    inside = np.ones(shape, dtype=bool)
    for axis, (n, a, b) in enumerate(zip(shape, low, high, strict=True)):
        line = (np.arange(n) + 0.5) / n
        inside &= ((line >= a) & (line < b)).reshape([-1 if axis == other else 1 for other in range(3)])
    return inside


@pytest.fixture(scope="session")
def tiny_labels() -> Volume:
    """A head of boxes at 4 mm (160 × 192 × 160 mm): quick, with left and right, ventricle, cortex, CSF and a neck."""
    shape = (40, 48, 40)
    data = np.zeros(shape, dtype=np.int32)
    data[box(shape, (0.1, 0.05, 0.0), (0.9, 0.95, 0.98))] = 516
    data[box(shape, (0.42, 0.42, 0.0), (0.58, 0.58, 0.2))] = 24  # spinal CSF, more than 10 mm below the brain
    data[box(shape, (0.14, 0.1, 0.38), (0.86, 0.9, 0.94))] = 24
    data[box(shape, (0.46, 0.44, 0.26), (0.54, 0.56, 0.5))] = 16
    halves = (
        (0.5, 0.84, {3: 42, 2: 41, 4: 43, 10: 49, 17: 53, 8: 47}),
        (0.16, 0.5, {i: i for i in (3, 2, 4, 10, 17, 8)}),
    )
    for low, high, ids in halves:
        edge = low + 0.06 if low < 0.5 else low, high - 0.06 if high > 0.5 else high
        data[box(shape, (low, 0.12, 0.42), (high, 0.88, 0.92))] = ids[3]
        data[box(shape, (edge[0], 0.2, 0.5), (edge[1], 0.8, 0.84))] = ids[2]
        data[box(shape, (max(low, 0.36), 0.3, 0.6), (min(high, 0.64), 0.7, 0.74))] = ids[4]
        data[box(shape, (max(low, 0.36), 0.42, 0.5), (min(high, 0.64), 0.6, 0.6))] = ids[10]
        data[box(shape, (max(low, 0.26), 0.44, 0.5), (min(high, 0.74), 0.6, 0.56)) & (data == ids[2])] = ids[17]
        data[box(shape, (max(low, 0.22), 0.12, 0.3), (min(high, 0.78), 0.42, 0.42))] = ids[8]
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-80.0, -96.0, -80.0)
    return Volume(data, affine)
