"""An importer that fails on demand, for tests of what converts: a text file with one word per episode."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.features import ACTION, STATE
from robot_datasets.image_codec import encode_frame
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Plan, Probe, Rejected
from robot_datasets.testing.examples import EXAMPLE_IMAGE, example_features

MIXED = "3 rejected 1 7 bug 2 unreadable 5 badframe 4 refused 6 1 2 3 9 8"
"""Healthy episodes among those that fail in every way but taking the process with them."""


class WordsImporter(Importer):
    """Reads a text file of one word per episode: a number of steps, or something that goes wrong.

    ``rejected``, ``refused``, ``bug``, ``unreadable`` and ``badframe`` concern the episode, ``gone`` the whole
    source; ``killed`` kills the process that reads it, ``unlucky`` only the first time, and ``slow`` sleeps. The
    last two leave a file ``killed`` or ``begun`` beside the source.
    """

    name = "words"
    version = 1
    summary = "a text file of words"

    def probe(self, path: Path) -> Probe | None:
        """Recognise the suffix."""
        return Probe(self.name, "suffix") if path.suffix == ".words" else None

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        """List the words."""
        words = path.read_text().split()
        return Plan(
            source=path,
            options=options,
            refs=[EpisodeRef(f"word {i}", word) for i, word in enumerate(words)],
            features=example_features(image_size=8),
            fps=10.0,
            embodiment="",
            checksum=" ".join(words),
            notes={"warnings": ["a source of words"]},
        )

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        """Make an episode of each number, and do what the other words say."""
        for ref in refs:
            word = str(ref.locator)
            if word == "rejected":
                yield Rejected(ref.source_id, "crossed out")
                continue
            _go_wrong(word, plan.source.parent)
            n = int(word) if word.isdecimal() else 2
            rows = np.arange(n, dtype=np.float32)[:, None]
            yield Episode(
                ref.source_id,
                {STATE: np.repeat(rows, 3, axis=1), ACTION: np.repeat(rows, 2, axis=1) + n},
                {EXAMPLE_IMAGE: _frames(word, n)},
                warnings=["short"] if n == 1 else [],
            )


def _go_wrong(word: str, folder: Path) -> None:
    """Do what the word says, to the process that reads it."""
    if word == "bug":
        raise KeyError("never thought of")
    if word == "refused":
        raise EpisodeError("state is of wood, expected metal")
    if word == "gone":
        raise OSError(errno.ESTALE, "Stale file handle")
    if word == "unreadable":
        raise OSError("checksum of a block is wrong")
    if word == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "unlucky" and not (folder / "killed").exists():
        (folder / "killed").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "slow":
        (folder / "begun").touch()
        time.sleep(60)


def _frames(word: str, n: int) -> Iterator[bytes]:
    for i in range(n):
        if word == "badframe":
            raise ValueError("frame of stone")
        yield encode_frame(np.full((8, 8, 3), i % 256, np.uint8), "png")
