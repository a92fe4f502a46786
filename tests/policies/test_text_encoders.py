"""Text encoders: nearness of real instructions, sentence models from a folder, and the cache of embeddings."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from robot_policies.configuration import ConfigError
from robot_policies.language import InstructionEmbedding, text_encoders
from robot_policies.language.embedding import CACHE_VARIABLE, TextEncoder
from robot_policies.language.encoders import MODELS_VARIABLE
from robot_policies.language.packaged import PACKAGE

# An instruction, another way to say it that shares words with it, and two that say something else.
TEXTS = [
    ("pick up the red cube", "picking up a red cube", "close the drawer", "push the T onto the target"),
    ("open the top drawer", "open the upper drawers", "wipe the table", "stack the blocks"),
    ("put the cup into the sink", "the cup goes into the sink", "open the door", "pick up the red cube"),
    (
        "push the T-shaped block onto its target",
        "push the T block to the target",
        "open the drawer",
        "lift the cup",
    ),
]


class Counting:
    """An encoder that counts what it is asked, and answers with the length of the text."""

    width = 3
    slow = True

    def __init__(self, name: str = "counting") -> None:
        self.asked: list[str] = []
        self.name = name

    def identity(self) -> str:
        return self.name

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.asked += texts
        return np.array([[len(text), 0, 1] for text in texts], np.float32)


def nearness(texts: Sequence[str]) -> list[float]:
    """Cosine of the first text with each of the others."""
    vectors = text_encoders.build({"type": "hashed_ngrams"}, where="text").encode(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    return (vectors[1:] @ vectors[0]).tolist()


@pytest.mark.parametrize("texts", TEXTS)
def test_paraphrases_that_share_words_are_nearer_than_other_tasks(texts: tuple[str, ...]) -> None:
    """By a wide margin, although word order, number and ending differ."""
    same, *others = nearness(texts)
    assert same > 0.4
    assert same > max(others) + 0.25


def test_case_and_punctuation_do_not_matter() -> None:
    """Only words count, and words in common use count little."""
    assert nearness(["Push the block!", "push the block", "push block"]) == pytest.approx([1, 1], abs=0.1)


def test_embeddings_are_the_same_on_every_machine() -> None:
    """Hashes are fixed: the vector of a text does not depend on Python's hash seed."""
    vector = text_encoders.build({"type": "hashed_ngrams", "width": 8}, where="text").encode(["push"])
    expected = [0.3162, -0.3162, 0, 0.6325, 0, 0, 0.6325, 0]
    np.testing.assert_allclose(vector[0], expected, atol=1e-4)


def test_an_embedding_is_computed_once(tmp_path: Path) -> None:
    """Once per process from memory, once per machine from disk; surrounding blanks do not count."""
    encoder = Counting()
    embed = InstructionEmbedding(encoder, cache=tmp_path)
    device = torch.device("cpu")
    first = embed(["push", "pull it", "push "], device)
    assert first[:, 0].tolist() == [4, 7, 4]
    embed(["pull it"], device)
    again = InstructionEmbedding(encoder, cache=tmp_path)
    torch.testing.assert_close(again(["push", "pull it", "push"], device), first)
    assert encoder.asked == ["pull it", "push"]


def test_another_model_does_not_read_the_first_ones_embeddings(tmp_path: Path) -> None:
    """The key holds what the answer depends on."""
    InstructionEmbedding(Counting("a"), cache=tmp_path)(["push"], torch.device("cpu"))
    other = Counting("b")
    InstructionEmbedding(other, cache=tmp_path)(["push"], torch.device("cpu"))
    assert other.asked == ["push"]


