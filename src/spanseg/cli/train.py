"""``spanseg train``: train the network of a recipe on synthetic scans."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

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

    from spanseg import generation, machine, runs
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
    if chosen.get("train", {}).get("bf16") and device == "cpu" and not machine.computes_in_bf16():
        print("this processor does not compute in bf16: training in f32")
    folder = out or Path("runs") / Path(recipe).stem
    runs.refuse_another(chosen, folder)
    print(f"weights: {runs.train(chosen, maps, folder, _Progress(_steps(chosen, folder.name)), device)}")


def _maps(data: Path | None, recipe: dict[str, Any]) -> "list[PackedMap]":
    """Label maps to draw synthetic scans from; none for a recipe that trains on real scans alone."""
    from spanseg import generation, model
    from spanseg.errors import SpansegError
    from spanseg.sources import is_real_alone

    if data is None:
        if is_real_alone(recipe):
            return []
        raise SpansegError("this recipe draws synthetic scans from label maps; say where they are with --data.")
    if data.suffix == ".npz":
        return generation.load_packed(data)
    return generation.read_maps(data, generation.load_classes(model.protocol_of(recipe)))


class _Progress:
    """Prints how a training comes along: what one step takes, and a line every so often.

    Args:
        steps: of a run, by its name; ``None`` where that is not known.
    """

    def __init__(self, steps: "Callable[[str], int | None]") -> None:
        self._steps_of = steps
        self._first: dict[str, float] = {}

    def __call__(self, run: str, row: dict[str, float]) -> None:
        """Print what is worth a line after a step."""
        step, seconds, steps = row["step"], row["draw_s"] + row["step_s"], self._steps_of(run)
        first = self._first.setdefault(run, step)
        if step == first + 1 and steps:  # the first one also warms up
            left = steps - step + 2
            about = _duration(left * seconds)
            print(f"{run}: one step takes {_seconds(seconds)}: {left:.0f} steps, about {about}", flush=True)
        if step % (10 if steps and steps <= 100 else 25) == 0 or "validation" in row:
            score = f"  left-out Dice {row['validation']:.3f}" if "validation" in row else ""
            of = f" of {steps}" if steps else ""
            print(f"{run}: step {step:.0f}{of}  loss {row['loss']:.3f}  {_seconds(seconds)} a step{score}", flush=True)


def _steps(recipe: dict[str, Any], name: str) -> "Callable[[str], int | None]":
    """How many steps the run of a recipe has, and each shipped recipe that it may start from."""
    from spanseg import recipe as recipes
    from spanseg.train import TrainOptions

    def steps_of(run: str) -> int | None:
        if run != name and run not in recipes.shipped():
            return None
        chosen = recipe if run == name else recipes.load(run)
        return int(chosen.get("train", {}).get("steps", TrainOptions.steps))

    return steps_of


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
