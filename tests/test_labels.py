"""Protocols: every structure has one tissue and one mirror, and no id is ever dropped in silence."""

import numpy as np
import pytest

from spanseg.errors import SpansegError
from spanseg.labels import UNKNOWN, Crosswalk, Protocol, load_protocol, protocol_names

ISSUE_IDS = {  # left, right of each structure that the default protocol promises
    *(2, 41, 3, 42, 4, 43, 5, 44, 7, 46, 8, 47, 10, 49, 11, 50, 12, 51, 13, 52, 17, 53, 18, 54, 26, 58, 28, 60),
    *(14, 15, 16, 24),
}


@pytest.fixture(params=protocol_names())
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return load_protocol(request.param)


def test_aseg_has_the_promised_structures() -> None:
    aseg = load_protocol("aseg")
    assert set(aseg.ids.tolist()) == ISSUE_IDS | {0}
    assert aseg.structures[0].id == 0


def test_structures_fall_into_tissues(protocol: Protocol) -> None:
    assert set(protocol.tissues.values()) == {1, 2, 3}
    assert protocol.tissue_of_class[0] == 0
    assert (protocol.tissue_of_class[1:] > 0).all(), "a structure without tissue would be missing from the tissue map"
    assert set(protocol.tissue_colours) == set(protocol.tissues)


def test_ids_and_names_are_used_once(protocol: Protocol) -> None:
    assert len(set(protocol.ids.tolist())) == len(protocol)
    assert len({structure.name for structure in protocol.structures}) == len(protocol)
    assert all(0 <= value <= 255 for structure in protocol.structures for value in structure.colour)


def test_mirroring_twice_changes_nothing(protocol: Protocol) -> None:
    mirrored = protocol.mirrored_classes
    np.testing.assert_array_equal(mirrored[mirrored], np.arange(len(protocol)))
    np.testing.assert_array_equal(protocol.tissue_of_class[mirrored], protocol.tissue_of_class)


def test_pairs_are_left_and_right_of_one_name(protocol: Protocol) -> None:
    sides = {"Left-": "Right-", "ctx-lh-": "ctx-rh-"}
    paired = {index for pair in protocol.lateral_pairs for index in pair}
    for left, right in protocol.lateral_pairs:
        names = protocol.structures[left].name, protocol.structures[right].name
        assert any(names[0].startswith(a) and names[1] == names[0].replace(a, b) for a, b in sides.items()), names
    alone = [s.name for index, s in enumerate(protocol.structures) if index not in paired]
    assert not [name for name in alone if name.startswith((*sides, *sides.values()))]


def test_groups_hold_ids_of_the_protocol(protocol: Protocol) -> None:
    assert {i for ids in protocol.groups.values() for i in ids} <= set(protocol.ids.tolist())


def test_class_of_unknown_id_is_refused(protocol: Protocol) -> None:
    with pytest.raises(SpansegError, match="9999"):
        protocol.class_of(9999)


def test_crosswalks_lead_into_the_protocol(protocol: Protocol) -> None:
    for name in protocol.crosswalk_names:
        crosswalk = protocol.crosswalk(name)
        assert set(crosswalk.classes.values()) <= {UNKNOWN, *range(len(protocol))}
        labelled = {value for value in crosswalk.classes.values() if value > 0}
        missing = set(range(1, len(protocol))) - labelled - set(crosswalk.unlabelled)
        assert not missing, f"{name} neither maps to nor declares unlabelled: {sorted(missing)}"
        csf = {index for index, structure in enumerate(protocol.structures) if structure.tissue == "CSF"}
        partly = csf | (
            {3} if protocol.name == "tissue" else set()
        )  # ventricles but not sulci; mindboggle's cerebellum
        assert labelled & set(crosswalk.unlabelled) <= partly, f"{name} maps to a class that it calls unlabelled"


def test_crosswalks_keep_left_on_the_left() -> None:
    """Known ids of each scheme: the thalamus of both sides and one cortical parcel."""
    aseg = load_protocol("aseg")
    known = {
        "synthseg": {10: 10, 49: 49, 3: 3, 42: 42},
        "freesurfer": {10: 10, 49: 49, 1035: 3, 2035: 42},
        "neuromorphometrics": {60: 10, 59: 49, 101: 3, 100: 42, 207: 3, 206: 42},
        "muse": {60: 10, 59: 49, 101: 3, 100: 42, 82: 2, 81: 41},
        "mindboggle": {10: 10, 49: 49, 1002: 3, 2002: 42},
        "ibsr": {10: 10, 49: 49, 3: 3, 42: 42},
        "candi": {10: 10, 49: 49, 3: 3, 42: 42},
        "lpba40": {161: 11, 162: 50, 165: 17, 166: 53, 182: 16},
        "hammers": {2: 17, 1: 53, 40: 10, 41: 49, 46: 4, 45: 43},
    }
    for scheme, pairs in known.items():
        source = np.array(list(pairs))
        classes = aseg.crosswalk(scheme).apply(source, "case")
        assert aseg.ids[classes].tolist() == list(pairs.values()), scheme


def test_apply_translates_and_marks_unknown() -> None:
    crosswalk = Crosswalk("small", {0: 0, 4: 2, 900: UNKNOWN})
    labels = np.array([[[0, 4], [900, 4]]])
    np.testing.assert_array_equal(crosswalk.apply(labels, "case"), [[[0, 2], [UNKNOWN, 2]]])


def test_apply_names_the_ids_without_entry() -> None:
    crosswalk = Crosswalk("small", {0: 0, 4: 2})
    with pytest.raises(SpansegError, match=r"sub-012: .*\[7, 9\].*'small'"):
        crosswalk.apply(np.array([0, 9, 7, 4]), "sub-012")


def test_apply_does_not_list_thousands_of_ids() -> None:
    with pytest.raises(SpansegError, match="and 19990 more") as caught:
        load_protocol("aseg").crosswalk("aseg").apply(np.arange(10_000, 30_000), "noise")
    assert len(str(caught.value)) < 500


def test_unknown_scheme_and_protocol_list_what_exists() -> None:
    with pytest.raises(SpansegError, match="freesurfer"):
        load_protocol("aseg").crosswalk("talairach")
    with pytest.raises(SpansegError, match="aseg"):
        load_protocol("nothing")
