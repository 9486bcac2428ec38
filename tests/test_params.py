"""``spanseg params``: every parameter counted once, under its role, beside the paper's figure."""

from pathlib import Path
from typing import Any

import pytest

from spanseg import model, params, recipe
from spanseg.cli.main import main
from spanseg.errors import SpansegError

UNET = """
[recipe]
protocol = "aseg"
[canvas]
shape = [32, 32, 32]
voxel_mm = 6.0
[backbone]
name = "unet"
widths = [4, 8]
"""
PAPER = """
[paper]
stock = 1_000
trainable = 2.5e3
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    (tmp_path / "small.toml").write_text(UNET + PAPER, encoding="utf-8")
    return str(tmp_path / "small.toml")


def counted(loaded: dict[str, Any]) -> dict[str, int]:
    return {one.key: one.parameters for one in params.count(loaded)}


def test_a_plain_model_is_its_stock_backbone(path: str) -> None:
    loaded = recipe.load(path)
    network, found = model.build(loaded), counted(recipe.load(path))
    assert found["stock"] == found["total"] == found["trainable"] == sum(p.numel() for p in network.parameters())
    for group, parameters in network.groups().items():
        assert found[f"stock_{group}"] == found[f"trainable_{group}"] == sum(p.numel() for p in parameters)
    assert found["tokens"] == found["meetings"] == found["deltas"] == 0


@pytest.mark.parametrize(
    ("adapt", "trained"),
    [("decoder", {"decoder", "head"}), ("frozen_encoder", {"skips", "decoder", "head"})],
)
def test_what_is_frozen_is_not_trainable(path: str, adapt: str, trained: set[str]) -> None:
    found = counted(recipe.load(path, [f"adapt.name={adapt}"]))
    for group in ("encoder", "skips", "decoder", "head"):
        assert found[f"trainable_{group}"] == (found[f"stock_{group}"] if group in trained else 0)
    assert found["trainable"] == sum(found[f"stock_{group}"] for group in trained) < found["total"]


def test_tokens_and_their_meetings_are_counted_apart(path: str) -> None:
    told = ["tokens.name=learned", "tokens.stages=['bottleneck']", "tokens.count=5", "adapt.name=tokens_and_head"]
    plain, found = counted(recipe.load(path)), counted(recipe.load(path, told))
    assert found["stock"] == plain["stock"]
    assert found["tokens"] == 5 * 8
    assert found["meetings"] > 0 and found["deltas"] == 0
    assert found["total"] == found["stock"] + found["tokens"] + found["meetings"]
    assert found["trainable"] == found["tokens"] + found["meetings"] + found["stock_head"]


def test_low_rank_deltas_are_counted_apart(path: str) -> None:
    pytest.importorskip("peft")
    settings = ["backbone.name=res_unet", "adapt.name=lora", "adapt.rank=2"]
    plain, found = counted(recipe.load(path, settings[:1])), counted(recipe.load(path, settings))
    assert found["stock"] == plain["stock"]
    assert found["trainable"] == found["deltas"] == found["trainable_deltas"] > 0
    assert found["total"] == found["stock"] + found["deltas"]


def test_a_transformer_that_cannot_be_built_on_meta_is_counted_too(path: str) -> None:
    pytest.importorskip("monai")
    settings = ["backbone.name=swin_unetr", "backbone.feature_size=12", "canvas.shape=[64, 32, 32]"]
    loaded = recipe.load(path, settings)
    del loaded["backbone"]["widths"]
    found = counted(loaded)
    assert found["stock"] == found["total"] > found["stock_encoder"] > 0


def test_the_papers_figures_stand_beside_ours(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["params", path, "--set", "adapt.name=decoder"])
    assert caught.value.code == 0
    rows = capsys.readouterr().out.splitlines()
    found = counted(recipe.load(path, ["adapt.name=decoder"]))
    stock = next(row for row in rows if row.startswith("stock backbone"))
    assert stock.split()[2:] == [f"{found['stock']:,}", "100.00%", "1,000"]
    trainable = next(row for row in rows if row.startswith("trainable"))
    assert trainable.split()[1:] == [f"{found['trainable']:,}", f"{found['trainable'] / found['total']:.2%}", "2,500"]
    assert rows[0] == path, "a recipe without a title goes by its name"
    assert len(rows) == 1 + 1 + 5 + 3 + 1 + 8  # each on a line of its own


def test_the_title_says_who_reads_the_sentences(path: str) -> None:
    told = recipe.load(path, ["recipe.title=ours", "tokens.name=knowledge"])
    assert recipe.title_of(told, path) == "ours (sentences read by MiniLM)"
    assert recipe.title_of(recipe.load(path, ["recipe.title=ours", "tokens.name=learned"]), path) == "ours"
    told["recipe"]["title"] = "ours (sentences read by MiniLM)"
    assert recipe.title_of(told, path) == "ours (sentences read by MiniLM)", "said once"


@pytest.mark.parametrize("figure", ["stok=3", "total='62 M'", "total=true"])
def test_a_figure_for_nothing_is_refused(path: str, figure: str) -> None:
    with pytest.raises(SpansegError, match=r"\[paper\] has '(stok|total) .*numbers of parameters for stock, stock_enc"):
        params.count(recipe.load(path, [f"paper.{figure}"]))
