"""MCAP files: by their index if they have one, else front to back, as far as they are whole.

The parts of a file are parsed by the ``mcap`` package; which of them are read, and what to do when they end too
early, is decided here. A recorder that was killed leaves a file without its last pages, the index among them.
"""

from __future__ import annotations

import dataclasses
import struct
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_datasets.importers.rosbag2_storage import (
    BagError,
    RawMessage,
    StorageFile,
    Topic,
    full_type,
    install_hint,
    uncompressed,
)

if TYPE_CHECKING:
    from mcap.records import Channel, Chunk, Schema
    from mcap.summary import Summary

_MAX_CHUNK = 1 << 30
_MAX_TIME = 1 << 64
_RECORD_HEADER = 9
_DEFINITIONS = ("ros2msg", "ros2idl")
_DAMAGE = (struct.error, ValueError, LookupError, OverflowError, MemoryError, RuntimeError, EOFError)


class McapFile(StorageFile):
    """One ``.mcap`` file."""

    def __init__(self, path: Path) -> None:
        try:
            import zstandard
            from mcap.exceptions import McapError
        except ModuleNotFoundError as error:
            raise install_hint("mcap") from error
        self._damage: tuple[type[Exception], ...] = (McapError, zstandard.ZstdError, *_DAMAGE)
        self._path = path
        self._file = path.open("rb")
        self._schemas: dict[int, Schema] = {}
        self._channels: dict[int, Channel] = {}
        self._summary = self._read_summary()
        counts: dict[int, int] = {}
        if self._summary is not None and self._summary.statistics is not None:
            self._schemas, self._channels = dict(self._summary.schemas), dict(self._summary.channels)
            counts = dict(self._summary.statistics.channel_message_counts)
            self._span = self._statistics_span()
        else:
            self._summary = None
            counts, self._span = self._survey()
        self.topics = self._describe(counts)

    def messages(self, topics: Collection[str], start: int, end: int) -> Iterator[RawMessage]:
        """Yield messages in the order of the file."""
        for channel, time, data in self._messages(topics, start, end):
            yield RawMessage(channel.topic, time, uncompressed(data, self._path.name))

    def time_span(self) -> tuple[int, int] | None:
        """Return the first and the last time."""
        return self._span

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_summary(self) -> Summary | None:
        from mcap.reader import SeekingReader

        try:
            return SeekingReader(self._file, record_size_limit=_MAX_CHUNK).get_summary()
        except (*self._damage, OSError):
            return None

    def _statistics_span(self) -> tuple[int, int] | None:
        statistics = self._summary.statistics if self._summary else None
        if statistics is None or not statistics.message_count:
            return None
        return statistics.message_start_time, statistics.message_end_time

    def _survey(self) -> tuple[dict[int, int], tuple[int, int] | None]:
        """Go through a file without index: its topics, how many whole messages, from when to when."""
        counts: dict[int, int] = {}
        first, last = _MAX_TIME, -1
        for channel, time, _ in self._read_on(0, _MAX_TIME):
            counts[channel.id] = counts.get(channel.id, 0) + 1
            first, last = min(first, time), max(last, time)
        return counts, (first, last) if last >= 0 else None

    def _describe(self, counts: dict[int, int]) -> dict[str, Topic]:
        topics: dict[str, Topic] = {}
        for number, channel in self._channels.items():
            schema = self._schemas.get(channel.schema_id)
            before = topics[channel.topic].count if channel.topic in topics else 0
            encoding = schema.encoding if schema is not None else ""
            known = schema is not None and encoding in _DEFINITIONS
            topics[channel.topic] = Topic(
                channel.topic,
                full_type(schema.name) if schema is not None else "",
                schema.data.decode("utf-8", "replace") if known and schema is not None else "",
                encoding if known else "",
                before + counts.get(number, 0),
            )
        return topics

    def _messages(
        self, topics: Collection[str], start: int, end: int
    ) -> Iterator[tuple[Channel, int, bytes]]:
        if self._summary is None or not self._summary.chunk_indexes:
            found = self._read_on(start, end)
        else:
            found = self._read_chunks(topics, start, end)
        for channel, time, data in found:
            if channel.topic in topics and start <= time <= end:
                yield channel, time, data

    def _read_chunks(
        self, topics: Collection[str], start: int, end: int
    ) -> Iterator[tuple[Channel, int, bytes]]:
        """Read those chunks that the index says have such messages."""
        from mcap.data_stream import ReadDataStream
        from mcap.records import Chunk

        assert self._summary is not None
        wanted = {number for number, channel in self._channels.items() if channel.topic in topics}
        for index in sorted(self._summary.chunk_indexes, key=lambda i: i.chunk_start_offset):
            offsets = index.message_index_offsets
            if index.message_start_time > end or index.message_end_time < start:
                continue
            if offsets and not wanted & set(offsets):
                continue
            try:
                self._file.seek(index.chunk_start_offset + _RECORD_HEADER)
                records = self._open_chunk(Chunk.read(ReadDataStream(self._file)))
            except (*self._damage, OSError) as error:
                raise BagError(
                    f"{self._path.name}: the chunk at byte {index.chunk_start_offset} is damaged ({error}); copy the "
                    "file again"
                ) from error
            yield from self._of(records)

    def _read_on(self, start: int, end: int) -> Iterator[tuple[Channel, int, bytes]]:
        """Read front to back; a file that ends too early is noted as unfinished, not as an error."""
        from mcap.records import Chunk, Footer
        from mcap.stream_reader import StreamReader

        self._file.seek(0)
        reader = StreamReader(self._file, emit_chunks=True, record_size_limit=_MAX_CHUNK)
        records = reader.records
        n_read = 0
        while True:
            try:
                record: Any = next(records)
                if isinstance(record, Chunk):
                    skipped = record.message_start_time > end or record.message_end_time < start
                    inner = [] if skipped and self._channels else self._open_chunk(record)
                else:
                    inner = [record]
                found = list(self._of(inner))
            except StopIteration:
                return
            except (*self._damage, OSError) as error:
                reason = str(error) or type(error).__name__
                self.unfinished = f"the file ends early or is damaged after {n_read} messages ({reason})"
                return
            if isinstance(record, Footer):
                return
            n_read += len(found)
            yield from found

    def _of(self, records: list[Any]) -> Iterator[tuple[Channel, int, bytes]]:
        from mcap.records import Channel, Message, Schema

        for record in records:
            if isinstance(record, Schema):
                self._schemas[record.id] = record
            elif isinstance(record, Channel):
                self._channels[record.id] = record
            elif isinstance(record, Message):
                channel = self._channels.get(record.channel_id)
                if channel is None:
                    raise BagError(f"{self._path.name}: a message of an unknown channel; the file is damaged")
                yield channel, record.log_time, record.data

    def _open_chunk(self, chunk: Chunk) -> list[Any]:
        """Return the records of a chunk, unpacked within limits and compared with its checksum."""
        from mcap.stream_reader import breakup_chunk

        data = _unpack(chunk)
        if chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc:
            raise ValueError("a chunk does not fit its checksum")
        return breakup_chunk(dataclasses.replace(chunk, compression="", data=data))


def _unpack(chunk: Chunk) -> bytes:
    """Unpack a chunk's data; `ValueError` if it is not as large as stated, or absurdly large."""
    size = chunk.uncompressed_size
    if size > _MAX_CHUNK:
        raise ValueError(f"a chunk states {size} bytes")
    if chunk.compression == "zstd":
        import zstandard

        if zstandard.frame_content_size(chunk.data) > size:
            raise ValueError("a chunk expands to more than it states")
        data = zstandard.ZstdDecompressor().decompress(chunk.data, max_output_size=max(1, size))
    elif chunk.compression == "lz4":
        import lz4.frame

        data = lz4.frame.LZ4FrameDecompressor().decompress(chunk.data, max_length=size + 1)
    elif chunk.compression == "":
        data = chunk.data
    else:
        raise ValueError(f"unknown compression {chunk.compression!r}")
    if len(data) != size:
        raise ValueError(f"a chunk has {len(data)} bytes, it states {size}")
    return data
