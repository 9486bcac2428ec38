"""``spanseg params``: how many parameters a recipe's model has and trains."""

from typing import Annotated

import typer


def params(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe or path of a TOML file.")],
    settings: Annotated[list[str] | None, typer.Option("--set", help="Override: section.key=value.")] = None,
) -> None:
    """Count stock backbone, tokens, total and trainable parameters, beside the paper's where the recipe gives them."""
    from spanseg import params as counting
    from spanseg import recipe as recipes

    loaded = recipes.load(recipe, settings)
    counts = counting.count(loaded)
    print(recipes.title_of(loaded, recipe))
    for line in counting.lines(counts, loaded.get("paper")):
        print(line)
