"""Real heads and brains: placement must not decide the result. Skipped where the development data are missing."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from spanseg.images import read_labels, read_scan, scan_of
from spanseg.labels import load_protocol
from spanseg.passes import Looking, find_brain
from spanseg.segmenter import SegmentOptions, load_model, segment_scan
from spanseg.volume import Volume, canonical

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the development data (../shared/data) are not here")
PROTOCOL = load_protocol("aseg")


@pytest.fixture(scope="module")
def predictor():
    return load_model(SegmentOptions(precision="f32"))


@pytest.fixture(scope="module")
def head():
    """A whole head at 2 mm, in canonical order, so that the moved versions below are quick."""
    image, _ = canonical(read_scan(DATA / "heads" / "Chris_T1.nii.gz").volume)
    factor = image.voxel_size_mm / 2.0
    affine = image.affine @ np.diag([*(1 / factor), 1.0])
    return Volume(ndimage.zoom(image.data, factor, order=1), affine)


def _dice(first: np.ndarray, second: np.ndarray, ids: list[int]) -> np.ndarray:
    both = [((first == i) & (second == i)).sum() for i in ids]
    return np.array([2 * b / max(1, (first == i).sum() + (second == i).sum()) for b, i in zip(both, ids, strict=True)])


def _labels(volume: Volume, predictor) -> np.ndarray:
    return segment_scan(scan_of(volume), predictor, SegmentOptions()).labels.data


def test_eighty_millimetres_of_neck_change_little(head, predictor):
    expected = _labels(head, predictor)
    neck = np.repeat(head.data[:, :, :1], 40, axis=2)
    affine = head.affine.copy()
    affine[:3, 3] -= affine[:3, 2] * 40
    got = _labels(Volume(np.concatenate([neck, head.data], axis=2), affine), predictor)
    assert not np.isin(got[:, :, :30], PROTOCOL.ids[1:]).any()
    assert _dice(got[:, :, 40:], expected, PROTOCOL.groups["nuclei"]).mean() > 0.9


def test_thirty_degrees_of_pitch_leave_the_nuclei_in_place(head, predictor):
    angle = np.deg2rad(30)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    middle = (np.array(head.shape) - 1) / 2
    data = ndimage.affine_transform(head.data, turn, middle - turn @ middle, order=1)
    expected = ndimage.affine_transform(_labels(head, predictor), turn, middle - turn @ middle, order=0)
    got = _labels(Volume(data, head.affine), predictor)
    assert _dice(got, expected, PROTOCOL.groups["nuclei"]).mean() > 0.8


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_moving_the_canvas_by_8_mm_changes_no_nucleus(predictor):
    """Every sixth person; the figure over all of them is in docs/experiments.md."""
    losses = canvas_shift_losses(predictor, every=6)
    assert losses.shape == (3, 12)
    assert np.abs(losses).max() < 0.02, losses.round(3)


def canvas_shift_losses(predictor, every: int) -> np.ndarray:
    """Mean change of each nucleus's Dice when the canvas moves by 8 mm, shape (axis, nucleus)."""
    nuclei = PROTOCOL.groups["nuclei"]
    scheme = PROTOCOL.crosswalk("neuromorphometrics")
    changes = []
    for person in sorted((DATA / "malc").glob("sub-*"))[::every]:
        image, orientation = canonical(read_scan(next(person.glob("anat/*_T1w.nii.gz"))).volume)
        truth = read_labels(next((DATA / "malc" / "derivatives").glob(f"*/{person.name}/anat/*dseg.nii.gz"))).volume
        classes = orientation.to_canonical(scheme.apply(truth.data, person.name))
        placement = find_brain(Looking(predictor, image)).view.placement
        scores = [_placed(image, predictor, placement.centre_mm + shift, classes) for shift in _SHIFTS]
        changes.append(np.array(scores[1:]) - scores[0])
    assert len(nuclei) == changes[0].shape[1]
    return np.mean(changes, axis=0)


_SHIFTS = 8.0 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])


def _placed(image: Volume, predictor, centre_mm: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Dice of each nucleus with the canvas at a given place and no second pass."""
    from spanseg.labelling import to_scan

    looking = Looking(predictor, image)
    view = looking.at(looking.around(centre_mm))
    found = to_scan(view.answer.probabilities, view.placement, keep=False).classes
    return _dice(found, truth, [PROTOCOL.class_of(i) for i in PROTOCOL.groups["nuclei"]])
