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


def test_build_passes_options_on() -> None:
    network = parts.build("nets", "res_unet", {"widths": [4, 8]}, in_channels=1, out_channels=2)
    assert network.stride == 4
    assert network.stages["encoder0"] == 4
