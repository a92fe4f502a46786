"""The files of a source wherever they lie, in a folder or in an archive: named relative to its root, only read."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from robot_datasets.archives import (
    ArchiveError,
    ArchiveLimits,
    ArchiveReader,
    archive_stem,
    index_archive,
)
from robot_datasets.errors import DatasetError
from robot_datasets.importers.base import Option

ARCHIVE_OPTIONS = (
    Option(
        "archive_ratio",
        "250",
        "bytes that a byte of an archive may expand to; beyond, it is taken for a bomb",
    ),
    Option("archive_member_gb", "64", "largest file inside an archive that is read [GB]"),
    Option("archive_total_gb", "4096", "what an archive may expand to [GB]"),
)
"""Options of importers that read archives, for `archive_limits`."""

_TAIL_BYTES = 4096
_GB = 1_000_000_000


def archive_limits(options: Mapping[str, str]) -> ArchiveLimits:
    """Return the limits that `ARCHIVE_OPTIONS` ask for.

    Raises:
        DatasetError: A value is no positive number.
    """
    values = {}
    for option in ARCHIVE_OPTIONS:
        text = options[option.name]
        try:
            values[option.name] = float(text)
        except ValueError:
            values[option.name] = 0.0
        if not 0 < values[option.name] < float("inf"):
            raise DatasetError(
                f"option {option.name} is '{text}'; expected a positive number, e.g. {option.default}"
            )
    return ArchiveLimits(
        ratio=values["archive_ratio"],
        member_bytes=int(values["archive_member_gb"] * _GB),
        total_bytes=int(values["archive_total_gb"] * _GB),
    )


class FileTree(ABC):
    """Files by name, folders separated by ``/``."""

    damage = ""
    """What is wrong with the whole; empty if nothing is. Files that it cost are not listed."""

    @abstractmethod
    def files(self, folder: str = "") -> dict[str, int]:
        """Return the name and size [bytes] of every file in a folder and below, sorted by name."""

    @abstractmethod
    def has(self, name: str) -> bool:
        """Whether there is a file of this name, inside the tree."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            FileNotFoundError: There is no such file inside the tree.
            ArchiveError: The archive is damaged there.
        """

    @abstractmethod
    def source(self, name: str) -> str | BinaryIO:
        """Return a file as pyarrow and PyAV take it: its path, or a seekable file that the caller closes."""

    @abstractmethod
    def identity(self, name: str) -> bytes:
        """Return a few bytes that change when the file does, without reading it whole."""

    @abstractmethod
    def below(self, folder: str) -> FileTree:
        """Return the tree of a folder."""


class FolderTree(FileTree):
    """A folder of the file system; picklable."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def files(self, folder: str = "") -> dict[str, int]:
        """Return the name and size [bytes] of every file in a folder and below, sorted by name."""
        found: dict[str, int] = {}
        for place, folders, names in os.walk(self._root / folder):
            folders.sort()
            for name in names:
                path = Path(place, name)
                if path.is_file():
                    found[path.relative_to(self._root).as_posix()] = path.stat().st_size
        return dict(sorted(found.items()))

    def has(self, name: str) -> bool:
        """Whether there is a file of this name, inside the tree."""
        return self._path(name) is not None

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        path = self._path(name)
        if path is None:
            raise FileNotFoundError(f"{name!r} is not a file of the dataset")
        return path.read_bytes()

    def source(self, name: str) -> str | BinaryIO:
        """Return the path of a file."""
        return str(self._root / name)

    def identity(self, name: str) -> bytes:
        """Return the last bytes of the file, in which parquet sums up its columns."""
        with (self._root / name).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read()

    def below(self, folder: str) -> FileTree:
        """Return the tree of a folder."""
        return FolderTree(self._root / folder)

    def _path(self, name: str) -> Path | None:
        """Return the path of a name unless it leads outside; a link to a file elsewhere, as caches use, may."""
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\0" in name:
            return None
        path = self._root.joinpath(*parts)
        return path if path.is_file() else None


class ArchiveTree(FileTree):
    """A folder inside an archive."""

    def __init__(self, reader: ArchiveReader, prefix: str = "") -> None:
        """Look into an archive.

        Args:
            reader: The opened archive; its owner closes it.
            prefix: The folder, with ``/`` at its end; empty = all of it.
        """
        self._reader = reader
        self._prefix = prefix
        self.damage = reader.index.damage

    def files(self, folder: str = "") -> dict[str, int]:
        """Return the name and size [bytes] of every file in a folder and below, sorted by name."""
        start = self._prefix + (f"{folder}/" if folder else "")
        members = self._reader.index.members
        return {
            n.removeprefix(self._prefix): m.size for n, m in sorted(members.items()) if n.startswith(start)
        }

    def has(self, name: str) -> bool:
        """Whether there is a file of this name, inside the tree."""
        return self._prefix + name in self._reader.index.members

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        if not self.has(name):
            raise FileNotFoundError(f"{name!r} is not a file of the archive")
        return self._reader.read(self._prefix + name)

    def source(self, name: str) -> str | BinaryIO:
        """Return a file in memory or in an unnamed temporary file."""
        return self._reader.open(self._prefix + name)

    def identity(self, name: str) -> bytes:
        """Return the member's place and the end of the archive, which holds checksums."""
        member = self._reader.index.members[self._prefix + name]
        tail = FolderTree(self._reader.index.path.parent).identity(self._reader.index.path.name)
        return f"{member.offset} {member.size} ".encode() + tail

    def below(self, folder: str) -> FileTree:
        """Return the tree of a folder."""
        return ArchiveTree(self._reader, f"{self._prefix}{folder}/")


_open: dict[tuple[object, ...], ArchiveReader] = {}
"""The archive read last stays open in this process, so that going on in it costs no second pass."""


def open_archive(path: Path, limits: ArchiveLimits) -> ArchiveTree:
    """List an archive, or find it still open.

    Raises:
        ArchiveError: It is no archive, cannot be read at all, or expands beyond the limits.
    """
    try:
        state = path.stat()
    except OSError as error:
        raise ArchiveError(f"cannot read {path.name}: {error.strerror}; copy it again") from error
    key = (
        os.getpid(),
        path,
        state.st_size,
        state.st_mtime_ns,
        limits,
    )  # a forked process shares no open file
    if key not in _open:
        reader = ArchiveReader(index_archive(path, limits))
        for (process, *_), other in _open.items():
            if process == os.getpid():
                other.close()
        _open.clear()
        _open[key] = reader
    return ArchiveTree(_open[key])


def is_archive(path: Path) -> bool:
    """Whether a path is a file named like an archive."""
    return bool(archive_stem(path.name)) and path.is_file()


def dataset_roots(tree: FileTree, marker: str = "meta/info.json") -> list[str]:
    """Return the folders of a tree that hold a file; an empty text is the tree itself."""
    found = [f"/{name}" for name in tree.files()]
    return [n.removesuffix(f"/{marker}").removeprefix("/") for n in found if n.endswith(f"/{marker}")]
