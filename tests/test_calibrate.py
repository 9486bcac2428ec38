"""What ``benchmarks/calibrate.py`` takes as true volumes, and how it pools the sides of a structure."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tiny
from spanseg.images import scan_of, write_labels
from spanseg.labels import load_protocol
from spanseg.volume import Volume

ASEG = load_protocol("aseg")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    return tiny.benchmark("calibrate")


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """A block of CSF with white matter, cortex and a brain stem inside, voxels of 4 × 4 × 5 mm, stored LAS."""
    labels = np.zeros((20, 22, 24), np.int32)
    labels[2:18, 2:20, 2:22] = 24
    labels[4:10, 4:16, 10:20] = 2
    labels[10:12, 4:16, 10:20] = 42
    labels[8:12, 4:8, 4:10] = 16
    scan = scan_of(Volume(labels, np.diag([-4.0, 4.0, 5.0, 1.0])))
    write_labels(tmp_path / "sub-1_dseg.nii.gz", labels, scan)
    return tmp_path / "sub-1_dseg.nii.gz"


def test_true_volumes_are_those_of_the_volume_table(benchmark, truth):
    volumes = benchmark.true_volumes(truth, ASEG, True)
    assert volumes["Left-Cerebral-White-Matter"] == pytest.approx(80 * 6 * 12 * 10)
    assert volumes["Total-GM"] == volumes["Right-Cerebral-Cortex"] == pytest.approx(80 * 2 * 12 * 10)
    assert volumes["Total-WM"] == pytest.approx(volumes["Left-Cerebral-White-Matter"] + volumes["Brain-Stem"])
    assert volumes["Left-Thalamus"] == 0
    assert volumes["IntraCranialVol"] == pytest.approx(80 * 16 * 18 * 20)


def test_what_the_truth_does_not_hold_in_full_has_no_volume(benchmark, truth):
    stripped = benchmark.true_volumes(truth, ASEG, False)
    assert "IntraCranialVol" not in stripped and "Total-CSF" in stripped
    no_sulci = benchmark.true_volumes(truth, ASEG, False, "freesurfer")
    assert "CSF" not in no_sulci and "Total-CSF" not in no_sulci and "Total-GM" in no_sulci


def test_both_sides_share_what_was_seen_on_either(benchmark):
    rng = np.random.default_rng(0)
    person = {name: rng.normal(0, 0.1, 10).tolist() for name in ("Left-Caudate", "Right-Caudate", "Brain-Stem")}
    factors = benchmark.fit([person] * 3, ASEG)
    assert factors["Left-Caudate"] == factors["Right-Caudate"] != factors["Brain-Stem"]
    assert list(factors) == list(person)
    alone = benchmark.fit([{"Left-Caudate": person["Left-Caudate"][:5]}] * 3, ASEG)
    assert not alone, "15 scans of one side are too few, 30 of both were not"
