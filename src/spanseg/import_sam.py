"""Published weights of SAM: names of the original files and of transformers', tables of positions resized, strictly."""

import re
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from spanseg.errors import SpansegError
from spanseg.import_weights import LoadReport, read_tensors, require_numbers
from spanseg.tensors import save_tensors

BY_CLASS = re.compile(r"mask_decoder\.(?:mask_tokens|output_hypernetworks_mlps|iou_prediction_head\.proj_out)\.")
"""What depends on the number of mask tokens: it begins anew where that differs, and nothing else may."""
_MATRIX = "shared_image_embedding.positional_embedding"
_SAME_MATRIX = "prompt_encoder.shared_embedding.positional_embedding"
_TOKENS = "mask_decoder.mask_tokens.weight"

_NECK = {"0": "conv1", "1": "layer_norm1", "2": "conv2", "3": "layer_norm2"}
_MASKS = {"0": "conv1", "1": "layer_norm1", "3": "conv2", "4": "layer_norm2", "6": "conv3"}
_FINER = {"0": "conv1", "1": "layer_norm", "3": "conv2"}
_RENAMED: tuple[tuple[str, Any], ...] = (
    (r"^(?:module\.|sam\.|model\.)+", ""),  # of distributed training, and of networks that hold SAM as a part
    (r"^image_encoder\.", "vision_encoder."),
    (r"^(vision_encoder)\.blocks\.", r"\1.layers."),
    (r"^(vision_encoder\.patch_embed)\.proj\.", r"\1.projection."),
    (r"^(vision_encoder\.neck)\.(\d)\.", lambda found: f"{found[1]}.{_NECK[found[2]]}."),
    (r"\.norm(\d)\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"^prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix$", _MATRIX),
    (r"^prompt_encoder\.point_embeddings\.", "prompt_encoder.point_embed."),
    (r"^prompt_encoder\.mask_downscaling\.([01346])\.", lambda found: f"prompt_encoder.mask_embed.{_MASKS[found[1]]}."),
    (r"^mask_decoder\.output_upscaling\.([013])\.", lambda found: f"mask_decoder.upscale_{_FINER[found[1]]}."),
    (r"(hypernetworks_mlps\.\d+|iou_prediction_head)\.layers\.(\d)\.", lambda found: f"{found[1]}.@{found[2]}."),
)
"""The original code's names to ours, which are transformers'; ``@`` marks the layers of small networks."""


def is_published(tensors: dict[str, Tensor]) -> bool:
    """Whether tensors are SAM's as published, and not what a run of ours trained, which has no matrix of positions."""
    return any(key.endswith((_MATRIX, "positional_encoding_gaussian_matrix")) for key in tensors)


def named(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a published file under our names; the matrix of positions under both of its names."""
    is_original = any(".blocks." in key for key in tensors)
    found = {_own_name(key, is_original): value for key, value in tensors.items()}
    for one, other in ((_MATRIX, _SAME_MATRIX), (_SAME_MATRIX, _MATRIX)):
        if one in found:
            found.setdefault(other, found[one])
    return found


def _own_name(key: str, is_original: bool) -> str:
    patterns = _RENAMED if is_original else _RENAMED[:1]
    for pattern, ours in patterns:
        key = re.sub(pattern, ours, key)
    for number, ours in (("0", "proj_in"), ("1", "layers.0"), ("2", "proj_out")):
        key = key.replace(f".@{number}.", f".{ours}.")
    return key


def load_sam(network: Any, tensors: dict[str, Tensor]) -> LoadReport:
    """Load published weights of SAM, or of a network of its make such as MedSAM, in place.

    Absolute positions are resized to the network's picture, and relative ones in the layers that see all of it. If the
    file has another number of mask tokens, what depends on it stays as it began; nothing else may be missing.

    Args:
        network: of ``nets.sam``.
        tensors: by the names of their file, as :func:`spanseg.import_weights.read_tensors` gives them.

    Raises:
        SpansegError: a tensor is missing, left over or of another shape; the network is left as it was.
    """
    own, known = network.state_dict(), named(tensors)
    if _TOKENS not in own:
        raise SpansegError("these are weights of SAM; set the recipe's backbone to sam, or start from other weights.")
    anew = set()
    if _TOKENS in known and known[_TOKENS].shape != own[_TOKENS].shape:
        known = {key: value for key, value in known.items() if not BY_CLASS.match(key)}
        anew = {key for key in own if BY_CLASS.match(key)}
    known = {key: _resized(key, value, own[key], network) if key in own else value for key, value in known.items()}
    report = _report(network, own, known)
    if set(report.missing) != anew or report.mismatched or report.unexpected:
        lost = [key for key in report.missing if key not in anew]
        raise SpansegError(
            "these weights are not those of this network: "
            f"{_counted('missing', lost)}, {_counted('of another shape', report.mismatched)}, "
            f"{_counted('unknown', report.unexpected)}; give the backbone the size of the file (base, large or huge)."
        )
    require_numbers(known)
    for key, value in known.items():
        own[key].copy_(value)
    return report


def _counted(what: str, names: Any) -> str:
    return f"{len(names)} {what}" + (f" ({names[0]})" if names else "")


def _resized(key: str, value: Tensor, like: Tensor, network: Any) -> Tensor:
    """A table of positions in the size of the network's own; everything else as it is."""
    if key == "vision_encoder.pos_embed" and value.ndim == 4:
        pictures = value.float().movedim(-1, 1)
        return F.interpolate(pictures, size=like.shape[1:3], mode="bilinear").movedim(1, -1)
    layer = re.fullmatch(r"vision_encoder\.layers\.(\d+)\.attn\.rel_pos_[hw]", key)
    if layer and int(layer[1]) in network.config.vision_config.global_attn_indexes:
        return F.interpolate(value.float().T[None], size=len(like), mode="linear")[0].T
    return value


def _report(network: Any, own: dict[str, Tensor], known: dict[str, Tensor]) -> LoadReport:
    fitting = {key for key in known if key in own and known[key].shape == own[key].shape}
    parameters = dict(network.named_parameters())
    found = {id(parameters[key]) for key in fitting if key in parameters}

    def share(of: list[nn.Parameter]) -> float:
        return sum(p.numel() for p in of if id(p) in found) / max(1, sum(p.numel() for p in of))

    others = sorted((known.keys() & own.keys()) - fitting)
    return LoadReport(
        tensors=len(fitting & parameters.keys()) / len(parameters),
        parameters=share(list(parameters.values())),
        groups={name: share(of) for name, of in network.groups().items()},
        missing=tuple(key for key in own if key not in known),
        mismatched=tuple(f"{key} {tuple(known[key].shape)} for {tuple(own[key].shape)}" for key in others),
        unexpected=tuple(sorted(known.keys() - own.keys())),
    )


def convert(source: Path, target: Path) -> None:
    """Write a published file, ``.pth`` for one, as safetensors under our names, in its own size.

    Raises:
        SpansegError: the file cannot be read, or is none of SAM's.
    """
    tensors = read_tensors(source)
    if not is_published(tensors):
        raise SpansegError(f"{source}: expected weights of SAM with their matrix of positions; found others.")
    save_tensors(target, {key: value.contiguous().clone() for key, value in named(tensors).items()})
