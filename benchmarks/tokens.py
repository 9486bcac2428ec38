"""What tokens cost, and whether the full-size recipes run: one training and one inference step each.

python benchmarks/tokens.py cost          # FLOPs, and the median time ratio over interleaved pairs of steps
python benchmarks/tokens.py full kgpl     # one step of a full-size recipe at 96³; needs about 20 GB
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from spanseg import model, parts
from spanseg import recipe as recipes
from spanseg.facts import Facts
from spanseg.interfaces import Batch, Told
from spanseg.machine import peak_memory_bytes
from spanseg.sources import teller


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["cost", "full"])
    parser.add_argument("recipe", nargs="?", default="kgpl-swin-unetr", help="name of a shipped recipe")
    parser.add_argument("--pairs", type=int, default=20, help="pairs of steps that are timed")
    arguments = parser.parse_args()
    recipe = recipes.load(arguments.recipe)
    if arguments.what == "full":
        full(recipe)
    else:
        recipe["canvas"] = {"shape": [64, 64, 64], "voxel_mm": 2.0}
        cost(recipe, arguments.pairs)


def cost(recipe: dict[str, Any], pairs: int) -> None:
    """Compare a prompted network with itself unfed: the same weights, the same image."""
    network, told, step = prepared(recipe)
    image = torch.randn(1, 1, *model.canvas_of(recipe).shape)
    with torch.no_grad():
        flops = [counted(lambda fed=fed: network(image, fed)) for fed in (None, told)]  # type: ignore[misc]
    print(f"FLOPs of a forward pass: {flops[0] / 1e9:.2f} G unfed, {flops[1] / 1e9:.2f} G told ({ratio(*flops):+.2%})")
    step(None), step(told)
    seconds = [(timed(step, None), timed(step, told)) for _ in range(pairs)]
    ratios = [fed / unfed for unfed, fed in seconds]
    print(
        f"training step over {pairs} interleaved pairs: median {statistics.median(a for a, _ in seconds):.2f} s unfed, "
        f"{statistics.median(b for _, b in seconds):.2f} s told; median ratio {statistics.median(ratios):.3f}"
    )


def full(recipe: dict[str, Any]) -> None:
    """One training and one inference step of a recipe at its own size."""
    network, told, step = prepared(recipe)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    print(f"{sum(p.numel() for p in network.parameters()):,} parameters, {trained:,} trained")
    print(f"training step: {timed(step, told):.1f} s")
    network.eval()
    image, began = torch.randn(1, 1, *model.canvas_of(recipe).shape), time.perf_counter()
    with torch.no_grad():
        logits = network(image, told)
    print(f"inference step: {time.perf_counter() - began:.1f} s, logits {tuple(logits.shape)}")
    print(f"peak memory {(peak_memory_bytes() or 0) / 2**30:.1f} GiB")


def prepared(recipe: dict[str, Any]) -> tuple[nn.Module, Told, Any]:
    """A recipe's network, what it is told, and its training step."""
    torch.manual_seed(0)
    network = model.build(recipe)
    tell = teller(recipe)
    assert tell is not None, "this recipe is told nothing"
    told = tell(Facts(age_years=40, sex="female"), 0)
    options = dict(recipe["objective"])
    reward = parts.build("objectives", options.pop("name"), options)
    shape = model.canvas_of(recipe).shape
    image, target = torch.randn(1, 1, *shape), torch.randint(0, len(model.protocol_of(recipe)), (1, *shape))
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4)

    def step(fed: Told | None) -> None:
        losses: dict[str, Tensor] = reward(network, Batch(image, target, 0, fed))
        optimiser.zero_grad(set_to_none=True)
        torch.stack(list(losses.values())).sum().backward()
        optimiser.step()

    return network, told, step


def counted(call: Any) -> int:
    """Floating point operations of a call."""
    counter = FlopCounterMode(display=False)
    with counter:
        call()
    return int(counter.get_total_flops())


def timed(step: Any, told: Told | None) -> float:
    """Seconds of one training step."""
    began = time.perf_counter()
    step(told)
    return time.perf_counter() - began


def ratio(before: float, after: float) -> float:
    """Relative change."""
    return after / before - 1


if __name__ == "__main__":
    main()
