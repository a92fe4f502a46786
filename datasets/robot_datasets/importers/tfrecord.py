"""TFRecord files and the ``tf.train.Example`` messages in them, read without TensorFlow.

A file is a chain of records: length (u64), its checksum, the bytes, their checksum, all little-endian; the
checksum is CRC-32C, masked. A record holds one protocol buffer, ``Example``, of which three kinds of list are
ever used. Reading these from the wire takes fewer lines than describing them to a protobuf library, and numbers
come out as arrays instead of Python lists.

Specifications: https://www.tensorflow.org/tutorials/load_data/tfrecord and
https://protobuf.dev/programming-guides/encoding/.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robot_datasets.episode import EpisodeError

_HEADER = struct.Struct("<QI")
_CHECKSUM = struct.Struct("<I")
_MASK_DELTA = 0xA282EAD8
_CHUNK = 1 << 20
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT = 10


class TfRecordError(EpisodeError):
    """A record is truncated or damaged."""


@dataclass(frozen=True)
class RecordSpan:
    """Where a record's bytes lie in its file."""

    offset: int
    size: int


class TfRecordFile:
    """One TFRecord file, mapped into memory: a record is a view, nothing is copied. A context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        try:
            size = path.stat().st_size
            self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        except BaseException:
            self._file.close()
            raise
        self._view = memoryview(self._map if self._map is not None else b"")

    def scan(self) -> tuple[list[RecordSpan], str]:
        """Find all records by their headers alone.

        Returns:
            The records whose headers are sound and whose bytes are all there, and what ended the search:
            empty if it was the end of the file.
        """
        spans: list[RecordSpan] = []
        at, end = 0, len(self._view)
        while at < end:
            if at + _HEADER.size > end:
                return spans, f"the file ends within the header of record {len(spans)}"
            size, checksum = _HEADER.unpack_from(self._view, at)
            if checksum != masked_crc32c(self._view[at : at + 8]):
                return spans, f"the header of record {len(spans)} at byte {at} is damaged"
            start = at + _HEADER.size
            if size + _CHECKSUM.size > end - start:
                return spans, (
                    f"record {len(spans)} at byte {at} promises {size} bytes but the file ends after {end - start}"
                )
            spans.append(RecordSpan(start, size))
            at = start + size + _CHECKSUM.size
        return spans, ""

    def read(self, span: RecordSpan) -> memoryview:
        """Return the bytes of a record, valid until the file is closed.

        Raises:
            TfRecordError: They do not fit their checksum.
        """
        end = span.offset + span.size
        data = self._view[span.offset : end]
        if len(self._view) < end + _CHECKSUM.size:
            raise TfRecordError(f"{self._path.name}: a record ends beyond the file, which has become shorter")
        if _CHECKSUM.unpack_from(self._view, end)[0] != masked_crc32c(data):
            raise TfRecordError(
                f"{self._path.name}: the record at byte {span.offset} does not fit its checksum; it is damaged"
            )
        return data

    def close(self) -> None:
        """Close the file; a view that is still held keeps the mapping, not the file."""
        self._view.release()
        if self._map is not None:
            try:
                self._map.close()
            except BufferError:  # somebody holds a record; the mapping goes when it does
                self._map = None
        self._file.close()

    def __enter__(self) -> TfRecordFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def masked_crc32c(data: bytes | memoryview) -> int:
    """Return TFRecord's checksum: CRC-32C, rotated and offset so that checksums of checksums stay good."""
    import google_crc32c

    crc = 0
    for start in range(0, len(data), _CHUNK):
        crc = google_crc32c.extend(crc, bytes(data[start : start + _CHUNK]))
    return ((crc >> 15 | crc << 17) + _MASK_DELTA) & 0xFFFFFFFF


def parse_example(data: memoryview) -> dict[str, ExampleValue]:
    """Return the features of a ``tf.train.Example`` by name; their values are read when asked for.

    Raises:
        TfRecordError: It is no such message.
    """
    found: dict[str, ExampleValue] = {}
    for number, features in _fields(data):
        if number != 1:
            continue
        for _, entry in _fields(_message(features)):
            parts = dict(_fields(_message(entry)))
            key = bytes(_message(parts.get(1, b""))).decode("utf-8", "replace")
            found[key] = ExampleValue(key, _message(parts.get(2, b"")))
    return found


