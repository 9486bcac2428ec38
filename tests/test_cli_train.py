"""What ``spanseg train`` and ``spanseg export`` say."""

import pytest

from spanseg.cli.export import _sentences
from spanseg.cli.train import _duration, _maps, _Progress, _steps
from spanseg.errors import SpansegError


def row(step: int, seconds: float = 15.0) -> dict[str, float]:
    return {"step": step, "loss": 1.25, "draw_s": 2.0, "step_s": seconds - 2.0}


def test_a_short_training_tells_how_long_it_will_take(capsys: pytest.CaptureFixture[str]) -> None:
    progress = _Progress(_steps({"train": {"steps": 40}}, "told"))
    for step in range(1, 41):
        progress("told", row(step, 90.0 if step == 1 else 15.0))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "told: one step takes 15 s: 40 steps, about 10 minutes"
    assert lines[1] == "told: step 10 of 40  loss 1.250  15 s a step"
    assert len(lines) == 5


def test_a_resumed_training_counts_what_is_left_and_a_stage_has_its_own_steps(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = _Progress(_steps({"train": {"steps": 1000}}, "run"))
    for step in (901, 902):
        progress("run", row(step))
    progress("run, tissue of fold 1", row(25) | {"validation": 0.5})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "run: one step takes 15 s: 100 steps, about 25 minutes"
    assert lines[1].endswith("step 25  loss 1.250  15 s a step  left-out Dice 0.500")
    assert _steps({}, "run")("default-coarse") and _steps({}, "run")("nobody") is None


@pytest.mark.parametrize(("seconds", "words"), [(45, "45 s"), (600, "10 minutes"), (9000, "2.5 hours")])
def test_durations_are_told_in_their_unit(seconds: float, words: str) -> None:
    assert _duration(seconds) == words


def test_real_scans_are_all_there_is_unless_a_share_of_them_is_given() -> None:
    assert _maps(None, {"real": {"data": "BIDS", "labels": "aseg"}}) == []
    for mixed in ({"real": {"data": "BIDS", "share": 0.5}}, {}):
        with pytest.raises(SpansegError, match="draws synthetic scans from label maps; say where they are with --data"):
            _maps(None, mixed)


def test_an_export_is_told_in_plain_sentences() -> None:
    measured = {"f32_against_pytorch": 0.99991, "f32_threads": 0.9998, "peak_mib": 812.3, "parameters": 5.3e6}
    said = " ".join(_sentences(measured))
    assert "99.99% of the brain voxels" in said and "5,300,000 parameters" in said and "812 MiB" in said
    assert "bf16 was not tried" in said
    assert "In bf16 it agrees with f32 on 99.50%" in " ".join(_sentences(measured | {"bf16": 0.995}))
