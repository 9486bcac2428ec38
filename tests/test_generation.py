"""Generation classes agree with the protocol, and packing a label map loses neither place nor side."""

import numpy as np
import pytest

import tiny
from spanseg.errors import SpansegError
from spanseg.generation import BELOW, load_classes, pack
from spanseg.labels import UNKNOWN, load_protocol
from spanseg.volume import Volume

ASEG = load_protocol("aseg")
TABLE = load_classes(ASEG)


def test_mirroring_agrees_with_the_protocol() -> None:
    np.testing.assert_array_equal(TABLE.mirror[TABLE.mirror], np.arange(len(TABLE.ids)))
    mirrored = np.append(ASEG.mirrored_classes, UNKNOWN)  # the last entry serves UNKNOWN, which is -1
    np.testing.assert_array_equal(TABLE.target[TABLE.mirror], mirrored[TABLE.target])
    np.testing.assert_array_equal(TABLE.t1[TABLE.mirror], TABLE.t1)


def test_every_structure_can_be_drawn() -> None:
    assert set(TABLE.target.tolist()) - {UNKNOWN} == set(range(len(ASEG)))
    assert len(set(TABLE.ids.tolist())) == len(TABLE.ids)


def test_head_air_and_deep_csf_are_background() -> None:
    for index, kind in enumerate(TABLE.kind):
        is_background = kind in ("head", "air") or index == BELOW
        assert (TABLE.target[index] == 0) == is_background, TABLE.ids[index]
    assert not TABLE.brain[TABLE.csf].any() and TABLE.csf.sum() == 1


def test_pack_keeps_every_label_in_its_place(tiny_labels: Volume) -> None:
    packed = pack(tiny_labels, TABLE, "tiny")
    inside = np.argwhere(tiny_labels.data)
    cropped = tiny_labels.data[tuple(slice(a, b + 1) for a, b in zip(inside.min(0), inside.max(0), strict=True))]
    drawn = TABLE.ids[packed.classes]
    np.testing.assert_array_equal(np.where(drawn == -1, 24, drawn), cropped)
    np.testing.assert_array_equal(packed.voxel_mm, [4, 4, 4])


def test_pack_turns_any_orientation_to_the_same_map(tiny_labels: Volume) -> None:
    turn = np.array([[0, -1, 0, 47], [0, 0, -1, 55], [1, 0, 0, 0], [0, 0, 0, 1.0]])  # new (i, j, k) to old
    data = np.flip(tiny_labels.data, (0, 1)).transpose(2, 0, 1)
    turned = Volume(data, tiny_labels.affine @ turn)
    first, second = pack(tiny_labels, TABLE, "a"), pack(turned, TABLE, "b")
    np.testing.assert_array_equal(first.classes, second.classes)
    np.testing.assert_allclose(first.centre, second.centre)


def test_csf_far_below_the_brain_is_drawn_but_not_a_target(tiny_labels: Volume) -> None:
    packed = pack(tiny_labels, TABLE, "tiny")
    lowest = np.flatnonzero(TABLE.brain[packed.classes].any(axis=(0, 1)))[0]
    deep = packed.classes == BELOW
    assert deep.any() and deep.nonzero()[2].max() == lowest - 3 - 1  # 10 mm are two and a half voxels
    csf = np.flatnonzero(TABLE.csf)[0]
    assert not (packed.classes[:, :, : lowest - 3] == csf).any()


def test_ids_that_cannot_be_drawn_are_named(tiny_labels: Volume) -> None:
    strange = tiny_labels.data.copy()
    strange[0, 0, :2] = (7777, 8888)
    with pytest.raises(SpansegError, match=r"sub-01: .*\[7777, 8888\]"):
        pack(tiny_labels.with_data(strange), TABLE, "sub-01")


def test_a_map_without_brain_is_refused() -> None:
    with pytest.raises(SpansegError, match="no brain structure"):
        pack(Volume(np.full((4, 4, 4), 516), np.eye(4)), TABLE, "sub-01")


def test_maps_with_left_ids_on_both_sides_get_sides() -> None:
    table = load_classes(load_protocol("aseg"))
    whole = tiny.label_map()
    right_to_left = {42: 3, 41: 2, 49: 10, 50: 11, 51: 12, 53: 17, 43: 4, 47: 8}
    one_sided = whole.copy()
    for right, left in right_to_left.items():
        one_sided[whole == right] = left
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    expected = pack(Volume(whole, affine), table, "both").classes
    got = pack(Volume(one_sided, affine), table, "left ids").classes
    assert (got == expected).mean() > 0.999
