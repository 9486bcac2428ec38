"""A study of five people who never lived, small enough to be run within a test."""

from pathlib import Path

import torch

import tiny
from spanseg import checkpoint, model
from spanseg import recipe as recipes
from spanseg.participants import participant_of
from spanseg.simulate import simulate

STUDY = """
[study]
title = "Tiny"
base = "{base}"
rows = ["zero_shot", "decoder", "kgpl", "one_hot"]
reference = "kgpl"
folds = 2
steps = 4
[centre.heads]
data = "heads"
labels = "freesurfer"
"""


def write(folder: Path) -> Path:
    """Write a data set of five people, a base recipe with a first stage, and the study of both.

    Returns:
        The study's file.
    """
    scans = simulate([tiny.write_map(folder / "map.nii.gz")], folder / "heads", 5, voxel_mm=6.0)
    names = sorted(participant_of(scan) for scan in scans)
    rows = [f"{name}\t{age}\t{sex}" for name, age, sex in zip(names, (20, 70, 30, 60, 45), "FMFMF", strict=True)]
    (folder / "heads" / "participants.tsv").write_text("participant_id\tage\tsex\n" + "\n".join(rows) + "\n")
    recipe = tiny.recipe(ema=0.5, save_every=1)
    torch.manual_seed(0)
    checkpoint.save(folder / "step1", dict(model.build(recipe).named_parameters()), recipe)
    recipe["train"]["start"] = str(folder / "step1")
    recipe["tokens"] = {"name": "knowledge", "stages": ["encoder1"], "facts": ["age", "sex"], "count": 24}
    recipe["adapt"] = {"name": "frozen_encoder", "policy": "strict"}
    (folder / "base.toml").write_text(recipes.dumps(recipe))
    (folder / "study.toml").write_text(STUDY.format(base=(folder / "base.toml").as_posix()))
    return folder / "study.toml"
