"""Published weights of SAM come in from both forms, resized and complete, or not at all."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spanseg import checkpoint, import_sam, model, parts
from spanseg.errors import SpansegError
from spanseg.import_weights import read_tensors

pytest.importorskip("transformers")
Sam = parts.find("nets", "sam")

PUBLISHED = 4  # mask tokens
NECK = {"conv1": 0, "layer_norm1": 1, "conv2": 2, "layer_norm2": 3}
DOWN = {"conv1": 0, "layer_norm1": 1, "conv2": 3, "layer_norm2": 4, "conv3": 6}
UP = {"conv1": 0, "layer_norm": 1, "conv2": 3}
MLP = {"layers.0": 1, "proj_in": 0, "proj_out": 2}


def network(classes: int = PUBLISHED, side: int = 32, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return Sam(in_channels=1, out_channels=classes, image_shape=(16, 16, 16), side=side, size="tiny").eval()


def original_name(key: str) -> str:
    """What the original code calls one of transformers' tensors."""
    key = key.replace(
        "prompt_encoder.shared_embedding.positional_embedding",
        "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
    )
    key = key.replace("encoder.point_embed.", "encoder.point_embeddings.").replace(
        "layer_norm_final_attn", "norm_final_attn"
    )
    if key.startswith("vision_encoder."):
        key = key.replace("vision_encoder.", "image_encoder.").replace(".layers.", ".blocks.")
        key = key.replace("patch_embed.projection", "patch_embed.proj")
        for ours, number in NECK.items():
            key = key.replace(f"neck.{ours}.", f"neck.{number}.")
    for ours, number in DOWN.items():
        key = key.replace(f"mask_embed.{ours}.", f"mask_downscaling.{number}.")
    for ours, number in UP.items():
        key = key.replace(f"upscale_{ours}.", f"output_upscaling.{number}.")
    if "hypernetworks" in key or "iou_prediction_head" in key:
        for ours, number in MLP.items():
            key = key.replace(f".{ours}.", f".layers.{number}.")
    return key.replace("layer_norm", "norm")


