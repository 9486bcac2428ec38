"""Tests of prompts: a network of slices asked as its users would ask it, by what the truth says of each structure."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from spanseg import model
from spanseg.clicks import next_click
from spanseg.correcting_sam import SamCorrector
from spanseg.errors import SpansegError
from spanseg.geometry import bounding_box
from spanseg.images import Scan
from spanseg.labels import Crosswalk
from spanseg.network_predictor import NetworkPredictor
from spanseg.prompts import Prompt, Voxel
from spanseg.segmenter import SegmentOptions, segment_scan
from spanseg.slice_engine import SliceEngine
from spanseg.volume import Volume, canonical

POLICIES = {"none": "none", "auto": "adaptive", "click": "none", "box": "none"}
"""How a scan is segmented before anybody prompts, by what a row asks with."""


def drawn_classes(truth: Volume, crosswalk: Crosswalk, scan: Volume, where: str) -> np.ndarray:
    """Class of each voxel of a scan as somebody drew it; what the scheme does not label everywhere is background.

    Args:
        truth: ids of the cross-walk's scheme, in any order of the axes.
        crosswalk: from these ids to classes.
        scan: on whose grid the truth was drawn; the result has the order of its axes.
        where: names the case in errors.
    """
    classes = crosswalk.apply(canonical(truth)[0].data, where)
    classes[np.isin(classes, crosswalk.unlabelled)] = 0
    return canonical(scan)[1].to_original(classes)


def answered(scan: Scan, drawn: np.ndarray, recipe: dict[str, Any], network: nn.Module, prompts: str) -> Volume:
    """Labels that a network of slices gives a scan.

    ``none`` and ``auto`` need nobody. For ``click`` and ``box`` each structure that was drawn is erased from what the
    network gave by itself and asked for with one prompt, one structure after the other, as in a session of
    ``spanseg serve``. A prompt that is refused, because it lies off the canvas that the network looks at, leaves the
    labels as they are, as it does there.

    Args:
        scan: as it was read.
        drawn: true class of each voxel; ``none`` and ``auto`` do not look at it.
        recipe: of the network.
        network: backbone ``sam``, in evaluation mode.
        prompts: ``none``, ``auto``, ``click`` or ``box``.
    """
    predictor = NetworkPredictor(recipe, network, SliceEngine(network, POLICIES[prompts]))
    given = segment_scan(scan, predictor, SegmentOptions()).labels
    if prompts in ("none", "auto"):
        return given
    protocol, labels = model.protocol_of(recipe), given.data.astype(np.int32)
    corrector = SamCorrector(scan.volume, protocol, recipe, network)
    for index, structure in enumerate(protocol.structures[1:], start=1):
        prompt = prompt_for(drawn == index, prompts)
        if prompt is not None:
            erased = np.where(labels == structure.id, 0, labels)
            try:
                labels = corrector.correct(erased, structure.id, [prompt])
            except SpansegError:
                continue
    return given.with_data(labels)


def prompt_for(mask: np.ndarray, kind: str) -> Prompt | None:
    """What is said about a structure: a point where it is deepest, or the box round it; nothing where it is not.

    Args:
        mask: where it lies, boolean, shape (i, j, k).
        kind: ``click`` or ``box``.
    """
    box = bounding_box(mask)
    if box is None:
        return None
    if kind == "box":
        return Prompt("box", True, (_voxel([side.start for side in box]), _voxel([side.stop - 1 for side in box])))
    part = mask[box]
    click = next_click(part, np.zeros_like(part))
    if click is None:
        return None
    return Prompt("point", True, (_voxel([side.start + n for side, n in zip(box, click.voxel, strict=True)]),))


def _voxel(values: list[int]) -> Voxel:
    i, j, k = values
    return i, j, k
