"""A tiny head of label ids and a tiny recipe, for tests that need to train or export something in a second."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np

from spanseg import recipe as recipes

SHAPE = (48, 56, 48)


def label_map() -> np.ndarray:
    """A brain-like arrangement of FreeSurfer ids with skull and skin, left structures on the left, 4 mm voxels."""
    x, y, z = np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in SHAPE), indexing="ij")
    labels = np.zeros(SHAPE, dtype=np.int32)

    def ball(centre: tuple[float, float, float], radii: tuple[float, float, float]) -> np.ndarray:
        return sum(((a - c) / r) ** 2 for a, c, r in zip((x, y, z), centre, radii, strict=True)) < 1

    for radii, value in (((22, 26, 22), 511), ((20, 24, 20), 515), ((18, 22, 18), 24)):
        labels[ball((0, 0, 0), radii)] = value
    left = x < 0
    for radii, ids in (((16, 20, 15), (3, 42)), ((13, 17, 12), (2, 41))):
        inside = ball((0, 0, 1), radii)
        labels[inside] = np.where(left, *ids)[inside]
    for centre, radii, ids in (
        ((5, -2, 0), (3, 4, 3), (10, 49)),
        ((5, 6, 2), (2, 4, 3), (11, 50)),
        ((9, 4, 0), (2, 4, 3), (12, 51)),
        ((9, -4, -6), (2, 5, 2), (17, 53)),
        ((4, 2, 5), (2, 6, 2), (4, 43)),
        ((6, -14, -12), (5, 4, 4), (8, 47)),
    ):
        for side, value in zip((-1, 1), ids, strict=True):
            labels[ball((side * centre[0], *centre[1:]), radii)] = value
    labels[ball((0, -8, -13), (3, 3, 5))] = 16
    return labels


def write_map(path: Path) -> Path:
    """Write the map as NIfTI with 4 mm voxels."""
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    nib.save(nib.Nifti1Image(label_map(), affine), path)
    return path


def recipe(**train: Any) -> dict[str, Any]:
    """A recipe that trains in seconds: 32³ voxels of 6 mm, two stages."""
    chosen = recipes.load("default-coarse")
    chosen["canvas"] = {"shape": [32, 32, 32], "voxel_mm": 6.0}
    chosen["backbone"] = {"name": "res_unet", "widths": [8, 16], "head_channels": 16}
    chosen["synth"] = {"left_out": 0, "elastic_mm": 1.0}
    chosen["train"] = {"steps": 4, "warmup": 1, "lr": 5e-3} | train
    return chosen


def canvas() -> np.ndarray:
    """Noise on the canvas of the tiny recipe."""
    return np.random.default_rng(0).random((32, 32, 32), dtype=np.float32)


def first_names(network: Any) -> dict[str, set[str]]:
    """First parts of the parameters' names in each group of a backbone, each parameter being in exactly one."""
    groups = network.groups()
    grouped = [id(p) for parameters in groups.values() for p in parameters]
    names = {id(p): name.partition(".")[0] for name, p in network.named_parameters()}
    assert sorted(grouped) == sorted(names), "a parameter is in no group, or in two"
    assert list(groups) == ["encoder", "skips", "decoder", "head"]
    return {group: {names[id(p)] for p in parameters} for group, parameters in groups.items()}


def benchmark(name: str) -> ModuleType:
    """Load a benchmark, which is a script and no part of the package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parents[1] / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stages_seen(network, image):
    """Names and channels of the stages of a network in the order in which they run, and the shape of its answer."""
    seen = []
    for name in network.stages:

        def note(module, args, output, name=name):
            seen.append((name, output.shape[1]))

        network.stage_module(name).register_forward_hook(note)
    return seen, tuple(network(image).shape)
