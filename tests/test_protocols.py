"""The shipped protocols: how many structures, which tissues, and real label files that hold no id they do not map."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from spanseg.images import read_labels
from spanseg.labels import UNKNOWN, Protocol, load_protocol, protocol_names
from spanseg.metrics import score_classes

COUNTS = {"subcortical": 12, "tissue": 3, "aseg": 32, "dkt": 92, "dk106": 106}
DK = frozenset(range(1, 36)) - {4}
DKT = DK - {1, 32, 33}
PEOPLE = 2  # whose labels are looked at, of each folder
TRUTHS = {  # scheme to where its label images lie
    "neuromorphometrics": ["malc/derivatives/neuromorphometrics/*/anat/*_dseg.nii.gz"],
    "muse": ["ixi/derivatives/dlmuse/*/anat/*_dseg.nii.gz"],
    "mindboggle": ["mindboggle/derivatives/dkt/*/anat/*_dseg.nii.gz"],
    "synthseg": ["labelmaps/synthseg/*.nii.gz", "labelmaps/synthsr/*.nii.gz"],
}


@pytest.fixture(params=protocol_names())
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return load_protocol(request.param)


def test_counts(protocol: Protocol) -> None:
    assert len(protocol) == COUNTS[protocol.name] + 1


def test_tissues_partition_the_structures(protocol: Protocol) -> None:
    parts = [{i for i, t in enumerate(protocol.tissue_of_class) if t == value} for value in (1, 2, 3)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == COUNTS[protocol.name]
    assert all(parts) or not any(parts[0] | parts[2]), "a protocol has all tissues, or nuclei alone"


def test_dk106_is_the_table_of_the_specification() -> None:
    dk106 = load_protocol("dk106")
    ids = dk106.ids
    pairs = {(int(ids[a]), int(ids[b])) for a, b in dk106.lateral_pairs}
    deep = {(2, 41), (4, 43), (5, 44), (7, 46), (8, 47), (10, 49), (11, 50), (12, 51), (13, 52), (17, 53), (18, 54)}
    deep |= {(26, 58), (28, 60), (31, 63)}
    assert pairs == deep | {(1000 + k, 2000 + k) for k in DK}
    assert len(deep) == 14 and len(DK) == 34
    midline = set(ids.tolist()) - {0} - {i for pair in pairs for i in pair}
    assert midline == {14, 15, 16, 24, 85, 251, 252, 253, 254, 255}


def test_dk106_folds_into_the_tissues_of_the_specification() -> None:
    dk106 = load_protocol("dk106")
    of_tissue = {t: {s.id for s in dk106.structures if s.tissue == t} for t in ("CSF", "GM", "WM")}
    assert of_tissue["CSF"] == {4, 5, 14, 15, 24, 31, 43, 44, 63}
    assert of_tissue["WM"] == {2, 7, 41, 46, 16, 28, 60, 85, 251, 252, 253, 254, 255}


def test_dkt_is_aseg_with_62_parcels_for_cortex() -> None:
    aseg, dkt = load_protocol("aseg"), load_protocol("dkt")
    parcels = {side + k for side in (1000, 2000) for k in DKT}
    assert len(parcels) == 62
    assert set(dkt.ids.tolist()) == set(aseg.ids.tolist()) - {3, 42} | parcels


def test_protocols_agree_on_shared_ids() -> None:
    """Name, tissue, mirror and colour of an id do not depend on the protocol; tissue has ids of its own."""
    seen: dict[int, object] = {}
    for name in ("aseg", "dkt", "dk106"):
        for structure in load_protocol(name).structures:
            assert seen.setdefault(structure.id, structure) == structure


@pytest.mark.parametrize("name", ["dkt", "dk106"])
def test_lobes_partition_the_cortex(name: str) -> None:
    groups = load_protocol(name).groups
    lobes = [
        groups[f"{lobe}_cortex"] for lobe in ("frontal", "parietal", "temporal", "occipital", "cingulate", "insula")
    ]
    assert sorted(i for lobe in lobes for i in lobe) == sorted(groups["cerebral_cortex"])


def test_tissue_of_aseg_agrees_with_its_own_field() -> None:
    """The cross-walk and the field `tissue` of each structure say the same."""
    aseg, tissue = load_protocol("aseg"), load_protocol("tissue")
    classes = tissue.crosswalk("aseg").apply(aseg.ids, "aseg")
    np.testing.assert_array_equal(classes, aseg.tissue_of_class)


@pytest.mark.parametrize("other", ["aseg", "dkt", "dk106"])
@pytest.mark.parametrize("scheme", ["synthseg", "freesurfer", "neuromorphometrics", "muse", "mindboggle"])
def test_tissue_of_a_scheme_agrees_with_the_tissue_of_its_structures(other: str, scheme: str) -> None:
    protocol, tissue = load_protocol(other), load_protocol("tissue")
    direct, through = tissue.crosswalk(scheme).classes, protocol.crosswalk(scheme).classes
    differ = {
        source: (direct[source], int(protocol.tissue_of_class[index]))
        for source, index in through.items()
        if index > 0 and direct.get(source, UNKNOWN) != UNKNOWN and direct[source] != protocol.tissue_of_class[index]
    }
    allowed = {"synthseg": {85, 30, 62}}.get(scheme, set())  # the chiasm lies in aseg's CSF there
    assert set(differ) <= allowed, differ


def test_a_part_of_a_protocol_takes_its_crosswalks_over() -> None:
    part, whole = load_protocol("subcortical"), load_protocol("aseg")
    assert set(part.crosswalk_names) == {"subcortical", *whole.crosswalk_names}
    found = part.crosswalk("neuromorphometrics")
    assert part.ids[found.classes[48]] == 17 and found.classes[44] == 0 and found.classes[64] == UNKNOWN
    assert found.classes.keys() == whole.crosswalk("neuromorphometrics").classes.keys()
    assert found.unlabelled == (), "only CSF is unlabelled there, which is no nucleus"
    few = part.crosswalk("lpba40")
    assert part.ids[list(few.unlabelled)].tolist() == [10, 13, 18, 49, 52, 54], "thalamus, pallidum, amygdala"


def test_a_parcellation_of_other_borders_is_unknown() -> None:
    for name, scheme in (("dk106", "fs_dkt"), ("dk106", "mindboggle"), ("dkt", "fs_dk")):
        classes = load_protocol(name).crosswalk(scheme).classes
        assert {classes[side + k] for side in (1000, 2000) for k in DKT} == {UNKNOWN}
    assert 1001 not in load_protocol("dkt").crosswalk("freesurfer").classes  # a DK file read as DKT is refused


def test_like_takes_another_crosswalk_over() -> None:
    dk106 = load_protocol("dk106")
    one, other = dk106.crosswalk("fs_dk"), dk106.crosswalk("freesurfer")
    assert (one.classes, one.unlabelled, one.name) == (other.classes, other.unlabelled, "fs_dk")


@cache
def counts(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Ids of a label image and how many voxels each has."""
    return np.unique(read_labels(path).volume.data, return_counts=True)


