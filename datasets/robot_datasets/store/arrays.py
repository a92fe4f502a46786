"""The zarr arrays of a store other than the image payload: numeric columns and text columns."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
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
    """Write `values` (T, ...) as one sharded, zstd-compressed array.

    zstd in one thread gives the same bytes every time; blosc with threads does not.
    """
    from zarr.codecs import ZstdCodec

    keep_zeros: Any = {"write_empty_chunks": True}
    row_bytes = values.itemsize * int(np.prod(values.shape[1:]))
    chunk, shard = column_chunks(len(values), row_bytes)
    array = group.create_array(
        path,
        shape=values.shape,
        dtype=values.dtype,
        chunks=(chunk, *(max(1, n) for n in values.shape[1:])),
        shards=(shard, *(max(1, n) for n in values.shape[1:])),
        compressors=ZstdCodec(level=_ZSTD_LEVEL, checksum=True),
        fill_value=False if values.dtype == np.bool_ else 0,
        attributes=attributes,
        config=keep_zeros,  # a chunk file that is missing means damage, never zeros
    )
    for start in range(0, len(values), shard):
        array[start : start + shard] = values[start : start + shard]


def write_text(group: zarr.Group, path: str, texts: Sequence[str]) -> None:
    """Write strings as UTF-8 bytes back to back plus (N+1,) offsets: core zarr types only, and cheap to open."""
    encoded = [text.encode() for text in texts]
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(e) for e in encoded], out=offsets[1:])
    write_column(group, f"{path}/bytes", np.frombuffer(b"".join(encoded), dtype=np.uint8))
    write_column(group, f"{path}/offsets", offsets)


def split_text(data: bytes, offsets: np.ndarray) -> list[str]:
    """Undo `write_text`, given its two arrays."""
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
