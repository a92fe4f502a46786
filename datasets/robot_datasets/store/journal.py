"""The journal of an unfinished store: one line per event, checked, and torn tails are dropped.

Line = CRC-32 of the JSON text in 8 hex digits, a space, the JSON, a newline. A line counts only if it is
whole; what a killed writer left behind the last whole line never happened.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robot_datasets.store.copying import open_at_end, write_all
from robot_datasets.store.layout import canonical_bytes


class Journal:
    """Append-only event log of one staging directory."""

    def __init__(self, path: Path) -> None:
        """Open `path`, create it if missing, and cut off a torn last line."""
        self._path = path
        self.header: dict[str, Any] | None = None
        """The first event; None if there is none yet."""
        self.size = 0
        """Length of the whole lines [bytes]."""
        if path.exists():
            for entry, end in _whole_lines(path):
                self.header = self.header or entry
                self.size = end
        self._file = open_at_end(path)
        self._cut()

    def events(self) -> Iterator[dict[str, Any]]:
        """Read the events after the header, one at a time: a store may have millions."""
        lines = _whole_lines(self._path)
        next(lines, None)
        for entry, end in lines:
            if end > self.size:
                return
            yield entry

    def append(self, *entries: dict[str, Any]) -> None:
        """Write events and wait until the disk has them.

        Raises:
            OSError: The disk is full or broken; none of the events counts then.
        """
        lines = b"".join(_line(entry) for entry in entries)
        try:
            write_all(self._file, lines)
            os.fsync(self._file.fileno())
        except BaseException:
            self._cut()
            raise
        self.size += len(lines)  # from here on they count
        self.header = self.header or next(iter(entries), None)

    def close(self) -> None:
        """Close the file; the events stay readable."""
        self._file.close()

    def _cut(self) -> None:
        """Drop what lies behind the last whole line."""
        self._file.truncate(self.size)
        self._file.seek(self.size)


def _line(entry: dict[str, Any]) -> bytes:
    text = canonical_bytes(entry)
    return f"{zlib.crc32(text):08x} ".encode() + text + b"\n"


def _whole_lines(path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the events up to the first torn line, each with the position of its end."""
    end = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n") or not _is_whole(line):
                return
            end += len(line)
            yield json.loads(line[9:]), end


def _is_whole(line: bytes) -> bool:
    return line[8:9] == b" " and line[:8] == f"{zlib.crc32(line[9:-1]):08x}".encode()
