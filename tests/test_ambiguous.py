"""One image, two truths: the band and the cortex add up to the same ribbon, and only the age tells them apart."""

from itertools import pairwise

import numpy as np
import pytest
import torch

import tiny
from spanseg import generation, model
from spanseg.ambiguous import AGES_YEARS, BAND_MM, Ambiguous, Someone, band_mm, someone
from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.generation import PackedMap
from spanseg.labels import UNKNOWN
from spanseg.sentences import load_table
from spanseg.synth import SynthOptions
from spanseg.told import Teller

QUIET = SynthOptions(strip=0.0, cut=0.0, noise=0.0, ghost=0.0, thick=0.0)
GREY, WHITE = 2, 3


@pytest.fixture(scope="module")
def recipe():
    return tiny.recipe() | {"recipe": {"protocol": "tissue"}, "canvas": {"shape": [48, 56, 48], "voxel_mm": 4.0}}


@pytest.fixture(scope="module")
def maps(tmp_path_factory, recipe):
    folder = tmp_path_factory.mktemp("maps")
    tiny.write_map(folder / "head.nii.gz")
    return generation.read_maps(folder, generation.load_classes(model.protocol_of(recipe)))


@pytest.fixture(scope="module")
def source(maps, recipe):
    return made(maps, recipe)


def made(maps, recipe, tell=None, width=""):
    table = generation.load_classes(model.protocol_of(recipe))
    return Ambiguous(maps, table, model.canvas_of(recipe), QUIET, tell, width)


def count(sample, value):
    return int((sample.target == value).sum())


def test_the_band_falls_with_age_and_is_gone_at_one_year():
    widths = [band_mm(age) for age in (0.0, 0.25, 0.5, 0.75, 1.0)]
    assert widths[0] == BAND_MM
    assert all(older < younger for younger, older in pairwise(widths))
    assert widths[-1] == band_mm(2.0) == band_mm(40.0) == 0.0


def test_one_image_has_two_truths(source):
    newborn, adult = (source.scan_of(who, 0, 3) for who in (Someone(0.0, -1.0), Someone(40.0, BAND_MM - 1.0)))
    assert torch.equal(newborn.image, adult.image)
    assert count(newborn, GREY) < count(adult, GREY)
    assert count(newborn, GREY) + count(newborn, WHITE) == count(adult, GREY) + count(adult, WHITE)


def test_the_target_follows_the_cortex_and_not_the_band(source):
    newborn, adult, thick = (source.scan_of(Someone(*who), 0, 3) for who in ((0.0, 0.0), (40.0, 0.0), (40.0, 3.0)))
    assert torch.equal(newborn.target, adult.target)
    assert not torch.equal(newborn.image, adult.image)
    changed = adult.target != thick.target
    assert changed.any() and set(adult.target[changed].tolist()) == {WHITE}
    assert set(thick.target[changed].tolist()) == {GREY}


def test_the_band_carries_the_intensity_of_grey_matter(source):
    newborn, adult = (source.scan_of(Someone(age, -1.0), 0, 3) for age in (0.0, 40.0))
    band = (newborn.target == WHITE) & ((newborn.image - adult.image).abs()[:, 0] > 0.05)
    assert int(band.sum()) > 100
    grey, white = (float(adult.image[0][adult.target == value].mean()) for value in (GREY, WHITE))
    in_band = float(newborn.image[0][band].mean())
    assert abs(in_band - grey) < abs(in_band - white)


def test_what_is_neither_cortex_nor_cerebral_white_matter_is_unknown(source):
    assert count(source.draw(0, 0), UNKNOWN) > 100


def test_seed_and_index_decide(source):
    first, again, other = source.draw(1, 2), source.draw(1, 2), source.draw(1, 3)
    assert torch.equal(first.image, again.image) and torch.equal(first.target, again.target)
    assert not torch.equal(first.image, other.image)


def test_people_are_as_the_draws_say(source):
    people = [someone(5, index) for index in range(400)]
    infants = [one for one in people if one.age_years <= AGES_YEARS["infant"][1]]
    assert 0.6 < len(infants) / len(people) < 0.8
    spread = np.std([one.thickness_mm for one in people])
    assert np.std([one.band_mm for one in infants]) == pytest.approx(spread, rel=0.15), "cortex differs by as much"
    assert abs(np.corrcoef([one.age_years for one in infants], [one.thickness_mm for one in infants])[0, 1]) < 0.15


def test_head_size_and_contrast_do_not_hang_on_the_age(source):
    for index in range(3):
        newborn, adult = (source.scan_of(Someone(age, 0.0), 7, index) for age in (0.0, 60.0))
        head = [torch.isin(one.target, torch.tensor([1, GREY, WHITE, UNKNOWN])) for one in (newborn, adult)]
        assert torch.equal(*head), "the same head"
        fluid = newborn.target == 1
        ratio = newborn.image[0][fluid] / adult.image[0][fluid].clamp(min=1e-3)
        assert float(ratio.median()) == pytest.approx(1.0, abs=0.05), "the same contrast"


def test_the_age_is_told_and_sometimes_forgotten(maps, recipe):
    tell = Teller(load_table(), ["age"])
    source = made(maps, recipe, tell)
    told, nothing = source.draw(0, 0).told, tell(Facts())
    assert told is not None
    same = [torch.equal(source.draw(0, index).told.embedding, nothing.embedding) for index in range(20)]
    assert 0 < sum(same) < 12


def test_the_oracle_sees_the_width_in_the_ribbon_and_the_other_the_ribbon_alone(maps, recipe):
    given, hidden = (made(maps, recipe, width=width) for width in ("given", "hidden"))
    for who in (Someone(0.0, -1.0), Someone(0.5, 0.0), Someone(40.0, 2.0)):
        shown, blank = (source.scan_of(who, 0, 3) for source in (given, hidden))
        ribbon = blank.image[0, 1] > 0
        assert torch.equal(shown.image[:, 0], blank.image[:, 0])
        assert set(blank.image[0, 1].unique().tolist()) == {0.0, 1.0}
        assert float(shown.image[0, 1][ribbon].mean()) == pytest.approx(0.5 + who.band_mm / BAND_MM)
        assert not shown.image[0, 1][~ribbon].any()
        assert bool(ribbon[blank.target[0] == GREY].all()), "the ribbon holds the cortex"
        assert bool((ribbon & (blank.target[0] == WHITE)).any()) == (who.band_mm > 0), "and the band"


def test_a_map_without_cortex_is_refused(maps, recipe):
    table = generation.load_classes(model.protocol_of(recipe))
    bare = np.where(np.isin(table.ids[maps[0].classes], (3, 42)), 0, maps[0].classes).astype(np.uint8)
    with pytest.raises(SpansegError, match="cortex and white matter"):
        made([PackedMap("bare", bare, maps[0].centre, maps[0].voxel_mm)], recipe)
