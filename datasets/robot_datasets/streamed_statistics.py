"""Exact statistics of columns that do not fit into memory: read piece by piece, several times.

Quantiles are found digit by digit. Floats are mapped to integers of the same order; the first pass counts values by
their highest 16 bits, which tells the highest digit of every wanted rank, the next one counts the following 16 bits
of the values that begin with that digit, and so on: two passes for float32, four for everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.statistics import QUANTILES, STATISTICS, FeatureStats

Pieces = Callable[[], Iterable[np.ndarray]]

_DIGIT_BITS = 16
_DIGITS = 1 << _DIGIT_BITS
_TOGETHER = 16
"""Components whose digits are counted in one pass; bounds the memory for counts."""


def statistics_of_pieces(pieces: Pieces) -> FeatureStats:
    """Compute what `FeatureStats.of` computes of all pieces joined; moments up to float64 rounding.

    Args:
        pieces: Called once a pass; yields arrays (N, ...) of equal shape but for N.

    Raises:
        DatasetError: There are no rows.
    """
    count, shape, dtype = 0, (), np.dtype(np.float64)
    low = high = total = np.zeros(())
    for piece in pieces():
        flat = _flat(piece).astype(np.float64)
        if not len(flat):
            continue
        low = np.minimum(low, flat.min(axis=0)) if count else flat.min(axis=0)
        high = np.maximum(high, flat.max(axis=0)) if count else flat.max(axis=0)
        total = total + flat.sum(axis=0)
        count += len(flat)
        shape, dtype = piece.shape[1:], piece.dtype
    if not count:
        raise DatasetError("statistics need at least one step, got none")
    mean = total / count
    second = np.zeros_like(mean)
    for piece in pieces():
        second += ((_flat(piece) - mean) ** 2).sum(axis=0)
    table = np.empty((len(STATISTICS), len(mean)))
    table[:5] = np.broadcast_to(count, mean.shape), low, high, mean, np.sqrt(second / count)
    key_type = np.dtype(np.uint32 if dtype == np.float32 else np.uint64)
    for start in range(0, len(mean), _TOGETHER):
        chosen = slice(start, start + _TOGETHER)
        table[5:, chosen] = _quantiles(pieces, chosen, count, len(mean[chosen]), key_type)
    return FeatureStats.from_array(table.reshape(len(STATISTICS), *shape))


def _quantiles(
    pieces: Pieces, chosen: slice, count: int, n_components: int, key_type: np.dtype
) -> np.ndarray:
    """Linear quantiles (Q, D) of the chosen components, as `numpy.quantile` computes them."""
    positions = np.asarray(QUANTILES) * (count - 1)
    below = np.floor(positions).astype(np.int64)
    ranks = np.unique([below, np.minimum(below + 1, count - 1)])
    values = _of_ranks(pieces, chosen, ranks, n_components, key_type)
    low = values[np.searchsorted(ranks, below)]
    high = values[np.searchsorted(ranks, np.minimum(below + 1, count - 1))]
    weight = (positions - below)[:, None]
    result = low + (high - low) * weight
    np.subtract(high, (high - low) * (1 - weight), out=result, where=weight >= 0.5)
    return result


def _of_ranks(
    pieces: Pieces, chosen: slice, ranks: np.ndarray, n_components: int, key_type: np.dtype
) -> np.ndarray:
    """The values (R, D) that stand at these places (R,) of the sorted components, float64."""
    prefixes = np.zeros((len(ranks), n_components), dtype=key_type)
    left = np.repeat(ranks[:, None], n_components, axis=1)
    """Places among the values that begin with the prefix."""
    for shift in range(8 * key_type.itemsize - _DIGIT_BITS, -1, -_DIGIT_BITS):
        keys = (_keys(piece, chosen, key_type) for piece in pieces())
        longer = np.empty_like(prefixes)
        for (component, prefix), counts in _count_digits(keys, prefixes, shift).items():
            within = prefixes[:, component] == prefix
            ends = np.cumsum(counts)
            digits = np.searchsorted(ends, left[within, component], side="right")
            left[within, component] -= ends[digits] - counts[digits]
            longer[within, component] = key_type.type(prefix << _DIGIT_BITS) | digits.astype(key_type)
        prefixes = longer
    return _values(prefixes)


def _count_digits(
    keys: Iterator[np.ndarray], prefixes: np.ndarray, shift: int
) -> dict[tuple[int, int], np.ndarray]:
    """How often every digit follows a prefix, by component and prefix."""
    counts = {
        (component, prefix): np.zeros(_DIGITS, dtype=np.int64)
        for component in range(prefixes.shape[1])
        for prefix in np.unique(prefixes[:, component]).tolist()
    }
    is_first = shift + _DIGIT_BITS == 8 * prefixes.itemsize
    for piece in keys:
        digits = ((piece >> shift) & (_DIGITS - 1)).astype(np.intp)
        begin = np.zeros_like(piece) if is_first else piece >> (shift + _DIGIT_BITS)
        for (component, prefix), found in counts.items():
            following = digits[begin[:, component] == prefix, component]
            found += np.bincount(following, minlength=_DIGITS)
    return counts


def _flat(piece: np.ndarray) -> np.ndarray:
    """(N, D), also where N is 0."""
    return piece.reshape(len(piece), int(np.prod(piece.shape[1:])))


def _keys(piece: np.ndarray, chosen: slice, key_type: np.dtype) -> np.ndarray:
    """Unsigned integers in the order of the values."""
    values = _flat(piece)[:, chosen].astype(f"f{key_type.itemsize}") + 0  # no negative zero
    bits = np.ascontiguousarray(values).view(key_type)
    top = key_type.type(1 << (8 * key_type.itemsize - 1))
    return np.where(bits & top, ~bits, bits | top)


def _values(keys: np.ndarray) -> np.ndarray:
    """Undo `_keys`."""
    top = keys.dtype.type(1 << (8 * keys.itemsize - 1))
    bits = np.where(keys & top, keys ^ top, ~keys)
    return bits.view(f"f{keys.itemsize}").astype(np.float64)
