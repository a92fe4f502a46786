"""The spool of an unfinished store: everything of an episode that is not image payload, in one flat file.

Per episode, in an order that the store's features fix: the low-dimensional columns, the byte length of every
frame, the statistics. Sizes follow from the number of steps, so the journal is all that is needed to read it.
"""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.statistics import STATISTICS, histogram_bins
from robot_datasets.store.copying import append_file, open_at_end, write_all
from robot_datasets.store.layout import StoreSpec

Lengths: TypeAlias = "Sequence[int] | array[int] | np.ndarray"
"""Steps of each episode."""


@dataclass(frozen=True)
class Block:
    """One array of an episode's record: (T, *shape) if `per_step`, else `shape`."""

    key: tuple[str, str]
    dtype: np.dtype
    shape: tuple[int, ...]
    per_step: bool

    def full_shape(self, n_steps: int) -> tuple[int, ...]:
        """Shape for an episode of `n_steps`."""
        return (n_steps, *self.shape) if self.per_step else self.shape

    @property
    def unit_bytes(self) -> int:
        """Size of one step if `per_step`, else of the whole block [bytes]."""
        return self.dtype.itemsize * math.prod(self.shape)

    def n_bytes(self, n_steps: int) -> int:
        """Size for an episode of `n_steps` [bytes]."""
        return self.unit_bytes * (n_steps if self.per_step else 1)


def record_blocks(spec: StoreSpec) -> list[Block]:
    """Return the blocks of a record, keyed (kind, feature), in file order."""
    blocks = []
    float64 = np.dtype("<f8")
    for name in spec.low_dim:
        feature = spec.features[name]
        dtype = np.dtype(feature.dtype).newbyteorder("<")
        blocks.append(Block(("data", name), dtype, feature.shape, True))
        blocks.append(Block(("stats", name), float64, (len(STATISTICS), *feature.shape), False))
    for name in spec.image_features:
        feature = spec.features[name]
        channels = feature.shape[2]
        blocks.append(Block(("length", name), np.dtype("<i8"), (), True))
        blocks.append(Block(("stats", name), float64, (len(STATISTICS), channels), False))
        bins = histogram_bins(feature.dtype)
        blocks.append(Block(("histogram", name), np.dtype("<u4"), (channels, bins), False))
    return blocks


def encode_record(
    blocks: Sequence[Block], arrays: Mapping[tuple[str, str], np.ndarray], n_steps: int
) -> bytes:
    """Return the bytes of an episode's record; `arrays` holds every block by key."""
    parts = []
    for block in blocks:
        array = np.ascontiguousarray(arrays[block.key], dtype=block.dtype)
        if array.shape != block.full_shape(n_steps):
            raise ValueError(f"{block.key} has shape {array.shape}, expected {block.full_shape(n_steps)}")
        parts.append(array.tobytes())
    return b"".join(parts)


class RowSpool:
    """Appends and reads back episode records."""

    def __init__(self, path: Path, blocks: Sequence[Block], lengths: Lengths) -> None:
        """Open for appending after the records of episodes of these `lengths`; the rest is cut off."""
        self._path = path
        self._blocks = list(blocks)
        self._file = open_at_end(path)
        self.size = int(_sizes(self._blocks, np.asarray(lengths, dtype=np.int64)).sum())
        if path.stat().st_size < self.size:
            raise DatasetError(
                f"{path} holds less than the {self.size} bytes its journal promises; "
                "the staging directory is damaged, delete it and convert again"
            )
        self.truncate(self.size)

    def record_bytes(self, n_steps: int) -> int:
        """Size of the record of an episode [bytes]."""
        return sum(block.n_bytes(n_steps) for block in self._blocks)

    def append(self, arrays: Mapping[tuple[str, str], np.ndarray], n_steps: int) -> None:
        """Write one record; `arrays` holds every block by key."""
        write_all(self._file, encode_record(self._blocks, arrays, n_steps))
        self.size += self.record_bytes(n_steps)

    def append_record(self, record: bytes) -> None:
        """Append the record of an episode that another process encoded."""
        write_all(self._file, record)
        self.size += len(record)

    def append_file(self, source: Path, n_steps: int) -> None:
        """Append the record of an episode that another process left at the beginning of a file."""
        append_file(source, 0, self.record_bytes(n_steps), self._file)
        self.size += self.record_bytes(n_steps)

    def sync(self) -> None:
        """Wait until the disk has everything written."""
        os.fsync(self._file.fileno())

    def truncate(self, size: int) -> None:
        """Forget everything beyond `size` bytes."""
        self._file.close()
        os.truncate(self._path, size)
        self._file = open_at_end(self._path)
        self.size = size

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def column(self, key: tuple[str, str], lengths: Lengths) -> np.ndarray:
        """Return a per-step block of all episodes joined (T, ...), or a per-episode block stacked (E, ...)."""
        return next(self.pieces(key, lengths, self.n_rows(key, lengths)))

    def n_rows(self, key: tuple[str, str], lengths: Lengths) -> int:
        """Number of rows of `column`."""
        return int(np.asarray(lengths).sum()) if self.block(key).per_step else len(lengths)

    def block(self, key: tuple[str, str]) -> Block:
        """Return the block of this key."""
        return next(block for block in self._blocks if block.key == key)

    def pieces(self, key: tuple[str, str], lengths: Lengths, n_rows: int) -> Iterator[np.ndarray]:
        """Yield `column` in pieces of `n_rows` (the last may be shorter), so that it need not fit into memory."""
        block = self.block(key)
        steps = np.asarray(lengths, dtype=np.int64)
        records = _sizes(self._blocks, steps)
        starts = np.cumsum(records) - records + _sizes(self._blocks[: self._blocks.index(block)], steps)
        counts = steps if block.per_step else np.ones_like(steps)
        ends = np.cumsum(counts)
        with self._path.open("rb") as file:
            for first in range(0, int(ends[-1]), n_rows):
                last = min(first + n_rows, int(ends[-1]))
                result = np.empty((last - first, *block.shape), dtype=block.dtype)
                target = result.data.cast("B")
                touched = slice(
                    np.searchsorted(ends, first, "right"), np.searchsorted(ends, last, "left") + 1
                )
                firsts = ends[touched] - counts[touched]
                begins = np.maximum(firsts, first)
                positions = starts[touched] + (begins - firsts) * block.unit_bytes
                borders = (np.minimum(ends[touched], last) - first) * block.unit_bytes
                done = 0
                for position, border in zip(positions.tolist(), borders.tolist(), strict=True):
                    file.seek(position)
                    if file.readinto(target[done:border]) != border - done:
                        raise DatasetError(f"{self._path} ends too early; delete the staging directory")
                    done = border
                yield result


def _sizes(blocks: Sequence[Block], steps: np.ndarray) -> np.ndarray:
    """Return the bytes that `blocks` take in episodes of these lengths, (E,) int64."""
    per_step = sum(block.unit_bytes for block in blocks if block.per_step)
    fixed = sum(block.unit_bytes for block in blocks if not block.per_step)
    return steps * per_step + fixed
