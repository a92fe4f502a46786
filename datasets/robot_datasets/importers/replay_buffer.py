"""Opening a replay buffer, directory or zip, and reading its arrays chunk by chunk."""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.store.arrays import require_zarr

if TYPE_CHECKING:
    import zarr

_SAMPLE_BYTES = 1 << 20


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
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} cannot be opened as a replay buffer ({error}); copy it again") from error


def data_arrays(group: zarr.Group) -> dict[str, Any]:
    """Return the arrays below ``data``, by name."""
    import zarr

    data = group["data"]
    nodes = data.members() if isinstance(data, zarr.Group) else ()
    return {key: node for key, node in sorted(nodes, key=lambda n: n[0]) if isinstance(node, zarr.Array)}


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
            return self._array[start:stop]
        except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise EpisodeError(f"data/{self._key} steps {start}..{stop} cannot be read: {error}") from error
