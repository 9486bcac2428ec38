"""Scans of a known age: the contrast follows from it, and a network that is told the age comes to use it."""

import numpy as np
import pytest
import torch

import tiny
from spanseg import generation, model, runs
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.lifespan import AGES_YEARS, Lifespan
from spanseg.sentences import load_table
from spanseg.sources import sources
from spanseg.synth import SynthOptions
from spanseg.told import Teller

QUIET = SynthOptions(contrast_jitter=0.0, bias=0.0, noise=0.0, gamma=0.0, thick=0.0, ghost=0.0, cut=0.0, strip=0.0)


@pytest.fixture(scope="module")
def maps(tmp_path_factory):
    folder = tmp_path_factory.mktemp("maps")
    tiny.write_map(folder / "head.nii.gz")
    return generation.read_maps(folder, generation.load_classes(model.protocol_of(tiny.recipe())))


def recipe(**train):
    chosen = tiny.recipe(**train)
    chosen["synth"] |= {"lifespan": True}
    chosen["tokens"] = {"name": "knowledge", "stages": ["encoder1", "decoder0"], "facts": ["age"]}
    return chosen


def test_white_matter_is_dark_in_newborns_equal_at_six_months_and_bright_in_adults(maps):
    protocol = model.protocol_of(tiny.recipe())
    table = generation.load_classes(protocol)
    ages: list[float] = []

    def tell(facts, rng=None):
        ages.append(facts.age_years)
        return Teller(None)(facts)

    source = Lifespan(maps, table, model.canvas_of(tiny.recipe()), QUIET, tell)
    contrast: dict[str, list[float]] = {period: [] for period in AGES_YEARS}
    white, grey = ([protocol.class_of(i) for i in ids] for ids in ((2, 41), (3, 42)))
    for index in range(24):
        sample = source.draw(0, index)
        period = next(name for name, (low, high) in AGES_YEARS.items() if low <= ages[-1] <= high)
        image, target = sample.image[0, 0], sample.target[0]
        inside = [image[torch.isin(target, torch.tensor(ids))].mean() for ids in (white, grey)]
        contrast[period].append(float(inside[0] - inside[1]))
    assert max(contrast["newborn"]) < 0 < min(contrast["adult"])
    assert np.abs(contrast["six months"]).max() < min(contrast["adult"])


def test_a_trained_network_answers_differently_to_different_ages(maps, tmp_path):
    trainer, _ = runs.prepare(recipe(steps=40, lr=1e-2), maps, tmp_path)
    trainer.run()
    image = sources(recipe(), maps, "cpu")[0].draw(5, 0).image
    tell = Teller(load_table(), ["age"])
    with torch.no_grad():
        newborn, half_a_year, adult = (
            torch.softmax(trainer.network(image, tell(Facts(age_years=age))), 1) for age in (0.0, 0.5, 40.0)
        )
    for one, other in ((newborn, half_a_year), (half_a_year, adult), (newborn, adult)):
        assert float((one - other).abs().max()) > 0.01


def test_two_sentences_give_tokens_that_differ(maps):
    network = model.build(recipe())
    tell = Teller(load_table(), ["age"])
    tokens = [network.tokens(tell(Facts(age_years=age))) for age in (0.0, 0.5, 0.75, 30.0)]
    for point in network.tokens.points:
        made = [one[point][0].detach() for one in tokens]
        for first in range(4):
            for second in range(first):
                apart = (made[first] - made[second]).norm() / made[first].norm()
                assert float(apart) > 0.1, (point, first, second)


def test_lifespan_without_tokens_is_refused(maps):
    chosen = recipe()
    del chosen["tokens"]
    with pytest.raises(SpansegError, match="told facts"):
        sources(chosen, maps, "cpu")
