"""Every shipped recipe builds, and what it says of itself is true."""

import pytest
import torch

from spanseg import checkpoint, labels, model, params, runs
from spanseg import recipe as recipes
from spanseg.facts import Facts
from spanseg.interfaces import Batch
from spanseg.parts import build
from spanseg.sources import teller

FULL_SIZE = {"kgpl", "vpt", "sam-lora"}
CPU_SIZE = [name for name in recipes.shipped() if name not in FULL_SIZE]


@pytest.mark.parametrize("name", recipes.shipped())
def test_a_recipe_starts_from_something_that_is_there(name):
    recipe = recipes.load(name)
    start = recipe["train"].get("start")
    assert start is None or start in recipes.shipped()
    assert labels.load_protocol(recipe["recipe"]["protocol"])
    is_told = recipe.get("tokens", {}).get("name") == "knowledge"
    assert ("MiniLM" in recipes.title_of(recipe, name)) == is_told


@pytest.mark.parametrize("name", CPU_SIZE)
def test_a_recipe_of_cpu_size_takes_a_step(name):
    """On the smallest canvas that its network takes; its own size is a matter of minutes."""
    recipe = recipes.load(name)
    shape = (32, 32, 64) if recipe["backbone"]["name"] in ("swin_unetr", "unetr") else (32, 32, 32)
    recipe["canvas"]["shape"] = list(shape)
    torch.manual_seed(0)
    network = model.build(recipe)
    tell, options = teller(recipe), dict(recipe["objective"])
    told = None if tell is None else tell(Facts(age_years=3, sex="M"), 0)
    target = torch.randint(0, len(model.protocol_of(recipe)), (1, *shape))
    losses = build("objectives", options.pop("name"), options)(
        network, Batch(torch.randn(1, model.channels_of(recipe), *shape), target, 0, told)
    )
    torch.stack(list(losses.values())).sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in network.parameters() if p.requires_grad)


STARTED = [name for name in CPU_SIZE if recipes.load(name)["train"].get("start", "").startswith("step1-")]


@pytest.mark.parametrize("name", STARTED)
def test_a_recipe_takes_up_all_weights_of_the_run_that_it_starts_from(name, tmp_path):
    recipe = recipes.load(name)
    first = recipes.load(recipe["train"]["start"])
    shape = [32, 32, 64] if recipe["backbone"]["name"] in ("swin_unetr", "unetr") else [32, 32, 32]
    for one in (recipe, first):
        one["canvas"]["shape"] = shape
    torch.manual_seed(1)
    begun = dict(model.build(first).named_parameters())
    checkpoint.save(tmp_path, begun, first)  # as a run does: what was trained, without buffers
    recipe["train"]["start"] = str(tmp_path)
    network = runs.network_of(recipe)
    for parameter, (key, value) in zip(network.backbone.parameters(), begun.items(), strict=True):
        assert torch.equal(parameter, value), key


def test_prompts_are_under_one_percent_of_the_parameters():
    counts = {row.key: row for row in params.count(recipes.load("vpt"))}
    assert 0 < counts["trainable"].parameters < 0.01 * counts["total"].parameters
