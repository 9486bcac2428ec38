"""Muon for convolution kernels and, if asked, linear layers; AdamW for everything else, in one optimiser.

torch's own ``Muon`` takes matrices only; here a kernel (out, in, i, j, k) is the matrix (out, in·i·j·k).
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


class MuonAdamW(torch.optim.Optimizer):
    """Orthogonalised momentum for kernels wider than one voxel, AdamW for the other parameters.

    Reference: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks" (Newton–Schulz
    orthogonalisation of the momentum); the step is scaled to AdamW's size as in Liu et al. 2025 (arXiv 2502.16982).

    Args:
        parameters: what to train, or groups of it.
        lr: learning rate of both parts.
        weight_decay: decoupled decay of tensors with more than one axis.
        muon: ``False`` gives plain AdamW. A group of parameters may say ``"matrices": True``: its matrices take
            Muon's steps too.
        bf16: orthogonalise in bf16.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        weight_decay: float = 0.01,
        muon: bool = True,
        bf16: bool = False,
    ) -> None:
        given: list[Any] = list(parameters)
        self.precision = torch.bfloat16 if bf16 else torch.float32
        super().__init__(given, {"lr": lr, "weight_decay": weight_decay, "muon": muon, "matrices": False})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step with the gradients at hand."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.ndim > 1:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                is_wanted = _is_kernel(parameter) or (group["matrices"] and parameter.ndim == 2)
                if group["muon"] and is_wanted:
                    self._muon(parameter, parameter.grad, group["lr"])
                else:
                    self._adamw(parameter, parameter.grad, group["lr"])

    def _muon(self, parameter: Tensor, gradient: Tensor, lr: float) -> None:
        state = self.state[parameter]
        momentum = state.setdefault("momentum", torch.zeros_like(parameter))
        momentum.lerp_(gradient, 0.05)
        lookahead = gradient.lerp(momentum, 0.95)
        matrix = lookahead.reshape(len(lookahead), -1)
        step = orthogonalise(matrix.to(self.precision)).float() * 0.2 * max(matrix.shape) ** 0.5
        parameter.sub_(lr * step.reshape(parameter.shape))

    def _adamw(self, parameter: Tensor, gradient: Tensor, lr: float) -> None:
        state = self.state[parameter]
        first = state.setdefault("first", torch.zeros_like(parameter))
        second = state.setdefault("second", torch.zeros_like(parameter))
        count = state.setdefault("count", torch.zeros(()))
        count += 1
        first.lerp_(gradient, 0.1)
        second.lerp_(gradient.square(), 0.005)
        steps = float(count)
        size = (second / (1 - 0.995**steps)).sqrt_() + 1e-8
        parameter.sub_(lr * (first / (1 - 0.9**steps)) / size)


def _is_kernel(parameter: Tensor) -> bool:
    """Whether a parameter is a convolution kernel wider than one voxel: no table of tokens, no position embedding."""
    return parameter.ndim > 3 and len(parameter) > 1 and parameter[0, 0].numel() > 1


def orthogonalise(matrix: Tensor, steps: int = 5) -> Tensor:
    """Push all singular values of a matrix towards 1 by a quintic Newton–Schulz iteration.

    Args:
        matrix: (rows, columns).
        steps: iterations; five leave the singular values between about 0.7 and 1.2.
    """
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(steps):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T if tall else x
