"""Quality flags fire when they should, and only then."""

import dataclasses

import numpy as np
import pytest

import results
from spanseg.flags import LIMITS, MOST_DOUBTFUL, quality_flags, with_flags
from spanseg.labels import load_protocol
from spanseg.plain_names import plain_name
from spanseg.volume import Volume

LABELS = results.ball_labels()
SCAN = results.scan_like(LABELS)
RESULT = results.result_of(LABELS)


def only_flag(scan, result):
    flags = quality_flags(scan, result)
    assert len(flags) == 1, flags
    return flags[0]


def test_a_plausible_result_has_no_flag():
    assert quality_flags(SCAN, RESULT) == []


def test_warnings_are_carried_over_once():
    scan = dataclasses.replace(SCAN, warnings=("left and right are not certain.",))
    result = dataclasses.replace(RESULT, warnings=("left and right are not certain.", "touches the border."))
    assert quality_flags(scan, result) == ["left and right are not certain.", "touches the border."]


def test_no_brain():
    empty = results.result_of(LABELS.with_data(np.zeros_like(LABELS.data)))
    assert only_flag(SCAN, empty) == "No brain was found in this scan."


@pytest.mark.parametrize(("factor", "words"), [(0.6, "unless this is an infant"), (1.4, "header is wrong")])
def test_a_brain_of_the_wrong_size(factor, words):
    affine = LABELS.affine.copy()
    affine[:3] *= factor
    smaller = results.result_of(Volume(LABELS.data, affine))
    flag = next(one for one in quality_flags(results.scan_like(smaller.labels), smaller) if "ml, where" in one)
    assert words in flag
    assert ("infant" in flag) == (factor < 1)


@pytest.mark.parametrize(("axis", "keep", "edge"), [(2, slice(0, 50), "top"), (0, slice(30, None), "left")])
def test_a_brain_cut_by_the_edge_of_the_scan(axis, keep, edge):
    part = Volume(LABELS.data[(slice(None),) * axis + (keep,)], LABELS.affine)
    assert f"cuts off part of the brain ({edge})" in only_flag(results.scan_like(part), results.result_of(part))
    flipped = Volume(np.flip(part.data, axis), part.affine @ flip(axis, part.shape[axis]))
    assert f"({edge})" in only_flag(results.scan_like(flipped), results.result_of(flipped))


def flip(axis, length):
    matrix = np.eye(4)
    matrix[axis, axis], matrix[axis, 3] = -1, length - 1
    return matrix


def test_a_brain_cropped_to_its_bounding_box_is_not_cut():
    labels = results.ball_labels((1.5, 1.5, 1.5))
    brain = (labels.data > 0) & (labels.data != 24)
    box = tuple(slice(int(i.min()), int(i.max()) + 1) for i in np.nonzero(brain))
    stripped = Volume(np.where(brain, labels.data, 0)[box], labels.affine)
    assert quality_flags(results.scan_like(stripped), results.result_of(stripped)) == []


def test_missing_structures_are_named_and_closed_horns_are_not():
    result = RESULT
    for name in ("Left-Amygdala", "Right-Inf-Lat-Vent", "CSF"):
        result = results.with_volume(result, name, mm3=0.0, mm3_labels=0.0)
    flags = quality_flags(SCAN, result)
    assert "Not found in this scan: Left amygdala (0.00 ml)." in flags
    assert not any("ventricle" in flag or "CSF" in flag for flag in flags)


@pytest.mark.parametrize(("mm3", "words"), [(30e3, "Unusually large"), (50.0, "Unusually small")])
def test_implausible_volumes(mm3, words):
    result = results.with_volume(RESULT, "Left-Hippocampus", mm3=mm3, mm3_labels=mm3)
    flag = next(one for one in quality_flags(SCAN, result) if one.startswith(words))
    assert "Left hippocampus" in flag
    assert "Right" not in flag


