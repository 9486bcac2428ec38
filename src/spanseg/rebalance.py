"""Takes the class weights of the loss back out of a trained network, by its last bias alone.

A cross-entropy that weighs rare classes up makes a network find too much of them: small structures come out too large.
Adding ``strength · log(frequency)`` to the logits undoes it; how much is decided on left-out label maps.

Reference: Menon et al., ICLR 2021 (logit adjustment); here the Dice loss has undone a part already, so the strength is
searched for and not derived.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from spanseg.interfaces import Sample, Source
from spanseg.labels import UNKNOWN
from spanseg.train import score_sample

BIAS = "classify.bias"
"""How the parameter's name ends that holds the bias of the logits."""
STRENGTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
MOST_SHIFT = 5.0
"""Farthest that a bias is moved to keep a volume; it makes something 148 times as likely."""
SWEEPS = 4
"""How often several classes are gone through, because each takes from the others."""
TOLERANCE = 0.002
"""Strengths whose mean Dice is this close to the best one's are told apart by their volume error."""


def rebalanced(network: nn.Module, weights: dict[str, Tensor], source: Source, draws: int = 6) -> dict[str, Tensor]:
    """Return the weights with an adjusted bias; the strength is chosen on draws of left-out label maps.

    Args:
        network: takes the weights in place, to be looked at.
        weights: what was trained, by parameter name; without the bias of the logits among them nothing is changed.
        source: left-out cases.
        draws: how many to look at.
    """
    bias = _bias_among(weights)
    if bias is None:
        return weights
    _put(network, weights)
    with torch.no_grad():
        answers = [_answer(network, source.draw(20_011, index)) for index in range(draws)]
    shift = _log_frequencies([sample.target for _, sample in answers], len(weights[bias]))
    scores = [(strength, *_score(answers, strength * shift)) for strength in STRENGTHS]
    best = max(dice for _, dice, _ in scores)
    strength = min((error, value) for value, dice, error in scores if dice >= best - TOLERANCE)[1]
    return weights | {bias: weights[bias] + strength * shift}


def _bias_among(weights: dict[str, Tensor]) -> str | None:
    """Name of the bias of the logits, of a network that is told something too; ``None`` if it is not there."""
    return next((name for name in weights if name.endswith(BIAS)), None)


def _put(network: nn.Module, weights: dict[str, Tensor]) -> None:
    """Copy weights into a network, by name; what is not among them stays as it is."""
    named = dict(network.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            named[name].copy_(value)


def soft_volumes(network: nn.Module, samples: Sequence[Sample], classes: Sequence[int]) -> dict[int, float]:
    """Sum of the probabilities of some classes over the images of samples, in voxels."""
    return {index: float(torch.sigmoid(-_odds_against(network, samples, index)).sum()) for index in classes}


def with_volumes(
    network: nn.Module, weights: dict[str, Tensor], samples: Sequence[Sample], volumes: Mapping[int, float]
) -> dict[str, Tensor]:
    """Return the weights with a bias that gives some classes the volumes that they had.

    Args:
        network: takes the weights in place.
        weights: by parameter name; without the bias of the logits among them nothing is changed.
        samples: over whose images the volumes hold.
        volumes: of :func:`soft_volumes`, by class.
    """
    name, result = _bias_among(weights), dict(weights)
    if name is None:
        return weights
    for index, wanted in list(volumes.items()) * (1 if len(volumes) == 1 else SWEEPS):
        _put(network, result)
        against, low, high = _odds_against(network, samples, index), -MOST_SHIFT, MOST_SHIFT
        for _ in range(30):
            middle = (low + high) / 2
            too_small = float(torch.sigmoid(middle - against).sum()) < wanted
            low, high = (middle, high) if too_small else (low, middle)
        result[name] = result[name].clone()
        result[name][index] += (low + high) / 2
    return result


def _odds_against(network: nn.Module, samples: Sequence[Sample], index: int) -> Tensor:
    """Logarithm of the odds against a class in each voxel of some samples, one after the other."""
    found, was_training = [], network.training
    network.eval()
    for sample in samples:
        with torch.no_grad():
            logits = network(sample.image, **_told(sample))[0].float()
        others = torch.cat([logits[:index], logits[index + 1 :]]).logsumexp(0)
        found.append((others - logits[index]).flatten())
    network.train(was_training)
    return torch.cat(found)


def _answer(network: nn.Module, sample: Sample) -> tuple[Tensor, Sample]:
    """Logits of a sample (class, i, j, k), and the sample without its image, which takes memory; on the CPU."""
    light = sample._replace(image=sample.image[:, :, :0], target=sample.target.cpu())
    return network(sample.image, **_told(sample))[0].half().cpu(), light


def _told(sample: Sample) -> dict[str, Any]:
    return {} if sample.told is None else {"told": sample.told}


def _log_frequencies(targets: list[Tensor], classes: int) -> Tensor:
    """Logarithm of each class's share of the known voxels, background at 0; classes that never occur stay at 0 too."""
    counts = torch.stack([torch.bincount(target[target != UNKNOWN], minlength=classes) for target in targets]).sum(0)
    shares = (counts / counts.sum()).clamp(min=1e-7).log()
    return torch.where(counts > 0, shares - shares[0], 0.0)


def _score(answers: list[tuple[Tensor, Sample]], shift: Tensor) -> tuple[float, float]:
    """Mean foreground Dice, and mean absolute relative error of the structures' total volumes."""
    classes = len(shift)
    dice, found, true = [], torch.zeros(classes), torch.zeros(classes)
    for logits, sample in answers:
        predicted = (logits + shift.half()[:, None, None, None]).argmax(0)[None]
        scores, known = score_sample(predicted, sample, classes), sample.target != UNKNOWN
        dice.append(scores[1:])
        labelled = torch.ones(classes, dtype=torch.bool)
        labelled[list(sample.unlabelled)] = False
        found += torch.bincount(predicted[known], minlength=classes) * labelled
        true += torch.bincount(sample.target[known], minlength=classes) * labelled
    present = true > 0
    present[0] = False
    error = (found[present] / true[present] - 1).abs().mean()
    return float(torch.stack(dice).nanmean()), float(error)
