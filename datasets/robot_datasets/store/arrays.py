"""The zarr arrays of a store other than the image payload: numeric columns and text columns."""

from __future__ import annotations

import itertools
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.store.layout import column_chunks
from robot_datasets.store.zarr_files import ZarrFiles


def require_zarr() -> None:
    """Raise `DatasetError` if zarr 3 is not installed, before anything else is done."""
    try:
        import zarr
    except ModuleNotFoundError as error:
        raise DatasetError(
            f"episode stores need zarr 3, which needs Python 3.11 or newer; found Python {sys.version.split()[0]} "
            "without it, use a newer Python or: pip install 'zarr>=3.0.8'"
        ) from error
    if int(zarr.__version__.split(".")[0]) < 3:
        raise DatasetError(f"episode stores need zarr 3, found {zarr.__version__}; pip install 'zarr>=3.0.8'")


def write_column(
    files: ZarrFiles, path: str, values: np.ndarray, *, attributes: dict[str, Any] | None = None
) -> None:
    """Write `values` (T, ...) as one array, see `write_pieces`."""

    def pieces(n_rows: int) -> Iterator[np.ndarray]:
        return (values[start : start + n_rows] for start in range(0, len(values), n_rows))

    write_pieces(files, path, pieces, shape=values.shape, dtype=values.dtype, attributes=attributes)


def write_pieces(
    files: ZarrFiles,
    path: str,
    pieces: Callable[[int], Iterable[np.ndarray]],
    *,
    shape: tuple[int, ...],
    dtype: np.dtype,
    attributes: dict[str, Any] | None = None,
) -> None:
    """Write one sharded, zstd-compressed array, of which no more than a shard or two are in memory.

    Args:
        files: Where to write.
        path: Path of the array.
        pieces: Given a number of rows, yields the values in pieces of about so many.
        shape: (T, ...).
        dtype: Type of the values.
        attributes: Attributes of the array.
    """
    chunk, shard = column_chunks(shape[0], dtype.itemsize * int(np.prod(shape[1:])))
    files.sharded_array(
        path, pieces(shard), shape=shape, dtype=dtype, chunk=chunk, shard=shard, attributes=attributes
    )


class TextColumn:
    """Strings as UTF-8 bytes back to back plus (N+1,) offsets: core zarr types only, and cheap to open."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._bytes = bytearray()
        self._ends = array("q", [0])
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        """Append one string."""
        self._bytes += text.encode()
        self._ends.append(len(self._bytes))

    def write(self, files: ZarrFiles, path: str) -> None:
        """Write both arrays."""
        write_column(files, f"{path}/bytes", np.frombuffer(self._bytes, dtype=np.uint8))
        write_column(files, f"{path}/offsets", np.fromiter(self._ends, np.int64))


def split_text(data: bytes, offsets: np.ndarray) -> list[str]:
    """Return the strings of a `TextColumn`, given its two arrays."""
    ends = offsets.tolist()
    return [data[a:b].decode() for a, b in itertools.pairwise(ends)]


def read_array(array: Any) -> np.ndarray:
    """Read a whole zarr array into RAM, read-only.

    Raises:
        DatasetError: A chunk is damaged.
    """
    try:
        values = np.asarray(array[...])
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise DatasetError(
            f"{array.path} cannot be read ({error}); the store is damaged, copy or convert it again"
        ) from error
    values.flags.writeable = False
    return values


def chunk_keys(array: Any) -> list[str]:
    """Return the files an array of this layout consists of, below its own path; only axis 0 is divided."""
    outer = (array.shards or array.chunks)[0]
    rest = "/0" * (len(array.shape) - 1)
    return [f"c/{i}{rest}" for i in range(-(-array.shape[0] // outer))]
