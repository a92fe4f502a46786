"""The zarr arrays of a store other than the image payload: numeric columns and text columns."""

from __future__ import annotations

import itertools
import sys
from array import array
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.store.layout import column_chunks

if TYPE_CHECKING:
    import zarr

_ZSTD_LEVEL = 3


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
    group: zarr.Group, path: str, values: np.ndarray, *, attributes: dict[str, Any] | None = None
) -> None:
    """Write `values` (T, ...) as one array, see `write_pieces`."""

    def pieces(n_rows: int) -> Iterator[np.ndarray]:
        return (values[start : start + n_rows] for start in range(0, len(values), n_rows))

    write_pieces(group, path, pieces, shape=values.shape, dtype=values.dtype, attributes=attributes)


def write_pieces(
    group: zarr.Group,
    path: str,
    pieces: Callable[[int], Iterable[np.ndarray]],
    *,
    shape: tuple[int, ...],
    dtype: np.dtype,
    attributes: dict[str, Any] | None = None,
) -> None:
    """Write one sharded, zstd-compressed array, of which no more than a shard is in memory.

    zstd in one thread gives the same bytes every time; blosc with threads does not.

    Args:
        group: Group of the array.
        path: Its path below the group.
        pieces: Given a number of rows, yields the values in pieces of so many.
        shape: (T, ...).
        dtype: Type of the values.
        attributes: Attributes of the array.
    """
    from zarr.codecs import ZstdCodec

    keep_zeros: Any = {"write_empty_chunks": True}
    chunk, shard = column_chunks(shape[0], dtype.itemsize * int(np.prod(shape[1:])))
    target = group.create_array(
        path,
        shape=shape,
        dtype=dtype,
        chunks=(chunk, *(max(1, n) for n in shape[1:])),
        shards=(shard, *(max(1, n) for n in shape[1:])),
        compressors=ZstdCodec(level=_ZSTD_LEVEL, checksum=True),
        fill_value=False if dtype == np.bool_ else 0,
        attributes=attributes,
        config=keep_zeros,  # a chunk file that is missing means damage, never zeros
    )
    start = 0
    for piece in pieces(shard):
        target[start : start + len(piece)] = piece
        start += len(piece)


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

    def write(self, group: zarr.Group, path: str) -> None:
        """Write both arrays."""
        write_column(group, f"{path}/bytes", np.frombuffer(self._bytes, dtype=np.uint8))
        write_column(group, f"{path}/offsets", np.fromiter(self._ends, np.int64))


def split_text(data: bytes, offsets: np.ndarray) -> list[str]:
    """Return the strings of a `TextColumn`, given its two arrays."""
    ends = offsets.tolist()
    return [data[a:b].decode() for a, b in itertools.pairwise(ends)]


def read_array(group: zarr.Group, path: str) -> np.ndarray:
    """Read a whole array into RAM, read-only.

    Raises:
        DatasetError: A chunk is damaged.
    """
    array: Any = group[path]
    try:
        values = np.asarray(array[...])
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        raise DatasetError(
            f"{path} cannot be read ({error}); the store is damaged, copy or convert it again"
        ) from error
    values.flags.writeable = False
    return values


def chunk_keys(array: Any) -> list[str]:
    """Return the files an array of this layout consists of, below its own path; only axis 0 is divided."""
    outer = (array.shards or array.chunks)[0]
    rest = "/0" * (len(array.shape) - 1)
    return [f"c/{i}{rest}" for i in range(-(-array.shape[0] // outer))]
