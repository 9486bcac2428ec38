"""``spanseg.segment`` gives what the command writes, judged in the same way."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import spanseg
from spanseg.batch import Batch
from spanseg.inputs import find_jobs
from spanseg.outputs import OutputOptions
from spanseg.segmenter import SegmentOptions


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan without a brain."""
    path = tmp_path_factory.mktemp("noise") / "noise_T1w.nii.gz"
    image = np.random.default_rng(0).integers(0, 255, (48, 48, 48), dtype=np.uint8)
    nib.save(nib.Nifti1Image(image, np.diag([3.0, 3.0, 3.0, 1.0])), path)
    return path


def test_it_judges_as_the_command_does(noise: Path, tmp_path: Path) -> None:
    options = SegmentOptions(threads=1)
    (outcome,) = Batch(find_jobs([noise], tmp_path), options, OutputOptions()).run()
    record = json.loads(outcome.job.sidecar.read_text(encoding="utf-8"))
    result = spanseg.segment(noise, options)
    assert result.details["quality"] == record["quality"]
    assert result.details["quality_flags"] == record["quality_flags"]
    assert list(result.warnings) == record["warnings"]
    assert result.details["quality"]["score"] < 0.5
    assert any("probably not usable" in warning for warning in result.warnings)
    assert all(row.low_mm3 is None for row in result.volumes)


def test_options_and_keywords_exclude_each_other(noise: Path) -> None:
    with pytest.raises(spanseg.SpansegError, match="not both: flip would be ignored"):
        spanseg.segment(noise, SegmentOptions(), flip=True)
