"""The spool of an unfinished store: everything of an episode that is not image payload, in one flat file.

Per episode, in an order that the store's features fix: the low-dimensional columns, the byte length of every
frame, the statistics. Sizes follow from the number of steps, so the journal is all that is needed to read it.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.statistics import STATISTICS, histogram_bins
from robot_datasets.store.copying import append_file, open_at_end, write_all
from robot_datasets.store.layout import StoreSpec


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

    def __init__(self, path: Path, blocks: Sequence[Block], lengths: Sequence[int]) -> None:
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

    def column(self, key: tuple[str, str], lengths: Sequence[int]) -> np.ndarray:
        """Return a per-step block of all episodes joined (T, ...), or a per-episode block stacked (E, ...)."""
        index = [block.key for block in self._blocks].index(key)
        before, block = self._blocks[:index], self._blocks[index]
        steps = np.asarray(lengths, dtype=np.int64)
        records = _sizes(self._blocks, steps)
        starts = np.cumsum(records) - records + _sizes(before, steps)
        sizes = _sizes([block], steps)
        result = np.empty(
            (int(steps.sum()) if block.per_step else len(steps), *block.shape), dtype=block.dtype
        )
        target = result.data.cast("B")
        with self._path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            position = 0
            for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
                target[position : position + size] = mapped[start : start + size]
                position += size
        return result


def _sizes(blocks: Sequence[Block], steps: np.ndarray) -> np.ndarray:
    """Return the bytes that `blocks` take in episodes of these lengths, (E,) int64."""
    per_step = sum(block.unit_bytes for block in blocks if block.per_step)
    fixed = sum(block.unit_bytes for block in blocks if not block.per_step)
    return steps * per_step + fixed
