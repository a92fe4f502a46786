"""Zarr v3 groups and arrays as plain files, with the same bytes that zarr-python writes.

A store is some forty arrays, most of them tiny. zarr-python passes each through its event loop several times, which was
most of what a small store cost. Plain files also make the bytes of a store a matter of this module alone.
Specification: https://zarr-specs.readthedocs.io/en/latest/v3/core/
and, for shards, its codec ``sharding_indexed``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

METADATA = "zarr.json"
_ZSTD_LEVEL = 3
_INDEX_CODECS: list[dict[str, Any]] = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "crc32c"},
]
_ABSENT = np.iinfo(np.uint64).max
_UNUSABLE = (
    OSError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What damaged metadata and damaged shards raise."""


class ZarrFiles:
    """Writes into one zarr hierarchy below a folder.

    Attributes:
        root: The folder.
    """

    def __init__(self, root: Path, attributes: Mapping[str, Any]) -> None:
        """Create the root group, replacing the metadata of an earlier one."""
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        _write_group(root, attributes)

    def sharded_array(
        self,
        path: str,
        pieces: Iterable[np.ndarray],
        *,
        shape: tuple[int, ...],
        dtype: np.dtype,
        chunk: int,
        shard: int,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Write an array divided along axis 0, its chunks compressed with zstd; one shard at a time is in memory.

        Every chunk is written, zeros too: a file that is missing means damage. zstd in one thread gives the same bytes
        every time.

        Args:
            path: Path of the array below the root.
            pieces: Its rows in order, in pieces of any length.
            shape: (T, ...).
            dtype: Type of the values.
            chunk: Rows of a chunk.
            shard: Rows of a shard, a multiple of `chunk`.
            attributes: Attributes of the array.
        """
        rest = tuple(max(1, n) for n in shape[1:])
        codec = _sharding_codec(dtype, (chunk, *rest))
        folder = self._array(path, _array_metadata(shape, dtype, (shard, *rest), codec, attributes))
        stored = dtype.newbyteorder("<")
        for number, rows in enumerate(_regrouped(pieces, shard)):
            file = _chunk_file(folder, number, len(shape))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_shard(np.ascontiguousarray(rows, dtype=stored), chunk, shard // chunk))

    def plain_array(self, path: str, *, shape: tuple[int, ...], dtype: np.dtype, chunk: int) -> None:
        """Describe an array whose uncompressed chunks are in place already."""
        self._array(path, _array_metadata(shape, dtype, (chunk, *shape[1:]), _bytes_codec(dtype), None))

    def _array(self, path: str, metadata: Mapping[str, Any]) -> Path:
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        for parent in folder.relative_to(self.root).parents:
            if not (self.root / parent / METADATA).exists():
                _write_group(self.root / parent, {})
        _write_json(folder / METADATA, metadata)
        return folder


def read_sharded(folder: Path) -> np.ndarray | None:
    """Read a whole array that `ZarrFiles.sharded_array` could have written.

    Returns:
        The array; None if it is another kind of array, is damaged, or is not there: zarr reads the former and says
        what is wrong with the latter.
    """
    try:
        metadata = json.loads((folder / METADATA).read_bytes())
        shape, dtype = tuple(metadata["shape"]), np.dtype(metadata["data_type"])
        shard, *rest = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        chunk = metadata["codecs"][0]["configuration"]["chunk_shape"][0]
        codec = _sharding_codec(dtype, (chunk, *rest))
        expected = _array_metadata(shape, dtype, (shard, *rest), codec, metadata["attributes"])
        if metadata != expected or tuple(rest) != shape[1:]:
            return None
        values = np.empty(shape, dtype)
        for number, start in enumerate(range(0, shape[0], shard)):
            data = _chunk_file(folder, number, len(shape)).read_bytes()
            _unpack_shard(data, values[start : start + shard], chunk, shard // chunk)
    except _UNUSABLE:
        return None
    return values


def _chunk_file(folder: Path, number: int, n_dims: int) -> Path:
    return folder.joinpath("c", str(number), *("0" for _ in range(n_dims - 1)))


def _array_metadata(
    shape: tuple[int, ...],
    dtype: np.dtype,
    chunks: tuple[int, ...],
    codec: Mapping[str, Any],
    attributes: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": dtype.type(0).item(),
        "codecs": [codec],
        "attributes": dict(attributes or {}),
        "zarr_format": 3,
        "node_type": "array",
        "storage_transformers": [],
    }


def _sharding_codec(dtype: np.dtype, chunks: tuple[int, ...]) -> dict[str, Any]:
    zstd = {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": True}}
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": list(chunks),
            "codecs": [_bytes_codec(dtype), zstd],
            "index_codecs": _INDEX_CODECS,
            "index_location": "end",
        },
    }


def _write_group(folder: Path, attributes: Mapping[str, Any]) -> None:
    _write_json(folder / METADATA, {"attributes": dict(attributes), "zarr_format": 3, "node_type": "group"})


def _write_json(file: Path, value: object) -> None:
    file.write_bytes(json.dumps(value, indent=2).encode())


def _bytes_codec(dtype: np.dtype) -> dict[str, Any]:
    return (
        {"name": "bytes"} if dtype.itemsize == 1 else {"name": "bytes", "configuration": {"endian": "little"}}
    )


def _regrouped(pieces: Iterable[np.ndarray], n_rows: int) -> Iterator[np.ndarray]:
    """Yield the same rows in pieces of `n_rows`, the last one shorter."""
    held: list[np.ndarray] = []
    n_held = 0
    for piece in pieces:
        while n_held + len(piece) >= n_rows:
            n_taken = n_rows - n_held
            yield np.concatenate([*held, piece[:n_taken]]) if held else piece[:n_taken]
            held, n_held, piece = [], 0, piece[n_taken:]
        if len(piece):
            held.append(piece)
            n_held += len(piece)
    if held:
        yield np.concatenate(held)


def _shard(rows: np.ndarray, chunk: int, n_chunks: int) -> bytes:
    """Compress the chunks of one shard, the last padded with zeros, and append where each begins and how long it is."""
    import google_crc32c
    from numcodecs.zstd import Zstd

    codec = Zstd(level=_ZSTD_LEVEL, checksum=True)
    index = np.full((n_chunks, 2), _ABSENT, dtype="<u8")
    data = bytearray()
    for number, start in enumerate(range(0, len(rows), chunk)):
        values = rows[start : start + chunk]
        if len(values) < chunk:
            values = np.concatenate([values, np.zeros((chunk - len(values), *rows.shape[1:]), rows.dtype)])
        packed = codec.encode(values)
        index[number] = len(data), len(packed)
        data += packed
    entries = index.tobytes()
    return bytes(data) + entries + google_crc32c.value(entries).to_bytes(4, "little")


def _unpack_shard(data: bytes, rows: np.ndarray, chunk: int, n_chunks: int) -> None:
    """Fill `rows` from a shard; `ValueError` or `RuntimeError` if it is damaged."""
    import google_crc32c
    from numcodecs.zstd import Zstd

    size = 16 * n_chunks
    entries, checksum = data[-size - 4 : -4], data[-4:]
    if len(entries) != size or google_crc32c.value(entries).to_bytes(4, "little") != checksum:
        raise ValueError("the index of a shard does not fit its checksum")
    index = np.frombuffer(entries, dtype="<u8").reshape(n_chunks, 2)
    stored, codec = rows.dtype.newbyteorder("<"), Zstd()
    for number, start in enumerate(range(0, len(rows), chunk)):
        offset, length = (int(n) for n in index[number])
        if offset + length > len(data) - size - 4:  # an absent chunk, too: its entry is the largest number
            raise ValueError("a chunk lies outside of its shard")
        values = np.frombuffer(codec.decode(data[offset : offset + length]), stored)
        rows[start : start + chunk] = values.reshape(chunk, *rows.shape[1:])[: len(rows) - start]
