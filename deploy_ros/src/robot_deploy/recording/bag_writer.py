"""Writes a ROS 2 bag (MCAP) of raw CDR messages of which a killed process loses at most the last chunk.

Chunks are small, handed to the operating system whole, and finished after a bounded time also if little happens.
What is known beforehand (contract, revision, configuration) stands at the front of the file. ``metadata.yaml``, which
``ros2 bag`` wants, is written at the end; this project's importer reads bags without it, too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import yaml

from robot_datasets.errors import UserError, one_line
from robot_datasets.importers.rosbag2_messages import known_types

if TYPE_CHECKING:
    from mcap.writer import Writer

Compression = Literal["none", "lz4", "zstd"]
CHUNK_BYTES = 512 * 1024


class RecordingError(UserError):
    """A recording cannot be made: the target exists, the disk is full, a type is unknown."""


class _Output:
    """An unbuffered file: what was written has left the process, so a kill cannot take it back."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644)
        self.size = 0

    def write(self, data: bytes | memoryview) -> int:
        """Write all of it."""
        view = memoryview(data)
        while view:
            written = os.write(self._descriptor, view)
            self.size += written
            view = view[written:]
        return len(data)

    def tell(self) -> int:
        """Bytes written."""
        return self.size

    def flush(self) -> None:
        """Nothing is held back."""

    def sync(self) -> None:
        """Wait until the disk has it, against a loss of power."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


@dataclass
class _Channel:
    number: int
    type: str
    qos: str
    count: int = 0


class BagWriter:
    """One bag being written; not safe for several threads.

    Attributes:
        folder: The bag's folder.
        counts: Messages written by topic.
        unflushed_since: Monotonic time of the oldest message that is not in a finished chunk [s]; None if none is.
    """

    def __init__(
        self,
        folder: Path,
        *,
        about: Mapping[str, Mapping[str, str]],
        chunk_bytes: int = CHUNK_BYTES,
        compression: Compression = "none",
    ) -> None:
        """Make the folder and begin the file.

        Args:
            folder: A new folder.
            about: Records for the front of the file: name -> key -> text.
            chunk_bytes: A chunk is finished when it has this many bytes; at most so much is lost by a kill.
            compression: Of chunks.

        Raises:
            RecordingError: The folder exists or cannot be made, or ``mcap`` is not installed.
        """
        try:
            from mcap.writer import CompressionType, Writer
        except ModuleNotFoundError as error:
            raise RecordingError(
                "recording needs mcap and rosbags; install them with: pip install 'robot-policies[ros]'"
            ) from error
        self.folder = folder
        try:
            folder.mkdir(parents=True)
            self._path = folder / f"{folder.name}_0.mcap"
            self._output = _Output(self._path)
        except FileExistsError as error:
            raise RecordingError(f"{folder} exists; every recording needs a new folder") from error
        except OSError as error:
            raise RecordingError(
                f"{folder} cannot be written: {error.strerror}; choose another place"
            ) from error
        kinds = {"none": CompressionType.NONE, "lz4": CompressionType.LZ4, "zstd": CompressionType.ZSTD}
        self._writer: Writer = Writer(
            self._output,  # type: ignore[arg-type]  # all that it calls is there
            chunk_size=chunk_bytes,
            compression=kinds[compression],
        )
        self._writer.start(profile="ros2")
        for name, values in about.items():
            self._writer.add_metadata(name, dict(values))
        self._about = {name: dict(values) for name, values in about.items()}
        self._channels: dict[str, _Channel] = {}
        self._schemas: dict[str, int] = {}
        self._span: tuple[int, int] | None = None
        self.unflushed_since: float | None = None
        self._closed = False

    @property
    def counts(self) -> dict[str, int]:
        """Messages written by topic."""
        return {name: channel.count for name, channel in self._channels.items()}

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._output.size

    def add_topic(self, name: str, kind: str, *, qos: str = "", definition: str = "") -> None:
        """Declare a topic before its first message; twice is once.

        Args:
            name: Topic name.
            kind: Message type, ``package/msg/Name``.
            qos: Offered quality of service as YAML, for ``ros2 bag play``.
            definition: Text of the type and all it refers to; empty takes ROS 2's own.

        Raises:
            RecordingError: Nobody knows the type.
        """
        if name in self._channels:
            return
        if kind not in self._schemas:
            text = definition or definition_of(kind)
            self._schemas[kind] = self._writer.register_schema(kind, "ros2msg", text.encode())
        number = self._writer.register_channel(
            name, "cdr", self._schemas[kind], {"offered_qos_profiles": qos, "topic_type_hash": _hash(kind)}
        )
        self._channels[name] = _Channel(number, kind, qos)

    def write(self, topic: str, data: bytes, *, log_ns: int, publish_ns: int | None = None) -> None:
        """Append a message.

        Args:
            topic: A declared topic.
            data: CDR bytes with their header, as ROS delivers them.
            log_ns: When it was received [ns since 1970].
            publish_ns: When it was sent; `log_ns` if unknown.

        Raises:
            OSError: The disk is full or gone; call `abandon`.
        """
        channel = self._channels[topic]
        before = self._output.size
        self._writer.add_message(
            channel.number, log_ns, data, log_ns if publish_ns is None else publish_ns, channel.count
        )
        channel.count += 1
        first, last = self._span or (log_ns, log_ns)
        self._span = (min(first, log_ns), max(last, log_ns))
        if self._output.size != before:
            self.unflushed_since = None
        elif self.unflushed_since is None:
            self.unflushed_since = time.monotonic()

    def flush(self, *, sync: bool = True) -> None:
        """Finish the chunk, and wait until the disk has it if `sync`.

        Raises:
            OSError: The disk is full or gone; call `abandon`.
        """
        # The package has no public way to end a chunk early; the test of killed recorders would notice a change.
        self._writer._Writer__finalize_chunk()  # type: ignore[attr-defined]
        self.unflushed_since = None
        if sync:
            self._output.sync()

    def close(self) -> None:
        """Write index and ``metadata.yaml``; twice is once.

        Raises:
            OSError: The disk is full or gone; the messages are there, without an index.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._writer.finish()
            self._output.sync()
        finally:
            self._output.close()
        staging = self.folder / ".metadata.yaml.tmp"
        staging.write_text(yaml.safe_dump(self._metadata(), sort_keys=False), encoding="utf-8")
        os.replace(staging, self.folder / "metadata.yaml")

    def abandon(self) -> None:
        """Close the file as it is, after an error; it is read up to its last whole chunk."""
        if not self._closed:
            self._closed = True
            self._output.close()

    def _metadata(self) -> dict[str, Any]:
        first, last = self._span or (0, 0)
        start = {"nanoseconds_since_epoch": first}
        duration = {"nanoseconds": last - first}
        total = sum(channel.count for channel in self._channels.values())
        topics = [
            {
                "topic_metadata": {
                    "name": name,
                    "type": channel.type,
                    "serialization_format": "cdr",
                    "offered_qos_profiles": [],
                    "type_description_hash": _hash(channel.type),
                },
                "message_count": channel.count,
            }
            for name, channel in self._channels.items()
        ]
        file = {"path": self._path.name, "starting_time": start, "duration": duration, "message_count": total}
        return {
            "rosbag2_bagfile_information": {
                "version": 9,
                "storage_identifier": "mcap",
                "duration": dict(duration),
                "starting_time": dict(start),
                "message_count": total,
                "topics_with_message_count": topics,
                "compression_format": "",
                "compression_mode": "",
                "relative_file_paths": [self._path.name],
                "files": [{**file, "starting_time": dict(start), "duration": dict(duration)}],
                "custom_data": dict.fromkeys(self._about, "in the file"),
                "ros_distro": "jazzy",
            }
        }


def definition_of(kind: str) -> str:
    """Text of a message type of ROS 2 and of all types that it refers to.

    Raises:
        RecordingError: There is none of that name.
    """
    from rosbags.typesys.base import TypesysError

    try:
        return known_types().generate_msgdef(kind)[0]
    except (KeyError, TypesysError) as error:
        raise RecordingError(
            f"the message type '{kind}' is unknown ({one_line(error)}); give its definition, or leave the topic out"
        ) from error


def _hash(kind: str) -> str:
    from rosbags.typesys.base import TypesysError

    try:
        return known_types().hash_rihs01(kind)
    except (KeyError, TypesysError):
        return ""
