"""Where the network looks: brains of any length, windows, and the way back to the scan; with a network by intensity."""

import copy
import re
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

from spanseg.errors import SpansegError
from spanseg.images import Scan, scan_of
from spanseg.intervals import Intervals
from spanseg.labels import load_protocol
from spanseg.passes import Looking, field_bytes, field_shape, find_brain
from spanseg.result import Segmentation
from spanseg.runtime import ModelFolder, peak_bytes
from spanseg.segmenter import Predictor, SegmentOptions, load_model, segment_scan
from spanseg.volume import Volume

WHITE = 2
"""Left white matter, which the brain below is all made of."""


class _ByIntensity:
    """A network that calls white matter what is bright, and remembers the shapes that it saw."""

    name, precision, threads, policy = "by intensity", "f32", 1, ""
    used: ClassVar[dict[int, str]] = {}

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, canvas: np.ndarray) -> np.ndarray:
        self.shapes.append(canvas.shape)
        protocol = load_protocol("aseg")
        answer = np.zeros((len(protocol), *canvas.shape), dtype=np.uint8)
        answer[protocol.class_of(WHITE)] = np.rint(255 * np.clip(canvas, 0, 1))
        answer[0] = 255 - answer[protocol.class_of(WHITE)]
        return answer


@pytest.fixture(scope="module")
def loaded() -> Predictor:
    return load_model(SegmentOptions(precision="f32", threads=1))


@pytest.fixture
def network(loaded: Predictor) -> Callable[..., Any]:
    """Makes models with a canvas of 4 mm voxels, 192 mm long unless another number of voxels is given."""

    def made(edge: int = 48, **canvas: object) -> Predictor:
        model = copy.copy(loaded)
        shape = {"shape": [edge] * 3, "voxel_mm": 4.0, **canvas}
        model.folder = ModelFolder(loaded.folder.path, loaded.folder.table | {"canvas": shape})
        model.engine = _ByIntensity()
        return model

    return made


