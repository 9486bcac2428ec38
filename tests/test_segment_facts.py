"""Facts on their way into a result: from the command line or a table to each scan, its words, its sidecar and back."""

import json
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import fake_segmenter
from spanseg import report, segmenter
from spanseg.batch import Batch
from spanseg.cli.main import main
from spanseg.facts import Facts
from spanseg.images import scan_of
from spanseg.inputs import find_jobs
from spanseg.labels import load_protocol
from spanseg.runtime import ModelFolder
from spanseg.segmenter import SegmentOptions, segment_scan
from spanseg.sentences import load_table
from spanseg.sidecar import OutputOptions
from spanseg.telling import MARGINAL_AGES_YEARS, Teller
from spanseg.verify import verify
from spanseg.volume import Volume

TABLE = "participant_id\tage\tsex\tdiagnosis\nsub-1\t34\tF\tn/a\nsub-2\t71.5\tM\tstroke\n"


class ToldPredictor(fake_segmenter.FakePredictor):
    """A model that is told age and sex."""

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self.folder.told = self.folder.told_in_all = ["age", "sex"]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[SegmentOptions]:
    """The options of each scan that was segmented, with a fake in place of the network."""
    options_seen: list[SegmentOptions] = []

    def segmented(scan: Any, predictor: Any, options: SegmentOptions) -> Any:
        options_seen.append(options)
        return fake_segmenter.segment_scan(scan, predictor, options)

    monkeypatch.setattr(segmenter, "load_model", ToldPredictor)
    monkeypatch.setattr(segmenter, "segment_scan", segmented)
    monkeypatch.setattr(report, "render_report", lambda scan, result: "<html></html>\n")
    monkeypatch.chdir(tmp_path)
    for name in ("sub-1", "sub-2"):
        fake_segmenter.write_scan(tmp_path / "in" / f"{name}_ses-a_T1w.nii.gz", seed=ord(name[-1]))
    (tmp_path / "participants.tsv").write_text(TABLE, encoding="utf-8")
    return options_seen


def exit_code(*words: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["segment", *words])
    return int(caught.value.code or 0)


def records() -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path("spanseg-out").glob("*_dseg.json"))]


def test_each_scan_gets_the_facts_of_its_person(seen: list[SegmentOptions]) -> None:
    assert exit_code("in", "--participants", "participants.tsv") == 0
    assert [options.facts for options in seen] == [Facts(34, "female"), Facts(71.5, "male", "stroke")]
    assert [options.facts_policy for options in seen] == ["given", "given"]
    assert not any(options.tell_diagnosis for options in seen)
    assert [record["facts"]["age_decade"] for record in records()] == ["30-39", "70-79"]
    assert records()[1]["facts"]["given"] == ["age_years", "diagnosis", "sex"]
    assert "71.5" not in Path("spanseg-out", "sub-2_ses-a_T1w_dseg.json").read_text(encoding="utf-8")
    assert exit_code("in", "-o", "stored", "--participants", "participants.tsv", "--store-facts") == 0
    stored = json.loads(Path("stored", "sub-2_ses-a_T1w_dseg.json").read_text(encoding="utf-8"))
    assert (stored["facts"]["age_years"], stored["settings"]["facts"]["sex"]) == (71.5, "male")


def test_the_policy_reaches_the_segmenter_and_the_record(seen: list[SegmentOptions]) -> None:
    scan = "in/sub-1_ses-a_T1w.nii.gz"
    assert exit_code(scan, "--facts", "marginalise", "--tell-diagnosis", "--diagnosis", "stroke") == 0
    assert (seen[0].facts_policy, seen[0].tell_diagnosis) == ("marginalise", True)
    settings = records()[0]["settings"]
    assert (settings["facts_policy"], settings["tell_diagnosis"]) == ("marginalise", True)
    assert exit_code(scan, "--facts", "perhaps") == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--participants", "participants.tsv", "--age", "3", "--sex", "F"], "so --age and --sex cannot be given too"),
        (["--participants", "participants.tsv", "--diagnosis", "stroke"], "so --diagnosis cannot"),
        (["--participants", "absent.tsv"], "absent.tsv: this table cannot be read"),
        (["--participants", "short.tsv"], "short.tsv: there is no row for sub-2"),
        (["--participants", "wrong.tsv"], "wrong.tsv, line 3, column age: "),
    ],
)
def test_a_table_that_does_not_fit_is_one_sentence_and_nothing_is_done(
    words: list[str], sentence: str, seen: list[SegmentOptions], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("short.tsv").write_text("".join(TABLE.splitlines(keepends=True)[:2]), encoding="utf-8")
    Path("wrong.tsv").write_text(TABLE.replace("71.5", "old"), encoding="utf-8")
    assert exit_code("in", *words) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.strip().splitlines()) == 1
    assert not seen and not Path("spanseg-out").exists()


def state(**given: Any) -> str:
    """What becomes of one scan."""
    store = given.pop("store", False)
    (job,) = find_jobs(["in/sub-1_ses-a_T1w.nii.gz"], Path("spanseg-out"))
    (outcome,) = Batch([job], SegmentOptions(**given), OutputOptions(store_facts=store)).run()
    return outcome.state