def test_no_instruction_is_the_zero_vector(tmp_path: Path) -> None:
    """Nothing is asked of the encoder for it."""
    encoder = Counting()
    assert not InstructionEmbedding(encoder, cache=tmp_path)(["", "  "], torch.device("cpu")).any()
    assert encoder.asked == []


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY nonsense", "nan", "wrong width"])
def test_a_damaged_cache_is_computed_again(tmp_path: Path, content: bytes | str) -> None:
    """A truncated, foreign or impossible file costs time only."""
    encoder = Counting()
    InstructionEmbedding(encoder, cache=tmp_path)(["push"], torch.device("cpu"))
    (path,) = tmp_path.rglob("*.npy")
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, np.full(3, np.nan) if content == "nan" else np.zeros(5))
    fresh = InstructionEmbedding(encoder, cache=tmp_path)(["push"], torch.device("cpu"))
    assert fresh[0].tolist() == [4, 0, 1]
    assert encoder.asked == ["push", "push"]


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer is there; a warning says that it is not kept."""
    (tmp_path / "text").write_text("a file where the folder should be")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    vector = InstructionEmbedding(Counting())(["push"], torch.device("cpu"))
    assert vector[0].tolist() == [4, 0, 1]
    assert "embeddings are not kept" in caplog.text


@pytest.fixture(scope="module")
def sentence_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT with random weights and a vocabulary of a few words, saved as a sentence model is."""
    transformers = pytest.importorskip("transformers", reason="the language extra is not installed")
    folder = tmp_path_factory.mktemp("model")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "push", "pull", "the", "block", "drawer"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def test_a_sentence_model_averages_the_vectors_of_real_tokens(
    sentence_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padding does not change a sentence's vector: alone and beside a longer one it is the same unit vector."""
    monkeypatch.setenv(MODELS_VARIABLE, str(sentence_model.parent))
    encoder = text_encoders.build(
        {"type": "sentence_model", "folder": sentence_model.name, "width": 16}, where="text"
    )
    together = encoder.encode(["push", "pull the block push the drawer"])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(encoder.encode(["push"])[0], together[0], atol=1e-5)
    assert abs(together[0] - together[1]).max() > 1e-3


def test_a_sentence_model_may_take_the_first_token(sentence_model: Path, tmp_path: Path) -> None:
    """A pooling file that says so changes the vectors, and their key in the cache."""
    values = {"type": "sentence_model", "folder": str(sentence_model), "width": 16}
    mean = text_encoders.build(values, where="text")
    vectors, identity = mean.encode(["push the block"]), mean.identity()
    pooling = sentence_model / "1_Pooling"
    pooling.mkdir()
    (pooling / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    first = text_encoders.build(values, where="text")
    assert abs(first.encode(["push the block"]) - vectors).max() > 1e-3
    assert first.identity() != identity


def test_a_sentence_model_of_another_width_is_refused(sentence_model: Path) -> None:
    """The network was built for the width in the configuration."""
    encoder = text_encoders.build({"type": "sentence_model", "folder": str(sentence_model)}, where="text")
    with pytest.raises(ConfigError, match="vectors of 16 components, the configuration says width: 384"):
        encoder.encode(["push"])


def test_a_missing_sentence_model_is_explained(tmp_path: Path) -> None:
    """The error says what is expected where; building the encoder alone does not look."""
    encoder = text_encoders.build({"type": "sentence_model", "folder": str(tmp_path / "none")}, where="text")
    with pytest.raises(ConfigError, match=r"none/config\.json does not exist"):
        encoder.encode(["push"])


@pytest.mark.parametrize("values", [{"width": 4}, {"shortest": 4, "longest": 3}, {"shortest": 0}])
def test_bad_options_are_explained(values: dict[str, int]) -> None:
    """Impossible sizes are refused."""
    with pytest.raises(ConfigError, match="hashed_ngrams needs"):
        text_encoders.build({"type": "hashed_ngrams", **values}, where="text")


def minilm() -> TextEncoder:
    """The packaged sentence model."""
    for package in (PACKAGE, "transformers"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; see requirements/language-no-deps.txt")
    return text_encoders.build({"type": "minilm"}, where="text")


def test_a_packaged_sentence_model_knows_synonyms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instructions that share no content word are near if they mean the same; no network is asked."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    texts = ["put the cup into the sink", "place a mug in the basin", "open the door", "stack the blocks"]
    vectors = minilm().encode(texts)
    assert vectors.shape == (4, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, rtol=1e-5)
    same, *others = vectors[1:] @ vectors[0]
    assert same > max(others) + 0.2


def test_embeddings_of_a_packaged_model_are_kept(tmp_path: Path) -> None:
    """A second process reads the vector from disk and never opens the model."""
    first = InstructionEmbedding(minilm(), cache=tmp_path)(["open the door"], torch.device("cpu"))
    encoder = minilm()
    again = InstructionEmbedding(encoder, cache=tmp_path)(["open the door"], torch.device("cpu"))
    torch.testing.assert_close(again, first, atol=0, rtol=0)
    assert "_model" not in vars(encoder)


def test_a_missing_package_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says how to install it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"language-no-deps\.txt, or use type: hashed_ngrams"):
        text_encoders.build({"type": "minilm"}, where="text").encode(["anything"])


def test_other_weights_in_the_package_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package under the same name with other weights is not used."""
    (tmp_path / PACKAGE / "model").mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").touch()
    (tmp_path / PACKAGE / "model" / "model.safetensors").write_bytes(b"something else")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match="another checksum"):
        text_encoders.build({"type": "minilm"}, where="text").encode(["anything"])