class ExampleValue:
    """One feature of an Example: a list of byte strings, of floats, or of integers."""

    _BYTES_LIST, _FLOAT_LIST, _INT64_LIST = 1, 2, 3

    def __init__(self, key: str, data: memoryview) -> None:
        self.key = key
        lists = {number: _message(value) for number, value in _fields(data)}
        if len(lists) > 1 or not set(lists) <= {1, 2, 3}:
            raise TfRecordError(f"{key} is no list of bytes, floats or integers; the record is damaged")
        self._kind, self._data = next(iter(lists.items()), (0, memoryview(b"")))

    @property
    def holds_bytes(self) -> bool:
        """Whether this is a list of byte strings."""
        return self._kind == self._BYTES_LIST

    def byte_strings(self) -> list[memoryview]:
        """Return the byte strings, as views of the record."""
        self._expect(self._BYTES_LIST, "bytes")
        return [_message(value) for _, value in _fields(self._data)]

    def numbers(self) -> np.ndarray:
        """Return the numbers (N,), float32 or int64."""
        if self._kind == self._BYTES_LIST:
            raise TfRecordError(f"{self.key} holds bytes, expected numbers")
        is_float = self._kind == self._FLOAT_LIST
        parts = [
            _floats(self.key, value) if is_float else _varints(self.key, value)
            for value in _values(self._data, _FIXED32 if is_float else _VARINT)
        ]
        return np.concatenate(parts) if parts else np.empty(0, np.float32 if is_float else np.int64)

    def _expect(self, kind: int, name: str) -> None:
        if self._kind not in (0, kind):
            raise TfRecordError(f"{self.key} holds numbers, expected {name}")


def _values(data: memoryview, single: int) -> Iterator[memoryview]:
    """Yield the packed values of a list, and its single ones, which old writers did not pack."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value, at = _value(data, at, tag & 7)
        if tag & 7 not in (_BYTES, single):
            raise TfRecordError("a list holds values of another kind; the record is damaged")
        yield value


def _floats(key: str, data: memoryview) -> np.ndarray:
    if len(data) % 4:
        raise TfRecordError(f"{key} has {len(data)} bytes of floats, expected a multiple of 4")
    return np.frombuffer(data, dtype="<f4").astype(np.float32)


def _varints(key: str, data: memoryview) -> np.ndarray:
    """Decode packed integers (N,) int64: seven bits a byte, the lowest first, the high bit set but in the last."""
    raw = np.frombuffer(data, dtype=np.uint8)
    last = np.flatnonzero(raw < 0x80)
    if len(raw) and (not len(last) or last[-1] != len(raw) - 1):
        raise TfRecordError(f"{key} ends within an integer; the record is damaged")
    first = np.concatenate([[0], last[:-1] + 1]).astype(np.int64)[: len(last)]
    length = last - first + 1
    if len(length) and length.max() > _MAX_VARINT:
        raise TfRecordError(f"{key} holds an integer of {length.max()} bytes; the record is damaged")
    values = np.zeros(len(last), dtype=np.uint64)
    for k in range(int(length.max(initial=0))):
        longer = length > k
        bits = raw[first[longer] + k].astype(np.uint64) & np.uint64(0x7F)
        values[longer] |= bits << np.uint64(7 * k)
    return values.view(np.int64)


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Yield (field number, value) of a message; a value is its bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        value, at = _value(data, at, tag & 7)
        yield tag >> 3, value


def _value(data: memoryview, at: int, wire: int) -> tuple[memoryview, int]:
    if wire == _BYTES:
        size, at = _varint(data, at)
        end = at + size
    elif wire == _VARINT:
        end = _varint(data, at)[1]
    elif wire in (_FIXED32, _FIXED64):
        end = at + (4 if wire == _FIXED32 else 8)
    else:
        raise TfRecordError(f"a field has wire type {wire}; the record is damaged")
    if end > len(data):
        raise TfRecordError(f"a field of {end - at} bytes runs beyond its message; the record is damaged")
    return data[at:end], end


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for k in range(_MAX_VARINT):
        if at >= len(data):
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << (7 * k)
        if byte < 0x80:
            return value, at
    raise TfRecordError("an integer does not end; the record is damaged")


def _message(value: memoryview | bytes) -> memoryview:
    return value if isinstance(value, memoryview) else memoryview(value)
