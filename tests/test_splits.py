"""Splits: what a run trains on and is judged by, with hashes, and nobody on both sides."""

import dataclasses
import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from spanseg import splits
from spanseg.errors import SpansegError
from spanseg.files import file_sha256
from spanseg.generation import PackedMap
from spanseg.splits import Member

CLASSES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
HEAD = PackedMap("head", CLASSES, np.ones(3), np.ones(3))


def scan(folder: Path, name: str, content: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def member(name: str) -> Member:
    return Member("scan", name, name.encode().hex().ljust(64, "0"))


def test_a_scan_is_known_by_its_bytes_and_its_person(tmp_path: Path) -> None:
    paths = [scan(tmp_path / "a", "sub-01_T1w.nii", b"one"), scan(tmp_path / "b", "sub-02_ses-1_T1w.nii", b"one")]
    first, second = splits.scans_in(paths)
    assert (first.name, second.name) == ("sub-01", "sub-02")
    assert first.sha256 == second.sha256 == file_sha256(paths[0])


def test_a_scan_that_is_compressed_anew_is_the_same_scan(tmp_path: Path) -> None:
    packed = [scan(tmp_path, f"sub-0{level}.nii.gz", gzip.compress(b"one" * 99, level)) for level in (1, 9)]
    assert packed[0].read_bytes() != packed[1].read_bytes()
    plain = scan(tmp_path, "sub-03.nii", b"one" * 99)
    assert len({member.sha256 for member in splits.scans_in([*packed, plain])}) == 1
    whole = packed[0].read_bytes()
    for damaged in (whole[:-4], whole[:10] + b"\xff" * 4 + whole[14:]):
        broken = scan(tmp_path, "sub-04.nii.gz", damaged)
        assert splits.scans_in([broken])[0].sha256 == file_sha256(broken)


def test_a_map_is_known_by_its_voxels_whatever_its_name() -> None:
    (one,) = splits.maps_in([HEAD])
    (other,) = splits.maps_in([dataclasses.replace(HEAD, name="other")])
    (turned,) = splits.maps_in([dataclasses.replace(HEAD, classes=CLASSES.reshape(3, 2, 4))])
    assert one.sha256 == other.sha256 != turned.sha256


def test_the_record_is_sorted_and_its_hashes_are_what_the_run_has_seen(tmp_path: Path) -> None:
    people = [member(name) for name in ("sub-b", "sub-a", "sub-c")]
    splits.write(tmp_path, people, [member("sub-d")])
    record = json.loads((tmp_path / splits.NAME).read_text(encoding="utf-8"))
    assert [one["name"] for one in record["train"]] == ["sub-a", "sub-b", "sub-c"]
    assert record["held_out"] == [dataclasses.asdict(member("sub-d"))]
    assert splits.seen_by(tmp_path) == {one.sha256[:16] for one in people}
    assert [path.name for path in tmp_path.iterdir()] == [splits.NAME]


def test_what_the_start_has_seen_is_inherited_and_refused_as_a_test(tmp_path: Path) -> None:
    splits.write(tmp_path / "one", [member("sub-a")], [])
    splits.write(tmp_path / "two", [member("sub-b")], [], [tmp_path / "one"])
    splits.write(tmp_path / "three", [member("sub-c")], [member("sub-d")], [tmp_path / "two"])
    assert splits.seen_by(tmp_path / "three") == {member(f"sub-{one}").sha256[:16] for one in "abc"}
    for seen in ("sub-a", "sub-b", "sub-c"):
        with pytest.raises(SpansegError, match=f"{seen}: the model in .* was trained on this scan"):
            splits.require_unseen(tmp_path / "three", [member("sub-d"), member(seen)])
    with pytest.raises(SpansegError, match="sub-a: "):
        splits.write(tmp_path / "four", [], [member("sub-a")], [tmp_path / "three"])
    assert not (tmp_path / "four").exists()


def test_a_run_that_goes_on_with_another_split_remembers_the_first(tmp_path: Path) -> None:
    splits.write(tmp_path, [member("sub-a")], [member("sub-b")])
    with pytest.raises(SpansegError, match="sub-a: "):
        splits.write(tmp_path, [member("sub-b")], [member("sub-a")])
    splits.write(tmp_path, [member("sub-c")], [member("sub-b")])
    assert splits.seen_by(tmp_path) == {member(name).sha256[:16] for name in ("sub-a", "sub-c")}


def test_one_scan_on_both_sides_is_refused(tmp_path: Path) -> None:
    copy = dataclasses.replace(member("sub-a"), name="sub-copy")
    with pytest.raises(SpansegError, match="the scan sub-copy is held out and trained on too"):
        splits.write(tmp_path, [member("sub-a")], [copy])


def test_a_model_folder_tells_in_its_table_and_one_without_a_record_nothing(tmp_path: Path) -> None:
    assert splits.seen_by(tmp_path) == frozenset()
    (tmp_path / "model.toml").write_text('[model]\nname = "x"\ndata = "scans"\n', encoding="utf-8")
    assert splits.seen_by(tmp_path) == frozenset()
    table = f'[data]\nseen = ["{member("sub-a").sha256[:16]}"]\n'
    (tmp_path / "model.toml").write_text(table, encoding="utf-8")
    with pytest.raises(SpansegError, match="sub-a: "):
        splits.require_unseen(tmp_path, [member("sub-a")])


@pytest.mark.parametrize("content", ["{", "[]", '{"train": 3}', '{"train": [{}], "earlier": []}'])
def test_a_damaged_record_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / splits.NAME).write_text(content, encoding="utf-8")
    with pytest.raises(SpansegError, match="cannot be read"):
        splits.seen_by(tmp_path)
