"""Generation classes agree with the protocol, and packing a label map loses neither place nor side."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

import tiny
from spanseg.errors import SpansegError
from spanseg.generation import BELOW, PackedMap, load_classes, load_packed, pack, read_maps, save_packed
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


def test_hidden_files_are_no_maps_and_all_formats_are(tmp_path: Path, tiny_labels: Volume) -> None:
    data = tiny_labels.data.astype(np.int32)
    nibabel.save(nibabel.MGHImage(data, tiny_labels.affine), tmp_path / "b.mgh")
    nibabel.save(nibabel.Nifti1Image(data, tiny_labels.affine), tmp_path / "a.nii.gz")
    (tmp_path / "._a.nii.gz").write_bytes(b"what macOS leaves")
    assert [packed.name for packed in read_maps(tmp_path, TABLE)] == ["a.nii.gz", "b.mgh"]


def test_packed_maps_are_whole_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, packed = tmp_path / "maps.npz", PackedMap("a", np.ones((2, 3, 4), np.uint8), np.ones(3), np.ones(3))
    save_packed([packed], path)
    assert [one.name for one in load_packed(path)] == ["a"]
    with pytest.raises(SpansegError, match=r"maps: packed label maps go into a file whose name ends in \.npz"):
        save_packed([packed], tmp_path / "maps")
    whole = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(np, "savez_compressed", lambda stream, **arrays: stream.write(whole[:100]) and 1 / 0)
        with pytest.raises(ZeroDivisionError):
            save_packed([packed], path)
    assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]


def test_what_is_no_packed_map_is_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "maps.npz"
    with pytest.raises(SpansegError, match=r"maps\.npz: there is no such file; expected label maps"):
        load_packed(path)
    save_packed([PackedMap("a", np.ones((9, 9, 9), np.uint8), np.ones(3), np.ones(3))], path)
    whole = path.read_bytes()
    np.savez(tmp_path / "other.npz", a=np.ones(3))
    np.save(tmp_path / "one.npy", np.ones(3))
    other = [(tmp_path / name).read_bytes() for name in ("other.npz", "one.npy")]
    for damaged in (b"", b"text", whole[: len(whole) // 2], whole.replace(whole[60:64], b"abcd"), *other):
        path.write_bytes(damaged)
        with pytest.raises(SpansegError, match=r"maps\.npz: expected .* --pack' wrote, found .*; pack them again"):
            load_packed(path)


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
