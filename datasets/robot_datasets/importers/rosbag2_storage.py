"""The files of a ROS 2 bag, read directly: what topics they have, how many messages, and the messages' bytes.

Going through a general bag reader is avoided on purpose: one of them returns no messages at all, and no error,
when the quality of service in ``metadata.yaml`` differs from that in the file.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError, one_line

MCAP, SQLITE = ".mcap", ".db3"
ENDINGS = (MCAP, SQLITE)
COMPRESSED = (".zstd", ".zst")

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_MAX_MESSAGE = 256 << 20


class BagError(EpisodeError):
    """A file of a bag is damaged or of an unknown kind."""


@dataclass(frozen=True)
class Topic:
    """A topic as its file describes it.

    Attributes:
        name: With its leading slash, if it has one.
        type: Message type, ``package/msg/Name``.
        definition: The type's definition, if the file carries it.
        encoding: Of the definition: ``"ros2msg"``, ``"ros2idl"`` or empty.
        count: Messages; -1 if the file does not say.
    """

    name: str
    type: str
    definition: str = ""
    encoding: str = ""
    count: int = -1


@dataclass(frozen=True)
class RawMessage:
    """A message as recorded: its topic, when the recorder got it [ns since 1970], and its CDR bytes."""

    topic: str
    time: int
    data: bytes


class StorageFile(ABC):
    """One file of a bag; a context manager."""

    topics: dict[str, Topic]
    unfinished: str = ""
    """Why the file is not whole, e.g. a recorder that was killed; empty if it is."""

    @abstractmethod
    def messages(self, topics: Collection[str], start: int, end: int) -> Iterator[RawMessage]:
        """Yield the messages of `topics` received from `start` to `end` [ns], both included, as they are stored.

        Raises:
            BagError: The file is damaged.
        """

    @abstractmethod
    def time_span(self) -> tuple[int, int] | None:
        """Return the times of the first and the last message [ns]; None if there is none."""

    @abstractmethod
    def close(self) -> None:
        """Close the file."""

    def __enter__(self) -> StorageFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def uncompressed(data: bytes, who: str) -> bytes:
    """Return a message's bytes, unpacked if the recorder compressed each message.

    CDR begins with a zero byte, so the two cannot be mistaken for each other.
    """
    if not data.startswith(_ZSTD_MAGIC):
        return data
    import zstandard

    try:
        size = zstandard.frame_content_size(data)
        if size > _MAX_MESSAGE:
            raise BagError(
                f"{who}: a message expands to {size} bytes, more than {_MAX_MESSAGE}; it is damaged"
            )
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=_MAX_MESSAGE)
    except zstandard.ZstdError as error:
        raise BagError(f"{who}: a compressed message is damaged: {error}") from error


def install_hint(package: str) -> DatasetError:
    """Return the error for a missing package that reads bags."""
    return DatasetError(
        f"reading ROS 2 bags needs {package}; install it with: pip install 'robot-policies[ros]'"
    )


class SqliteFile(StorageFile):
    """A ``.db3`` file of any version."""

    def __init__(self, path: Path) -> None:
        self._path = path
        log = path.with_name(path.name + "-wal")
        pending = log.is_file() and log.stat().st_size > 0
        if not pending:
            _check_length(path)
        uri = path.absolute().as_uri() + ("?mode=ro" if pending else "?mode=ro&immutable=1")
        try:
            self._database = sqlite3.connect(uri, uri=True, check_same_thread=False)
            self._ids, self.topics = self._read_topics()
        except (sqlite3.Error, TypeError, ValueError, OverflowError) as error:
            raise BagError(
                f"{path.name} is no readable bag database: {one_line(error)}; copy it again"
            ) from error
        if pending:
            self.unfinished = "the recorder left a write-ahead log, so it did not close the file"

    def messages(self, topics: Collection[str], start: int, end: int) -> Iterator[RawMessage]:
        """Yield messages in the order of their times."""
        ids = [number for number, name in self._ids.items() if name in topics]
        marks = ",".join("?" * len(ids))
        query = (
            f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks}) "
            "AND timestamp BETWEEN ? AND ? ORDER BY timestamp, id"
        )
        limit = (1 << 63) - 1
        rows = self._query(query, (*ids, max(start, -limit), min(end, limit)))
        for number, time, data in rows:
            if not isinstance(time, int) or not isinstance(data, bytes):
                raise BagError(
                    f"{self._path.name}: a message is no bytes with a time; the database is damaged"
                )
            yield RawMessage(self._ids[number], time, uncompressed(data, self._path.name))

    def time_span(self) -> tuple[int, int] | None:
        """Return the first and the last time."""
        for first, last in self._query("SELECT MIN(timestamp), MAX(timestamp) FROM messages", ()):
            return None if first is None else (int(first), int(last))
        return None

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def _query(self, query: str, values: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
        try:
            # `yield from` would close the cursor when the generator is collected, after the database
            for row in self._database.execute(query, values):  # noqa: UP028
                yield row
        except (sqlite3.Error, OverflowError) as error:
            raise BagError(f"{self._path.name} cannot be read: {one_line(error)}; copy it again") from error

    def _read_topics(self) -> tuple[dict[int, str], dict[str, Topic]]:
        tables = {name for (name,) in self._database.execute("SELECT name FROM sqlite_master")}
        definitions: dict[str, tuple[str, str]] = {}
        if "message_definitions" in tables:
            rows = self._database.execute(
                "SELECT topic_type, encoded_message_definition, encoding FROM message_definitions"
            )
            definitions = {str(kind): (str(text), str(encoding)) for kind, text, encoding in rows}
        counts = dict(self._database.execute("SELECT topic_id, COUNT(*) FROM messages GROUP BY topic_id"))
        ids, topics = {}, {}
        for number, name, kind in self._database.execute("SELECT id, name, type FROM topics"):
            text, encoding = definitions.get(kind, ("", ""))
            before = (
                topics[name].count if name in topics else 0
            )  # a topic may be listed twice, with two qualities
            ids[int(number)] = str(name)
            topics[str(name)] = Topic(
                str(name), full_type(str(kind)), text, encoding, before + int(counts.get(number, 0))
            )
        return ids, topics


def _check_length(path: Path) -> None:
    """Raise `BagError` if the last page of a database is cut short; SQLite fills it up with zeros and says nothing.

    The page size [bytes] is at byte 16 of the header, 1 stands for 65536 (SQLite file format, 1.3.2).
    """
    with path.open("rb") as file:
        header = file.read(18)
    page = int.from_bytes(header[16:18], "big")
    page = 1 << 16 if page == 1 else page
    size = path.stat().st_size
    if page and size % page:
        raise BagError(
            f"{path.name} has {size} bytes, no whole number of pages of {page}; it is cut short, copy it again"
        )


def full_type(name: str) -> str:
    """``std_msgs/String`` -> ``std_msgs/msg/String``; full names stay."""
    parts = name.split("/")
    return f"{parts[0]}/msg/{parts[1]}" if len(parts) == 2 else name
