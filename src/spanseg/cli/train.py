"""``spanseg train``: train the network of a recipe on synthetic scans."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from spanseg.generation import PackedMap


def train(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe or path of a TOML file.")],
    data: Annotated[Path | None, typer.Option(help="Folder of label maps, or a .npz that --pack wrote.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the run; default runs/RECIPE.")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Override: section.key=value.")] = None,
    start: Annotated[str, typer.Option("--from", help="Weights to start from: a run, a model folder, 'default'.")] = "",
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="Threads of PyTorch.")] = None,
    pack: Annotated[Path | None, typer.Option(help="Write the packed label maps to this .npz and stop.")] = None,
) -> None:
    """Train, log, checkpoint and resume. A second call with the same folder goes on where the first one stopped."""
    import torch

    from spanseg import generation, runs
    from spanseg import recipe as recipes

    if threads:
        torch.set_num_threads(threads)
    chosen = recipes.load(recipe, settings)
    if start:
        chosen.setdefault("train", {})["start"] = start
    maps = _maps(data, chosen)
    if pack:
        generation.save_packed(maps, pack)
        print(f"{len(maps)} label maps packed into {pack}")
        return
    print(f"weights: {runs.train(chosen, maps, out or Path('runs') / Path(recipe).stem, _report, device)}")


def _maps(data: Path | None, recipe: dict[str, Any]) -> "list[PackedMap]":
    """Label maps to draw synthetic scans from; none for a recipe that trains on real scans alone."""
    from spanseg import generation, model
    from spanseg.errors import SpansegError

    if data is None:
        if recipe.get("real", {}).get("share", 0) >= 1:
            return []
        raise SpansegError("this recipe draws synthetic scans from label maps; say where they are with --data.")
    if data.suffix == ".npz":
        return generation.load_packed(data)
    return generation.read_maps(data, generation.load_classes(model.protocol_of(recipe)))


def _report(run: str, row: dict[str, float]) -> None:
    if row["step"] % 25 == 0 or "validation" in row:
        score = f"  left-out Dice {row['validation']:.3f}" if "validation" in row else ""
        seconds = row["draw_s"] + row["step_s"]
        print(f"{run} step {row['step']:.0f}  loss {row['loss']:.3f}  {seconds:.2f} s{score}", flush=True)
