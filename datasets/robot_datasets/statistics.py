"""Statistics of features in float64: exact extremes and moments, exact quantiles where the data is at hand.

Moments of parts merge exactly (Chan's update). Quantiles do not merge, and a weighted mean of quantiles is
wrong, so they are always taken from values or from a histogram: low-dimensional columns are in RAM, and
images keep one histogram per episode and channel, which adds up.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from robot_datasets.errors import DatasetError

STATISTICS = ("count", "min", "max", "mean", "std", "q01", "q10", "q50", "q90", "q99")
QUANTILES = (0.01, 0.1, 0.5, 0.9, 0.99)
MAX_QUANTILE_ROWS = 1 << 27
"""Beyond this many rows quantiles are taken from every k-th row (k the smallest that fits)."""


_BLOCK_VALUES = 1 << 22


@dataclass(frozen=True)
class FeatureStats:
    """Statistics per component of one feature, each array of the feature's shape, float64.

    `std` is the population standard deviation. For images the components are the channels and the unit is
    the stored one (grey levels 0..255, depth units).
    """

    count: np.ndarray
    min: np.ndarray
    max: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    q01: np.ndarray
    q10: np.ndarray
    q50: np.ndarray
    q90: np.ndarray
    q99: np.ndarray

    @classmethod
    def of(cls, values: np.ndarray) -> FeatureStats:
        """Compute over the first axis of `values` (N, ...), N >= 1."""
        if len(values) == 0:
            raise DatasetError("statistics need at least one step, got none")
        flat = values.reshape(len(values), -1)
        table = np.empty((len(STATISTICS), flat.shape[1]))
        width = max(1, _BLOCK_VALUES // len(flat))  # components taken together; bounds the float64 copy
        for start in range(0, flat.shape[1], width):
            table[:, start : start + width] = _exact(flat[:, start : start + width].T.astype(np.float64))
        return cls.from_array(table.reshape(len(STATISTICS), *values.shape[1:]))

    @classmethod
    def from_array(cls, table: np.ndarray) -> FeatureStats:
        """Build from `to_array`'s (10, ...) table, rows in the order of `STATISTICS`."""
        return cls(**{name: np.asarray(row) for name, row in zip(STATISTICS, table, strict=True)})

    def to_array(self) -> np.ndarray:
        """Return all statistics as one (10, ...) float64 array."""
        return np.stack([getattr(self, name) for name in STATISTICS]).astype(np.float64)

    def to_dict(self) -> dict[str, np.ndarray]:
        """Return the statistics by name."""
        return {name: getattr(self, name) for name in STATISTICS}

    @property
    def constant(self) -> np.ndarray:
        """True where a component never changes; dividing by its range or std is meaningless."""
        return self.max == self.min


def merge_moments(tables: np.ndarray) -> np.ndarray:
    """Merge count, min, max, mean and std over the first axis of (P, 10, ...); quantile rows become NaN.

    Exact up to float64 rounding, whatever the sizes of the P parts.
    """
    if len(tables) == 0:
        raise DatasetError("merging statistics needs at least one part, got none")
    count, low, high, mean, std = (tables[:, i] for i in range(5))
    total = count.sum(axis=0)
    merged_mean = (count * mean).sum(axis=0) / total
    second = (count * (std**2 + (mean - merged_mean) ** 2)).sum(axis=0)
    result = np.full(tables.shape[1:], np.nan)
    result[:5] = np.stack([total, low.min(axis=0), high.max(axis=0), merged_mean, np.sqrt(second / total)])
    return result


@dataclass(frozen=True)
class PixelStatistics:
    """Statistics of sampled frames: a (10, C) table and a (C, B) histogram that adds up over episodes."""

    table: np.ndarray
    histogram: np.ndarray

    @classmethod
    def of(cls, frames: Iterable[np.ndarray], *, dtype: str, channels: int) -> PixelStatistics:
        """Compute over frames (H, W, C), which may differ in size; depth is binned by 16 units."""
        bins, levels = histogram_bins(dtype), np.iinfo(dtype).max + 1
        counts = np.zeros((channels, levels), dtype=np.int64)
        for frame in frames:
            pixels = frame.reshape(-1, channels)
            for channel in range(channels):
                counts[channel] += np.bincount(pixels[:, channel], minlength=levels)
        if not counts.any():
            raise DatasetError("pixel statistics need at least one frame, got none")
        histogram = counts.reshape(channels, bins, levels // bins).sum(axis=2).astype(np.uint32)
        table = np.empty((len(STATISTICS), channels))
        table[:5] = _counted_moments(counts)
        table[5:] = histogram_quantiles(histogram, levels // bins)
        return cls(table, histogram)


def merge_pixels(tables: np.ndarray, histograms: np.ndarray, dtype: str) -> FeatureStats:
    """Merge per-episode tables (P, 10, C) and histograms (P, C, B); quantiles come from the sum."""
    merged = merge_moments(tables)
    width = np.iinfo(dtype).max // histograms.shape[-1] + 1
    merged[5:] = histogram_quantiles(histograms.sum(axis=0, dtype=np.int64), width)
    return FeatureStats.from_array(merged)


def histogram_bins(dtype: str) -> int:
    """Bins per channel: every grey level of uint8, 4096 bins of 16 units for uint16."""
    bins = {"uint8": 256, "uint16": 4096}.get(dtype)
    if bins is None:
        raise DatasetError(f"images are uint8 or uint16, got {dtype}")
    return bins


def histogram_quantiles(
    histogram: np.ndarray, width: int, quantiles: Sequence[float] = QUANTILES
) -> np.ndarray:
    """Linear quantiles (Q, C) of (C, B) counts; a bin stands for the middle of the integers it holds.

    With bins of width 1 this equals `numpy.quantile` of the values themselves.
    """
    result = np.empty((len(quantiles), len(histogram)))
    for channel, counts in enumerate(histogram):
        cumulative = np.cumsum(counts, dtype=np.int64)
        position = np.asarray(quantiles) * (cumulative[-1] - 1)
        low, high = np.floor(position), np.ceil(position)
        below = np.searchsorted(cumulative, low, side="right")
        above = np.searchsorted(cumulative, high, side="right")
        bins = below + (above - below) * (position - low)
        result[:, channel] = bins * width + (width - 1) / 2
    return result


def _exact(values: np.ndarray) -> np.ndarray:
    """All statistics (10, D) of (D, N) values; two passes, so a large mean does not spoil the deviation."""
    table = np.empty((len(STATISTICS), len(values)))
    mean = values.mean(axis=1)
    deviation = np.sqrt(np.mean((values - mean[:, None]) ** 2, axis=1))
    table[0] = values.shape[1]
    table[1:5] = values.min(axis=1), values.max(axis=1), mean, deviation
    step = -(-values.shape[1] // MAX_QUANTILE_ROWS)
    table[5:] = np.quantile(values[:, ::step], QUANTILES, axis=1)
    return table


def _counted_moments(counts: np.ndarray) -> np.ndarray:
    """Count, min, max, mean and std (5, C) of integers 0, 1, ... of which there are `counts` (C, L)."""
    values = np.arange(counts.shape[1], dtype=np.float64)
    total = counts.sum(axis=1)
    mean = counts @ values / total
    deviation = np.sqrt((counts * (values - mean[:, None]) ** 2).sum(axis=1) / total)
    low = (counts > 0).argmax(axis=1)
    high = counts.shape[1] - 1 - (counts[:, ::-1] > 0).argmax(axis=1)
    return np.stack([total, low, high, mean, deviation])
