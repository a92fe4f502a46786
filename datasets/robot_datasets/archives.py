"""Reading files inside archives without unpacking them: zip and tar, plain or compressed, hostile ones included.

`index_archive` lists what is inside in one pass and refuses what could do harm; `ArchiveReader` then gives single
members. Nothing is ever written under a name from the archive, so no member can escape anywhere::

    index = index_archive(Path("task.tar.gz"))
    with ArchiveReader(index) as archive:
        info = archive.read("set_0/meta/info.json")
        with archive.open("set_0/videos/a.mp4") as video:      # seekable; large members go to an unnamed file
            ...

The index is picklable, so that other processes need not make the pass again.
"""

from __future__ import annotations

import io
import re
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

from robot_datasets.archive_listing import ArchiveIndex, ArchiveLimits, Member, index_archive, tar_stream
from robot_datasets.archive_streams import ArchiveBombError, ArchiveError

__all__ = [
    "ArchiveBombError",
    "ArchiveError",
    "ArchiveIndex",
    "ArchiveLimits",
    "ArchiveReader",
    "Member",
    "archive_stem",
    "index_archive",
]

_COPY_BYTES = 1 << 20
_IN_MEMORY = 8 << 20
_SUFFIX = re.compile(r"(\.tar(\.(gz|bz2|xz|zst))?|\.t(gz|bz2|xz|zst)|\.zip)$", re.IGNORECASE)


def archive_stem(name: str) -> str:
    """Return a file name without its archive suffix, or an empty text if it has none: ``a.tar.gz`` -> ``a``."""
    match = _SUFFIX.search(name)
    return name[: match.start()] if match else ""


class ArchiveReader:
    """Reads members of one archive; cheapest in the order in which they lie in it. Not for several threads."""

    def __init__(self, index: ArchiveIndex) -> None:
        self.index = index
        self._stream: Any = None
        self._zip: zipfile.ZipFile | None = None

    def __enter__(self) -> ArchiveReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the archive."""
        for resource in (self._stream, self._zip):
            if resource is not None:
                resource.close()
        self._stream = self._zip = None

    def read(self, name: str, *, at_most: int = 1 << 30) -> bytes:
        """Return a member's bytes.

        Raises:
            ArchiveError: There is no such member, it is larger than `at_most`, or the archive is damaged there.
        """
        member = self._member(name)
        if member.size > at_most:
            raise ArchiveError(f"{self._where(name)} has {member.size} bytes, expected at most {at_most}")
        return b"".join(self._blocks(name, member))

    def open(self, name: str) -> BinaryIO:
        """Return a member as a seekable file: in memory if small, else in an unnamed temporary file.

        Raises:
            ArchiveError: There is no such member, or the archive is damaged there.
        """
        member = self._member(name)
        small = member.size <= _IN_MEMORY
        file = cast(BinaryIO, io.BytesIO() if small else tempfile.TemporaryFile())  # noqa: SIM115 (the caller's)
        try:
            for block in self._blocks(name, member):
                file.write(block)
        except BaseException:
            file.close()
            raise
        file.seek(0)
        return file

    def _blocks(self, name: str, member: Member) -> Iterator[bytes]:
        """Yield a member's content, exactly as many bytes as listed."""
        missing = member.size
        try:
            source = self._at(member)
            while missing:
                block = source.read(min(missing, _COPY_BYTES))
                if not block:
                    raise ArchiveError("it ends too early")
                missing -= len(block)
                yield block
            if member.offset < 0:
                source.close()
        except ArchiveError as error:
            raise ArchiveError(f"{self._where(name)}: {error}; copy the archive again") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
            raise ArchiveError(f"{self._where(name)} is damaged ({error}); copy the archive again") from error

    def _at(self, member: Member) -> Any:
        index = self.index
        if member.offset < 0:
            if self._zip is None:
                self._zip = zipfile.ZipFile(index.path)
            return self._zip.open(member.key)
        if self._stream is None:
            self._stream = tar_stream(index.path, index.kind, index.limits)
        self._stream.seek(member.offset)
        return self._stream

    def _member(self, name: str) -> Member:
        member = self.index.members.get(name)
        if member is None:
            reason = self.index.refused.get(name, "it is not there")
            raise ArchiveError(f"{self._where(name)} cannot be read: {reason}")
        return member

    def _where(self, name: str) -> str:
        return f"{name} in {self.index.path.name}"
