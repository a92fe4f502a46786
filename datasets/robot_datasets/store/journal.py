"""The journal of an unfinished store: one line per event, checked, and torn tails are dropped.

Line = CRC-32 of the JSON text in 8 hex digits, a space, the JSON, a newline. A line counts only if it is
whole; what a killed writer left behind the last whole line never happened.
"""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path
from typing import Any

from robot_datasets.store.copying import open_at_end, write_all
from robot_datasets.store.layout import canonical_bytes


class Journal:
    """Append-only event log of one staging directory."""

    def __init__(self, path: Path) -> None:
        """Open `path`, create it if missing, and cut off a torn last line."""
        self.entries: list[dict[str, Any]] = []
        good = 0
        if path.exists():
            self.entries, good = _read(path)
        self._file = open_at_end(path)
        self.size = good
        """Length of the whole lines [bytes]."""
        self._cut()

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
        self.entries.extend(entries)

    def close(self) -> None:
        """Close the file; the entries stay readable."""
        self._file.close()

    def _cut(self) -> None:
        """Drop what lies behind the last whole line."""
        self._file.truncate(self.size)
        self._file.seek(self.size)


def _line(entry: dict[str, Any]) -> bytes:
    text = canonical_bytes(entry)
    return f"{zlib.crc32(text):08x} ".encode() + text + b"\n"


def _read(path: Path) -> tuple[list[dict[str, Any]], int]:
    entries: list[dict[str, Any]] = []
    good = 0
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n") or not _is_whole(line):
                break
            entries.append(json.loads(line[9:]))
            good += len(line)
    return entries, good


def _is_whole(line: bytes) -> bool:
    return line[8:9] == b" " and line[:8] == f"{zlib.crc32(line[9:-1]):08x}".encode()
