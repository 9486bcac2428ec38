"""A network that is told something, exported, segments without PyTorch and agrees with PyTorch."""

import copy

import numpy as np
import pytest
import torch

import spanseg
import tiny
from spanseg import checkpoint, export, model, segmenter, sidecar, swaps
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.images import read_scan
from spanseg.report import render_report
from spanseg.runtime import Engine, Words, open_model
from spanseg.runtime_torch import TorchEngine
from spanseg.sentences import load_table
from spanseg.simulate import simulate
from spanseg.telling import MARGINAL_AGES_YEARS, Teller
from spanseg.told import Teller as TrainingTeller

TELLS = {"name": "knowledge", "stages": ["encoder1", "decoder0"], "facts": ["age", "sex", "diagnosis"]}


def recipe(told=True, **train):
    chosen = tiny.recipe(**train)
    if told:
        chosen["tokens"] = copy.deepcopy(TELLS)
    return chosen


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A model that hears its tokens, though it was never trained."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    network = model.build(recipe())
    with torch.no_grad():
        for parameter in network.meetings.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    checkpoint.save(folder, dict(network.named_parameters()), recipe())
    return folder


@pytest.fixture(scope="module")
def canvas():
    return tiny.canvas()


@pytest.fixture(scope="module")
def exported(run, canvas, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "told"
    export.export(run, folder, export.Description("told", "1", "Apache-2.0", "nothing"), [canvas])
    return folder


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scan")
    return simulate([tiny.write_map(folder / "map.nii.gz")], folder / "bids", 1, voxel_mm=4.0)[0]


def test_it_agrees_with_pytorch_for_every_sentence(run, canvas, exported):
    network = checkpoint.restore(run)[1].eval()
    engine, table = Engine(open_model(str(exported)), "f32", 1), load_table()
    answers = []
    for facts in (Facts(), Facts(age_years=0.5, sex="M"), Facts(age_years=72, diagnosis="MCI")):
        told = TrainingTeller(table, TELLS["facts"])(facts)
        with torch.no_grad():
            expected = torch.softmax(network(torch.from_numpy(canvas)[None, None], told), 1)[0].numpy() * 255
        answers.append(engine(canvas, Words(*table.embed(facts))))
        assert np.abs(answers[-1] - expected).max() < 1.5
    assert (answers[0] != answers[1]).any() and (answers[1] != answers[2]).any()


@pytest.mark.parametrize("source", ["knowledge", "learned", None])
def test_pytorch_tells_a_network_what_the_exported_graph_does(source, run, exported, canvas, tmp_path):
    """As on a GPU, where the centre is told too, though a scan comes without words."""
    folder = exported
    if source != "knowledge":
        chosen = tiny.recipe() | ({"tokens": {"name": source, "stages": ["decoder0"], "centres": 2}} if source else {})
        torch.manual_seed(0)
        network = model.build(chosen)
        with torch.no_grad():
            for parameter in getattr(network, "meetings", torch.nn.Module()).parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        checkpoint.save(tmp_path / "run", dict(network.named_parameters()), chosen)
        folder = tmp_path / "model"
        export.export(tmp_path / "run", folder, export.Description("of", "1", "Apache-2.0", "nothing"), [canvas])
    words = Words(*load_table().embed(Facts(age_years=72))) if source == "knowledge" else None
    expected = Engine(open_model(str(folder)), "f32", 1)(canvas, words)
    found = TorchEngine(open_model(str(folder)), "f32", "cpu")(canvas, words)
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_facts_change_the_result_and_the_diagnosis_only_when_asked(exported, scan):
    def volumes(**settings):
        return [row.mm3 for row in spanseg.segment(scan, model=str(exported), **settings).volumes]

    nobody = volumes()
    assert volumes(facts=Facts(age_years=72, sex="F")) != nobody
    assert volumes(facts=Facts(diagnosis="MCI")) == nobody
    assert volumes(facts=Facts(diagnosis="MCI"), tell_diagnosis=True) != nobody
    assert volumes(facts=Facts(age_years=72), facts_policy="unknown") == nobody


def test_what_it_makes_says_that_minilm_read_the_sentences(exported, scan):
    image, options = read_scan(scan), segmenter.SegmentOptions(model=str(exported))
    predictor = segmenter.load_model(options)
    result = segmenter.segment_scan(image, predictor, options)
    settings = sidecar.settings_of(predictor.identity, options, sidecar.OutputOptions())
    record = sidecar.build(image, result, settings, [])
    assert record["model_title"] == "spanseg default, coarse stage (sentences read by MiniLM)"
    assert "<h1>Brain segmentation (sentences read by MiniLM)</h1>" in render_report(image, result)


def test_the_title_follows_from_the_encoder_not_from_what_was_written_by_hand(exported):
    folder = open_model(str(exported))
    folder.table["model"]["title"] = "ours"
    assert folder.title == "ours (sentences read by MiniLM)"
    folder.table["sentences"]["encoder"] = "biomedclip, weights 000000000000"
    assert folder.title == "ours"
    assert open_model("default").title == "spanseg default"


def test_marginalising_averages_over_ages_and_says_so(exported, scan):
    result = spanseg.segment(scan, model=str(exported), facts_policy="marginalise", probabilities=True)
    assert any(f"{len(MARGINAL_AGES_YEARS)} ages were averaged" in note for note in result.notes)
    spread = result.details["facts_spread"]
    assert 0 < spread["mean_std"] < 0.5 and 0 < spread["label_differs_share"] < 1
    assert any(f"At {spread['label_differs_share']:.1%} of the brain's voxels" in note for note in result.notes)
    assert result.facts_std.shape == result.labels.shape
    assert result.facts_std.data.max() < 0.71
    inside = result.labels.data > 0
    assert result.facts_std.data[inside].mean() == pytest.approx(spread["mean_std"], rel=0.3)
    once = spanseg.segment(scan, model=str(exported), probabilities=True)
    assert once.facts_std is None and "facts_spread" not in once.details


def test_swapping_facts_changes_volumes_and_with_gates_at_zero_nothing(exported, scan, canvas, tmp_path):
    options = segmenter.SegmentOptions(model=str(exported), facts=Facts(age_years=40, sex="female"))
    found = swaps.swaps(read_scan(scan), segmenter.load_model(options), options)
    assert {swap.fact for swap in found} == {"age", "sex", "diagnosis"}
    assert max(swap.median_percent for swap in found) > 0.01
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "deaf", dict(model.build(recipe()).named_parameters()), recipe())
    export.export(
        tmp_path / "deaf", tmp_path / "model", export.Description("deaf", "1", "Apache-2.0", "nothing"), [canvas]
    )
    options = segmenter.SegmentOptions(model=str(tmp_path / "model"))
    silent = swaps.swaps(read_scan(scan), segmenter.load_model(options), options)
    assert max(swap.median_percent for swap in silent) == 0.0


def test_a_model_that_is_told_nothing_cannot_be_audited(scan):
    options = segmenter.SegmentOptions()
    with pytest.raises(SpansegError, match="nothing to swap"):
        swaps.swaps(read_scan(scan), segmenter.load_model(options), options)


def test_a_table_of_another_encoder_is_refused(exported, tmp_path):
    folder = open_model(str(exported))
    folder.table["sentences"]["encoder"] = "another"
    with pytest.raises(SpansegError, match="another"):
        Teller(folder)


def test_an_unknown_policy_is_refused(exported):
    with pytest.raises(SpansegError, match="marginalise"):
        Teller(open_model(str(exported))).words(Facts(), "guess")
