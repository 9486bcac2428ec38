"""SAM on a canvas: transformers' network number for number, counted as published; prompts of one scan stay with it."""

import pytest
import torch
from torch import Tensor, nn

import tiny
from spanseg import model, params, parts
from spanseg import recipe as recipes
from spanseg.cli.main import main
from spanseg.errors import SpansegError
from spanseg.slice_prompts import NO_POINT, SlicePrompts

stock = pytest.importorskip("transformers").SamModel
Sam = parts.find("nets", "sam")

SHAPE = (16, 12, 20)
LAYERS, WIDTH, PATCH, WIDE = 12, 768, 16, 4


def small(classes: int = 5, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return Sam(in_channels=1, out_channels=classes, image_shape=SHAPE, side=32, size="tiny", **options).eval()


def count(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def on_meta(side: int, classes: int, rank: int) -> tuple[int, int, int]:
    """Parameters of the stock network, of what is trained in LoRA-SAM, and of transformers' own network."""
    recipe = recipes.load("sam-lora", [f"backbone.side={side}", f"adapt.rank={rank}"])
    options = {key: value for key, value in recipe["backbone"].items() if key != "name"}
    with torch.device("meta"):
        network = Sam(in_channels=1, out_channels=classes, image_shape=(160, 192, 160), **options)
        theirs = stock(network.config)
    before = count(list(network.parameters()))
    model.equip(network, recipe)
    return before, count([p for p in network.parameters() if p.requires_grad]), count(list(theirs.parameters()))


def closed_form(side: int, classes: int, rank: int) -> tuple[int, int]:
    """The same from the shapes: tables of positions follow the side, a token's layers the classes."""
    grid = side // PATCH
    tables = (64**2 - grid**2) * WIDTH + (127 - (2 * grid - 1)) * 64 * 2 * WIDE
    decoder = 3_497_056 + 140_321 * classes
    return 89_670_912 - tables + decoder + 6_220, (WIDTH + 3 * WIDTH) * rank * LAYERS + decoder + 6_220


def test_the_counts_of_the_paper() -> None:
    base, trained, theirs = on_meta(512, 13, 16)
    assert (base, trained, theirs) == (92_606_297, 5_917_273, 92_606_297 + 256)
    assert trained - (5_321_229 + 6_220) == 589_824
    assert f"{100 * trained / base:.4f}" == "6.3897"


@pytest.mark.parametrize(("side", "classes", "rank"), [(1024, 4, 4), (256, 33, 1), (512, 2, 64)])
def test_closed_forms_hold_for_any_size(side: int, classes: int, rank: int) -> None:
    base, trained, theirs = on_meta(side, classes, rank)
    assert (base, trained) == closed_form(side, classes, rank)
    assert theirs == base + 256
    if (side, classes) == (1024, 4):
        assert base == 93_735_472, "as published"


def test_the_table_stands_beside_the_papers_figures(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["params", "sam-lora"])
    assert caught.value.code == 0
    rows = {row[:18].strip(): row[18:].split() for row in capsys.readouterr().out.splitlines()}
    assert rows["stock backbone"][0] == "92,606,297" and rows["stock backbone"][-1] == "92,610,000"
    assert rows["trainable"][0] == "5,917,273" and rows["trainable"][-1] == "5,920,000"
    assert rows["trainable / stock"] == ["6.3897%", "6.39", "%"]
    assert rows["deltas"][0] == "589,824"


def test_only_what_the_paper_trains_is_trained() -> None:
    network = small()
    model.equip(network, {"backbone": {"name": "sam"}, "adapt": {"name": "lora", "beside": ["decoder", "head"]}})
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    first = {name.partition(".")[0] for name in trained}
    assert first == {"vision_encoder", "prompt_encoder", "mask_decoder"}
    assert all(".qkv.lora_" in name for name in trained if name.startswith("vision_encoder"))
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    assert all(name.startswith("vision_encoder") for name in frozen)
    assert not [name for name, _ in network.named_parameters() if "positional" in name]
    with pytest.raises(SpansegError, match=r"beside = \['neck'\].*encoder, skips, decoder, head"):
        model.equip(small(), {"backbone": {"name": "sam"}, "adapt": {"name": "lora", "beside": ["neck"]}})


def test_the_groups_hold_every_parameter_once() -> None:
    starts = tiny.first_names(small())
    assert starts["encoder"] == {"vision_encoder"} and not starts["skips"]
    assert starts["decoder"] == {"prompt_encoder", "mask_decoder"} and starts["head"] == {"mask_decoder"}
    sizes = [{k: count(v) for k, v in small(classes).groups().items()} for classes in (3, 6)]
    assert sizes[0] | {"head": 2 * sizes[0]["head"]} == sizes[1], "the head alone depends on the classes"


def theirs_of(ours: nn.Module) -> nn.Module:
    network = stock(ours.config).eval()
    network.load_state_dict(ours.state_dict(), strict=True)
    return network


def prompts(slices: int, structures: int, seed: int = 0) -> SlicePrompts:
    """Two points, a box and an earlier answer for each structure of each slice."""
    rng = torch.Generator().manual_seed(seed)
    corners = (torch.rand(slices, structures, 2, 2, generator=rng) * 8).cumsum(2).flatten(2)
    points = torch.rand(slices, structures, 2, 2, generator=rng) * 16
    logits = torch.randn(slices, structures, 32, 32, generator=rng)
    return SlicePrompts(points, torch.tensor([1, 0]).expand(slices, structures, -1), corners, logits)


@pytest.mark.parametrize("kind", ["none", "points", "boxes", "both", "answer"])
def test_it_answers_as_the_stock_network(kind: str) -> None:
    ours, image, which = small(), torch.rand(1, 1, *SHAPE), torch.tensor([[2, 5]])
    theirs, pixels = theirs_of(ours), ours._pixels(image, "coronal", which)
    given = prompts(2, 1)
    points = given.points if kind in ("points", "both") else None
    boxes = given.boxes if kind in ("boxes", "both") else None
    logits = given.logits if kind == "answer" else None
    asked = SlicePrompts(points, given.labels if points is not None else None, boxes, logits)
    # a slice of 16 by 20 voxels lies in a square of 20, which is scaled to 32 pixels
    scale, above = 32 / 20, torch.tensor([2.0, 0.0])
    told = {}
    if points is not None:
        told |= {"input_points": ((points + above + 0.5) * scale - 0.5).flip(-1), "input_labels": asked.labels}
    if boxes is not None:
        told["input_boxes"] = ((boxes.unflatten(-1, (2, 2)) + above + 0.5) * scale - 0.5).flip(-1).flatten(2)
    if logits is not None:
        told["input_masks"] = logits
    with torch.no_grad():
        masks, overlap = ours.ask(ours.embed(image, "coronal", which), asked)
        for several, tokens in ((False, slice(0, 1)), (True, slice(1, None))):
            expected = theirs(pixel_values=pixels, multimask_output=several, **told)
            torch.testing.assert_close(masks[:, :, tokens], expected.pred_masks, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(overlap[:, :, tokens], expected.iou_scores, rtol=1e-4, atol=1e-5)


def test_structures_and_scans_do_not_hear_one_another() -> None:
    network, image = small(), torch.rand(2, 1, *SHAPE)
    which, given, other = torch.tensor([[1, 4], [2, 3]]), prompts(4, 3), prompts(4, 3, seed=1)
    changed, another = image.clone(), SlicePrompts(*(getattr(given, name).clone() for name in given.__annotations__))
    changed[1] = torch.rand(1, *SHAPE)
    for name in ("points", "boxes", "logits"):
        getattr(another, name)[2:] = getattr(other, name)[2:]
    with torch.no_grad():
        masks, overlap = network.ask(network.embed(image, "coronal", which), given)
        for seen, asked in ((changed, given), (image, another), (changed, another)):
            found, guess = network.ask(network.embed(seen, "coronal", which), asked)
            assert torch.equal(found[:2], masks[:2]) and torch.equal(guess[:2], overlap[:2])
            assert not torch.equal(found[2:], masks[2:])
        another.points[:2] = given.points[:2]
        another.points[0, 1] += 3  # another structure of the same slice
        found, _ = network.ask(network.embed(image, "coronal", which), another)
        assert torch.equal(found[0, [0, 2]], masks[0, [0, 2]]) and not torch.equal(found[0, 1], masks[0, 1])


def test_a_point_that_stands_for_none_is_where_it_likes() -> None:
    network, image = small(), torch.rand(1, 1, *SHAPE)
    points = torch.tensor([[[[3.0, 4.0], [0.0, 0.0]]]])
    labels = torch.tensor([[[1, NO_POINT]]])
    with torch.no_grad():
        features = network.embed(image, "coronal", torch.tensor([[2]]))
        one, _ = network.ask(features, SlicePrompts(points, labels))
        points[0, 0, 1] = 9.0
        other, _ = network.ask(features, SlicePrompts(points, labels))
        points[0, 0, 0] = 9.0
        moved, _ = network.ask(features, SlicePrompts(points, labels))
    assert torch.equal(one, other) and not torch.equal(one, moved)


@pytest.mark.parametrize("plane", ["sagittal", "coronal", "axial"])
def test_a_canvas_is_cut_and_put_together_again(plane: str) -> None:
    network, image = small(planes=[plane]), torch.rand(1, 1, *SHAPE)
    axis = ("sagittal", "coronal", "axial").index(plane)
    with torch.no_grad():
        whole = network(image)
        masks, _ = network.ask(network.embed(image, plane, torch.tensor([[7]])))
        alone = network.on_slices(masks[:, 0], plane)
    assert whole.shape == (1, 5, *SHAPE)
    torch.testing.assert_close(whole.select(2 + axis, 7), alone, rtol=1e-4, atol=1e-5)


def colours(network: nn.Module, image: Tensor, number: int) -> Tensor:
    return network._pixels(image, "axial", torch.tensor([[number]]))[0]


def test_a_slice_has_its_neighbours_for_colours() -> None:
    image = torch.zeros(1, 1, *SHAPE)
    image[..., 3] = 1
    bright = [colours(small(), image, number).amax((1, 2)) > 0 for number in (2, 3, 4, 10)]
    expected = [[False, False, True], [False, True, False], [True, False, False], [False] * 3]
    assert [row.tolist() for row in bright] == expected
    assert (colours(small(neighbours=False), image, 3).amax((1, 2)) > 0).all()
    image[..., 0] = 1
    assert (colours(small(), image, 0).amax((1, 2)) > 0).tolist() == [True, True, False], "the first is before itself"


def test_several_planes_are_averaged() -> None:
    image = torch.rand(1, 1, *SHAPE)
    with torch.no_grad():
        apart = [small(planes=[plane])(image).softmax(1) for plane in ("coronal", "axial")]
        both = small(planes=["coronal", "axial"])(image).softmax(1)
    torch.testing.assert_close(both, (apart[0] + apart[1]) / 2)


def test_stages_run_in_their_order() -> None:
    network, seen = small(), []
    for name in network.stages:
        assert network.attention_blocks(name) == [network.stage_module(name)]
        network.stage_module(name).register_forward_hook(
            lambda m, a, out, name=name: seen.append((name, out.shape[-1]))
        )
    with torch.no_grad():
        network.embed(torch.zeros(1, 1, *SHAPE), "coronal", torch.tensor([[0]]))
    assert seen == list(network.stages.items())


def test_a_network_from_scratch_begins_with_weights_of_a_useful_size() -> None:
    network = small()
    assert 0.015 < float(network.vision_encoder.layers[0].attn.qkv.weight.std()) < 0.025
    matrix = network.shared_image_embedding.positional_embedding
    assert float(matrix.abs().max()) < 4
    assert torch.equal(matrix, small(2).prompt_encoder.shared_embedding.positional_embedding), "not drawn at random"


@pytest.mark.parametrize(
    "options", [{"size": "giant"}, {"planes": []}, {"planes": ["oblique"]}, {"side": 30}, {"in_channels": 2}]
)
def test_options_that_do_not_fit_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(SpansegError, match=r"nets\.Sam"):
        Sam(**({"in_channels": 1, "out_channels": 2, "image_shape": SHAPE, "size": "tiny", "side": 32} | options))


def test_params_counts_the_small_one_too() -> None:
    counts = {one.key: one.parameters for one in params.count(recipes.load("sam-small"))}
    assert counts["trainable"] == counts["total"] == counts["stock"] < 2_000_000
