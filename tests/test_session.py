"""Correction sessions: nothing that was answered is lost, and the same events give the same labels."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fake_corrector import (
    AFFINE,
    AMYGDALA,
    HIPPOCAMPUS,
    PROTOCOL,
    SHAPE,
    WHITE,
    BallCorrector,
    FakeBelief,
    begin,
    click,
    point,
    write_scan,
)
from fake_corrector import write_labels as write_label_file
from spanseg import claims
from spanseg.beginnings import Beginning
from spanseg.beliefs import read_belief
from spanseg.cases import Case, find_cases
from spanseg.errors import SpansegError
from spanseg.files import file_sha256
from spanseg.labels import load_protocol
from spanseg.prompts import Prompt
from spanseg.session import Session
from spanseg.session_folder import open_session

CORRECTOR = BallCorrector()


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return find_cases(write_scan(tmp_path / "in" / "head.nii.gz"), tmp_path / "out")[0]


@pytest.fixture
def session(case: Case) -> Iterator[Session]:
    opened = begin(case)
    yield opened
    opened.close()


def again(session: Session, restore: bool = False) -> Session:
    """Open a session again as another process would after this one was killed."""
    session.close()
    return begin(session.case, restore=restore)


def lines_of(case: Case) -> list[dict[str, object]]:
    return [json.loads(line) for line in case.log.read_text(encoding="utf-8").splitlines()]


def test_a_session_begins_with_the_models_labels_and_keeps_its_belief(case: Case) -> None:
    believes = FakeBelief()
    session = open_session(case, PROTOCOL, believes)
    expected, _ = FakeBelief()(session.scan)
    assert np.array_equal(session.labels, expected) and not session.events
    session.close()
    reopened = open_session(case, PROTOCOL, believes)
    assert believes.asked == 1 and np.array_equal(reopened.labels, expected)
    record = json.loads(case.record.read_text(encoding="utf-8"))
    assert record["start"] == {"from": "model", "name": FakeBelief.name, "sha256": FakeBelief.sha256}
    assert record["scan_sha256"] == file_sha256(case.scan) and record["shape"] == list(SHAPE)
    reopened.close()


def test_labels_of_another_model_version_are_asked_for_again_as_belief_only(session: Session) -> None:
    session.close()
    believes = FakeBelief()
    believes.sha256 = "1" * 64
    reopened = open_session(session.case, PROTOCOL, believes)
    assert believes.asked == 1 and np.array_equal(reopened.labels, session.labels)
    reopened.close()


def test_a_damaged_belief_is_asked_for_again_whatever_is_damaged(case: Case) -> None:
    begin(case).close()
    whole = case.belief.read_bytes()
    known = read_belief(case.belief, SHAPE, FakeBelief.sha256)
    read = 0
    for index in range(0, len(whole), 7):
        case.belief.write_bytes(whole[:index] + bytes([whole[index] ^ (1 + index % 255)]) + whole[index + 1 :])
        found = read_belief(case.belief, SHAPE, FakeBelief.sha256)
        if found is not None:  # what was hit says nothing
            read += 1
            assert found.box == known.box and np.array_equal(found.probabilities, known.probabilities)
    assert 0 < read < len(whole) / 14
    believes = FakeBelief()
    for damaged in (b"", whole[:500], b"\x93NUMPY" + whole, whole[: len(whole) // 2] + bytes(len(whole) // 2)):
        case.belief.write_bytes(damaged)
        open_session(case, PROTOCOL, believes).close()
    assert believes.asked == 4 and case.belief.read_bytes() == whole


def test_events_reopen_to_the_same_labels_without_a_corrector(session: Session) -> None:
    click(session, (HIPPOCAMPUS, (6, 6, 6)), (AMYGDALA, (8, 8, 8)), (HIPPOCAMPUS, (12, 12, 9)))
    session.undo()
    session.prompt(HIPPOCAMPUS, point(6, 6, 6, positive=False), CORRECTOR)
    reopened = again(session)
    assert np.array_equal(reopened.labels, session.labels)
    assert [event.kind for event in reopened.events] == ["prompt", "prompt", "prompt", "undo", "prompt"]
    assert [event.number for event in reopened.in_force] == [1, 2, 5]
    assert [reopened.voxels_of(s.id) for s in PROTOCOL.structures] == [
        int((reopened.labels == s.id).sum()) for s in PROTOCOL.structures
    ]
    assert np.array_equal(reopened.doubt(), session.doubt())
    reopened.close()


def test_undo_and_redo_reach_back_to_the_beginning_and_forth_again(session: Session) -> None:
    states = [session.labels.copy()]
    for index in range(6):
        click(session, (HIPPOCAMPUS if index % 2 else AMYGDALA, (5 + index, 8, 9)))
        states.append(session.labels.copy())
    for expected in reversed(states[:-1]):
        session.undo()
        assert np.array_equal(session.labels, expected)
    assert not session.can_undo and session.can_redo
    with pytest.raises(SpansegError, match="nothing to undo"):
        session.undo()
    session = again(session)
    for expected in states[1:]:
        session.redo()
        assert np.array_equal(session.labels, expected)
    with pytest.raises(SpansegError, match="nothing to redo"):
        session.redo()
    assert len(session.events) == 18
    session.close()


def test_a_prompt_after_undo_ends_redo_but_the_log_keeps_what_was_undone(session: Session) -> None:
    click(session, (HIPPOCAMPUS, (6, 6, 6)), (HIPPOCAMPUS, (9, 9, 9)))
    session.undo()
    click(session, (HIPPOCAMPUS, (12, 12, 9)))
    assert not session.can_redo and [event.number for event in session.in_force] == [1, 4]
    assert [line["number"] for line in lines_of(session.case)] == [1, 2, 3, 4]


def test_the_corrector_gets_the_prompts_in_force_of_this_structure(session: Session) -> None:
    corrector = BallCorrector()
    for structure in (HIPPOCAMPUS, AMYGDALA, HIPPOCAMPUS):
        session.prompt(structure, point(6, 6, 6), corrector)
    session.undo()
    session.prompt(HIPPOCAMPUS, point(6, 6, 6), corrector)
    assert corrector.asked == [(17, 1), (18, 1), (17, 2), (17, 2)]


def test_what_was_pointed_at_stays_until_it_is_pointed_at_again(session: Session) -> None:
    corrector = BallCorrector()
    session.prompt(HIPPOCAMPUS, point(6, 6, 6), corrector)
    assert session.labels[6, 6, 6] == HIPPOCAMPUS
    session.prompt(AMYGDALA, point(6, 6, 7), corrector)
    assert session.labels[6, 6, 7] == AMYGDALA and session.labels[6, 6, 6] == HIPPOCAMPUS
    session.prompt(AMYGDALA, point(6, 6, 6), corrector)
    assert session.labels[6, 6, 6] == AMYGDALA


def test_a_corrector_that_touches_other_structures_changes_nothing(session: Session) -> None:
    class Careless(BallCorrector):
        def correct(self, labels: np.ndarray, structure: int, prompts: object) -> np.ndarray:
            return np.where(labels == WHITE, AMYGDALA, labels)

    before = session.labels.copy()
    with pytest.raises(ValueError, match="other structures"):
        session.prompt(HIPPOCAMPUS, point(6, 6, 6), Careless())
    assert np.array_equal(session.labels, before) and not session.events and not session.case.log.exists()


@pytest.mark.parametrize(
    ("structure", "prompt", "message"),
    [
        (HIPPOCAMPUS, point(21, 0, 0), "voxel 21, 0, 0 lies outside the image, which has 21 × 24 × 22 voxels"),
        (HIPPOCAMPUS, point(0, -1, 0), "outside the image"),
        (999, point(1, 1, 1), "protocol 'aseg' has no structure with the id 999"),
        (0, point(1, 1, 1), "no structure to correct"),
        (HIPPOCAMPUS, Prompt("box", False, ((1, 1, 1), (2, 2, 2))), "cannot be negative"),
    ],
)
def test_bad_prompts_are_refused_and_leave_no_trace(
    session: Session, structure: int, prompt: Prompt, message: str
) -> None:
    with pytest.raises(SpansegError, match=message):
        session.prompt(structure, prompt, CORRECTOR)
    assert not session.events and not session.case.log.exists()


def test_a_torn_last_line_is_set_aside_with_a_note(session: Session) -> None:
    click(session, (HIPPOCAMPUS, (6, 6, 6)), (AMYGDALA, (8, 8, 8)))
    whole = session.case.log.read_bytes()
    labels_after_one = np.array(session.labels)
    first = whole.index(b"\n") + 1
    session.case.log.write_bytes(whole[: first + 300])
    reopened = again(session)
    aside = session.case.session / "events_torn1.jsonl"
    assert aside.read_bytes() == whole[first : first + 300] and aside.name in reopened.notes[-1]
    assert len(reopened.events) == 1 and session.case.log.read_bytes() == whole[:first]
    click(reopened, (AMYGDALA, (8, 8, 8)))
    assert np.array_equal(reopened.labels, labels_after_one)
    reopened.close()


def test_a_damaged_line_is_named_and_what_is_before_it_can_be_restored(session: Session) -> None:
    click(session, (HIPPOCAMPUS, (6, 6, 6)), (AMYGDALA, (8, 8, 8)), (HIPPOCAMPUS, (12, 12, 9)))
    log = session.case.log
    lines = log.read_bytes().splitlines(keepends=True)
    damaged = lines[0] + lines[1].replace(b'"structure":18', b'"structure":17') + lines[2]
    log.write_bytes(damaged)
    with pytest.raises(SpansegError, match=r"line 2 of this event log is damaged .*give --restore to go on from the 1"):
        again(session)
    assert log.read_bytes() == damaged and not session.case.claim.exists()
    restored = again(session, restore=True)
    assert (log.parent / "events_damaged1.jsonl").read_bytes() == damaged and log.read_bytes() == lines[0]
    assert "events_damaged1.jsonl" in restored.notes[-1] and len(restored.events) == 1
    click(restored, (AMYGDALA, (8, 8, 8)))
    assert len(again(restored).events) == 2


@pytest.mark.parametrize("edit", ["gone", "twice", "swapped", "text", "binary"])
def test_every_kind_of_damage_in_the_middle_is_found(session: Session, edit: str) -> None:
    click(session, (HIPPOCAMPUS, (6, 6, 6)), (AMYGDALA, (8, 8, 8)), (HIPPOCAMPUS, (12, 12, 9)))
    a, b, c = session.case.log.read_bytes().splitlines(keepends=True)
    edits = {"gone": [a, c], "twice": [a, a, b, c], "swapped": [a, c, b], "text": [a, b"hello\n", c]}
    session.case.log.write_bytes(b"".join(edits.get(edit, [a, b"\xff\x00\n", b, c])))
    with pytest.raises(SpansegError, match="line 2 of this event log is damaged"):
        again(session)


def test_another_scan_another_grid_and_another_protocol_are_refused(session: Session, tmp_path: Path) -> None:
    click(session, (HIPPOCAMPUS, (6, 6, 6)))
    session.close()
    case, record = session.case, session.case.record.read_text(encoding="utf-8")
    second = Case(case.name, write_scan(tmp_path / "other" / "head.nii.gz", seed=1), case.folder)
    with pytest.raises(SpansegError, match="begun with another scan"):
        begin(second)
    for other in ({"shape": [21, 24, 19]}, {"affine": (1.1 * AFFINE).tolist()}, {"affine": AFFINE[:3].tolist()}):
        case.record.write_text(json.dumps(json.loads(record) | other), encoding="utf-8")
        with pytest.raises(SpansegError, match="begun on another grid"):
            begin(case)
    case.record.write_text(record, encoding="utf-8")
    with pytest.raises(SpansegError, match="begun with protocol 'aseg', this is 'dkt'"):
        open_session(case, load_protocol("dkt"), FakeBelief())
    case.record.write_text("{}", encoding="utf-8")
    with pytest.raises(SpansegError, match="expected the record of a session"):
        begin(case)
    case.record.unlink()
    with pytest.raises(SpansegError, match=r"there are events, but not the session\.json"):
        begin(case)


def test_the_event_log_of_another_scan_is_refused_and_left_alone(session: Session, tmp_path: Path) -> None:
    click(session, (HIPPOCAMPUS, (6, 6, 6)))
    other = find_cases(write_scan(tmp_path / "other" / "two.nii.gz", seed=1), tmp_path / "out")[0]
    begin(other).close()
    shutil.copyfile(session.case.log, other.log)
    with pytest.raises(SpansegError, match="belongs to another session"):
        begin(other)
    assert other.log.read_bytes() == session.case.log.read_bytes()


def test_two_processes_cannot_hold_one_session(session: Session) -> None:
    with pytest.raises(SpansegError, match="another process has this session open"):
        begin(session.case)
    session.case.claim.write_text(f"elsewhere {os.getpid()} abc", encoding="utf-8")
    with pytest.raises(SpansegError, match="another process has taken this session"):
        click(session, (HIPPOCAMPUS, (6, 6, 6)))
    assert not session.case.log.exists() and not session.events
    session.close()
    assert session.case.claim.exists()  # it is not ours to remove


def test_a_long_session_is_not_taken_for_abandoned(session: Session) -> None:
    os.utime(session.case.claim, (0, 0))
    session.keep()
    assert not claims.take_claim(session.case.claim)


def test_a_log_that_something_else_wrote_to_is_not_written_to(session: Session) -> None:
    click(session, (HIPPOCAMPUS, (6, 6, 6)))
    with session.case.log.open("ab") as stream:
        stream.write(b"hello\n")
    with pytest.raises(SpansegError, match="something else wrote to this event log"):
        click(session, (HIPPOCAMPUS, (9, 9, 9)))
    assert len(session.events) == 1


def test_a_full_disk_changes_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    click(session, (HIPPOCAMPUS, (6, 6, 6)))
    before, log = session.labels.copy(), session.case.log.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(SpansegError, match="could not be written"):
            click(session, (AMYGDALA, (9, 9, 9)))
    assert np.array_equal(session.labels, before) and session.case.log.read_bytes() == log
    click(session, (AMYGDALA, (9, 9, 9)))
    assert len(again(session).events) == 2


def test_labels_of_a_file_begin_a_session(case: Case, tmp_path: Path) -> None:
    labels = write_label_file(tmp_path / "mine.nii.gz")
    session = begin(case, Beginning(labels))
    assert np.array_equal(session.labels, nibabel.load(labels).get_fdata())
    session.close()
    begin(case, Beginning(labels)).close()
    with pytest.raises(SpansegError, match="began with other labels"):
        begin(case, Beginning(write_label_file(tmp_path / "others.nii.gz", {3: WHITE})))
    with pytest.raises(SpansegError, match="began with other labels"):
        begin(case, Beginning(empty=True))


def test_an_empty_beginning_has_no_labels_and_asks_about_all_that_the_model_sees(case: Case) -> None:
    session = begin(case, Beginning(empty=True))
    assert not session.labels.any()
    found = session.next()
    assert found is not None and found[0].mm3 == 10 * 14 * 8 * 27
    session.close()


def test_ids_that_nobody_knows_are_refused_by_id_or_mapped_by_a_scheme(case: Case, tmp_path: Path) -> None:
    labels = write_label_file(tmp_path / "mine.nii.gz", {5: 17, 6: 1003, 7: 9999})
    with pytest.raises(SpansegError, match=r"ids \[1003, 9999\].*--scheme"):
        begin(case, Beginning(labels))
    table = tmp_path / "mine.tsv"
    table.write_text("index\tname\tmaps_to\n17\ta\t17\n1003\tb\t3\n9999\tc\tunknown\n", encoding="utf-8")
    session = begin(case, Beginning(labels, str(table)))
    assert [session.voxels_of(value) for value in (17, 3)] == [49, 49]
    assert "9999" in session.notes[-1]
    session.close()
    begin(case, Beginning(labels, str(table))).close()
    begin(case).close()
    table.write_text(table.read_text(encoding="utf-8").replace("b\t3", "b\t42"), encoding="utf-8")
    with pytest.raises(SpansegError, match=r"began with other labels .* or by another scheme"):
        begin(case, Beginning(labels, str(table)))
    other = shutil.copyfile(table, tmp_path / "other.tsv")
    with pytest.raises(SpansegError, match="or by another scheme"):
        begin(case, Beginning(labels, str(other)))


@pytest.mark.parametrize("moved", [None, (0, 0, 0, 3), (0, 0.009, 0, 0)])  # another shape, 3 mm, 0.2 mm at a corner
def test_labels_on_another_grid_are_refused(case: Case, tmp_path: Path, moved: tuple[float, ...] | None) -> None:
    labels = tmp_path / "mine.nii.gz"
    if moved is None:
        nibabel.save(nibabel.Nifti1Image(np.ones((21, 24, 21), np.int16), AFFINE), labels)
    else:
        write_label_file(labels, affine=AFFINE + np.outer([1, 0, 0, 0], moved))
    with pytest.raises(SpansegError, match="not on the grid of the scan"):
        begin(case, Beginning(labels))
    assert not case.record.exists() and not case.claim.exists()


def test_contradicting_wishes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpansegError, match="give one or the other"):
        Beginning(tmp_path / "a.nii", empty=True)
    with pytest.raises(SpansegError, match="give that file with --labels"):
        Beginning(scheme="synthseg")


def test_doubt_is_what_the_model_does_not_believe_and_ends_where_the_user_spoke(session: Session) -> None:
    doubt = session.doubt()
    assert doubt is not None and doubt.dtype == np.float32 and doubt.shape == SHAPE
    assert doubt[10, 10, 10] == pytest.approx(1 - 55 / 255) and doubt[5, 5, 5] == 0
    assert doubt[17, 4, 4] == pytest.approx(1 - 100 / 255)
    found = session.next()
    assert found is not None
    piece, structure = found
    assert (
        piece.voxel == (10, 10, 10) and structure == HIPPOCAMPUS and piece.mm3 == 3**3 * 27
    )  # without its outermost layer
    session.prompt(HIPPOCAMPUS, point(10, 10, 10), CORRECTOR)
    changed = session.labels == HIPPOCAMPUS
    assert (session.doubt()[changed] == 0).all() and session.doubt()[12, 12, 12] > 0.5
    session.undo()
    assert np.array_equal(session.doubt(), doubt)


def test_a_piece_that_was_pointed_at_is_not_asked_about_again(session: Session) -> None:
    class Agrees(BallCorrector):
        def correct(self, labels: np.ndarray, structure: int, prompts: object) -> np.ndarray:
            return labels.copy()

    event = session.prompt(WHITE, point(10, 10, 10), Agrees())
    assert event.change.voxels == 0 and session.doubt()[10, 10, 10] == 0
    found = session.next()
    assert found is not None and found[0].voxel[0] >= 17 and found[1] == HIPPOCAMPUS
    session.prompt(HIPPOCAMPUS, point(17, 4, 4), CORRECTOR)
    assert session.next() is None
