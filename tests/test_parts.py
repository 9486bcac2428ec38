"""The registry is the folder listing: each file one public class, each wrong name a suggestion."""

import pytest

from spanseg import parts
from spanseg.errors import SpansegError

FOLDERS = ("nets", "adapt", "objectives")


@pytest.mark.parametrize(("folder", "name"), [(folder, name) for folder in FOLDERS for name in parts.names(folder)])
def test_each_file_holds_one_public_class(folder: str, name: str) -> None:
    assert parts.find(folder, name).__name__.lower() == name.replace("_", "")


def test_listing() -> None:
    assert "res_unet" in parts.names("nets")
    assert not [name for folder in FOLDERS for name in parts.names(folder) if name.startswith("_")]


def test_unknown_part_suggests_the_nearest() -> None:
    with pytest.raises(SpansegError, match=r"did you mean 'res_unet'"):
        parts.find("nets", "resunet")


def test_unknown_option_suggests_the_nearest_and_lists_all() -> None:
    with pytest.raises(SpansegError, match=r"ResUNet has no option 'widht'.*did you mean 'widths'.*head_channels"):
        parts.build("nets", "res_unet", {"widht": [8, 16]}, in_channels=1, out_channels=2)


def test_an_option_that_the_caller_sets_cannot_be_set_in_a_recipe() -> None:
    with pytest.raises(SpansegError, match="no option 'in_channels'"):
        parts.build("nets", "res_unet", {"in_channels": 3}, in_channels=1, out_channels=2)


@pytest.mark.parametrize(
    ("folder", "name", "option", "says"),
    [
        ("nets", "res_unet", {"aside": "False"}, "aside must be true or false, not 'False'"),
        ("objectives", "supervised", {"phases": "two"}, "phases must be a whole number, not 'two'"),
        ("objectives", "supervised", {"phases": 9}, "phases must be from 0 to 8, not 9"),
        ("objectives", "deeply_supervised", {"aside": -1.0}, "aside must be 0 or more, not -1.0"),
    ],
)
def test_an_option_that_cannot_be_is_refused(folder: str, name: str, option: dict[str, object], says: str) -> None:
    given = {"in_channels": 1, "out_channels": 2} if folder == "nets" else {}
    with pytest.raises(SpansegError, match=says):
        parts.build(folder, name, option, **given)


def test_build_passes_options_on() -> None:
    network = parts.build("nets", "res_unet", {"widths": [4, 8]}, in_channels=1, out_channels=2)
    assert network.stride == 4
    assert network.stages["encoder0"] == 4
