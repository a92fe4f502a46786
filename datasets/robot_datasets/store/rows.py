"""The spool of an unfinished store: everything of an episode that is not image payload, in one flat file.

Per episode, in an order that the store's features fix: the low-dimensional columns, the byte length of every
frame, the statistics. Sizes follow from the number of steps, so the journal is all that is needed to read it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.statistics import STATISTICS, histogram_bins
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

    def n_bytes(self, n_steps: int) -> int:
        """Size for an episode of `n_steps` [bytes]."""
        return self.dtype.itemsize * int(np.prod(self.full_shape(n_steps), dtype=np.int64))


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


class RowSpool:
    """Appends and reads back episode records."""

    def __init__(self, path: Path, blocks: Sequence[Block], lengths: Sequence[int]) -> None:
        """Open for appending after the records of episodes of these `lengths`; the rest is cut off."""
        self._path = path
        self._blocks = list(blocks)
        self._file = path.open("ab")
        self.size = sum(self.record_bytes(n) for n in lengths)
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
        for block in self._blocks:
            array = np.ascontiguousarray(arrays[block.key], dtype=block.dtype)
            if array.shape != block.full_shape(n_steps):
                raise ValueError(f"{block.key} has shape {array.shape}, expected {block.full_shape(n_steps)}")
            self._file.write(array.tobytes())
        self.size += self.record_bytes(n_steps)

    def sync(self) -> None:
        """Wait until the disk has everything written."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def truncate(self, size: int) -> None:
        """Forget everything beyond `size` bytes."""
        self._file.close()
        os.truncate(self._path, size)
        self._file = self._path.open("ab")
        self.size = size

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def episodes(self, key: tuple[str, str], lengths: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield one block of every record, in order."""
        before = self._blocks[: [b.key for b in self._blocks].index(key)]
        block = self._blocks[len(before)]
        mapped = np.memmap(self._path, dtype=np.uint8, mode="r")
        position = 0
        for n_steps in lengths:
            start = position + sum(b.n_bytes(n_steps) for b in before)
            raw = mapped[start : start + block.n_bytes(n_steps)]
            yield np.frombuffer(raw, dtype=block.dtype).reshape(block.full_shape(n_steps))
            position += self.record_bytes(n_steps)

    def column(self, key: tuple[str, str], lengths: Sequence[int]) -> np.ndarray:
        """Return a per-step block of all episodes joined (T, ...), or a per-episode block stacked (E, ...)."""
        block = next(b for b in self._blocks if b.key == key)
        rows = sum(lengths) if block.per_step else len(lengths)
        result = np.empty((rows, *block.shape), dtype=block.dtype)
        position = 0
        for part in self.episodes(key, lengths):
            n = len(part) if block.per_step else 1
            result[position : position + n] = part
            position += n
        return result
