"""Zarr v3 groups and arrays written as plain files, with the same bytes that zarr-python writes.

A store is some forty arrays, most of them tiny. zarr-python passes each through its event loop several times, which
takes a second for a store of three episodes; writing the files takes a hundredth of that. It also makes the
bytes of a store a matter of this file alone. Specification: https://zarr-specs.readthedocs.io/en/latest/v3/core/
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
        codec = {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [chunk, *rest],
                "codecs": [
                    _bytes_codec(dtype),
                    {"name": "zstd", "configuration": {"level": _ZSTD_LEVEL, "checksum": True}},
                ],
                "index_codecs": _INDEX_CODECS,
                "index_location": "end",
            },
        }
        folder = self._array(path, shape, dtype, (shard, *rest), codec, attributes)
        stored = dtype.newbyteorder("<")
        for number, rows in enumerate(_regrouped(pieces, shard)):
            file = folder.joinpath("c", str(number), *("0" for _ in rest))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(_shard(np.ascontiguousarray(rows, dtype=stored), chunk, shard // chunk))

    def plain_array(self, path: str, *, shape: tuple[int, ...], dtype: np.dtype, chunk: int) -> None:
        """Describe an array whose uncompressed chunks are in place already."""
        self._array(path, shape, dtype, (chunk, *shape[1:]), _bytes_codec(dtype), None)

    def _array(
        self,
        path: str,
        shape: tuple[int, ...],
        dtype: np.dtype,
        chunks: tuple[int, ...],
        codec: Mapping[str, Any],
        attributes: Mapping[str, Any] | None,
    ) -> Path:
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        for parent in folder.relative_to(self.root).parents:
            if not (self.root / parent / METADATA).exists():
                _write_group(self.root / parent, {})
        metadata = {
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
        _write_json(folder / METADATA, metadata)
        return folder


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
