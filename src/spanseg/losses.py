"""Loss functions over classes; unknown voxels (class -1) and classes that a truth does not label enter none of them."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from spanseg.labels import UNKNOWN

_IMPOSSIBLE = -1e4
_SMOOTH, _MONAI_SMOOTH = 1e-3, 1e-5

Unlabelled = tuple[tuple[int, ...], ...]
"""For each subject the classes that its truth does not label; empty if all truths label all classes."""


@dataclass(frozen=True)
class FocalPreset:
    """Settings of :func:`dice_focal`.

    Args:
        alpha: weight of the focal loss beside the Dice loss.
        gamma: how little voxels count that are nearly right.
        activation: ``softmax`` (one class a voxel) or ``sigmoid`` (every class for itself).
        reduction: the focal loss is a mean over ``voxels``, or over voxels and ``channels``.
    """

    alpha: float
    gamma: float
    activation: str
    reduction: str


PRESETS = {
    "paper": FocalPreset(100.0, 0.2, "softmax", "voxels"),
    "authors_code": FocalPreset(100.0, 2.0, "sigmoid", "channels"),
    "default": FocalPreset(1.0, 2.0, "softmax", "voxels"),
}
"""The Dice-focal losses of KGPL: its paper's equation, its authors' program, and ours."""


def merged(
    logits: Float[Tensor, "batch class i j k"], target: Int[Tensor, "batch i j k"], unlabelled: Unlabelled
) -> Float[Tensor, "batch class i j k"]:
    """Merge the classes that a truth does not label into background, by summing probabilities, where its label is 0.

    Elsewhere the truth says what a voxel is, so there nothing is merged: a scheme may label the ventricles' CSF and
    leave that of the sulci to its 0.
    """
    if not any(unlabelled):
        return logits
    rows = []
    for row, is_background, classes in zip(logits.float(), target == 0, unlabelled, strict=True):
        chosen = torch.zeros(len(row), dtype=torch.bool, device=row.device)
        chosen[list(classes)] = True
        out = torch.where(chosen[:, None, None, None] & is_background, _IMPOSSIBLE, row)
        chosen[0] = True
        background = torch.where(is_background, torch.logsumexp(row[chosen], 0), row[0])
        rows.append(torch.cat([background[None], out[1:]]))
    return torch.stack(rows)


def dice_and_cross_entropy(
    logits: Float[Tensor, "batch class i j k"],
    target: Int[Tensor, "batch i j k"],
    rarity: float = 0.5,
    unlabelled: Unlabelled = (),
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Soft Dice loss (mean over the foreground classes present) and class-weighted cross-entropy.

    The cross-entropy weighs each class by its frequency in the batch to the power of ``-rarity``, so that an accumbens
    of 500 voxels is not drowned by white matter; 0 weighs all voxels alike. Sums over classes use gather and scatter:
    no one-hot array is made.

    Reference: Milletari et al., 3DV 2016 (soft Dice); here with plain sums in the denominator, absent classes left out.
    """
    dice, log_true, labels, count = _softmax_dice(logits, target, unlabelled)
    weight = count.clamp(min=1).pow(-rarity)[labels]
    return dice, -(weight * log_true).sum() / weight.sum().clamp(min=1e-12)


def soft_dice(
    logits: Float[Tensor, "batch class i j k"], target: Int[Tensor, "batch i j k"], unlabelled: Unlabelled = ()
) -> Float[Tensor, ""]:
    """Soft Dice loss alone, as in :func:`dice_and_cross_entropy`."""
    return _softmax_dice(logits, target, unlabelled)[0]


def dice_focal(
    logits: Float[Tensor, "batch class i j k"],
    target: Int[Tensor, "batch i j k"],
    settings: FocalPreset = PRESETS["default"],
    unlabelled: Unlabelled = (),
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Soft Dice loss and focal loss, the second multiplied by ``alpha``.

    With ``softmax``, the focal loss of a voxel is ``(1 - p)^gamma * -log p`` for the probability p of its true class.
    With ``sigmoid``, every class is a yes-no question of its own, background too, and Dice is a mean over subjects and
    classes, absent ones included, as in MONAI's ``DiceLoss(sigmoid=True)`` and ``FocalLoss()``.

    Reference: Lin et al., ICCV 2017 (focal loss).
    """
    if settings.activation == "sigmoid":
        dice, focal = _sigmoid_dice_focal(logits, target, settings, unlabelled)
    else:
        dice, log_true, _, _ = _softmax_dice(logits, target, unlabelled)
        voxels = -_one_minus(log_true.exp()).pow(settings.gamma) * log_true
        focal = voxels.sum() / _divisor(len(voxels), logits.shape[1], settings)
    return dice, settings.alpha * focal


def _softmax_dice(logits: Tensor, target: Tensor, unlabelled: Unlabelled) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Soft Dice loss; log-probability of the truth and true class of each known voxel; known voxels of each class."""
    classes = logits.shape[1]
    logits = merged(logits, target, unlabelled)
    known = (target != UNKNOWN).flatten()
    labels = target.flatten()
    voxels = logits.float().movedim(1, -1).reshape(-1, classes)  # classes last, as channels-last logits lie in memory
    if not known.all():
        labels, voxels = labels[known], voxels[known]
    log_p = torch.log_softmax(voxels, dim=1)
    log_true = log_p.gather(1, labels[:, None])[:, 0]
    probabilities = log_p.exp()
    true_mass = torch.zeros(classes, dtype=torch.float64, device=logits.device)  # f32 drifts over 10^5 voxels
    true_mass = true_mass.index_add(0, labels, log_true.exp().double()).float()
    predicted = probabilities.sum(0)
    count = torch.bincount(labels, minlength=classes).float()
    present = count > 0
    present[0] = False
    overlap = (2 * true_mass + _SMOOTH) / (predicted + count + _SMOOTH)
    dice = 1 - overlap[present].mean() if present.any() else 0 * predicted.sum()
    return dice, log_true, labels, count


def _sigmoid_dice_focal(
    logits: Tensor, target: Tensor, settings: FocalPreset, unlabelled: Unlabelled
) -> tuple[Tensor, Tensor]:
    """Dice and focal loss over classes that each are a yes-no question."""
    logits = merged(logits, target, unlabelled).float()
    known = (target != UNKNOWN)[:, None]
    truth = F.one_hot(target.clamp(min=0), logits.shape[1]).movedim(-1, 1).float() * known
    p, axes = torch.sigmoid(logits) * known, (2, 3, 4)
    size = truth.sum(axes)
    overlap = (2 * (p * truth).sum(axes) + _MONAI_SMOOTH) / (p.sum(axes) + size + _MONAI_SMOOTH)
    asked = torch.ones_like(size, dtype=torch.bool)  # a class that a truth leaves out is no class of that subject
    for row, classes in enumerate(unlabelled):
        asked[row, list(classes)] = size[row, list(classes)] > 0
    entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    log_wrong = F.logsigmoid(torch.where(truth > 0, -logits, logits))  # of 1 - probability of the right answer
    elements = (settings.gamma * log_wrong).exp() * entropy * (known & asked[:, :, None, None, None])
    return 1 - overlap[asked].mean(), elements.sum() / _divisor(int(known.sum()), logits.shape[1], settings)


def _divisor(voxels: int, classes: int, settings: FocalPreset) -> int:
    """Over how much the focal loss is a mean."""
    return max(1, voxels * (classes if settings.reduction == "channels" else 1))


def _one_minus(p: Tensor) -> Tensor:
    """1 - p, kept off 0, where a power below 1 has no gradient."""
    return (1 - p).clamp(min=1e-6)
