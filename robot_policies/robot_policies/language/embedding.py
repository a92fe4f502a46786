"""From instructions to vectors, each computed once.

A text encoder maps sentences to unit vectors. Instructions of a dataset are few and repeat, so an embedding
is computed once per process and, where that takes long, once per machine: it is kept on disk under the hash of
the text and of what the encoder's answer depends on.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_policies.configuration import Registry

logger = logging.getLogger(__name__)

CACHE_VARIABLE = "ROBOT_POLICIES_CACHE"
"""Environment variable that names the folder of cached embeddings."""


class TextEncoder(Protocol):
    """Maps sentences to unit vectors.

    Attributes:
        width: Number of components D.
        slow: Whether answers are worth keeping on disk.
    """

    width: int
    slow: bool

    def identity(self) -> str:
        """Everything that an answer depends on besides the text."""
        ...

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed N sentences: (N, D)."""
        ...


text_encoders: Registry[TextEncoder] = Registry("text encoder")


class InstructionEmbedding:
    """A text encoder with a memory; an empty instruction is the zero vector.

    Args:
        encoder: Computes what is not known yet.
        cache: Folder of known embeddings; None takes the user's cache folder.
    """

    def __init__(self, encoder: TextEncoder, *, cache: Path | None = None) -> None:
        self.width = encoder.width
        self._encoder = encoder
        self._folder = cache_folder() if cache is None else cache
        self._known: dict[str, Tensor] = {"": torch.zeros(encoder.width)}

    def __call__(self, texts: Sequence[str], device: torch.device) -> Tensor:
        """Embed B instructions: (B, D) float32 on `device`."""
        cleaned = [text.strip() for text in texts]
        new = {text for text in cleaned if text not in self._known}
        if new:
            self._learn(sorted(new))
        return torch.stack([self._known[text] for text in cleaned]).to(device)

    def _learn(self, texts: list[str]) -> None:
        missing = [text for text in texts if not self._read(text)]
        if not missing:
            return
        for text, vector in zip(missing, self._encoder.encode(missing), strict=True):
            self._known[text] = torch.from_numpy(np.array(vector, dtype=np.float32))
            if self._encoder.slow:
                self._write(text, vector)

    def _read(self, text: str) -> bool:
        """Take an embedding from disk; return whether there was one."""
        path = self._path(text)
        if not self._encoder.slow or not path.exists():
            return False
        try:
            vector = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            logger.warning("%s cannot be read (%s); computing that embedding again", path, error)
            return False
        if vector.shape != (self.width,) or not np.isfinite(vector).all():
            logger.warning("%s is no embedding of width %d; computing it again", path, self.width)
            return False
        self._known[text] = torch.from_numpy(vector.astype(np.float32))
        return True

    def _write(self, text: str, vector: NDArray[np.float32]) -> None:
        """Keep an embedding; a cache that cannot be written costs time, nothing else."""
        path = self._path(text)
        staging = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with staging.open("wb") as file:
                np.save(file, np.asarray(vector, np.float32), allow_pickle=False)
            os.replace(staging, path)
        except OSError as error:
            logger.warning("embeddings are not kept: %s", error)

    def _path(self, text: str) -> Path:
        key = hashlib.sha256(f"{self._encoder.identity()}\0{text}".encode()).hexdigest()
        return self._folder / key[:2] / f"{key}.npy"


def cache_folder() -> Path:
    """Where embeddings are kept: `CACHE_VARIABLE`, else the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen) / "text"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "robot-policies" / "text"