def original(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights as they lie in a ``.pth`` of the original code: one matrix of positions, in the prompt encoder."""
    return {original_name(key): value for key, value in tensors.items() if not key.startswith("shared_image")}


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    """Weights of twice the side, four mask tokens and another matrix, with positions that are not all 0."""
    tensors = {key: torch.randn_like(value) for key, value in network(side=64).state_dict().items()}
    twin = "shared_image_embedding.positional_embedding"
    return tensors | {"prompt_encoder.shared_embedding.positional_embedding": tensors[twin]}


@pytest.mark.parametrize("form", ["transformers", "one matrix", "original", "module.", "in a wrapper"])
def test_a_published_file_loads(published: dict[str, Tensor], tmp_path: Path, form: str) -> None:
    twin, stored = "prompt_encoder.shared_embedding.positional_embedding", dict(published)
    if form == "one matrix":
        del stored[twin]
    if form in ("transformers", "one matrix"):
        save_file({key: value.clone() for key, value in stored.items()}, tmp_path / "model.safetensors")
        found = read_tensors(tmp_path / "model.safetensors")
    else:
        stored = {("module." if form == "module." else "") + key: value for key, value in original(stored).items()}
        torch.save({"model": stored, "epoch": 3} if form == "in a wrapper" else stored, tmp_path / "sam.pth")
        found = read_tensors(tmp_path / "sam.pth")
    ours = network(side=64)
    assert import_sam.is_published(found)
    report = import_sam.load_sam(ours, found)
    assert (report.tensors, report.parameters, report.missing, report.unexpected) == (1.0, 1.0, (), ())
    assert all(torch.equal(value, published[key]) for key, value in ours.state_dict().items())


def test_the_names_of_the_full_size_are_known() -> None:
    with torch.device("meta"):
        ours = Sam(in_channels=1, out_channels=4, image_shape=(8, 8, 8), side=1024)
        stored = original(ours.state_dict())
        assert len(stored) == 314 and "image_encoder.blocks.11.attn.rel_pos_h" in stored
        found = import_sam.named(stored)
    assert {key: value.shape for key, value in found.items()} == {k: v.shape for k, v in ours.state_dict().items()}


def test_tables_of_positions_are_resized_where_everything_is_seen(published: dict[str, Tensor]) -> None:
    ours = network(side=32)
    import_sam.load_sam(ours, original(published))
    pictures = published["vision_encoder.pos_embed"].movedim(-1, 1)
    expected = F.interpolate(pictures, size=(8, 8), mode="bilinear", align_corners=False).movedim(1, -1)
    assert torch.equal(ours.vision_encoder.pos_embed, expected)
    windowed, wide = (layer.attn.rel_pos_h for layer in ours.vision_encoder.layers)
    assert torch.equal(windowed, published["vision_encoder.layers.0.attn.rel_pos_h"])
    table = published["vision_encoder.layers.1.attn.rel_pos_h"]
    assert table.shape == (31, 8) and wide.shape == (15, 8)
    assert torch.allclose(wide[7], table[15], atol=1e-6), "no distance stays no distance"


def test_other_classes_begin_anew_and_nothing_else(published: dict[str, Tensor]) -> None:
    ours, fresh = network(classes=6, side=64), network(classes=6, side=64)
    report = import_sam.load_sam(ours, original(published))
    anew = {"mask_tokens", "output_hypernetworks_mlps", "iou_prediction_head"}
    assert {key.split(".")[1] for key in report.missing} == anew and report.groups["head"] == 0.0
    assert report.groups["encoder"] == report.groups["decoder"] == 1.0
    assert all(
        torch.equal(dict(ours.named_parameters())[key], dict(fresh.named_parameters())[key]) for key in report.missing
    )
    others = set(ours.state_dict()) - set(report.missing)
    assert all(torch.equal(ours.state_dict()[key], published[key]) for key in others)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.pop("image_encoder.neck.2.weight"), r"1 missing \(vision_encoder\.neck\.conv2\.weight\)"),
        (lambda t: t.update({"image_encoder.extra": torch.ones(1)}), r"1 unknown \(vision_encoder\.extra\)"),
        (lambda t: t.update({"image_encoder.neck.2.weight": torch.ones(2)}), r"1 of another shape .*neck\.conv2"),
        (lambda t: t.pop("prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"), "2 missing"),
        (lambda t: t.update({"image_encoder.blocks.0.attn.rel_pos_h": torch.ones(9, 8)}), "1 of another shape"),
    ],
)
def test_what_is_not_whole_is_refused_and_changes_nothing(published: dict[str, Tensor], change, told: str) -> None:
    ours, stored = network(side=64), original(published)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    change(stored)
    with pytest.raises(SpansegError, match=told):
        import_sam.load_sam(ours, stored)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


def test_other_networks_refuse_them(published: dict[str, Tensor]) -> None:
    unet = parts.find("nets", "unet")(in_channels=1, out_channels=2, widths=[4, 8])
    with pytest.raises(SpansegError, match="set the recipe's backbone to sam"):
        import_sam.load_sam(unet, published)


def test_a_refused_file_is_named(published: dict[str, Tensor], tmp_path: Path) -> None:
    stored = original(published)
    del stored["image_encoder.neck.2.weight"]
    torch.save(stored, tmp_path / "sam.pth")
    with pytest.raises(SpansegError, match=r"sam\.pth: these weights are not those of this network"):
        checkpoint.load_backbone(network(side=64), tmp_path / "sam.pth")


def test_a_converted_file_is_the_same_without_code(published: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save(original(published), tmp_path / "sam.pth")
    import_sam.convert(tmp_path / "sam.pth", tmp_path / "sam.safetensors")
    found = load_file(tmp_path / "sam.safetensors")
    assert found.keys() == published.keys() and all(torch.equal(found[key], published[key]) for key in published)
    save_file({"a": torch.ones(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SpansegError, match=r"other\.safetensors: expected weights of SAM"):
        import_sam.convert(tmp_path / "other.safetensors", tmp_path / "no.safetensors")


@pytest.mark.parametrize("change", ["lora", "full"])
def test_a_run_from_a_published_file_comes_back(published: dict[str, Tensor], tmp_path: Path, change: str) -> None:
    torch.save(original(published), tmp_path / "sam.pth")
    recipe = {
        "recipe": {"protocol": "subcortical"},
        "canvas": {"shape": [16, 16, 16], "voxel_mm": 8.0},
        "backbone": {"name": "sam", "size": "tiny", "side": 32},
        "adapt": {"name": change} | ({"rank": 2, "beside": ["decoder", "head"]} if change == "lora" else {}),
        "train": {"start": str(tmp_path / "sam.pth")},
    }
    torch.manual_seed(3)
    begun = model.backbone(recipe)
    checkpoint.load_backbone(begun, tmp_path / "sam.pth")
    begun = model.equip(begun, recipe).eval()
    with torch.no_grad():
        for parameter in begun.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    trained = {name: p.detach() for name, p in begun.named_parameters() if p.requires_grad}
    checkpoint.save(tmp_path / "run", trained, recipe)
    torch.manual_seed(4)
    _, again = checkpoint.restore(tmp_path / "run")
    image = torch.rand(1, 1, 16, 16, 16)
    with torch.no_grad():
        assert torch.equal(again.eval()(image), begun(image))
