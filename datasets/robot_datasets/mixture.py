"""Several stores as one dataset: weighted sampling, each store normalised by its own statistics.

Weights are kept exactly, not on average: of every `BLOCK` consecutive samples each store gives its share, and
every store is visited in epochs of its own, so that no window of a small store repeats before all were seen.
Like any order (`robot_datasets.loader`), a mixture's is a pure function of (seed, position)::

    position    0 1 2 3 4 5 ... 9999 | 10000 ...        weights 3 : 1
    store       a a b a a a ... b    | a b ...          a 7500 times, b 2500 times in each block
    a's window  0 1   2 3 4 ...      | 7500 ...         position in a's own shuffled epochs

A policy has one normaliser, fitted to the first store, the *reference*. The others are rescaled on reading so
that this normaliser does to them what one of their own would do: ``x' = reference^-1(own(x))`` with the affine
map of each store's statistics. Their values are then in the reference's units only in this sense, which is what
training needs; actions that the policy predicts are in the reference's true units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.goals import GOAL_PREFIX
from robot_datasets.loader import BatchDataset, Int64, SampleOrder, ShuffledOrder
from robot_datasets.selection import WeightedOrder

BLOCK = 10_000
"""Samples over which the weights hold exactly."""

MODES = ("min_max", "z_score", "identity")
CONSTANT_RANGE = 1e-4

Stats = Mapping[str, Mapping[str, NDArray[Any]]]


@dataclass(frozen=True, kw_only=True)
class Affine:
    """``y = x * scale + offset`` per component, float64, each (D,)."""

    scale: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def normalising(cls, stats: Mapping[str, NDArray[Any]], mode: str) -> Affine:
        """The map that a normaliser of this mode fits to `stats`; constant components are only shifted.

        Raises:
            DatasetError: The mode is not one of `MODES`.
        """
        if mode not in MODES:
            raise DatasetError(unknown_name("normalisation mode", mode, MODES))
        low, high = (np.asarray(stats[k], np.float64) for k in ("min", "max"))
        constant = (high - low) < CONSTANT_RANGE
        if mode == "identity":
            return cls(scale=np.ones_like(low), offset=np.zeros_like(low))
        if mode == "min_max":
            scale = np.where(constant, 1.0, 2.0 / np.where(constant, 1.0, high - low))
            return cls(scale=scale, offset=np.where(constant, -low, -1.0 - scale * low))
        mean, std = (np.asarray(stats[k], np.float64) for k in ("mean", "std"))
        scale = np.where(constant, 1.0, 1.0 / np.where(constant, 1.0, std))
        return cls(scale=scale, offset=-mean * scale)

    def then_inverse_of(self, other: Affine) -> Affine:
        """First this map, then the inverse of `other`."""
        return Affine(scale=self.scale / other.scale, offset=(self.offset - other.offset) / other.scale)

    def __call__(self, x: NDArray[np.floating]) -> NDArray[np.float32]:
        """Map x (..., D)."""
        return (x * self.scale + self.offset).astype(np.float32)


def rescaling(own: Stats, reference: Stats, modes: Mapping[str, str]) -> dict[str, Affine]:
    """Maps by feature that bring a store to the reference store; see the module docstring.

    Args:
        own: Statistics of the store, by low-dimensional feature.
        reference: Statistics of the reference store, for the same features.
        modes: Normalisation mode by feature, ``default`` for the rest; those of the policy.
    """
    maps: dict[str, Affine] = {}
    for name in reference:
        mode = modes.get(name, modes.get("default", "min_max"))
        there = Affine.normalising(reference[name], mode)
        maps[name] = Affine.normalising(own[name], mode).then_inverse_of(there)
    return maps


class MixtureDataset:
    """Datasets end to end; ``batch["dataset_index"]`` (B,) int64 tells which one a row is from.

    Args:
        datasets: Their batches must have the same features and shapes.
        rescale: Maps by feature for each dataset; empty where values stay as they are.
    """

    def __init__(self, datasets: Sequence[BatchDataset], rescale: Sequence[Mapping[str, Affine]]) -> None:
        if len(datasets) != len(rescale):
            raise ValueError(f"{len(datasets)} datasets, but {len(rescale)} rescalings")
        self._datasets = list(datasets)
        self._rescale = list(rescale)
        self._ends = np.cumsum([len(d) for d in datasets])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitems__(self, windows: Sequence[int] | Int64, draws: Int64 | None = None) -> dict[str, Any]:
        """Return the batch of the given windows, numbered through all datasets."""
        numbers = np.asarray(windows, dtype=np.int64)
        source = np.searchsorted(self._ends, numbers, side="right")
        batch: dict[str, Any] = {}
        for k in np.unique(source):
            rows = np.flatnonzero(source == k)
            first = self._ends[k] - len(self._datasets[k])
            drawn = None if draws is None else draws[rows]
            part = self._datasets[k].__getitems__(numbers[rows] - first, drawn)
            for name, value in part.items():
                rescale = self._rescale[k].get(name.removeprefix(GOAL_PREFIX))
                scaled = value if rescale is None else rescale(value)
                _place(batch, name, scaled, rows, len(numbers))
        batch["dataset_index"] = source
        return batch


class MixtureOrder:
    """Order of a mixture's samples, numbered as in `MixtureDataset`.

    Args:
        sizes: Number of windows of each dataset.
        weights: Share of samples from each dataset, in any unit; > 0.
        seed: Seed of the order.
        of_windows: For each dataset how often its windows are drawn relative to each other, (n,), or None for
            equally often; see `robot_datasets.selection`.

    Raises:
        DatasetError: A weight is not positive, or too small to be kept within `BLOCK` samples.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float],
        seed: int,
        *,
        of_windows: Sequence[NDArray[np.floating] | None] | None = None,
    ) -> None:
        self._quota = _quotas(np.asarray(weights, dtype=np.float64))
        self._labels = np.repeat(np.arange(len(sizes)), self._quota)
        chosen = [None] * len(sizes) if of_windows is None else of_windows
        self._orders: list[SampleOrder] = [
            ShuffledOrder(n, seed, stream=k + 1) if w is None else WeightedOrder(w, seed, stream=k + 1)
            for k, (n, w) in enumerate(zip(sizes, chosen, strict=True))
        ]
        self._first = np.cumsum(sizes) - np.asarray(sizes)
        self._seed = seed
        self._block = -1
        self._source = self._rank = np.empty(0, np.int64)

    def samples(self, positions: Int64) -> Int64:
        """Sample number at each position, (N,)."""
        source, own = self._own(positions)
        samples = np.empty(len(positions), np.int64)
        for k in np.unique(source):
            rows = np.flatnonzero(source == k)
            samples[rows] = self._first[k] + self._orders[k].samples(own[rows])
        return samples

    def draws(self, positions: Int64) -> Int64:
        """How often the sample at each position occurred before, (N,)."""
        source, own = self._own(positions)
        draws = np.empty(len(positions), np.int64)
        for k in np.unique(source):
            rows = np.flatnonzero(source == k)
            draws[rows] = self._orders[k].draws(own[rows])
        return draws

    def _own(self, positions: Int64) -> tuple[Int64, Int64]:
        """Dataset of each position, and the position in that dataset's own order."""
        blocks, offsets = np.divmod(positions, BLOCK)
        source, own = np.empty(len(positions), np.int64), np.empty(len(positions), np.int64)
        for block in np.unique(blocks):
            here = np.flatnonzero(blocks == block)
            of_block, rank = self._of_block(int(block))
            source[here] = of_block[offsets[here]]
            own[here] = block * self._quota[source[here]] + rank[offsets[here]]
        return source, own

    def _of_block(self, block: int) -> tuple[Int64, Int64]:
        """Dataset at each position of a block, and how often it occurred before within the block."""
        if block != self._block:
            source = np.random.default_rng([self._seed, 0, block]).permutation(self._labels)
            rank = np.empty(BLOCK, np.int64)
            rank[np.argsort(source, kind="stable")] = np.concatenate([np.arange(q) for q in self._quota])
            self._block, self._source, self._rank = block, source, rank
        return self._source, self._rank


def _quotas(weights: NDArray[np.float64]) -> Int64:
    """Whole numbers in proportion to `weights` that sum to `BLOCK` (largest remainders)."""
    if not (np.isfinite(weights).all() and (weights > 0).all()):
        raise DatasetError(f"mixture weights must be positive numbers, got {weights.tolist()}")
    exact = weights / weights.sum() * BLOCK
    quotas = np.floor(exact).astype(np.int64)
    rest = BLOCK - int(quotas.sum())
    quotas[np.argsort(quotas - exact, kind="stable")[:rest]] += 1
    if (quotas == 0).any():
        raise DatasetError(
            f"the smallest mixture weight is below 1/{BLOCK} of the sum; got {weights.tolist()}"
        )
    return quotas


def _place(batch: dict[str, Any], name: str, value: Any, rows: Int64, size: int) -> None:
    """Put the rows of one dataset into the mixed batch."""
    if isinstance(value, np.ndarray):
        if name not in batch:
            batch[name] = np.empty((size, *value.shape[1:]), value.dtype)
        batch[name][rows] = value
        return
    mixed = batch.setdefault(name, [None] * size)
    for row, item in zip(rows, value, strict=True):
        mixed[row] = item
