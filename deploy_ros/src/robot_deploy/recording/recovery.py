"""Finishes a bag that was cut off: everything up to its last whole chunk, with index and ``metadata.yaml``.

This project's importer reads unfinished bags as they are; ``ros2 bag`` and other tools want finished ones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_deploy.recording.bag_writer import BagWriter, RecordingError

MAX_RECORD = 256 << 20


@dataclass(frozen=True, kw_only=True)
class RecoveryReport:
    """What was found.

    Attributes:
        messages: Messages recovered by topic.
        read_bytes: How far the file could be read.
        file_bytes: How long it is.
        ending: Why reading ended there; "" if the file was whole.
    """

    messages: dict[str, int]
    read_bytes: int
    file_bytes: int
    ending: str


def recover(source: Path, target: Path) -> RecoveryReport:
    """Copy what is whole of an unfinished recording into a new bag.

    Args:
        source: A bag's folder with one ``.mcap`` file, or that file.
        target: Folder to make.

    Raises:
        RecordingError: There is no such file, or nothing at all can be read of it.
    """
    path = _storage(source)
    records = _Records(path)
    about: dict[str, dict[str, str]] = {}
    bag: BagWriter | None = None
    schemas: dict[int, Any] = {}
    channels: dict[int, Any] = {}
    try:
        for kind, record in records:
            if kind == "Metadata" and bag is None:
                about[record.name] = dict(record.metadata)
            elif kind == "Schema":
                schemas[record.id] = record
            elif kind == "Channel":
                channels[record.id] = record
            elif kind == "Message":
                bag = bag or BagWriter(target, about=about)
                channel = channels[record.channel_id]
                schema = schemas[channel.schema_id]
                bag.add_topic(
                    channel.topic,
                    schema.name,
                    qos=channel.metadata.get("offered_qos_profiles", ""),
                    definition=schema.data.decode("utf-8", "replace"),
                )
                bag.write(channel.topic, record.data, log_ns=record.log_time, publish_ns=record.publish_time)
    except BaseException:
        if bag is not None:
            bag.abandon()
        raise
    if bag is None:
        raise RecordingError(
            f"{path}: no whole chunk can be read ({records.ending or 'the file holds no messages'})"
        )
    bag.close()
    return RecoveryReport(
        messages=bag.counts,
        read_bytes=records.read_bytes,
        file_bytes=path.stat().st_size,
        ending=records.ending,
    )


class _Records:
    """The records of a file, chunks opened, as far as they are whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.read_bytes = 0
        self.ending = ""

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        from mcap.exceptions import McapError
        from mcap.stream_reader import StreamReader

        with self._path.open("rb") as file:
            try:
                reader = StreamReader(
                    file, emit_chunks=False, validate_crcs=True, record_size_limit=MAX_RECORD
                )
                for record in reader.records:
                    self.read_bytes = file.tell()
                    yield type(record).__name__, record
            except (McapError, struct.error, ValueError, EOFError, KeyError) as error:
                self.ending = f"{type(error).__name__} after {self.read_bytes} bytes"


def _storage(source: Path) -> Path:
    files = sorted(source.glob("*.mcap")) if source.is_dir() else [source]
    if len(files) != 1 or not files[0].is_file():
        raise RecordingError(
            f"{source}: found {len(files)} .mcap files; expected a bag of one file, or the file"
        )
    return files[0]
