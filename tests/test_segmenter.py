"""The main job on a real template with the shipped model, and its geometry with a stand-in network."""

import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

import spanseg
from spanseg import segmenter
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.images import read_scan, scan_of, write_labels
from spanseg.labels import load_protocol
from spanseg.runtime import peak_bytes
from spanseg.segmenter import SegmentOptions, load_model, segment_scan
from spanseg.volume import Volume, canonical, closest_orientation


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    """The MNI152 T1 at 2 mm, which nilearn carries (skull-stripped)."""
    datasets = pytest.importorskip("nilearn.datasets")
    path = tmp_path_factory.mktemp("mni") / "mni_T1w.nii.gz"
    datasets.load_mni152_template(resolution=2).to_filename(path)
    return path


@pytest.fixture(scope="module")
def predictor():
    return load_model(SegmentOptions(precision="f32", threads=1))


@pytest.fixture(scope="module")
def result(template, predictor):
    scan = read_scan(template)
    return scan, segment_scan(scan, predictor, SegmentOptions(probabilities=True))


def test_results_lie_on_the_scans_own_grid(result):
    scan, segmentation = result
    for volume in (segmentation.labels, segmentation.tissue, segmentation.mask, segmentation.probabilities):
        assert volume.shape == scan.volume.shape
        np.testing.assert_array_equal(volume.affine, scan.volume.affine)


def test_tissue_never_contradicts_the_structures(result):
    _, segmentation = result
    protocol = load_protocol("aseg")
    for structure in protocol.structures:
        inside = segmentation.labels.data == structure.id
        assert (segmentation.tissue.data[inside] == protocol.tissues.get(structure.tissue, 0)).all()


def test_every_structure_is_found_and_left_is_left(result):
    _, segmentation = result
    protocol = load_protocol("aseg")
    x = np.argwhere(np.ones(segmentation.labels.shape, dtype=bool)) @ segmentation.labels.affine[:3, :3].T
    x = (x[:, 0] + segmentation.labels.affine[0, 3]).reshape(segmentation.labels.shape)
    for left, right in protocol.lateral_pairs:
        ids = protocol.structures[left].id, protocol.structures[right].id
        middles = [x[segmentation.labels.data == value].mean() for value in ids]
        assert middles[0] < 0 < middles[1], protocol.structures[left].name


def test_volumes_of_the_template_are_those_of_an_adult(result):
    _, segmentation = result
    volumes = {row.name: row for row in segmentation.volumes}
    whole = sum(volumes[tissue].mm3 for tissue in ("Total-GM", "Total-WM"))
    assert 1.1e6 < whole < 2.2e6  # the MNI152 template is larger than most brains
    assert volumes["IntraCranialVol"].mm3 is None
    assert "skull-stripped" in volumes["IntraCranialVol"].note
    for row in segmentation.volumes:
        if row.mm3_labels and row.mm3_labels > 3000 and not row.name.endswith("CSF"):  # thin in a stripped template
            assert row.mm3 == pytest.approx(row.mm3_labels, rel=0.25), row.name


def test_volumes_have_the_intervals_that_were_fitted_for_the_shipped_weights(result, predictor):
    """Weights that are replaced need new ones: ``python benchmarks/calibrate.py LABELMAPS``."""
    _, segmentation = result
    assert {"Left-Hippocampus", "Brain-Stem", "Total-GM"} <= predictor.intervals.factors.keys()
    for row in segmentation.volumes:
        assert (row.low_mm3 is not None) == (row.mm3 is not None and row.name in predictor.intervals.factors)
        assert row.low_mm3 is None or 0 <= row.low_mm3 < row.high_mm3


def test_probabilities_sum_to_one(result):
    _, segmentation = result
    total = segmentation.probabilities.data.astype(int).sum(-1)
    assert abs(total - 255).max() < 40
    assert abs(total - 255).mean() < 3


def test_the_same_scan_gives_the_same_bits(result, predictor):
    scan, first = result
    second = segment_scan(scan, predictor, SegmentOptions())
    np.testing.assert_array_equal(first.labels.data, second.labels.data)


