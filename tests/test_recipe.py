"""Recipes are data: read, overridden and written back without loss."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spanseg import recipe
from spanseg.errors import SpansegError

SHIPPED = recipe.shipped()[0]


@pytest.mark.parametrize("name", recipe.shipped())
def test_shipped_recipes_survive_writing_and_reading(name: str) -> None:
    loaded = recipe.load(name)
    assert tomllib.loads(recipe.dumps(loaded)) == loaded


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.lr=5e-4", "train", "lr", 5e-4),
        ("train.steps=12", "train", "steps", 12),
        ("train.bf16=true", "train", "bf16", True),
        ("backbone.widths=[8, 16]", "backbone", "widths", [8, 16]),
        ("recipe.title=my own = title", "recipe", "title", "my own = title"),
        ('recipe.title="4"', "recipe", "title", "4"),
        ("synth.strip=0", "synth", "strip", 0),
    ],
)
def test_overrides_are_read_as_toml(override: str, section: str, key: str, value: object) -> None:
    loaded = recipe.load(SHIPPED, [override])
    assert loaded[section][key] == value
    assert type(loaded[section][key]) is type(value)
    assert recipe.load(SHIPPED)[section].get(key) != value, "an override must not leak into the next load"


@pytest.mark.parametrize("override", ["lr=3", "train.lr", "train.=3", "trian.lr=3", ""])
def test_overrides_that_name_nothing_are_refused(override: str) -> None:
    with pytest.raises(SpansegError, match=r"section\.key=value"):
        recipe.load(SHIPPED, [override])


def test_unknown_recipe_lists_the_shipped_ones() -> None:
    with pytest.raises(SpansegError, match=SHIPPED):
        recipe.load("defualt")


def test_a_recipe_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[backbone]\nname = "res_unet"\n', encoding="utf-8")
    assert recipe.load(str(path), ["train.steps=3"]) == {"backbone": {"name": "res_unet"}, "train": {"steps": 3}}


@pytest.mark.parametrize(
    ("text", "says"),
    [("[trian]\nlr = 1\n", "trian"), ("[train\n", "not valid TOML"), ("synth = 3\n", r"such as \[synth\]")],
)
def test_a_broken_recipe_is_refused_with_its_name(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SpansegError, match=says) as caught:
        recipe.load(str(path))
    assert "mine.toml" in str(caught.value)


def test_a_recipe_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes('[recipe]\ntitle = "grün"\n'.encode("latin-1"))
    with pytest.raises(SpansegError, match=r"mine.toml: a recipe is text in UTF-8"):
        recipe.load(str(tmp_path / "mine.toml"))


plain = st.one_of(st.booleans(), st.integers(-(2**53), 2**53), st.floats(allow_nan=False), st.text())


@given(
    st.one_of(plain, st.lists(plain, max_size=3), st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), plain))
)
def test_any_plain_value_survives(value: object) -> None:
    assert tomllib.loads(recipe.dumps({"train": {"key": value}})) == {"train": {"key": value}}
