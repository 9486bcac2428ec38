"""The report of one scan: what it shows, what it must never show, and that left is left."""

import base64
import dataclasses
import io
import itertools
import re

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

import results
from spanseg import report_pictures
from spanseg.labels import load_protocol
from spanseg.report import render_report
from spanseg.report_pictures import PLANES, brain_slices, contour_colours
from spanseg.volume import Orientation, Volume

LABELS = results.ball_labels()
SCAN = results.scan_like(LABELS)
RESULT = results.result_of(LABELS)
ORIENTATIONS = [  # each order of the axes, all with different flips
    Orientation((axes[0], axes[1], axes[2]), (flips[0], flips[1], flips[2]))
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
][::5]


def grey(one):
    return np.asarray(Image.open(io.BytesIO(one.scan_jpeg)).convert("L")).astype(float)


def whole(slices, plane):
    return [one for one in slices if one.plane == plane and not one.close_up]


def case(voxel_mm, affine=None):
    labels = results.ball_labels(voxel_mm)
    if affine is not None:
        labels = Volume(labels.data, affine @ labels.affine)
    return results.scan_like(labels), results.result_of(labels)


def rotation(degrees):
    angle = np.deg2rad(degrees)
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


@pytest.mark.parametrize(
    ("voxel_mm", "affine"),
    [((3, 3, 3), None), ((1.9, 1.9, 1.9), None), ((3, 3, 6), None), ((0.9, 3, 4), None), ((3, 3, 3), rotation(25))],
)
def test_nothing_beyond_ten_millimetres_of_the_mask_is_shown(voxel_mm, affine, monkeypatch):
    monkeypatch.setattr(report_pictures, "SLICES", 3)
    scan, result = case(voxel_mm, affine)
    away_mm = ndimage.distance_transform_edt(result.mask.data == 0, sampling=voxel_mm)
    face = np.random.default_rng(3).uniform(500, 5000, scan.volume.shape).astype(np.float32)
    with_face = dataclasses.replace(scan, volume=scan.volume.with_data(np.where(away_mm > 10, face, scan.volume.data)))
    assert brain_slices(with_face, result) == brain_slices(scan, result)
    near = dataclasses.replace(scan, volume=scan.volume.with_data(np.where(away_mm > 5, face, scan.volume.data)))
    assert brain_slices(near, result) != brain_slices(scan, result)