def _scan(length_mm: int, shift_mm: int = 0) -> Volume:
    """A stripped brain of 120 × length × 112 mm with voxels of 4 mm, in a scan that leaves room round it."""
    shape = (48, 96, 48)
    data = np.zeros(shape, dtype=np.float32)
    half = length_mm // 8
    middle = 48 + shift_mm // 4
    data[9:39, middle - half : middle - half + length_mm // 4, 10:38] = 100
    return Volume(data, np.diag([4.0, 4.0, 4.0, 1.0]))


def _segment(length_mm: int, model: Predictor) -> tuple[Scan, Segmentation]:
    scan = scan_of(_scan(length_mm))
    return scan, segment_scan(scan, model, SegmentOptions())


def _notes(result: Segmentation) -> list[str]:
    return [note for note in result.notes if "canvas" in note]


def _warnings(result: Segmentation) -> list[str]:
    return [warning for warning in result.warnings if "canvas" in warning]


@pytest.mark.parametrize("length_mm", [100, 172, 184])
def test_a_brain_that_fits_is_looked_at_once_at_the_models_own_size(length_mm, network):
    model = network()
    _, result = _segment(length_mm, model)
    assert len(model.engine.shapes) == 1
    assert result.details["canvas"]["voxel_mm"] == 4.0
    assert not _notes(result) and not _warnings(result)


@pytest.mark.parametrize(
    ("length_mm", "canvas", "passes"),
    [(188, {"edge": 96, "voxel_mm": 2.0}, 2), (208, {}, 3), (228, {}, 3)],
    ids=["longer than allowed", "longer than the canvas", "as long as can be helped"],
)
def test_a_longer_brain_is_scaled_to_fit_and_back(length_mm, canvas, passes, network):
    model = network(**canvas)
    scan, result = _segment(length_mm, model)
    said = re.fullmatch(
        r"The brain is (\d+)\.0 mm long, more than the model's canvas holds with its margin \(184\.0 mm\): "
        r"it was scaled by (\d+) % to fit\.",
        _notes(result)[0],
    )
    assert said is not None and not _warnings(result)
    seen_mm, percent = int(said[1]), int(said[2])
    assert abs(seen_mm - length_mm) < 5, "one voxel of the canvas"
    assert length_mm / 184 <= 1 + percent / 100 < length_mm / 184 + 0.03
    assert len(model.engine.shapes) == passes and set(model.engine.shapes) == {model.folder.canvas_shape}
    assert result.details["canvas"]["voxel_mm"] == pytest.approx(model.folder.voxel_mm * (1 + percent / 100))
    truth = scan.volume.data > 0
    found = result.labels.data == WHITE
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.98
    (volume,) = (row for row in result.volumes if row.id == WHITE)
    assert volume.mm3 == pytest.approx(truth.sum() * 64, rel=0.02)


def test_the_guess_may_be_off_and_the_brain_too_long_at_once(network):
    """Something bright far in front draws the guess away from the brain."""
    volume = _scan(204, shift_mm=-40)
    volume.data[9:39, 92:, 10:38] = 100
    found = find_brain(Looking(network(), volume))
    assert "second pass" in found.steps[1] and found.steps[-1].startswith("scaled pass")
    inside = found.view.placement.canvas_mm(1)
    ends = np.flatnonzero(volume.data[20, :80, 20])[[0, -1]] * 4.0
    assert inside[0] < ends[0] - 2 and ends[1] + 2 < inside[-1]


def test_a_brain_that_is_far_too_long_is_scaled_by_a_quarter_and_warned_about(network):
    _, result = _segment(300, network())
    assert result.details["canvas"]["voxel_mm"] == 5.0
    (note,) = _notes(result)
    assert "at least 240.0 mm" in note and "scaled by 25 %" in note
    assert "touches the border" in _warnings(result)[0]


def test_bright_spots_far_from_the_brain_do_not_make_it_longer(network):
    volume = _scan(160)
    volume.data[20:24, 25:27, 20:24] = 100
    found = find_brain(Looking(network(), volume))
    assert len(found.steps) == 1 and not found.notes


def test_windows_cover_a_brain_that_is_longer_than_one_of_them(network):
    windows = network(32, windows=True)
    assert field_shape(windows.folder) == (48, 48, 48)
    scan, expected = _segment(172, network())
    _, result = _segment(172, windows)
    assert set(windows.engine.shapes) == {(32, 32, 32)} and len(windows.engine.shapes) == 8
    assert result.details["canvas"]["shape"] == [48, 48, 48]
    np.testing.assert_array_equal(result.labels.data, expected.labels.data)
    assert (result.labels.data == WHITE).sum() == (scan.volume.data > 0).sum()


def test_memory_for_blending_counts(network):
    blending, answer = 2 * 33 * 48**3, 33 * 48**3
    model = network(32, windows=True)
    own = peak_bytes(model.folder)
    assert field_bytes(model.folder) == blending + answer
    assert field_bytes(model.folder, flip=True) == blending + 3 * answer
    with pytest.raises(SpansegError, match="a scan of 48 × 96 × 48 voxels needs"):
        segment_scan(scan_of(_scan(100)), model, SegmentOptions(max_memory_bytes=own + blending + answer))


def test_the_mirror_image_is_asked_about_with_the_sides_exchanged(network):
    """A network that knows left white matter alone finds both sides when it sees the mirror image too."""
    model = network()
    protocol = model.protocol
    left, right = protocol.class_of(2), protocol.class_of(41)

    def sees_the_first_half(canvas: np.ndarray) -> np.ndarray:
        answer = np.zeros((len(protocol), *canvas.shape), dtype=np.uint8)
        answer[left, :24] = 255 * (canvas[:24] > 0.5)
        answer[0] = 255 - answer[left]
        return answer

    sees_the_first_half.used = {}  # type: ignore[attr-defined]
    model.engine = sees_the_first_half
    image, middle_mm = _scan(160), np.array([94.0, 190.0, 94.0])
    plain, both = (
        looking.at(looking.around(middle_mm)).answer.probabilities
        for looking in (Looking(model, image), Looking(model, image, flip=True))
    )
    assert plain[left].any() and not plain[right].any()
    assert both[right, 24:].any() and not both[right, :24].any() and not both[left, 24:].any()
    np.testing.assert_array_equal(both[left], (plain[left].astype(int) + 1) // 2)


@pytest.mark.parametrize(("flip", "fitted"), [(True, True), (False, True), (True, False)])
def test_intervals_that_were_fitted_without_the_mirror_image_say_so(network, flip, fitted):
    model = network()
    model.intervals = Intervals({"Brain-Stem": (0.9, 1.1)} if fitted else {})
    notes = segment_scan(scan_of(_scan(160)), model, SegmentOptions(flip=flip)).notes
    assert any("fitted without the mirror image" in note for note in notes) is (flip and fitted)


class _DimToo(_ByIntensity):
    """Knows a brain by its place in the middle of the range, however dim it is; fat is brighter."""

    def __call__(self, canvas: np.ndarray) -> np.ndarray:
        return super().__call__(((canvas > 0.2) & (canvas < 0.96)).astype(np.float32))


def test_a_brain_that_is_dim_beside_its_fat_is_looked_at_again_in_a_clipped_scan(network):
    model = network()
    model.engine = _DimToo()
    scan = _scan(140)
    data = scan.data.copy()
    data[2:8, 20:60, 20:60] = 4 * data.max()
    bright = segment_scan(scan_of(scan.with_data(data)), model, SegmentOptions())
    assert [step for step in bright.details["steps"] if "clipped" in step] == [
        "clipped pass: the scan was clipped at 108"
    ]
    assert any("clipped" in note for note in bright.notes)
    usual = segment_scan(scan_of(scan), network(), SegmentOptions())
    assert not [note for note in usual.notes if "clipped" in note]
    assert (bright.labels.data != usual.labels.data).mean() < 0.01, "a face of the brain, half a voxel off"
