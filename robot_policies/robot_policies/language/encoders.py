"""Text encoders: hashed words and word parts, and sentence models from a local folder.

`hashed_ngrams` has no weights and knows no synonyms: two instructions are near if they share words or parts of
words. It tells the tasks of one dataset apart, and stands a changed word order, plural or ending.

`sentence_model` reads a trained sentence model (such as all-MiniLM-L6-v2) from a folder in the layout of Hugging
Face transformers. Nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from robot_policies.configuration import ConfigError
from robot_policies.language.embedding import text_encoders

MODELS_VARIABLE = "ROBOT_POLICIES_MODELS"
"""Environment variable: the folder in which relative model folders are looked for."""

# Words that say little about a task; they count a fifth.
COMMON_WORDS = frozenset(
    (
        "a",
        "an",
        "and",
        "at",
        "by",
        "for",
        "from",
        "in",
        "into",
        "is",
        "it",
        "its",
        "of",
        "on",
        "onto",
        "the",
        "to",
    )
)
COMMON_WEIGHT = 0.2


@dataclass(frozen=True, kw_only=True)
class HashedNgramsConfig:
    """Options of `HashedNgrams`.

    Attributes:
        width: Components of the vector.
        shortest: Shortest part of a word [characters].
        longest: Longest part of a word [characters].
    """

    width: int = 256
    shortest: int = 3
    longest: int = 5

    def __post_init__(self) -> None:
        if self.width < 8 or not 1 <= self.shortest <= self.longest:
            raise ConfigError(
                "hashed_ngrams needs width >= 8 and 1 <= shortest <= longest, "
                f"got {self.width}, {self.shortest} and {self.longest}"
            )


class HashedNgrams:
    """Signed feature hashing (Weinberger et al., 2009) of words, their parts, and pairs of neighbours."""

    slow = False

    def __init__(self, config: HashedNgramsConfig) -> None:
        self.config = config
        self.width = config.width

    def identity(self) -> str:
        """The options."""
        return f"hashed_ngrams {self.config}"

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed N sentences: unit vectors (N, D); a sentence without a letter or digit is the zero vector."""
        vectors = np.zeros((len(texts), self.width))
        for row, text in enumerate(texts):
            for feature, weight in self._features(re.findall(r"\w+", text.casefold())):
                code = int.from_bytes(hashlib.blake2b(feature.encode(), digest_size=8).digest(), "little")
                vectors[row, (code >> 1) % self.width] += weight if code & 1 else -weight
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors / np.where(lengths > 0, lengths, 1.0)).astype(np.float32)

    def _features(self, words: list[str]) -> Iterator[tuple[str, float]]:
        weights = [COMMON_WEIGHT if word in COMMON_WORDS else 1.0 for word in words]
        for word, weight in zip(words, weights, strict=True):
            yield f"word {word}", weight
            marked = f"<{word}>"
            parts = [
                marked[i : i + n]
                for n in range(self.config.shortest, self.config.longest + 1)
                for i in range(len(marked) - n + 1)
            ]
            for part in parts:
                yield f"part {part}", weight / len(parts) ** 0.5
        content = [word for word in words if word not in COMMON_WORDS]
        for first, second in itertools.pairwise(content):
            yield f"pair {first} {second}", 0.5


@dataclass(frozen=True, kw_only=True)
class SentenceModelConfig:
    """Options of `SentenceModel`.

    Attributes:
        folder: Folder of the model; a relative one is looked for in `MODELS_VARIABLE`, else where the program runs.
        width: Components of its vectors; 384 for all-MiniLM-L6-v2.
        max_tokens: Longer sentences are cut.
    """

    folder: str
    width: int = 384
    max_tokens: int = 256


class SentenceModel:
    """A transformer whose token vectors are averaged (or whose first one is taken) and brought to length 1."""

    slow = True

    def __init__(self, config: SentenceModelConfig) -> None:
        self.config = config
        self.width = config.width

    @cached_property
    def folder(self) -> Path:
        """The folder, checked.

        Raises:
            ConfigError: It is not there, or holds no weights.
        """
        folder = Path(os.environ.get(MODELS_VARIABLE, ".")) / self.config.folder
        for name in ("config.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise ConfigError(
                    f"text encoder: {folder / name} does not exist; expected a sentence model in the layout of Hugging "
                    f"Face transformers (config.json, model.safetensors, tokenizer files), e.g. all-MiniLM-L6-v2; "
                    f"copy one there, set {MODELS_VARIABLE}, or use type: hashed_ngrams"
                )
        return folder

    def identity(self) -> str:
        """Hash of the weights, and how they are used."""
        return f"sentence_model {self._weights_hash} {self.config.max_tokens} {self._takes_first_token}"

    @torch.no_grad()
    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed N sentences: unit vectors (N, D)."""
        tokenizer, model = self._model
        vectors = []
        for start in range(0, len(texts), 32):
            tokens = tokenizer(
                list(texts[start : start + 32]),
                padding=True,
                truncation=True,
                max_length=self.config.max_tokens,
                return_tensors="pt",
            )
            states = model(**tokens).last_hidden_state
            mask = tokens["attention_mask"].to(states)[..., None]
            pooled = states[:, 0] if self._takes_first_token else (states * mask).sum(1) / mask.sum(1)
            vectors.append(torch.nn.functional.normalize(pooled, dim=-1))
        return torch.cat(vectors).numpy().astype(np.float32)

    @cached_property
    def _weights_hash(self) -> str:
        weights = (self.folder / "model.safetensors").read_bytes()
        return hashlib.blake2b(weights, digest_size=16).hexdigest()

    @cached_property
    def _takes_first_token(self) -> bool:
        pooling = self.folder / "1_Pooling" / "config.json"
        if not pooling.is_file():
            return False
        return bool(json.loads(pooling.read_text(encoding="utf-8")).get("pooling_mode_cls_token", False))

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        try:
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise ConfigError(
                "text encoder 'sentence_model' needs transformers, which is not installed; "
                "run pip install 'robot-policies[language]', or use type: hashed_ngrams"
            ) from error
        folder = str(self.folder)
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
        if model.config.hidden_size != self.width:
            raise ConfigError(
                f"text encoder: {folder} gives vectors of {model.config.hidden_size} components, the configuration "
                f"says width: {self.width}; correct the width, or use the model the policy was trained with"
            )
        return tokenizer, model


@text_encoders.register("hashed_ngrams", HashedNgramsConfig)
def build_hashed_ngrams(config: HashedNgramsConfig) -> HashedNgrams:
    """Build a `HashedNgrams`."""
    return HashedNgrams(config)


@text_encoders.register("sentence_model", SentenceModelConfig)
def build_sentence_model(config: SentenceModelConfig) -> SentenceModel:
    """Build a `SentenceModel`; its folder is opened when the first sentence comes."""
    return SentenceModel(config)
