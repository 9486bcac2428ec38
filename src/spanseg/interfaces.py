"""The contracts between the layers. Read this file first.

Nothing here imports torch at run time, so that the path without PyTorch may name these types too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Told:
    """What a network is told beside the image, one row a subject.

    Args:
        embedding: (batch, word, width), hidden states of the sentence about each person.
        mask: (batch, word), true where there is a word.
        centre: (batch,), row of the table of centres, -1 for a centre that is not in it.
    """

    embedding: Tensor
    mask: Tensor
    centre: Tensor


@dataclass(frozen=True)
class Batch:
    """What an objective gets: images, truth and the number of the step, from which all its random choices follow.

    Args:
        image: (batch, channel, i, j, k), normalised.
        target: (batch, i, j, k), class indices, -1 where unknown.
        index: number of the batch within the training run.
        told: what the network is told; ``None`` for nothing.
        unlabelled: for each subject the classes that its truth does not label, or not everywhere: there its 0 means
            "background or one of these". Empty if every truth labels all classes.
    """

    image: Tensor
    target: Tensor
    index: int
    told: Told | None = None
    unlabelled: tuple[tuple[int, ...], ...] = ()


class Sample(NamedTuple):
    """One training sample: what a source draws.

    Args:
        image: (1, channel, i, j, k), normalised.
        target: (1, i, j, k), class indices, -1 where unknown.
        told: what the network is told about this subject; ``None`` for nothing.
        unlabelled: classes that the truth does not label, or not everywhere: there its 0 means "background or one of
            these".
        case: name of the scan it was drawn from; empty for a synthetic one.
    """

    image: Tensor
    target: Tensor
    told: Told | None = None
    unlabelled: tuple[int, ...] = ()
    case: str = ""


class Source(Protocol):
    """Where training samples come from; the same seed and index always give the same one."""

    def draw(self, seed: int, index: int) -> Sample:
        """Return one sample."""
        ...


class Backbone(Protocol):
    """A network with named stages and named groups of parameters. Unfed, it equals the stock network bit for bit."""

    pairs: dict[str, tuple[str, ...]]
    """Which adaptations it supports with which token source (``none`` for no tokens)."""

    @property
    def stride(self) -> int:
        """Edge lengths of the image must be multiples of this many voxels."""
        ...

    @property
    def stages(self) -> dict[str, int]:
        """Names of the stages, in the order in which they run, with their channels."""
        ...

    def stage_module(self, stage: str) -> nn.Module:
        """The module that returns the features of a stage; of a transformer's stage, the module that holds it."""
        ...

    def attention_blocks(self, stage: str) -> list[nn.Module]:
        """The transformer blocks of a stage in the order in which they run; empty for a stage of convolutions."""
        ...

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """All parameters, each in one of ``encoder``, ``skips`` (convolutions on skip paths), ``decoder``, ``head``."""
        ...


class TokenSource(Protocol):
    """What a network is told, as tokens; a module built with ``points`` and the recipe's ``[tokens]`` as keywords."""

    points: dict[str, int]
    """Channels of each point at which its tokens meet features, by the point's name, which is a module's name too."""

    def forward(self, told: Told) -> dict[str, tuple[Tensor, Tensor]]:
        """Return tokens (batch, token, channel) and which of them count (batch, token), for each point."""
        ...


class Adaptation(Protocol):
    """Which parts of a model may change: it wraps layers and sets ``requires_grad``, nothing else."""

    def apply(self, model: nn.Module) -> None:
        """Prepare the model in place."""
        ...


class Objective(Protocol):
    """What a model is rewarded for."""

    def __call__(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Return named losses; training minimises their sum."""
        ...
