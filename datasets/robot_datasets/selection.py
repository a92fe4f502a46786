"""Selections: how often each step of a store is trained on, written by retrieval and read by a mixture.

A selection belongs to one store, which its fingerprint names, and gives each step t a weight: how often, relative to
the other steps, the window whose "now" is t is drawn. 0 leaves it out. The file is one ``.npz``: `weights` (T,)
float32, `distances` (T,) float32 (what the weights were made from; NaN where nothing was measured), and `about`, a
JSON text.

`WeightedOrder` draws in proportion to the weights and as evenly as whole numbers allow: with q_i times the expected
number of draws of window i per epoch and a random phase u_i in [0, 1), window i has been drawn floor(e q_i + u_i)
times before epoch e. With equal weights each epoch visits every window once. Like any order
(`robot_datasets.loader`) it is a pure function of (seed, position).
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_datasets.errors import DatasetError
from robot_datasets.loader import Int64
from robot_datasets.windows import WindowIndex

FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Weights of a store's steps.

    Attributes:
        fingerprint: Fingerprint of the store.
        weights: (T,) float32, >= 0.
        distances: (T,) float32.
        about: How it was made, JSON-ready.
    """

    fingerprint: str
    weights: NDArray[np.float32]
    distances: NDArray[np.float32]
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        weights = self.weights
        if weights.ndim != 1 or weights.shape != self.distances.shape:
            raise DatasetError(
                f"a selection needs weights and distances (T,), got {weights.shape} and {self.distances.shape}"
            )
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.any()):
            raise DatasetError(
                "selection weights must be finite and >= 0, and one above 0, got "
                f"{weights.min() if len(weights) else 'none'} to {weights.max() if len(weights) else 'none'}"
            )

    def save(self, path: str | Path) -> None:
        """Write the file; the old one or the new one is there, never half of it."""
        path = Path(path)
        staging = path.with_name(f".{path.name}.tmp")
        about = json.dumps({"format": FORMAT, "fingerprint": self.fingerprint, **self.about})
        with staging.open("wb") as file:
            np.savez_compressed(file, weights=self.weights, distances=self.distances, about=np.array(about))
        os.replace(staging, path)

    @classmethod
    def load(cls, path: str | Path) -> Selection:
        """Read a file.

        Raises:
            DatasetError: It is missing, damaged, or no selection.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                weights, distances, text = (arrays[name] for name in ("weights", "distances", "about"))
            about = json.loads(str(text))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DatasetError(
                f"{path} is no selection ({error}); expected a file written by 'robot-policies retrieve'"
            ) from error
        if about.pop("format", None) != FORMAT:
            raise DatasetError(f"{path} is a selection of another format; write it again")
        return cls(
            fingerprint=about.pop("fingerprint"),
            weights=weights.astype(np.float32),
            distances=distances.astype(np.float32),
            about=about,
        )

    def of_windows(self, index: WindowIndex, fingerprint: str, *, where: str) -> NDArray[np.float32]:
        """Weight of every window, (n_windows,).

        Args:
            index: Windows of the store.
            fingerprint: The store's.
            where: Names selection and store, for the message.

        Raises:
            DatasetError: The selection belongs to another store, or leaves no window.
        """
        if fingerprint != self.fingerprint:
            raise DatasetError(
                f"{where}: the selection was made for another store (fingerprint {self.fingerprint}, this one has "
                f"{fingerprint}); run 'robot-policies retrieve' again"
            )
        now, _ = index.now_and_last(np.arange(len(index), dtype=np.int64))
        weights = self.weights[now]
        if not weights.any():
            raise DatasetError(f"{where}: no window of the training episodes is selected; select more steps")
        return weights


class WeightedOrder:
    """Samples in proportion to their weights; see the module docstring.

    Args:
        weights: (n,) >= 0, one above 0.
        seed: Seed of the order.
        stream: Distinguishes orders of one seed.
    """

    def __init__(self, weights: NDArray[np.floating], seed: int, *, stream: int = 0) -> None:
        self._chosen = np.flatnonzero(weights)
        chosen = np.asarray(weights, np.float64)[self._chosen]
        self._quota = chosen / chosen.sum() * len(chosen)
        self._phase = np.random.default_rng([seed, stream, 0]).random(len(chosen))
        self._seed, self._stream = seed, stream
        self._epoch = -1
        self._samples = self._draws = np.empty(0, np.int64)
        self._starts: dict[int, int] = {}

    def samples(self, positions: Int64) -> Int64:
        """Sample number at each position, (N,)."""
        return self._look_up(positions)[0]

    def draws(self, positions: Int64) -> Int64:
        """How often the sample at each position occurred before, (N,)."""
        return self._look_up(positions)[1]

    def _look_up(self, positions: Int64) -> tuple[Int64, Int64]:
        samples, draws = np.empty(len(positions), np.int64), np.empty(len(positions), np.int64)
        if len(positions) == 0:
            return samples, draws
        for epoch in range(self._epoch_at(int(positions.min())), self._epoch_at(int(positions.max())) + 1):
            start = self._start(epoch)
            here = (positions >= start) & (positions < self._start(epoch + 1))
            if here.any():
                self._prepare(epoch)
                samples[here] = self._samples[positions[here] - start]
                draws[here] = self._draws[positions[here] - start]
        return samples, draws

    def _counts(self, epoch: int) -> Int64:
        """How often each chosen sample was drawn before an epoch."""
        return np.floor(epoch * self._quota + self._phase).astype(np.int64)

    def _start(self, epoch: int) -> int:
        if epoch not in self._starts:
            self._starts[epoch] = int(self._counts(epoch).sum())
        return self._starts[epoch]

    def _epoch_at(self, position: int) -> int:
        # An epoch has about as many positions as there are chosen samples.
        epoch = position // len(self._chosen)
        while self._start(epoch) > position:
            epoch -= 1
        while self._start(epoch + 1) <= position:
            epoch += 1
        return epoch

    def _prepare(self, epoch: int) -> None:
        if epoch == self._epoch:
            return
        before = self._counts(epoch)
        times = self._counts(epoch + 1) - before
        in_turn = np.repeat(self._chosen, times)
        rank = np.arange(len(in_turn)) - np.repeat(np.cumsum(times) - times, times)
        random = np.random.default_rng([self._seed, self._stream, epoch + 1])
        self._epoch, self._samples = epoch, random.permutation(in_turn)
        self._draws = np.empty(len(in_turn), np.int64)
        self._draws[np.argsort(self._samples, kind="stable")] = np.repeat(before, times) + rank