@pytest.mark.parametrize(("factor", "fires"), [(0.75, False), (0.66, True), (1.3, False), (1.5, True)])
def test_asymmetry_of_the_hippocampus(factor, fires):
    result = results.with_volume(RESULT, "Left-Hippocampus", mm3=4080 * factor, mm3_labels=4000 * factor)
    flags = quality_flags(SCAN, result)
    assert any(flag.startswith("Hippocampus: the ") for flag in flags) == fires
    if fires:
        assert ("left side is larger" in flags[0]) == (factor > 1)


def test_a_network_that_is_unsure():
    result = results.with_volume(RESULT, "Left-Putamen", mm3=5000.0, mm3_labels=2000.0)
    assert only_flag(SCAN, result).startswith("The network is unsure")


def test_thick_slices():
    labels = results.ball_labels((2.0, 2.0, 5.0))
    flag = only_flag(results.scan_like(labels), results.result_of(labels))
    assert flag == "Voxels are up to 5.0 mm long: volumes of small structures are less certain."


def test_grey_and_white_matter_alike():
    rng = np.random.default_rng(2)
    inside = LABELS.data > 0
    image = np.where(inside, rng.normal(100, 8, LABELS.shape), 0).astype(np.float32)
    scan = dataclasses.replace(SCAN, volume=LABELS.with_data(image))
    assert "look alike" in only_flag(scan, RESULT)


def test_inverted_contrast():
    scan = dataclasses.replace(SCAN, volume=LABELS.with_data(np.where(LABELS.data > 0, 200 - SCAN.volume.data, 2)))
    assert "no adult T1-weighted scan" in only_flag(scan, RESULT)
    for name, is_told in (("default", True), ("wide", False)):
        result = dataclasses.replace(RESULT, details=RESULT.details | {"model": name})
        assert only_flag(scan, result).endswith("there is --model wide.") is is_told


def test_noise_is_flagged_and_an_offset_changes_nothing():
    noisy = results.scan_like(LABELS, noise=20.0)
    assert "very noisy" in only_flag(noisy, RESULT)
    moved = dataclasses.replace(SCAN, volume=LABELS.with_data(SCAN.volume.data * 0.01 - 40))
    assert quality_flags(moved, RESULT) == []


def test_a_volume_that_cannot_be_given_needs_no_look():
    result = results.with_volume(
        RESULT, "IntraCranialVol", mm3=None, mm3_labels=None, note="the scan is skull-stripped"
    )
    assert quality_flags(SCAN, result) == []


def test_a_plausible_result_gets_no_warning():
    flagged = with_flags(SCAN, dataclasses.replace(RESULT, warnings=("touches the border.",)))
    assert flagged.warnings == ("touches the border.",)
    assert flagged.details == RESULT.details | {"quality_flags": ["touches the border."]}


@pytest.mark.parametrize("change", [{"mm3_labels": 0.0}, {"mm3_labels": 9e3, "mm3": 20e3}, {"mm3": 1.0}])
def test_a_warning_where_too_many_structures_are_doubtful(change):
    names = ("Left-Amygdala", "Right-Caudate", "Right-Pallidum", "Left-Putamen", "Brain-Stem", "Left-Thalamus")
    assert len(names) == MOST_DOUBTFUL + 1
    result = RESULT
    for name in names[1:]:
        result = results.with_volume(result, name, **change)
    assert with_flags(SCAN, result).warnings == ()
    flagged = with_flags(SCAN, results.with_volume(result, names[0], **change))
    assert flagged.warnings[0].startswith("6 of 32 structures are missing, uncertain or of an unlikely size")
    assert flagged.details["quality_flags"][0] == flagged.warnings[0]


def test_a_warning_where_there_is_no_brain():
    empty = results.result_of(LABELS.with_data(np.zeros_like(LABELS.data)))
    assert with_flags(SCAN, empty).warnings == ("No brain was found in this scan.",)


def test_every_structure_but_free_csf_has_limits():
    names = {plain_name(structure.name) for structure in load_protocol("aseg").structures[1:]}
    assert names - set(LIMITS) == {"CSF outside the ventricles"}
    assert set(LIMITS) <= names
