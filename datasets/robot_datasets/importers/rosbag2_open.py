"""Opening a file of a ROS 2 bag: by its ending, unpacked first if it was compressed as a whole."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path

from robot_datasets.archive_streams import ArchiveError, UnpackedStream
from robot_datasets.importers.rosbag2_mcap import McapFile
from robot_datasets.importers.rosbag2_storage import (
    COMPRESSED,
    ENDINGS,
    MCAP,
    SQLITE,
    BagError,
    RawMessage,
    SqliteFile,
    StorageFile,
)

_MAX_FILE = 1 << 40
_MAX_RATIO = 200.0
_COPY_BYTES = 1 << 20


def open_storage(path: Path) -> StorageFile:
    """Open a file by its ending; one that is compressed as a whole is unpacked beside the system's temporary files.

    Raises:
        BagError: It cannot be read.
        DatasetError: A package for reading it is not installed.
    """
    kind = path.suffix
    if kind in COMPRESSED:
        return _Unpacked(path)
    try:
        if kind == MCAP:
            return McapFile(path)
        if kind == SQLITE:
            return SqliteFile(path)
    except OSError as error:
        raise BagError(f"{path.name} cannot be opened: {error.strerror or error}") from error
    raise BagError(f"{path.name} is no {' or '.join(ENDINGS)} file; expected a file of a ROS 2 bag")


class _Unpacked(StorageFile):
    """A file that was compressed as a whole, unpacked for as long as it is open."""

    def __init__(self, path: Path) -> None:
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bag-"))
            target = Path(folder) / path.name.removesuffix(path.suffix)
            try:
                with (
                    UnpackedStream(path, "zst", max_bytes=_MAX_FILE, max_ratio=_MAX_RATIO) as source,
                    target.open("wb") as file,
                ):
                    while block := source.read(_COPY_BYTES):
                        file.write(block)
            except ArchiveError as error:
                raise BagError(f"{path.name}: {error}") from error
            self._inner = stack.enter_context(open_storage(target))
            self.topics, self.unfinished = self._inner.topics, self._inner.unfinished
            self._stack = stack.pop_all()

    def messages(self, topics: Collection[str], start: int, end: int) -> Iterator[RawMessage]:
        """Yield the messages of the unpacked file."""
        return self._inner.messages(topics, start, end)

    def time_span(self) -> tuple[int, int] | None:
        """Return the unpacked file's."""
        return self._inner.time_span()

    def close(self) -> None:
        """Close and delete the unpacked file."""
        self._stack.close()