class _StandIn:
    """A network that answers by intensity and side, so that orientation and placement can be checked in a moment."""

    name, precision, threads, policy = "stand-in", "f32", 1, ""
    used: ClassVar[dict[int, str]] = {}

    def __call__(self, canvas: np.ndarray) -> np.ndarray:
        protocol = load_protocol("aseg")
        answer = np.zeros((len(protocol), *canvas.shape), dtype=np.uint8)
        bright = canvas > 0.4
        left = np.arange(canvas.shape[0])[:, None, None] < canvas.shape[0] / 2
        answer[0] = np.where(bright, 0, 255)
        answer[protocol.class_of(2)] = np.where(bright & left, 255, 0)
        answer[protocol.class_of(41)] = np.where(bright & ~left, 255, 0)
        return answer


def _turned(volume: Volume, axes: tuple[int, ...], flips: tuple[bool, ...]) -> Volume:
    """The same image stored with its axes permuted and flipped."""
    data, affine = volume.data.transpose(axes), volume.affine.copy()
    affine[:3, :3] = affine[:3, :3][:, axes]
    for axis, flip in enumerate(flips):
        if flip:
            affine[:3, 3] += affine[:3, axis] * (data.shape[axis] - 1)
            affine[:3, axis] *= -1
            data = np.flip(data, axis)
    return Volume(np.ascontiguousarray(data), affine)


def test_all_48_orientations_give_the_same_labels(predictor, monkeypatch):
    monkeypatch.setattr(predictor, "engine", _StandIn())
    rng = np.random.default_rng(0)
    data = np.zeros((44, 52, 48), dtype=np.float32)
    data[8:36, 8:44, 8:40] = 100 + rng.normal(0, 1, (28, 36, 32))
    data[8:12, 8:16, 30:40] = 0
    upright = Volume(data, np.array([[3.0, 0, 0, -60], [0, 3.5, 0, -80], [0, 0, 4.0, -70], [0, 0, 0, 1]]))
    expected, _ = canonical(segment_scan(scan_of(upright), predictor, SegmentOptions()).labels)
    assert set(np.unique(expected.data)) == {0, 2, 41}
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((False, True), repeat=3):
            turned = _turned(upright, axes, flips)
            labels = segment_scan(scan_of(turned), predictor, SegmentOptions()).labels
            assert labels.shape == turned.shape
            np.testing.assert_array_equal(labels.affine, turned.affine)
            back = closest_orientation(turned.affine).to_canonical(labels.data)
            np.testing.assert_array_equal(back, expected.data)