def test_a_mask_that_reaches_into_the_face_opens_no_window_there():
    i, _, k = LABELS.shape
    leak = np.zeros(LABELS.shape, bool)
    leak[i // 2 - 2 : i // 2 + 2, :, k // 2 - 2 : k // 2 + 2] = True  # a bar from the brain to both ends of the image
    mask = RESULT.mask.with_data(np.maximum(RESULT.mask.data, leak.astype(np.uint8)))
    result = dataclasses.replace(RESULT, mask=mask)
    away_mm = ndimage.distance_transform_edt(RESULT.mask.data == 0, sampling=SCAN.volume.voxel_size_mm)
    faces = [
        SCAN.volume.with_data(np.where(away_mm > 21, value, SCAN.volume.data).astype(np.float32)) for value in (0, 900)
    ]
    one, other = (brain_slices(dataclasses.replace(SCAN, volume=face), result) for face in faces)
    assert one == other


def test_the_skull_next_to_the_brain_is_shown():
    bright = np.where(LABELS.data == 2, 0, 100).astype(np.float32)
    scan = dataclasses.replace(SCAN, volume=SCAN.volume.with_data(bright))
    picture = grey(whole(brain_slices(scan, RESULT), "axial")[4])
    across_mm = np.ptp(np.flatnonzero((picture > 40).any(axis=0))) / 2
    assert 2 * 71 + 2 * 5 < across_mm <= 2 * 71 + 2 * 10 + 3  # a voxel of 3 mm shows half of itself on either side


def test_orientations_give_the_same_pictures(monkeypatch):
    monkeypatch.setattr(report_pictures, "SLICES", 2)
    expected = brain_slices(SCAN, RESULT)
    for orientation in ORIENTATIONS:
        volumes = {name: results.turned(getattr(RESULT, name), orientation) for name in ("labels", "tissue", "mask")}
        scan = dataclasses.replace(SCAN, volume=results.turned(SCAN.volume, orientation))
        assert brain_slices(scan, dataclasses.replace(RESULT, **volumes)) == expected, orientation


@pytest.mark.parametrize(
    ("axis", "plane", "first", "last"),
    [(0, "axial", "L", "R"), (0, "coronal", "L", "R"), (1, "sagittal", "P", "A")],
)
def test_letters_stand_where_they_should(axis, plane, first, last):
    """The half that lies left or at the back is black; so is the side of the picture with the letter L or P."""
    marked = np.moveaxis(SCAN.volume.data.copy(), axis, 0)
    marked[: marked.shape[0] // 2] = 0
    flipped = results.turned(SCAN.volume.with_data(np.moveaxis(marked, 0, axis)), ORIENTATIONS[7])
    volumes = {name: results.turned(getattr(RESULT, name), ORIENTATIONS[7]) for name in ("labels", "tissue", "mask")}
    scan, result = dataclasses.replace(SCAN, volume=flipped), dataclasses.replace(RESULT, **volumes)
    picture = grey(whole(brain_slices(scan, result), plane)[4])
    middle = picture.shape[1] // 2
    assert picture[:, : middle - 12].mean() < 0.1 * picture[:, middle + 12 :].mean()
    figures = re.findall(rf'<svg role="img" aria-label="{plane} slice.*?</svg>', render_report(scan, result))
    assert len(figures) >= 16
    for figure in figures:
        letters = re.findall(r'<text x="(\d+)"[^>]*>([A-Z])</text>', figure)
        assert [letter for _, letter in sorted(letters, key=lambda item: int(item[0]))] == [first, last]


def test_the_top_of_the_head_is_at_the_top():
    marked = SCAN.volume.data.copy()
    marked[:, :, : marked.shape[2] // 2] = 0
    picture = grey(
        whole(brain_slices(dataclasses.replace(SCAN, volume=SCAN.volume.with_data(marked)), RESULT), "coronal")[4]
    )
    middle = picture.shape[0] // 2
    assert picture[middle + 12 :].mean() < 0.1 * picture[: middle - 12].mean()


@pytest.mark.parametrize("voxel_mm", [(2, 2, 6), (4, 2, 2)])
def test_a_ball_stays_round_with_long_voxels(voxel_mm):
    scan, result = case(voxel_mm)
    for plane in PLANES:
        contour = np.asarray(Image.open(io.BytesIO(whole(brain_slices(scan, result), plane)[4].contours_png)))
        rows, columns = np.nonzero(contour)
        assert np.ptp(rows) / 2 == pytest.approx(142, abs=8)
        assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=16)


def test_slices_go_through_the_whole_brain_in_order():
    slices = brain_slices(SCAN, RESULT)
    for plane in PLANES:
        positions = [one.position_mm for one in whole(slices, plane)]
        assert len(positions) == 8
        assert positions == sorted(positions)
        assert positions[0] == pytest.approx(-52, abs=4)
        assert positions[-1] == pytest.approx(52, abs=4)


def test_contours_are_thin_lines_in_the_colours_of_the_legend():
    picture = Image.open(io.BytesIO(whole(brain_slices(SCAN, RESULT), "axial")[4].contours_png)).convert("RGBA")
    pixels = np.asarray(picture).reshape(-1, 4)
    drawn = pixels[pixels[:, 3] > 0][:, :3]
    assert 0.005 < len(drawn) / len(pixels) < 0.1
    colours = contour_colours(RESULT)
    shown = {tuple(int(value) for value in colour) for colour in np.unique(drawn, axis=0)}
    assert shown == {colours[2], colours[3], colours[10], report_pictures.MASK_COLOUR}


def test_a_lesion_is_outlined_and_named():
    labels = LABELS.data.copy()
    labels[40:48, 40:48, 36:44] = 25
    rows = (*RESULT.volumes, dataclasses.replace(RESULT.volumes[0], id=25, name="Lesion", mm3=5e3, mm3_labels=5e3))
    result = dataclasses.replace(RESULT, labels=LABELS.with_data(labels), volumes=rows)
    shown = set()
    for one in brain_slices(SCAN, result):
        shown |= {colour for _, colour in Image.open(io.BytesIO(one.contours_png)).convert("RGB").getcolors(1 << 20)}
    assert report_pictures.OTHER_COLOUR in shown
    assert "Lesion</li>" in render_report(SCAN, result)


def test_pictures_stay_handy_when_the_header_lies_about_the_size():
    scan, result = case((3, 3, 3), np.diag([2.5, 2.5, 2.5, 1.0]))
    for one in brain_slices(scan, result):
        assert 0 < max(one.size) <= 900


def test_the_page_is_one_file_with_pictures_that_decode():
    page = render_report(SCAN, RESULT)
    pictures = re.findall(r'<image [^>]*width="(\d+)" height="(\d+)" href="data:image/(jpeg|png);base64,([^"]+)"', page)
    assert len(pictures) == 2 * 4 * 8
    for width, height, form, data in pictures:
        picture = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        picture.load()
        assert (picture.size, picture.format) == ((int(width), int(height)), form.upper())
    assert page.count("data:") == len(pictures) + 1  # and the policy that allows them
    assert "http://" not in page
    assert "https://" not in page
    assert "<script" not in page
    assert all(f'id="{target}"' in page for target in re.findall(r'<use href="#([^"]+)"', page))
    assert len(page.encode()) < 2_000_000
    assert render_report(SCAN, RESULT) == page


def test_everything_from_outside_is_escaped():
    bad = "<img src=x onerror=alert(1)>&\"'"
    details = {"name": bad, "model": bad, bad: {bad: [bad, 1.5]}}
    rows = (*RESULT.volumes, dataclasses.replace(RESULT.volumes[-1], name=bad, mm3=None, note=bad))
    scan = dataclasses.replace(SCAN, notes=(bad,), warnings=(bad,), sha256=bad)
    page = render_report(
        scan, dataclasses.replace(RESULT, details=details, volumes=rows, notes=(bad,), warnings=(bad,))
    )
    assert "<img" not in page
    assert page.count("&lt;img src=x onerror=alert(1)&gt;&amp;&quot;&#x27;") >= 8
    assert "<title>Brain segmentation: &lt;img" in page


def test_the_title_names_the_scan_only_when_told():
    assert "<h1>Brain segmentation</h1>" in render_report(SCAN, RESULT)
    named = dataclasses.replace(RESULT, details={**RESULT.details, "name": "sub-01_T1w"})
    assert "<h1>Brain segmentation: sub-01_T1w</h1>" in render_report(SCAN, named)


def test_the_title_says_so_if_minilm_read_the_sentences():
    made_by = {"name": "sub-01", "model_title": "KGPL (sentences read by MiniLM)"}
    page = render_report(SCAN, dataclasses.replace(RESULT, details=RESULT.details | made_by))
    assert "<title>Brain segmentation: sub-01 (sentences read by MiniLM)</title>" in page
    assert "<h1>Brain segmentation: sub-01 (sentences read by MiniLM)</h1>" in page
    plain = RESULT.details | made_by | {"model_title": "spanseg default"}
    assert "MiniLM" not in render_report(SCAN, dataclasses.replace(RESULT, details=plain))


def test_tables_hold_the_numbers_and_the_reason_for_a_missing_one():
    result = results.with_volume(RESULT, "Left-Caudate", mm3=3300.0)
    result = results.with_volume(result, "Right-Caudate", mm3=2700.0)
    result = results.with_volume(result, "IntraCranialVol", mm3=None, mm3_labels=None, note="it is skull-stripped")
    page = render_report(SCAN, result)
    assert "<td>Caudate</td><td>3\u202f300</td><td>2\u202f700</td><td>+20.0</td>" in page
    assert "<td>Total intracranial volume</td><td>n/a</td><td>n/a</td><td>it is skull-stripped</td>" in page
    assert "Nothing unusual was noticed" in page, "what a scan does not hold needs no look"


@pytest.mark.parametrize("score", [None, {"score": 0.9, "reasons": []}])
def test_a_result_without_a_score_does_not_look_like_a_good_one(score):
    page = render_report(SCAN, dataclasses.replace(RESULT, details=RESULT.details | {"quality": score}))
    assert ("noticed automatically, but the result has no quality score. Look" in page) is (score is None)
    assert ("noticed automatically. Look" in page) is (score is not None)


def test_volumes_are_shown_with_their_intervals():
    assert "In brackets" not in render_report(SCAN, RESULT)
    page = render_report(SCAN, results.with_volume(RESULT, "Left-Caudate", mm3=3300.0, low_mm3=2900.4, high_mm3=3600.0))
    assert '<td>3\u202f300 <span class="quiet">[2\u202f900, 3\u202f600]</span></td>' in page
    assert "In brackets the interval for the true volume" in page


def test_islands_that_were_given_away_are_a_repair():
    assert "<p>Nothing.</p>" in render_report(SCAN, RESULT)
    page = render_report(SCAN, dataclasses.replace(RESULT, details=RESULT.details | {"relabelled_voxels": 12}))
    assert "<p>Nothing.</p>" not in page and "what surrounds them: 12 voxels." in page


def test_notes_details_and_the_disclaimer_are_shown():
    scan = dataclasses.replace(SCAN, notes=("The sform was used.",))
    page = render_report(scan, dataclasses.replace(RESULT, notes=("The sform was used.", "Shear was removed.")))
    assert page.count("The sform was used.") == 1
    assert "Shear was removed." in page
    assert "network 2.5" in page
    assert scan.sha256 in page
    assert "Not a medical device; for research." in page
    assert "Nothing unusual was noticed" in page


def test_bars_point_to_the_larger_side():
    page = render_report(SCAN, results.with_volume(RESULT, "Left-Caudate", mm3=3900.0))
    bar = re.search(r'>Caudate</text><rect x="([\d.]+)" y="\d+" width="([\d.]+)"', page)
    assert float(bar[1]) + float(bar[2]) == pytest.approx(330, abs=0.2)  # ends at the middle: to the left
    assert float(bar[2]) > 10


def test_no_brain_no_pictures():
    empty = results.result_of(LABELS.with_data(np.zeros_like(LABELS.data)))
    page = render_report(SCAN, empty)
    assert "<image" not in page
    assert page.count("No brain was found") == 3


def test_a_real_scan(shared_data):
    packed = np.load(shared_data / "voxelmorph" / "test_scan.npz")
    affine = np.array([[-1.0, 0, 0, 80], [0, 0, 1, -110], [0, -1, 0, 96], [0, 0, 0, 1]])
    ids = np.zeros(256, np.int32)
    known = [structure.id for structure in load_protocol("aseg").structures]
    ids[known] = known
    labels = Volume(ids[packed["seg"].astype(np.uint8)], affine)
    scan = dataclasses.replace(SCAN, volume=labels.with_data(packed["vol"].astype(np.float32)))
    page = render_report(scan, results.result_of(labels))
    assert "Nothing unusual was noticed" in page
    assert len(page) < 2_000_000
