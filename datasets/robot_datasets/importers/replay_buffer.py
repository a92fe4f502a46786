"""Opening a replay buffer, directory or zip, and reading its arrays chunk by chunk."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError, one_line
from robot_datasets.store.arrays import require_zarr

if TYPE_CHECKING:
    import zarr

DAMAGE = (
    OSError,
    RuntimeError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    MemoryError,
    AssertionError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zarr and its codecs raise on files whose bytes make no sense."""

_SAMPLE_BYTES = 1 << 20
_MAX_CHUNK_BYTES = 1 << 30
_MAX_VALUES = 1 << 45
_MAX_CHUNKS = 1 << 24
_NOT_RECOGNISED = re.compile(r"Object at (\S+) is not recognized")


def open_buffer(path: Path) -> zarr.Group:
    """Open a replay buffer, directory or zip, for reading; `DatasetError` if it is not one or damaged."""
    require_zarr()
    import zarr
    from zarr.storage import LocalStore, ZipStore

    try:
        if path.is_dir():
            return zarr.open_group(LocalStore(path, read_only=True), mode="r", zarr_format=2)
        with zipfile.ZipFile(path) as archive:
            root = buffer_root(archive.namelist())
        if root is None:
            raise DatasetError(f"{path} holds no data/.zgroup; expected a zipped replay buffer")
        return zarr.open_group(ZipStore(path, mode="r", read_only=True), mode="r", zarr_format=2, path=root)
    except DAMAGE as error:
        raise DatasetError(
            f"{path} cannot be opened as a replay buffer ({one_line(error)}); copy it again"
        ) from error


def data_arrays(group: zarr.Group, path: Path) -> dict[str, Any]:
    """Return the arrays below ``data``, by name.

    Raises:
        DatasetError: Something there is damaged or of absurd size.
    """
    import zarr

    with warnings.catch_warnings(record=True) as ignored:
        warnings.simplefilter("always")
        try:
            data = group.get("data")
            nodes = list(data.members()) if isinstance(data, zarr.Group) else []
        except DAMAGE as error:
            raise DatasetError(f"{path}/data is damaged ({one_line(error)}); copy it again") from error
    unknown = [found[1] for w in ignored if (found := _NOT_RECOGNISED.match(str(w.message)))]
    for name in unknown:
        if not name.startswith("."):
            raise DatasetError(f"{path}/data/{name} is no zarr array; copy the buffer again or remove it")
    arrays = {key: node for key, node in sorted(nodes, key=lambda n: n[0]) if isinstance(node, zarr.Array)}
    for key, array in arrays.items():
        check_array(array, f"{path}/data/{key}")
    return arrays


def read_whole(array: Any, where: str) -> np.ndarray:
    """Read a small array; `DatasetError` naming it `where` if it is damaged."""
    check_array(array, where)
    try:
        for first in range(-(-array.shape[0] // array.chunks[0])):
            _check_blosc(array, first)
        return np.asarray(array[...])
    except DAMAGE as error:
        raise DatasetError(f"{where} is damaged ({one_line(error)}); copy it again") from error


def missing_rows(array: Any) -> list[tuple[int, int]]:
    """Return the runs of rows of which a chunk file is missing; zarr reads them as zeros.

    It also leaves out chunks of zeros when it writes, so nothing says whether the zeros are true.
    """
    from zarr.core.sync import sync

    if array.nchunks_initialized == array.nchunks:
        return []
    size = array.chunks[0]
    absent = {
        first
        for first in range(-(-array.shape[0] // size))
        if not all(sync((array.store_path / key).exists()) for key in _chunk_keys(array, first))
    }
    return [(first * size, min(array.shape[0], (first + 1) * size)) for first in sorted(absent)]


def check_array(array: Any, where: str) -> None:
    """Raise `DatasetError` naming the array `where` unless it is rows of a size that a recording may have.

    Whatever lists an array's chunks must come after this: a damaged shape may promise more than memory holds.
    """
    size = array.dtype.itemsize * math.prod(max(1, n) for n in array.chunks)
    sound = array.shape and 0 not in array.chunks and 0 not in array.shape[1:] and size <= _MAX_CHUNK_BYTES
    if sound:
        n_chunks = math.prod(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))
        sound = n_chunks <= _MAX_CHUNKS and math.prod(array.shape) <= _MAX_VALUES
    if not sound:
        raise DatasetError(
            f"{where} has shape {array.shape} in chunks of {array.chunks}; expected rows in chunks of at most 1 GiB, "
            "it is damaged, copy it again"
        )


def _chunk_keys(array: Any, first: int) -> list[str]:
    """Return the names of the chunk files of one block of rows."""
    counts = [-(-n // c) for n, c in zip(array.shape[1:], array.chunks[1:], strict=True)]
    return [
        array.metadata.encode_chunk_key((first, *rest)) for rest in itertools.product(*map(range, counts))
    ]


def _check_blosc(array: Any, first: int) -> None:
    """Raise `ValueError` if a chunk is shorter than its Blosc header says, which the decoder does not check.

    A zip has checksums of its own.
    """
    root = getattr(array.store, "root", None)
    if root is None or getattr(array.metadata.compressor, "codec_id", "") != "blosc":
        return
    for key in _chunk_keys(array, first):
        path = Path(root) / array.path / key
        if not path.is_file():
            continue
        with path.open("rb") as file:
            header = file.read(16)
        expected = int.from_bytes(header[12:16], "little")
        if len(header) < 16 or expected != path.stat().st_size:
            raise ValueError(f"chunk {key} has {path.stat().st_size} bytes, its header says {expected}")


def buffer_root(names: Sequence[str]) -> str | None:
    """Return the folder of the buffer within a zip, given the names in it; None if there is none."""
    roots = [name.removesuffix("data/.zgroup") for name in names if name.endswith("data/.zgroup")]
    roots = [root.rstrip("/") for root in roots if root == "" or root.endswith("/")]
    return min(roots, key=len, default=None)


def buffer_checksum(path: Path) -> str:
    """Hash names, sizes and content: CRCs of a zip's directory; of a folder, all bytes of small files."""
    digest = hashlib.blake2b(digest_size=16)
    if path.is_file():
        with zipfile.ZipFile(path) as archive:
            for info in sorted(archive.infolist(), key=lambda i: i.filename):
                digest.update(f"{info.filename}\0{info.file_size}\0{info.CRC}\n".encode())
        return digest.hexdigest()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()


class ChunkReader:
    """Reads rows of a zarr array and keeps the last chunk, which the next episode usually shares."""

    def __init__(self, array: Any, key: str) -> None:
        self._array = array
        self._key = key
        self._chunk = -1
        self._rows = np.empty(0)

    def blocks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yield rows [start, stop) in blocks of at most one chunk."""
        size = self._array.chunks[0]
        while start < stop:
            chunk = start // size
            if chunk != self._chunk:
                self._rows = self._load(chunk * size, (chunk + 1) * size)
                self._chunk = chunk
            end = min(stop, (chunk + 1) * size)
            yield self._rows[start - chunk * size : end - chunk * size]
            start = end

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows [start, stop)."""
        return np.concatenate(list(self.blocks(start, stop)) or [self._array[:0]])

    def _load(self, start: int, stop: int) -> np.ndarray:
        try:
            _check_blosc(self._array, start // self._array.chunks[0])
            return self._array[start:stop]
        except DAMAGE as error:
            raise EpisodeError(
                f"data/{self._key} steps {start}..{stop} cannot be read ({one_line(error)}); copy it again"
            ) from error