def test_with_a_told_model_two_ages_of_a_decade_are_two_settings(seen: list[SegmentOptions]) -> None:
    assert state(facts=Facts(31)) == "done"
    assert state(facts=Facts(39)) == "done"
    assert state(facts=Facts(39)) == "done", "the record does not hold the age, so nothing says that it is the same"
    assert state(facts=Facts(39), store=True) == "done"
    assert state(facts=Facts(39), store=True) == "skipped"
    assert state(facts=Facts(31), store=True) == "done"
    assert state() == "done"
    assert state() == "skipped", "without facts nothing is hidden"
    assert state(facts=Facts(31), facts_policy="unknown") == "done"
    assert state(facts=Facts(39), facts_policy="unknown") == "skipped", "an age that is not told decides nothing"
    assert state(facts=Facts(39), facts_policy="marginalise") == "done"


def test_a_model_that_is_told_nothing_skips_whatever_the_age(
    seen: list[SegmentOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segmenter, "load_model", fake_segmenter.FakePredictor)
    assert state(facts=Facts(31)) == "done"
    assert state(facts=Facts(39)) == "skipped"


def test_the_model_is_loaded_once_for_all_people(seen: list[SegmentOptions], monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[Any] = []
    monkeypatch.setattr(segmenter, "load_model", lambda options: loads.append(options) or ToldPredictor(options))
    assert exit_code("in", "--participants", "participants.tsv") == 0
    assert (len(loads), len(seen)) == (1, 2)


def test_verification_tells_what_was_told(seen: list[SegmentOptions]) -> None:
    scan = Path("in/sub-1_ses-a_T1w.nii.gz")
    state(facts=Facts(31, diagnosis="stroke"), facts_policy="unknown", tell_diagnosis=True, store=True)
    sidecar = Path("spanseg-out/sub-1_ses-a_T1w_dseg.json")
    assert verify(sidecar, scan).same
    assert seen[1].facts == Facts(31, diagnosis="stroke")
    assert (seen[1].facts_policy, seen[1].tell_diagnosis) == ("unknown", True)
    record = json.loads(sidecar.read_text(encoding="utf-8"))
    del record["settings"]["facts_policy"], record["settings"]["tell_diagnosis"]  # as earlier versions wrote them
    sidecar.write_text(json.dumps(record), encoding="utf-8")
    assert verify(sidecar, scan).same
    assert (seen[2].facts_policy, seen[2].tell_diagnosis) == ("given", False)


class _Listening:
    """A network that remembers the words it was told and answers by intensity."""

    name, precision, threads, policy = "listening", "f32", 1, ""
    used: ClassVar[dict[int, str]] = {}

    def __init__(self) -> None:
        self.heard: list[tuple[np.ndarray, np.ndarray] | None] = []

    def __call__(self, canvas: np.ndarray, words: tuple[np.ndarray, np.ndarray] | None = None) -> np.ndarray:
        self.heard.append(words)
        protocol = load_protocol("aseg")
        answer = np.zeros((len(protocol), *canvas.shape), dtype=np.uint8)
        answer[0] = np.where(canvas > 0.4, 0, 255)
        answer[protocol.class_of(2)] = 255 - answer[0]
        return answer


def test_the_words_are_those_of_each_scans_own_facts(tmp_path: Path) -> None:
    table = load_table()
    (tmp_path / "sentences.npz").write_bytes(Path(table.source).read_bytes())
    told = {"model": {"told": ["age", "sex"]}, "sentences": {"encoder": table.encoder}}
    predictor = segmenter.load_model(SegmentOptions(precision="f32", threads=1))
    predictor._teller = Teller(ModelFolder(tmp_path, told))
    predictor.engine = network = _Listening()  # type: ignore[assignment]
    data = np.zeros((30, 30, 30), np.float32)
    data[8:22, 8:22, 8:22] = 100 + np.random.default_rng(0).normal(0, 1, (14, 14, 14))
    scan = scan_of(Volume(data, np.diag([5.0, 5.0, 5.0, 1.0])))

    def heard(facts: Facts, policy: str = "given") -> list[np.ndarray]:
        network.heard.clear()
        result = segment_scan(scan, predictor, SegmentOptions(facts=facts, facts_policy=policy))
        words = [words[0] for words in network.heard if words is not None]
        passes = 1 + ("second_pass" in result.details["timings_s"])
        assert len(words) == len(network.heard) == passes * (len(MARGINAL_AGES_YEARS) if policy == "marginalise" else 1)
        averaged = any("ages were averaged, which takes 8 times as long" in note for note in result.notes)
        assert averaged == (policy == "marginalise")
        deaf = {"mean_std": 0.0, "label_differs_share": 0.0}  # it answers the same whatever it is told
        assert result.details.get("facts_spread") == (deaf if policy == "marginalise" else None)
        assert result.facts_std is None, "probabilities were not asked for"
        return words

    young, old = Facts(20, "female"), Facts(80, "female", "stroke")
    np.testing.assert_array_equal(heard(young)[0], table.embed(young)[0])
    np.testing.assert_array_equal(heard(old)[0], table.embed(Facts(80, "female"))[0])
    np.testing.assert_array_equal(heard(old, "unknown")[0], table.embed(Facts())[0])
    assert len({words.tobytes() for words in heard(old, "marginalise")}) == len(MARGINAL_AGES_YEARS)
