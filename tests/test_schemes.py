"""Label schemes: what a table says is what is scored, and nothing is mapped by guessing."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from spanseg.errors import SpansegError
from spanseg.labels import UNKNOWN, load_protocol
from spanseg.outputs import label_table
from spanseg.schemes import find_scheme, find_table, read_scheme
from spanseg.volume import Volume, canonical

ASEG = load_protocol("aseg")
REAL = {
    "neuromorphometrics": "malc/derivatives/*/sub-*/anat/*_dseg.nii.gz",
    "muse": "ixi/derivatives/*/sub-*/anat/*_dseg.nii.gz",
    "mindboggle": "mindboggle/derivatives/*/sub-*/anat/*_dseg.nii.gz",
    "freesurfer": "freesurfer/bert/mri/a*.mgz",
    "synthseg": "labelmaps/synthseg/*.nii.gz",
}
BRAINCOLOR = {*range(100, 208)} - {110, 111, 126, 127, 130, 131, 158, 159, 188, 189}
SEEN = {  # every id that occurs in the files of REAL, the ones of a few voxels in one file too
    "neuromorphometrics": {4, 11, 15, 23, *range(30, 53), *range(55, 67), 69, *range(71, 77)} - {33, 34} | BRAINCOLOR,
    "muse": {1, 4, 11, 23, 30, 31, 32, *range(35, 42), *range(46, 53), *range(55, 63), 69, 71, 72, 73, 75, 76}
    | {*range(81, 96)}
    | BRAINCOLOR,
    "mindboggle": {4, 5, 6, 7, *range(10, 19), 24, 26, 28, 30, 43, 44, 45, 46, *range(49, 55), 58, 60, 62, 72, 74, 85}
    | {91, 92, 630, 631, 632, *range(1002, 1036), *range(2002, 2036)} - {1004, 2004},
    "freesurfer": {2, 3, 4, 5, 7, 8, *range(10, 19), 24, 26, 28, 30, 31, *range(41, 45), 46, 47, *range(49, 55), 58, 60}
    | {62, 63, 77, 85, *range(251, 256), *range(1000, 1036), *range(2000, 2036)} - {1004, 2004},
    "synthseg": {2, 3, 4, 5, 7, 8, *range(10, 19), 24, 25, 26, 28, 30, *range(41, 45), 46, 47, *range(49, 55), 57, 58}
    | {60, 62, 72, 85, 136, 137, 163, 164, 502, *range(506, 517), 530} - {510, 513},
}


def table(folder: Path, *rows: str, name: str = "scheme.tsv") -> Path:
    path = folder / name
    path.write_text("\n".join(row.replace(" | ", "\t") for row in rows) + "\n", encoding="utf-8")
    return path


def test_a_table_maps_ids_names_background_and_unknown(tmp_path: Path) -> None:
    found = read_scheme(
        table(
            tmp_path,
            "index | name | maps_to",
            "1 | hippo l | 17",
            "2 | hippo r | Right-Hippocampus",
            "3 | skin | background",
            "4 | vessel | Unknown",
            "5 | nobody knows | n/a",
            "6 | thalamus | left thalamus",
        ),
        ASEG,
    )
    hippocampi = ASEG.class_of(17), ASEG.class_of(53)
    assert found.classes == {0: 0, 1: hippocampi[0], 2: hippocampi[1], 3: 0, 4: UNKNOWN, 6: ASEG.class_of(10)}
    with pytest.raises(SpansegError, match=r"\[5\]"):
        found.apply(np.array([0, 5]), "sub-01")


def test_structures_without_a_label_are_unlabelled(tmp_path: Path) -> None:
    found = read_scheme(table(tmp_path, "index | maps_to", "1 | 17", "2 | 53"), ASEG)
    assert set(found.unlabelled) == set(range(1, len(ASEG))) - {ASEG.class_of(17), ASEG.class_of(53)}


def test_zero_is_background_unless_the_table_says_otherwise(tmp_path: Path) -> None:
    assert read_scheme(table(tmp_path, "index | maps_to", "1 | 17"), ASEG).classes[0] == 0
    assert read_scheme(table(tmp_path, "index | maps_to", "0 | unknown", "1 | 17"), ASEG).classes[0] == UNKNOWN


def test_freesurfers_name_for_zero_does_not_hide_the_background(tmp_path: Path) -> None:
    """FreeSurfer calls 0 "Unknown"; as unknown voxels, everything outside the brain would enter no score."""
    found = read_scheme(table(tmp_path, "index | name", "0 | Unknown", "17 | Left-Hippocampus"), ASEG)
    assert found.classes == {0: 0, 17: ASEG.class_of(17)}


def test_our_own_label_table_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "sub-01_T1w_dseg.tsv"
    path.write_text(label_table(ASEG, []), encoding="utf-8")
    found = read_scheme(path, ASEG)
    assert found.classes == ASEG.crosswalk("aseg").classes
    assert found.unlabelled == ()


def test_tables_from_spreadsheets_are_read(tmp_path: Path) -> None:
    path = tmp_path / "scheme.tsv"
    path.write_bytes("\ufeffindex\tmaps_to\r\n1\t17\r\n".encode())
    assert read_scheme(path, ASEG).classes == {0: 0, 1: ASEG.class_of(17)}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (["index,name,maps_to", "1,a,17"], "tab-separated columns"),
        (["index | colour", "1 | red"], "tab-separated columns"),
        (["index | maps_to", "one | 17"], r"line 2: index is 'one'"),
        (["index | maps_to", "1 | 17", "1 | 53"], r"line 3: index 1 .* twice"),
        (["index | maps_to", "1 | 999"], r"line 2: maps_to is 999"),
        (["index | maps_to", "1 | Left-Hipocampus"], r"did you mean 'Left-Hippocampus'"),
        (["index | name", "1 | Grey"], "no row leads to a structure"),
    ],
)
def test_tables_that_make_no_sense_are_refused(tmp_path: Path, rows: list[str], words: str) -> None:
    with pytest.raises(SpansegError, match=words) as error:
        read_scheme(table(tmp_path, *rows), ASEG)
    assert "scheme.tsv" in str(error.value)


def test_text_in_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scheme.tsv"
    path.write_bytes("index\tmaps_to\n1\tNoyau caudé\n".encode("latin-1"))
    with pytest.raises(SpansegError, match="UTF-8"):
        read_scheme(path, ASEG)


def test_schemes_are_found_by_name_by_file_or_beside_the_data(tmp_path: Path) -> None:
    image = tmp_path / "sub-01_dseg.nii.gz"
    assert find_scheme("muse", ASEG, image).name == "muse"
    assert find_scheme(None, ASEG, image).name == "aseg"
    given = table(tmp_path, "index | maps_to", "1 | 17")
    assert find_scheme(str(given), ASEG, image).classes[1] == ASEG.class_of(17)
    table(tmp_path, "index | name", "5 | Left-Hippocampus", name="sub-01_dseg.tsv")
    assert find_scheme(None, ASEG, image).classes == {0: 0, 5: ASEG.class_of(17)}
    with pytest.raises(SpansegError, match=r"neither a file nor a label scheme .*neuromorphometrics"):
        find_scheme("talairach", ASEG, image)


def test_bids_tables_are_inherited_from_above_within_the_dataset(tmp_path: Path) -> None:
    dataset = tmp_path / "derivatives"
    image = dataset / "sub-01" / "anat" / "sub-01_desc-aseg_dseg.nii.gz"
    image.parent.mkdir(parents=True)
    outside = table(tmp_path, "index | name", name="dseg.tsv")
    assert find_table(image) is None, "without a dataset nothing above the image's folder is looked at"
    (dataset / "dataset_description.json").write_text("{}", encoding="utf-8")
    assert find_table(image) is None and outside.exists()
    general = table(dataset, "index | name", name="dseg.tsv")
    assert find_table(image) == general
    special = table(dataset, "index | name", name="desc-aseg_dseg.tsv")
    table(dataset, "index | name", name="desc-other_dseg.tsv")
    assert find_table(image) == special
    near = table(image.parent, "index | name", name="sub-01_dseg.tsv")
    table(image.parent, "index | name", name="sub-01_tissue_dseg.tsv")
    assert find_table(image) == near
    table(image.parent, "index | name", name="desc-aseg_dseg.tsv")
    with pytest.raises(SpansegError, match="both fit"):
        find_table(image)


def test_a_table_with_an_endless_cell_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("index\tmaps_to\n2\t" + "x" * 200_000 + "\n", encoding="utf-8")
    with pytest.raises(SpansegError, match="no table of tab-separated text"):
        read_scheme(tmp_path / "x.tsv", ASEG)


@pytest.mark.parametrize("scheme", sorted(SEEN))
def test_crosswalks_cover_every_id_that_was_seen(scheme: str) -> None:
    ASEG.crosswalk(scheme).apply(np.array([0, *SEEN[scheme]]), scheme)


@pytest.mark.parametrize("scheme", sorted(REAL))
def test_crosswalks_keep_left_on_the_left_of_real_images(shared_data: Path, scheme: str) -> None:
    """Structures called left lie left of their right twins in the world of the file."""
    files = sorted(shared_data.glob(REAL[scheme]))
    if not files:
        pytest.skip(f"needs ../shared/data/{REAL[scheme]}")
    image = nib.load(files[0])
    turned = canonical(Volume(np.asarray(image.dataobj), image.affine))[0].data[:, ::2, ::2].astype(np.int32)
    assert set(np.unique(turned).tolist()) <= {0, *SEEN[scheme]}
    classes = ASEG.crosswalk(scheme).apply(turned, files[0].name)
    planes = np.array([np.bincount(plane[plane >= 0], minlength=len(ASEG)) for plane in classes])
    counts, across = planes.sum(axis=0), np.arange(len(planes)) @ planes
    pairs = [(left, right) for left, right in ASEG.lateral_pairs if counts[left] or counts[right]]
    assert len(pairs) >= 12
    for left, right in pairs:
        assert across[left] / counts[left] < across[right] / counts[right], ASEG.structures[left].name
