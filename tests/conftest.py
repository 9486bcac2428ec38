"""What all tests share: checked tensor shapes, a small label map, and where real data may lie."""

import os
from pathlib import Path

import numpy as np
import pytest
from beartype import BeartypeConf, beartype
from jaxtyping import install_import_hook

import tiny
from spanseg.volume import Volume

ROOT = Path(__file__).parents[1]
CHECKED = ["spanseg.nets", "spanseg.losses", "spanseg.optim", "spanseg.objectives", "spanseg.synth"]
checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int will do where a float is asked for

# The networks of the tests are tiny: a second thread brings nothing, and waits by spinning where others want the core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

install_import_hook(CHECKED, "conftest.checked")  # before they are imported: shapes in annotations are then checked


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


@pytest.fixture(scope="session")
def tiny_labels() -> Volume:
    """The tiny head at 4 mm, with a canal of CSF that reaches more than 10 mm below the brain."""
    labels = tiny.label_map()
    labels[22:26, 20:24, :12][labels[22:26, 20:24, :12] != 16] = 24
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-96.0, -112.0, -96.0)
    return Volume(labels, affine)
