"""Byte strings of varying length in HDF5 files, read without HDF5's own code for them.

That code crashes or never returns when some bytes of a file are wrong, and no Python can stop it. The layout is
simple (HDF5 File Format Specification 3.0, III.E, "Global Heap"): an element of the dataset is a reference, and the
string lies in a heap collection::

    element      length (4 bytes), address of a collection (8), index of an object (4)
    collection   "GCOL", version 1, 3 reserved, size (8); then objects
    object       index (2), reference count (2), 4 reserved, size (8), data padded to 8 bytes; index 0 = free space

Everything is checked against the size of the file. Datasets with filters, and files with other than 8-byte addresses
or a user block, are read by h5py as usual.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from robot_datasets.episode import EpisodeError

if TYPE_CHECKING:
    import h5py

DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError)
"""What h5py raises on files whose bytes make no sense."""

_REFERENCE = np.dtype([("length", "<u4"), ("address", "<u8"), ("index", "<u4")])
_HEADER = 16
_FIRST_OBJECT = struct.Struct("<5s3xQH6xQ")
"""Header of a collection and of its first object: signature and version, size; index, size of the data."""
_SMALLEST_COLLECTION = 4096
_WHOLE_COLLECTION = 1 << 20
"""Collections up to this size are read at once [bytes]; larger ones hold one large object."""


class FrameSource(Protocol):
    """Reads rows of a dataset of byte strings."""

    def read(self, start: int, stop: int) -> list[bytes]:
        """Return rows `start` to `stop`."""
        ...


def check_byte_strings(dataset: Any) -> None:
    """Raise `EpisodeError` unless a dataset is (T,) of byte strings of varying length, as many as its file can hold."""
    import h5py

    try:
        kind = h5py.check_vlen_dtype(dataset.dtype)
        fits = dataset.ndim == 1 and kind is not None and np.dtype(kind) == np.uint8
        found = f"{dataset.dtype} of shape {dataset.shape}"
        n_rows = dataset.size or 0
        n_bytes = dataset.file.id.get_filesize()
    except DAMAGE as error:
        raise EpisodeError(f"{dataset.name} has an unreadable type: {error}") from error
    if not fits:
        raise EpisodeError(
            f"{dataset.name} is {found}; expected (T,) encoded frames, byte strings of varying length"
        )
    _check_claim(dataset.name, n_rows, n_bytes)


def _check_claim(name: str, n_rows: int, n_bytes: int) -> None:
    """Raise `EpisodeError` if the references alone of so many rows do not fit into a file; nothing is allocated yet."""
    if n_rows * _REFERENCE.itemsize > n_bytes:
        raise EpisodeError(
            f"{name} claims {n_rows} rows, more than fit into a file of {n_bytes} bytes; it is damaged, copy it again"
        )


@contextmanager
def open_byte_strings(dataset: Any) -> Iterator[FrameSource]:
    """Open a dataset of byte strings or texts of varying length, (T,) or a single one, for reading.

    Raises:
        EpisodeError: Its references are damaged; so does reading, naming the step.
    """
    references = _references(dataset)
    if references is None:
        yield _ByHdf5(dataset)
        return
    descriptor = os.open(dataset.file.filename, os.O_RDONLY)
    try:
        yield _ByHeap(dataset.name, references, descriptor)
    finally:
        os.close(descriptor)


class _ByHdf5:
    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset

    def read(self, start: int, stop: int) -> list[bytes]:
        try:
            elements = self._dataset[start:stop] if self._dataset.ndim else [self._dataset[()]]
            return [e if isinstance(e, bytes) else np.asarray(e).tobytes() for e in elements]
        except DAMAGE as error:
            raise EpisodeError(
                f"{self._dataset.name} steps {start}..{stop - 1} cannot be read: {error}"
            ) from error


class _ByHeap:
    def __init__(self, name: str, references: np.ndarray, descriptor: int) -> None:
        self._name = name
        self._lengths = references["length"].astype(np.int64)
        self._addresses = references["address"]
        self._indices = references["index"]
        self._descriptor = descriptor
        self._file_bytes = os.fstat(descriptor).st_size
        self._collection = -1
        self._objects: dict[int, tuple[int, int]] = {}
        self._content = b""

    def read(self, start: int, stop: int) -> list[bytes]:
        return [self._element(row) for row in range(start, stop)]

    def _element(self, row: int) -> bytes:
        length = int(self._lengths[row])
        if not length:
            return b""
        try:
            address, index = int(self._addresses[row]), int(self._indices[row])
            if (
                address != self._collection
                and (alone := self._lone_object(address, index, length)) is not None
            ):
                return alone
            self._open_collection(address)
            place = self._objects.get(index)
            if place is None or place[1] < length:
                raise EpisodeError(f"no object {index} of {length} bytes in its heap")
            return self._bytes(place[0], length)
        except (EpisodeError, OSError) as error:
            raise EpisodeError(
                f"{self._name} step {row} cannot be read, the file is damaged: {error}"
            ) from error

    def _lone_object(self, address: int, index: int, length: int) -> bytes | None:
        """Return the object of a collection that holds nothing else, as those of large frames do; else None."""
        size = 2 * _HEADER + (length + 7) // 8 * 8
        if size < _SMALLEST_COLLECTION or address < 0 or address + size > self._file_bytes:
            return None
        header = os.pread(self._descriptor, _FIRST_OBJECT.size, address)
        if len(header) != _FIRST_OBJECT.size:
            return None
        if _FIRST_OBJECT.unpack(header) != (b"GCOL\x01", size, index, length):
            return None
        # Not in one read with the header: cutting it off would copy the frame, which costs more than a second call.
        data = os.pread(self._descriptor, length, address + _FIRST_OBJECT.size)
        return data if len(data) == length else None

    def _open_collection(self, address: int) -> None:
        """Find the objects of a collection: index -> (address of the data, size)."""
        if address == self._collection:
            return
        self._collection, self._content = -1, b""
        header = self._bytes(address, _HEADER)
        size = int.from_bytes(header[8:], "little")
        if header[:5] != b"GCOL\x01" or not _HEADER < size <= self._file_bytes - address:
            raise EpisodeError(f"no heap collection at {address}")
        whole = size <= _WHOLE_COLLECTION
        content = self._bytes(address, size) if whole else b""
        objects: dict[int, tuple[int, int]] = {}
        place = _HEADER
        while place + _HEADER <= size:
            head = content[place : place + _HEADER] if whole else self._bytes(address + place, _HEADER)
            index, n_bytes = int.from_bytes(head[:2], "little"), int.from_bytes(head[8:], "little")
            if index == 0:  # the rest is free
                break
            if n_bytes > size - place - _HEADER:
                raise EpisodeError(f"object {index} at {address + place} is larger than its heap collection")
            objects[index] = (address + place + _HEADER, n_bytes)
            place += _HEADER + (n_bytes + 7) // 8 * 8
        self._collection, self._objects, self._content = address, objects, content

    def _bytes(self, address: int, count: int) -> bytes:
        inside = address - self._collection
        if self._content and 0 <= inside <= len(self._content) - count:
            return self._content[inside : inside + count]
        if address < 0 or address + count > self._file_bytes:
            raise EpisodeError(f"bytes {address} to {address + count} of a file of {self._file_bytes}")
        data = os.pread(self._descriptor, count, address)
        if len(data) != count:
            raise EpisodeError(f"the file ends at {address + len(data)}")
        return data


def _references(dataset: Any) -> np.ndarray | None:
    """Return the references of all elements, or None if the dataset must be read by h5py."""
    import h5py

    try:
        file = dataset.file
        sizes = file.id.get_create_plist().get_sizes()
        if file.driver not in ("sec2", "stdio", "core") or file.userblock_size or tuple(sizes) != (8, 8):
            return None
        if dataset.id.get_create_plist().get_nfilters() or not os.path.isfile(file.filename):
            return None
        n_rows = len(dataset) if dataset.ndim else 1
        _check_claim(dataset.name, n_rows, os.path.getsize(file.filename))
        layout = dataset.id.get_create_plist().get_layout()
        if layout == h5py.h5d.CONTIGUOUS:
            place = dataset.id.get_offset()
            return None if place is None else _read_references(file.filename, [(0, n_rows, place)], n_rows)
        if layout == h5py.h5d.CHUNKED:
            return _read_references(file.filename, _chunks(dataset, n_rows), n_rows)
    except DAMAGE as error:
        raise EpisodeError(f"{dataset.name} cannot be located in the file, it is damaged: {error}") from error
    return None


def _chunks(dataset: Any, n_rows: int) -> list[tuple[int, int, int]]:
    """Return (first row, rows, place in the file) of each chunk that is there."""
    per_chunk = dataset.chunks[0]
    infos = [dataset.id.get_chunk_info(i) for i in range(dataset.id.get_num_chunks())]
    return [
        (int(info.chunk_offset[0]), min(per_chunk, n_rows - int(info.chunk_offset[0])), int(info.byte_offset))
        for info in infos
    ]


def _read_references(path: str, stretches: list[tuple[int, int, int]], n_rows: int) -> np.ndarray:
    references = np.zeros(n_rows, _REFERENCE)  # a chunk that was never written holds empty strings
    with open(path, "rb") as file:
        for first, count, place in stretches:
            if count <= 0:
                continue
            file.seek(place)
            data = file.read(count * _REFERENCE.itemsize)
            references[first : first + len(data) // _REFERENCE.itemsize] = np.frombuffer(
                data[: len(data) // _REFERENCE.itemsize * _REFERENCE.itemsize], _REFERENCE
            )
    return references