def test_lesions_are_labelled_and_leave_all_volumes(template, predictor, tmp_path, result):
    scan, before = result
    mask = np.zeros(scan.volume.shape, dtype=np.uint8)
    inside = np.argwhere(before.labels.data == 2)
    i, j, k = inside[len(inside) // 2]
    mask[i - 4 : i + 4, j - 4 : j + 4, k - 4 : k + 4] = 1
    write_labels(tmp_path / "lesion.nii.gz", mask, scan)
    after = segment_scan(scan, predictor, SegmentOptions(lesion_mask=tmp_path / "lesion.nii.gz"))
    assert (after.labels.data[mask > 0] == segmenter.LESION_ID).all()
    assert not after.tissue.data[mask > 0].any()
    volumes = {row.name: row for row in after.volumes}
    assert volumes["Lesion"].mm3 == pytest.approx(512 * 8)
    total = sum(row.mm3_labels for row in after.volumes if row.id and row.name != "Lesion")
    counted = (after.labels.data > 0).sum() - 512
    assert total == pytest.approx(counted * 8)


def test_a_lesion_mask_on_another_grid_is_resampled_with_a_note(predictor, tmp_path, result):
    scan, _ = result
    coarse = Volume(np.zeros((40, 48, 40), dtype=np.uint8), np.diag([5.0, 5.0, 5.0, 1.0]) + 0.0)
    coarse.affine[:3, 3] = (-98, -134, -72)
    coarse.data[20:22, 24:26, 20:22] = 1
    write_labels(tmp_path / "lesion.nii.gz", coarse.data, scan_of(coarse))
    after = segment_scan(scan, predictor, SegmentOptions(lesion_mask=tmp_path / "lesion.nii.gz"))
    assert any("another grid" in note for note in after.notes)
    assert (after.labels.data == segmenter.LESION_ID).sum() * 8 == pytest.approx(8 * 125, rel=0.5)


def test_a_lesion_mask_with_slightly_other_voxels_is_resampled(result, tmp_path):
    scan, _ = result
    affine = scan.volume.affine @ np.diag([1.0004, 1.0004, 1.0004, 1])  # 0.15 mm at the farthest corner
    mask = Volume(np.pad(np.ones((1, 1, 1), np.uint8), [(0, n - 1) for n in scan.volume.shape]), affine)
    write_labels(tmp_path / "lesion.nii.gz", mask.data, scan_of(mask))
    notes = []
    segmenter._lesion(SegmentOptions(lesion_mask=tmp_path / "lesion.nii.gz"), scan, notes)
    assert any("another grid" in note for note in notes)


@pytest.mark.parametrize("rim", [0, 10])
def test_a_lesion_mask_that_leaves_no_brain_is_refused_by_name(predictor, result, tmp_path, rim):
    scan, _ = result
    inner = np.ones([n - 2 * rim for n in scan.volume.shape], dtype=np.uint8)
    write_labels(tmp_path / "brain.nii.gz", np.pad(inner, rim), scan)
    with pytest.raises(SpansegError, match=r"brain.nii.gz: this lesion mask covers \d+% of the scan \(\d.\d litres"):
        segment_scan(scan, predictor, SegmentOptions(lesion_mask=tmp_path / "brain.nii.gz"))


def test_facts_change_nothing_and_that_is_said(predictor, result):
    scan, before = result
    after = segment_scan(scan, predictor, SegmentOptions(facts=Facts(age_years=72.0, sex="female")))
    np.testing.assert_array_equal(before.labels.data, after.labels.data)
    assert any("not told" in note for note in after.notes)


def test_too_little_memory_is_refused_before_loading():
    with pytest.raises(SpansegError, match="MiB"):
        load_model(SegmentOptions(max_memory_bytes=10 * 2**20))


def test_memory_for_the_scan_itself_counts_too(predictor, result):
    scan, _ = result
    just_the_canvas = SegmentOptions(max_memory_bytes=peak_bytes(predictor.folder) + 2**20)
    with pytest.raises(SpansegError, match="a scan of 99 × 117 × 95 voxels needs"):
        segment_scan(scan, predictor, just_the_canvas)


def test_every_volume_has_a_name_of_its_own(result):
    names = [row.name for row in result[1].volumes]  # a table with one column a name holds them all
    assert len(names) == len(set(names))


def test_unknown_model_and_device_are_refused():
    for name in ("nowhere", "no/where"):
        with pytest.raises(SpansegError, match=rf"there is no model .{name}.: shipped are click, default"):
            load_model(SegmentOptions(model=name))
    with pytest.raises(SpansegError, match="cpu or cuda"):
        load_model(SegmentOptions(device="tpu"))


_SCRIPT = """
import sys
from spanseg.cli.main import main
try:
    main(["segment", sys.argv[1], "-o", sys.argv[2], "--brain", "--threads", "1"])
except SystemExit as stop:
    assert not {"torch", "openvino_telemetry.main", "matplotlib"} & set(sys.modules)
    sys.exit(stop.code)
"""


def test_segmenting_needs_no_torch_no_network_and_writes_only_to_its_folder(template, tmp_path):
    home, out = tmp_path / "home", tmp_path / "out"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "TMPDIR": str(home), "XDG_CACHE_HOME": str(home)}
    command = [sys.executable, "-c", _SCRIPT, str(template), str(out)]
    if not shutil.which("strace"):
        subprocess.run(command, check=True, env=environment)
        assert list(home.rglob("*")) == []
        pytest.skip("strace is not installed: no torch and no file were checked, network calls were not")
    trace = tmp_path / "trace"
    calls = ["strace", "-f", "-qq", "-e", "trace=network,creat,openat", "-o", str(trace)]
    subprocess.run([*calls, *command], check=True, env=environment)
    assert list(home.rglob("*")) == []
    lines = trace.read_text(errors="replace").splitlines()
    assert lines
    sockets = [line for line in lines if "socket(" in line and "AF_UNIX" not in line]
    assert sockets == []
    written = [
        line for line in lines if "openat(" in line and ("O_WRONLY" in line or "O_RDWR" in line or "O_CREAT" in line)
    ]
    assert any(str(out) in line for line in written)
    allowed = ("/dev/", "/proc/", "__pycache__", str(out))
    assert [line for line in written if not any(part in line for part in allowed) and " = -1 " not in line] == []


def test_importing_the_package_is_light():
    code = "import sys, spanseg; assert not {'numpy', 'scipy', 'nibabel', 'openvino', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert callable(spanseg.segment)
