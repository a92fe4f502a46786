"""Rows of LeRobot's parquet files: which columns are features, and an episode's rows as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.archives import ArchiveError
from robot_datasets.episode import EpisodeError
from robot_datasets.errors import one_line
from robot_datasets.importers.file_tree import FileTree
from robot_datasets.importers.lerobot_images import frame_bytes

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

_BATCH_ROWS = 32
_STORED = {"float16": "float32", "int8": "int32", "int16": "int32", "uint32": "int64", "uint64": "int64"}
_KNOWN = ("float32", "float64", "int64", "int32", "uint8", "uint16", "bool")


@dataclass(frozen=True)
class Column:
    """A parquet column as it would be stored.

    Attributes:
        kind: ``"numbers"``, ``"image"`` (frames: encoded, by path, or as pixels), ``"text"``, ``"language"`` (a
            list of annotations), or ``"other"``.
        dtype: Storage type of numbers.
        shape: Shape of one row of numbers; scalars are (1,).
    """

    kind: str
    dtype: str = ""
    shape: tuple[int, ...] = ()


class RowReader:
    """Reads rows of one parquet file after another; keeps the row groups that episodes may share."""

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self._name = ""
        self._file: pq.ParquetFile | None = None
        self._cached: tuple[object, ...] = ()
        self._table: pa.Table | None = None

    def names(self, name: str) -> list[str]:
        """Return the columns of a file."""
        return self._guard(name, lambda: list(self._open(name).schema_arrow.names))

    def n_rows(self, name: str) -> int:
        """Return the number of rows of a file."""
        return self._open(name).metadata.num_rows

    def episode_runs(self, name: str) -> list[tuple[int, int, int]]:
        """Return (episode number, first row, one past the last) of every run of equal episode numbers."""
        values = self._guard(name, lambda: self._open(name).read(columns=["episode_index"]))
        numbers = to_numpy(values["episode_index"], (1,), f"{name}: episode_index").reshape(-1)
        if not len(numbers):
            return []
        starts = np.concatenate([[0], np.flatnonzero(np.diff(numbers)) + 1])
        ends = np.concatenate([starts[1:], [len(numbers)]])
        return [(int(numbers[a]), int(a), int(b)) for a, b in zip(starts, ends, strict=True)]

    def read(self, name: str, start: int, stop: int | None, columns: list[str]) -> pa.Table:
        """Return rows [start, stop) of `columns`; None means to the end."""
        file = self._open(name)
        stop = file.metadata.num_rows if stop is None else stop
        first, last, offset = self._span(name, start, stop)
        wanted = (first, last, *columns)
        table = self._table
        if table is None or self._cached != wanted:
            groups = list(range(first, last + 1))
            table = self._guard(name, lambda: file.read_row_groups(groups, columns=columns))
            self._table, self._cached = table, wanted
        return table.slice(start - offset, stop - start)

    def frames(self, name: str, start: int, stop: int, column: str) -> Iterator[bytes]:
        """Yield the encoded frames of rows [start, stop), a few rows in memory at a time."""
        first, last, offset = self._span(name, start, stop)
        reader = self._open(name)  # kept by this generator even if another file is opened meanwhile
        batches = reader.iter_batches(_BATCH_ROWS, row_groups=list(range(first, last + 1)), columns=[column])
        row = offset
        while row < stop:
            batch = self._guard(name, lambda: next(batches, None))
            if batch is None:
                return
            skip = max(0, start - row)
            for value in batch.column(0)[skip : max(skip, stop - row)].to_pylist():
                yield frame_bytes(value, self._tree, f"{name}: {column}")
            row += batch.num_rows

    def _open(self, name: str) -> pq.ParquetFile:
        import pyarrow.parquet as pq

        file = self._file
        if file is None or self._name != name:
            file = self._guard(name, lambda: pq.ParquetFile(self._tree.source(name)))
            self._file, self._name, self._cached, self._table = file, name, (), None
        return file

    def _span(self, name: str, start: int, stop: int) -> tuple[int, int, int]:
        """Return the first and last row group that hold rows [start, stop), and the first one's first row."""
        metadata = self._open(name).metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        bounds = np.concatenate([[0], np.cumsum(sizes)])
        if not 0 <= start < stop <= bounds[-1]:
            raise EpisodeError(
                f"{name} has {bounds[-1]} rows, expected rows {start}..{stop}; it is incomplete"
            )
        first = int(np.searchsorted(bounds, start, side="right")) - 1
        last = int(np.searchsorted(bounds, stop, side="left")) - 1
        return first, last, int(bounds[first])

    def _guard(self, name: str, read: Any) -> Any:
        import pyarrow as pa

        try:
            return read()
        except (pa.ArrowException, OSError, UnicodeDecodeError, ArchiveError) as error:
            raise EpisodeError(
                f"{name} is not readable parquet ({one_line(error)}); copy it again"
            ) from error


def describe_column(table: pa.Table, name: str, declared: str = "") -> Column:
    """Say what a column holds, from its Arrow type, its first row, and the type that info.json declares."""
    import pyarrow as pa

    column = table[name]
    kind = _storage_type(column.type)
    if pa.types.is_struct(kind):
        return Column("image" if kind.get_field_index("bytes") >= 0 else "other")
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return Column("image")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return Column("image" if declared == "image" else "text")
    depth = 0
    while _is_list(kind):
        kind, depth = kind.value_type, depth + 1
    if depth == 1 and pa.types.is_struct(kind) and kind.get_field_index("content") >= 0:
        return Column("language")
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        return Column("other")
    if declared == "image":
        return Column("image" if depth in (2, 3) else "other")
    dtype = str(np.dtype(kind.to_pandas_dtype()))
    dtype = _STORED.get(dtype, dtype)
    first = np.asarray(column[0].as_py()) if len(column) else np.empty(0)
    if dtype not in _KNOWN or first.ndim != depth or first.dtype == object:
        return Column("other")
    return Column("numbers", dtype, first.shape or (1,))


def to_numpy(column: Any, shape: tuple[int, ...], who: str) -> np.ndarray:
    """Turn a (nested list) column into an array (N, *shape); `EpisodeError` on nulls or other shapes."""
    array = column.combine_chunks() if hasattr(column, "combine_chunks") else column
    array = array.storage if hasattr(array, "storage") else array
    n_rows, sizes = len(array), []
    while True:
        if array.null_count:
            raise EpisodeError(f"{who} has {array.null_count} empty entries; expected numbers in every row")
        if not _is_list(array.type):
            break
        fixed = getattr(array.type, "list_size", None)
        lengths = array.value_lengths().to_numpy() if fixed is None else np.asarray([fixed])
        low, high = (int(lengths.min()), int(lengths.max())) if len(lengths) else (0, 0)
        if low != high:
            raise EpisodeError(f"{who} has rows of {low} to {high} values; expected {shape}")
        sizes.append(high)
        array = array.flatten()
    if tuple(sizes or (1,)) != shape:
        raise EpisodeError(f"{who} has shape {tuple(sizes or (1,))} per row, expected {shape}")
    values = array.to_numpy(zero_copy_only=False)
    if values.dtype.kind not in "iufb":
        raise EpisodeError(f"{who} is {array.type}, expected numbers")
    return values.reshape(n_rows, *shape)


def _is_list(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind) or pa.types.is_large_list(kind)


def _storage_type(kind: Any) -> Any:
    return getattr(kind, "storage_type", kind)
