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

from robot_datasets.store.layout import canonical_json


class Journal:
    """Append-only event log of one staging directory."""

    def __init__(self, path: Path) -> None:
        """Open `path`, create it if missing, and cut off a torn last line."""
        self.entries: list[dict[str, Any]] = []
        good = 0
        if path.exists():
            self.entries, good = _read(path)
        self._file = path.open("ab")
        if self._file.tell() != good:
            self._file.truncate(good)
            self._file.seek(good)

    def append(self, entry: dict[str, Any]) -> None:
        """Write one event and wait until the disk has it."""
        text = canonical_json(entry)
        self._file.write(f"{zlib.crc32(text.encode()):08x} {text}\n".encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self.entries.append(entry)

    def close(self) -> None:
        """Close the file; the entries stay readable."""
        self._file.close()


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