@pytest.mark.parametrize("scheme", TRUTHS)
def test_real_truths_map(shared_data: Path, protocol: Protocol, scheme: str) -> None:
    crosswalk = protocol.crosswalk(scheme)
    found = sorted(path for pattern in TRUTHS[scheme] for path in sorted(shared_data.glob(pattern))[:PEOPLE])
    if not found:
        pytest.skip(f"needs ../shared/data/{TRUTHS[scheme][0]}")
    seen: set[int] = set()
    for path in found:
        seen |= set(crosswalk.apply(counts(path)[0], path.name).tolist())
    nobody = set(range(len(protocol))) - seen - set(crosswalk.unlabelled)
    names = {protocol.structures[index].name for index in nobody}
    assert names <= {"Right-choroid-plexus"}, "the scheme promises these, and nobody has them"


@pytest.mark.parametrize(
    ("name", "file", "scheme", "unknown"),
    [  # and the share of labelled voxels that may come out unknown: little, or all the cortex
        ("dk106", "aparc+aseg.mgz", "fs_dk", 0.003),
        ("dk106", "aparc.DKTatlas+aseg.mgz", "fs_dkt", 0.5),
        ("dkt", "aparc.DKTatlas+aseg.mgz", "freesurfer", 0.01),
        ("dkt", "aparc+aseg.mgz", "fs_dk", 0.5),
        ("tissue", "aparc+aseg.mgz", "freesurfer", 0.001),
        ("tissue", "aseg.mgz", "freesurfer", 0.001),
        ("aseg", "aparc+aseg.mgz", "freesurfer", 0.01),
    ],
)
def test_freesurfers_own_files_map(shared_data: Path, name: str, file: str, scheme: str, unknown: float) -> None:
    path = shared_data / "freesurfer" / "bert" / "mri" / file
    if not path.is_file():
        pytest.skip(f"needs ../shared/data/freesurfer/bert/mri/{file}")
    protocol = load_protocol(name)
    crosswalk, (ids, voxels) = protocol.crosswalk(scheme), counts(path)
    classes = crosswalk.apply(ids, file)
    assert set(range(len(protocol))) - set(classes.tolist()) <= set(crosswalk.unlabelled)
    assert voxels[classes == UNKNOWN].sum() / voxels[ids > 0].sum() <= unknown
    if scheme == "fs_dk" and name == "dk106":
        assert set(classes.tolist()) == {UNKNOWN, *range(107)}, "all 106 structures are in FreeSurfer's own file"


def test_an_unlabelled_class_enters_no_score_though_a_part_of_it_is_labelled() -> None:
    """Ventricles are CSF in the truth, sulci are 0: CSF is not scored, and found sulci cost grey matter nothing."""
    tissue = load_protocol("tissue")
    truth = tissue.crosswalk("neuromorphometrics").apply(np.tile([0, 52, 31, 45], (4, 4, 1)), "case")
    predicted = truth.copy()
    predicted[:, :, 0] = 1
    scores = score_classes(predicted, truth, (1, 1, 1), range(4), tissue.crosswalk("neuromorphometrics").unlabelled)
    assert set(scores) == {2, 3}
    assert all(one.dice == 1 and one.predicted_mm3 == one.truth_mm3 for one in scores.values())
