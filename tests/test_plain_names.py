"""Names of structures in plain words."""

import pytest

from spanseg.labels import load_protocol, protocol_names
from spanseg.plain_names import plain_name, row_name
from spanseg.result import StructureVolume


@pytest.mark.parametrize(
    ("name", "plain", "sided"),
    [
        ("Left-Cerebral-White-Matter", "Cerebral white matter", "Left cerebral white matter"),
        ("Right-VentralDC", "Ventral DC", "Right ventral DC"),
        ("3rd-Ventricle", "3rd ventricle", "3rd ventricle"),
        ("ctx-rh-insula", "insula", "Right insula"),
        ("Left-Inf-Lat-Vent", "Inferior lateral ventricle", "Left inferior lateral ventricle"),
    ],
)
def test_structures(name, plain, sided):
    assert plain_name(name) == plain
    assert row_name(StructureVolume(1, name, 1.0, 1.0)) == sided


def test_the_sum_of_all_csf_is_not_the_structure():
    assert row_name(StructureVolume(0, "Total-CSF", 1.0, 1.0)) != row_name(StructureVolume(24, "CSF", 1.0, 1.0))


@pytest.mark.parametrize("protocol", protocol_names())
def test_names_stay_apart_in_the_protocol(protocol):
    names = [row_name(StructureVolume(row.id, row.name, 1.0, 1.0)) for row in load_protocol(protocol).structures[1:]]
    assert len(set(names)) == len(names)
