"""The payload of an image column: encoded frames back to back, cut into files of one chunk each.

The files are the chunks of an uncompressed one-dimensional uint8 zarr array, so their bytes are the payload:
any zarr reader can read them, and this one maps them into memory or asks a remote store for byte ranges.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.store.copying import append_file, open_at_end, write_all, write_all_at
from robot_datasets.store.staging import sync_path

_MAX_MAPS = 128


@dataclass(frozen=True)
class BlobPlace:
    """Where another process than the writer writes bytes of a payload.

    Attributes:
        directory: Folder of the chunk files.
        chunk_bytes: Size of each [bytes].
    """

    directory: Path
    chunk_bytes: int

    def write(self, start: int, blocks: Iterable[bytes]) -> None:
        """Write `blocks` one behind the other, the first at position `start` of the payload.

        Raises:
            OSError: The disk is full or broken.
        """
        with ExitStack() as stack:
            chunk, file = -1, None
            for block in blocks:
                view = memoryview(block)
                while len(view):
                    number, offset = divmod(start, self.chunk_bytes)
                    if file is None or number != chunk:
                        chunk, file = number, stack.enter_context(open_at_end(self.directory / str(number)))
                    piece = view[: self.chunk_bytes - offset]
                    write_all_at(file, piece, offset)
                    start += len(piece)
                    view = view[len(piece) :]


class BlobWriter:
    """Appends bytes to chunk files ``c/0``, ``c/1``, ... of `chunk_bytes` each.

    What is appended may also be written by other processes, each to the place it was told.
    """

    def __init__(self, directory: Path, *, chunk_bytes: int, size: int) -> None:
        """Open for appending at `size` bytes; anything beyond it is cut off."""
        self._directory = directory / "c"
        self._chunk_bytes = chunk_bytes
        self._directory.mkdir(parents=True, exist_ok=True)
        self._file: FileIO | None = None
        self.size = size
        self.truncate(size)

    @property
    def place(self) -> BlobPlace:
        """Where other processes write."""
        return BlobPlace(self._directory, self._chunk_bytes)

    def write(self, data: bytes | memoryview) -> None:
        """Append `data`, starting a new file wherever a chunk is full."""
        view = memoryview(data)
        while len(view):
            room = self._chunk_bytes - self.size % self._chunk_bytes
            write_all(self._current(), view[:room])
            self._advance(len(view[:room]))
            view = view[room:]

    def append_file(self, source: Path, n_bytes: int) -> None:
        """Append the first `n_bytes` of a file."""
        done = 0
        while done < n_bytes:
            length = min(n_bytes - done, self._chunk_bytes - self.size % self._chunk_bytes)
            append_file(source, done, length, self._current())
            self._advance(length)
            done += length

    def reserve(self, n_bytes: int) -> int:
        """Leave `n_bytes` to another process, and return the position at which they begin."""
        start = self.size
        self.close()  # the next write is elsewhere
        self.size += n_bytes
        return start

    def sync(self, start: int, stop: int) -> None:
        """Wait until the disk has the bytes [start, stop), whichever process wrote them."""
        for chunk in range(start // self._chunk_bytes, -(-stop // self._chunk_bytes)):
            sync_path(self._path(chunk))

    def truncate(self, size: int) -> None:
        """Forget everything beyond `size` bytes."""
        self.close()
        last, rest = divmod(size, self._chunk_bytes)
        for path in self._directory.iterdir():
            if int(path.name) > last or (int(path.name) == last and rest == 0):
                path.unlink()
        have = [p.stat().st_size for p in map(self._path, range(last)) if p.exists()]
        tail = self._path(last)
        tail_size = tail.stat().st_size if tail.exists() else 0
        if have != [self._chunk_bytes] * last or tail_size < rest:
            raise DatasetError(
                f"{self._directory} holds less than the {size} bytes its journal promises; "
                "the staging directory is damaged, delete it and convert again"
            )
        if rest:
            os.truncate(tail, rest)
        self.size = size

    def finish(self) -> int:
        """Close, and return the chunk length the array must have.

        A payload that fits into one file is one chunk of exactly its size. Otherwise the last file is extended
        (as a hole that takes no disk space) to the full chunk length that zarr expects of edge chunks.
        """
        self.close()
        if self.size <= self._chunk_bytes:
            return max(1, self.size)
        if self.size % self._chunk_bytes:
            os.truncate(self._path(self.size // self._chunk_bytes), self._chunk_bytes)
        return self._chunk_bytes

    def close(self) -> None:
        """Close the file without waiting for the disk."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _current(self) -> FileIO:
        """Return the file of the next byte, at its place: what others write may lie behind it already."""
        if self._file is None:
            self._file = open_at_end(self._path(self.size // self._chunk_bytes))
            self._file.seek(self.size % self._chunk_bytes)
        return self._file

    def _advance(self, n_bytes: int) -> None:
        self.size += n_bytes
        if self.size % self._chunk_bytes == 0:
            self.close()

    def _path(self, chunk: int) -> Path:
        return self._directory / str(chunk)


class LocalBlob:
    """Reads byte ranges of chunk files through memory maps, opened on first use."""

    def __init__(self, directory: Path, *, chunk_bytes: int, size: int) -> None:
        self._directory = directory / "c"
        self.chunk_bytes = chunk_bytes
        self.size = size
        self._maps: dict[int, memoryview] = {}  # in order of opening; each holds a file descriptor

    def check(self) -> None:
        """Raise `DatasetError` unless every chunk file is there in full length."""
        for chunk in range(-(-self.size // self.chunk_bytes)):
            path = self._directory / str(chunk)
            found = path.stat().st_size if path.exists() else -1
            if found != self.chunk_bytes:
                state = "is missing" if found < 0 else f"has {found} bytes"
                raise DatasetError(
                    f"{path} {state}, expected {self.chunk_bytes} bytes; the store is damaged, copy it again"
                )

    def read(self, start: int, stop: int) -> memoryview:
        """Return bytes [start, stop): a view without copying unless the range spans files."""
        chunk, offset = divmod(start, self.chunk_bytes)
        length = stop - start
        if offset + length <= self.chunk_bytes:
            return self._map(chunk)[offset : offset + length]
        parts = []
        while start < stop:
            chunk, offset = divmod(start, self.chunk_bytes)
            piece = self._map(chunk)[offset : offset + stop - start]
            parts.append(piece)
            start += len(piece)
        return memoryview(b"".join(parts))

    def read_many(self, starts: np.ndarray, stops: np.ndarray) -> list[memoryview]:
        """Return one view per range."""
        return [self.read(int(a), int(b)) for a, b in zip(starts, stops, strict=True)]

    def rows(self, chunk: int, n_bytes: int, start: int) -> np.ndarray:
        """View a file as rows of `n_bytes`, (N, n_bytes) uint8, such that one begins at payload position `start`."""
        view = self._map(chunk)
        phase = (start - chunk * self.chunk_bytes) % n_bytes
        count = (len(view) - phase) // n_bytes
        return np.frombuffer(view, np.uint8, count * n_bytes, phase).reshape(count, n_bytes)

    def _map(self, chunk: int) -> memoryview:
        view = self._maps.get(chunk)
        if view is None:
            with (self._directory / str(chunk)).open("rb") as file:
                view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            if len(self._maps) >= _MAX_MAPS:
                self._maps.pop(next(iter(self._maps)), None)
            self._maps[chunk] = view
        return view


class RemoteBlob:
    """Reads byte ranges of chunk files from an fsspec file system; ranges of one call are fetched together."""

    def __init__(self, filesystem: Any, directory: str, *, chunk_bytes: int, size: int) -> None:
        self._filesystem = filesystem
        self._directory = f"{directory}/c"
        self._chunk_bytes = chunk_bytes
        self.size = size

    def check(self) -> None:
        """Raise `DatasetError` unless the first and the last chunk file are there in full length."""
        if self.size == 0:
            return
        for chunk in sorted({0, (self.size - 1) // self._chunk_bytes}):
            path = f"{self._directory}/{chunk}"
            if not self._filesystem.exists(path) or self._filesystem.size(path) != self._chunk_bytes:
                raise DatasetError(
                    f"{path} is missing or cut short, expected {self._chunk_bytes} bytes; copy it again"
                )

    def read(self, start: int, stop: int) -> memoryview:
        """Return bytes [start, stop)."""
        return self.read_many(np.array([start]), np.array([stop]))[0]

    def read_many(self, starts: np.ndarray, stops: np.ndarray) -> list[memoryview]:
        """Return one buffer per range."""
        paths, firsts, lasts, owner = [], [], [], []
        for index, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
            while start < stop:
                chunk, offset = divmod(start, self._chunk_bytes)
                length = min(stop - start, self._chunk_bytes - offset)
                paths.append(f"{self._directory}/{chunk}")
                firsts.append(offset)
                lasts.append(offset + length)
                owner.append(index)
                start += length
        pieces: list[list[bytes]] = [[] for _ in starts]
        for index, piece in zip(owner, self._filesystem.cat_ranges(paths, firsts, lasts), strict=True):
            pieces[index].append(piece)
        return [memoryview(p[0] if len(p) == 1 else b"".join(p)) for p in pieces]
