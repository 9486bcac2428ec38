"""What a plain U-Net is built of, in two or in three dimensions."""

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn


class Layers(NamedTuple):
    """Kinds of layers, of two or of three dimensions."""

    convolution: type[nn.Module]
    up: type[nn.Module]
    norm: type[nn.Module]
    pool: Callable[..., Tensor]
