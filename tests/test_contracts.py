"""What every backbone keeps to with every token source and adaptation that it declares."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spanseg import checkpoint, model, parts
from spanseg.errors import SpansegError
from spanseg.interfaces import TokenSource, Told

WIDTH, WORDS = 384, 6
BACKBONES: dict[str, dict[str, Any]] = {  # the smallest of each kind, with the shape of its canvas
    "res_unet": {"shape": (16, 16, 16), "widths": [8, 12, 16], "head_channels": 8, "local_channels": 4},
    "unet": {"shape": (16, 16, 16), "widths": [4, 8, 12]},
    "unetr": {"shape": (32, 32, 32), "feature_size": 4, "hidden_size": 24, "mlp_dim": 48, "num_heads": 3},
    "swin_unetr": {"shape": (32, 32, 64), "feature_size": 12, "window_size": 4},
    "sam": {"shape": (16, 12, 20), "size": "tiny", "side": 32},
    "slice_unet": {"shape": (16, 12, 18), "widths": [4, 8, 12]},
}
TOLD = [name for name in BACKBONES if "learned" in parts.find("nets", name).pairs]  # type: ignore[attr-defined]
FED = {  # the stages that are fed
    "res_unet": ["encoder1", "encoder2"],
    "unet": ["encoder1", "bottleneck"],
    "unetr": ["layer11", "layer12"],
    "swin_unetr": ["stage3", "stage4"],
}
TRIPLES = [
    (name, source, change)
    for name in parts.names("nets")
    for source, changes in parts.find("nets", name).pairs.items()  # type: ignore[attr-defined]
    for change in changes
]
FED_TRIPLES = [triple for triple in TRIPLES if triple[1] != "none"]


def recipe_of(name: str, source: str, change: str, **tokens: Any) -> dict[str, Any]:
    options = dict(BACKBONES[name])
    shape = options.pop("shape")
    recipe: dict[str, Any] = {
        "recipe": {"protocol": "aseg"},
        "canvas": {"shape": list(shape), "voxel_mm": 2.0},
        "backbone": {"name": name} | options,
        "adapt": {"name": change},
    }
    if source != "none":
        own = {"knowledge": {}, "learned": {"centres": 3}, "one_hot": {"width": WIDTH}}
        more = {"count": WORDS if source == "knowledge" else 4} | own[source]
        recipe["tokens"] = {"name": source, "stages": FED[name]} | more | tokens
    return recipe


def told(*seeds: int) -> Told:
    """Made-up sentences; an odd seed's sentence is a word shorter."""
    words = [torch.randn(WORDS, WIDTH, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    mask = torch.tensor([[True] * (WORDS - 1) + [seed % 2 == 0] for seed in seeds])
    return Told(torch.stack(words), mask, torch.tensor([seed % 3 for seed in seeds]))


def images(name: str, *seeds: int) -> Tensor:
    shape = BACKBONES[name]["shape"]
    drawn = [torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(drawn)


@cache
def built(name: str, source: str, change: str, meet: str = "gated", depth: str = "deep") -> nn.Module:
    """A model at its start."""
    torch.manual_seed(0)
    options = {} if source == "none" else {"meet": meet, "depth": depth}
    return model.build(recipe_of(name, source, change, **options)).eval()


@cache
def opened(name: str, source: str, meet: str = "gated", depth: str = "deep") -> nn.Module:
    """A model whose tokens are heard: everything that starts at 0 no longer does."""
    torch.manual_seed(0)
    network = model.build(recipe_of(name, source, "full", meet=meet, depth=depth)).eval()
    with torch.no_grad():
        for parameter in [*network.tokens.parameters(), *network.meetings.parameters()]:  # type: ignore[union-attr]
            parameter.add_(0.5 * torch.randn_like(parameter))
    return network


def test_every_backbone_is_tried_here() -> None:
    assert set(BACKBONES) == set(parts.names("nets"))
    assert set(FED) == set(TOLD)


@pytest.mark.parametrize(("name", "source", "change"), FED_TRIPLES)
def test_unfed_and_at_the_start_it_is_the_stock_network(name: str, source: str, change: str) -> None:
    network = built(name, source, change)
    with torch.no_grad():
        stock = network.backbone(images(name, 0))  # type: ignore[operator]
        assert torch.equal(network(images(name, 0)), stock)
        assert torch.equal(network(images(name, 0), told(0)), stock)


MANNERS = [(name, meet, "deep") for name in TOLD for meet in ("gated", "prepend")] + [
    ("unetr", "prepend", "shallow"),
    ("swin_unetr", "prepend", "shallow"),
    ("swin_unetr", "gated", "shallow"),
]


@pytest.mark.parametrize("source", parts.names("tokens"))
@pytest.mark.parametrize(("name", "points"), [("unetr", ["layer11_0", "layer12_0"]), ("res_unet", FED["res_unet"])])
def test_tokens_come_for_each_point_under_names_that_stored_weights_have(
    name: str, points: list[str], source: str
) -> None:
    network: Any = model.build(recipe_of(name, source, "frozen_encoder"))
    assert not any("_" in stage for stage in network.backbone.stages), "what follows it is the number of a block"
    source_of: TokenSource = network.tokens
    assert list(source_of.points) == list(network.meetings) == points
    made = source_of.forward(told(0, 1))
    assert list(made) == points
    for point, (tokens, mask) in made.items():
        assert tokens.shape == (2, mask.shape[1], source_of.points[point]) and mask.dtype == torch.bool
        assert any(f".{point}" in key for key in network.state_dict() if key.startswith("tokens."))


@pytest.mark.parametrize("source", ["knowledge", "learned"])
@pytest.mark.parametrize(("name", "meet", "depth"), MANNERS)
def test_subjects_do_not_hear_one_another(name: str, meet: str, depth: str, source: str) -> None:
    network = opened(name, source, meet, depth)
    with torch.no_grad():
        both = network(images(name, 0, 1), told(0, 1))
        assert torch.equal(network(images(name, 0, 1), told(0, 2))[0], both[0])  # another text for the other one
        assert torch.equal(network(images(name, 0, 5), told(0, 1))[0], both[0])  # another image for the other one
        single = torch.cat([network(images(name, seed), told(seed)) for seed in (0, 1)])
        assert not torch.allclose(both[1], network(images(name, 0, 1), told(0, 2))[1], atol=1e-4)  # it is heard
    assert torch.allclose(both, single, atol=2e-4)


@pytest.mark.parametrize(("name", "meet", "depth"), MANNERS)
def test_padding_has_no_say(name: str, meet: str, depth: str) -> None:
    network = opened(name, "knowledge", meet, depth)
    one = told(1)
    other = Told(one.embedding.clone(), one.mask, one.centre)
    other.embedding[:, -1] = 7.0
    with torch.no_grad():
        assert torch.equal(network(images(name, 0), one), network(images(name, 0), other))


def test_a_norm_takes_out_what_is_added_alike_everywhere_and_not_a_scale() -> None:
    torch.manual_seed(0)
    network = model.build(recipe_of("res_unet", "knowledge", "full", stages=["encoder2"])).eval()
    place, image = network.meetings["encoder2"], images("res_unet", 0)  # type: ignore[index]
    with torch.no_grad():
        unfed = network(image)
        place.read_tokens.out_proj.bias.fill_(1.0)  # added alike in all voxels
        assert torch.allclose(network(image, told(0)), unfed, atol=1e-4)
        place.scale.weight.normal_()
        heard = network(image, told(0))
        assert not torch.allclose(heard, unfed, atol=1e-2)
        assert not torch.allclose(heard, network(image, told(1)), atol=1e-2)


@pytest.mark.parametrize("name", TOLD)
def test_an_unknown_centre_is_fed_nothing(name: str) -> None:
    network = opened(name, "learned")
    nobody = Told(torch.zeros(1, WORDS, WIDTH), torch.ones(1, WORDS, dtype=torch.bool), torch.tensor([-1]))
    with torch.no_grad():
        assert torch.equal(network(images(name, 0), nobody), network(images(name, 0)))


@pytest.mark.parametrize(("name", "source", "change"), TRIPLES)
def test_what_is_trained_moves_and_what_is_frozen_does_not(name: str, source: str, change: str) -> None:
    torch.manual_seed(0)
    recipe = recipe_of(name, source, change)
    network = model.build(recipe)
    trained = {key: p for key, p in network.named_parameters() if p.requires_grad}
    before = {key: p.detach().clone() for key, p in network.named_parameters()}
    optimiser = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0)
    more = {} if source == "none" else {"told": told(0, 1)}
    gradients: dict[str, Tensor] = {}
    for _ in range(2):  # what stands behind a zero has no gradient in the first step
        optimiser.zero_grad()
        network(images(name, 0, 1), **more)[:, 1:3].square().mean().backward()
        gradients = {key: p.grad for key, p in trained.items() if p.grad is not None}
        optimiser.step()
    declared = [key for key in trained if not key.startswith("backbone.")] if source != "none" else trained
    centre_rows = {
        key: gradients[key][:2] if ".table." in key else gradients[key] for key in declared if key in gradients
    }
    silent = [key for key in declared if _is_used(key) and not (key in centre_rows and centre_rows[key].any())]
    assert not silent
    moved = [key for key, p in network.named_parameters() if not p.requires_grad and not torch.equal(p, before[key])]
    assert not moved
    torch.manual_seed(0)
    again = model.build(recipe)
    checkpoint.load_delta(again, {key: p.detach() for key, p in trained.items()}, "delta")
    with torch.no_grad():
        assert torch.equal(again(images(name, 0, 1), **more), network(images(name, 0, 1), **more))


def _is_used(key: str) -> bool:
    """MONAI's UNETR carries norms of a cross-attention that it does not have; SAM has parts that prompts alone use, and
    a small network for each class, two of which the loss sees; tests/test_prompted.py looks after those."""
    silent = ("norm_cross_attn", "point_embed", "not_a_point", "mask_embed.", "iou_prediction_head", "hypernetworks")
    return not any(part in key for part in silent)


def test_an_undeclared_pair_is_refused() -> None:
    with pytest.raises(SpansegError, match="does not support tokens 'learned' with adapt 'lora'"):
        model.build(recipe_of("res_unet", "learned", "lora"))


def test_a_stage_that_is_not_there_is_refused() -> None:
    with pytest.raises(SpansegError, match="no stage of the backbone"):
        model.build(recipe_of("res_unet", "knowledge", "full", stages=["stage9"]))
