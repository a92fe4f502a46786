"""The zarr arrays of a store other than the image payload: numeric columns and text columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.store.layout import column_chunks

if TYPE_CHECKING:
    import zarr

_ZSTD_LEVEL = 3


def write_column(group: zarr.Group, path: str, values: np.ndarray, *, attributes: dict[str, Any] | None = None) -> None:
    """Write `values` (T, ...) as one sharded, zstd-compressed array.

    zstd in one thread gives the same bytes every time; blosc with threads does not.
    """
    from zarr.codecs import ZstdCodec

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


def read_text(group: zarr.Group, path: str) -> list[str]:
    """Read strings written by `write_text`."""
    data = read_array(group, f"{path}/bytes").tobytes()
    offsets = read_array(group, f"{path}/offsets").tolist()
    return [data[a:b].decode() for a, b in zip(offsets[:-1], offsets[1:], strict=True)]


def read_array(group: zarr.Group, path: str) -> np.ndarray:
    """Read a whole array into RAM, read-only."""
    values = np.asarray(group[path][...])  # pyright: ignore[reportIndexIssue]
    values.flags.writeable = False
    return values
