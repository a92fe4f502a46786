"""Listing archives: what is inside a zip or tar, and what of it is refused because it could do harm."""

from __future__ import annotations

import re
import tarfile
import unicodedata
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robot_datasets.archive_streams import MAGIC, ArchiveBombError, ArchiveError, UnpackedStream

_BLOCK = 512
_COPY_BYTES = 1 << 20
_HEADER_BYTES = 1 << 20
"""Long names and attributes beyond this are no names."""
_RATIO_SLACK = 64 << 20


@dataclass(frozen=True, kw_only=True)
class ArchiveLimits:
    """What an archive may expand to; beyond it, it is taken for a bomb.

    Attributes:
        ratio: Content per byte of archive, from 64 MiB of content on.
        member_bytes: Size of one member; larger ones are refused, the others read.
        total_bytes: Size of all content.
        members: Number of members.
    """

    ratio: float = 250.0
    member_bytes: int = 64 << 30
    total_bytes: int = 4 << 40
    members: int = 5_000_000


@dataclass(frozen=True)
class Member:
    """A file inside an archive: its size, and in a tar where its bytes begin in the unpacked stream."""

    size: int
    offset: int = -1
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class ArchiveIndex:
    """What is inside an archive; picklable.

    Attributes:
        path: The archive.
        kind: ``"zip"``, ``"tar"`` or the compression of a tar (a key of `MAGIC`).
        limits: The limits it was listed with.
        members: Normalised name (no ``./``, ``/`` between folders) -> file.
        refused: Name -> why it is not among them: links, devices, paths that lead outside, sparse or too large files.
        damage: What is wrong with the archive; empty if nothing is. Members before the damage are listed.
    """

    path: Path
    kind: str
    limits: ArchiveLimits
    members: Mapping[str, Member] = field(repr=False)
    refused: Mapping[str, str] = field(default_factory=dict)
    damage: str = ""


def index_archive(path: Path, limits: ArchiveLimits | None = None, *, first: int = 0) -> ArchiveIndex:
    """List an archive; a compressed tar is decompressed once for it, in little memory.

    Args:
        path: The archive.
        limits: What it may expand to.
        first: List only about so many members of a tar, and read no further; 0 = all.

    Raises:
        ArchiveError: It is no archive, cannot be read at all, or expands beyond the limits.
    """
    limits = limits or ArchiveLimits()
    kind = _kind(path)
    if kind == "zip":
        members, refused, damage = _index_zip(path, limits)
    else:
        with tar_stream(path, kind, limits) as stream:
            members, refused, damage = _TarIndexer(stream, limits, path, first).run()
    return ArchiveIndex(path=path, kind=kind, limits=limits, members=members, refused=refused, damage=damage)


def _kind(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(_BLOCK)
    except OSError as error:
        raise ArchiveError(f"cannot read {path.name}: {error.strerror}; copy it again") from error
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    for kind, magic in MAGIC.items():
        if head.startswith(magic):
            return kind
    if len(head) == _BLOCK and (_header(head) is not None or not any(head)):
        return "tar"
    found = (
        "a pointer of Git LFS, not the file itself"
        if head.startswith(b"version https://git-lfs")
        else repr(head[:12])
    )
    raise ArchiveError(f"{path.name} is no zip or tar archive, it begins with {found}; download it again")


def tar_stream(path: Path, kind: str, limits: ArchiveLimits) -> Any:
    """Open the tar inside a file, decompressed as it is read."""
    if kind == "tar":
        return path.open("rb")
    return UnpackedStream(path, kind, max_bytes=limits.total_bytes, max_ratio=limits.ratio)


def _safe_name(name: str) -> str:
    """Normalise a name; empty if it could lead outside or cannot be a name.

    >>> _safe_name("./set_0//data/a.parquet"), _safe_name("a/../../b"), _safe_name("/etc/passwd")
    ('set_0/data/a.parquet', '', '')
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    outside = ".." in parts or name.startswith(("/", "\\")) or bool(re.match(r"[A-Za-z]:", name))
    unusable = any(unicodedata.category(character) in ("Cc", "Cs") for character in name)
    return "" if outside or unusable else "/".join(parts)


def _index_zip(path: Path, limits: ArchiveLimits) -> tuple[dict[str, Member], dict[str, str], str]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError) as error:
        raise ArchiveError(
            f"{path.name} cannot be read as a zip archive ({error}); its list of members is at the end, "
            "so a truncated one cannot be used: copy it again"
        ) from error
    members: dict[str, Member] = {}
    refused: dict[str, str] = {}
    total = 0
    for entry in entries:
        if entry.filename.endswith("/"):
            continue
        name, mode = _safe_name(entry.filename), entry.external_attr >> 28
        bomb = entry.file_size > _RATIO_SLACK + limits.ratio * max(entry.compress_size, 1)
        reason = _refusal(name, entry.file_size, limits)
        if not reason and mode not in (0, 8):  # the upper bits of a Unix mode: 8 is a regular file
            reason = "it is a link or a device"
        if not reason and entry.flag_bits & 1:
            reason = "it is encrypted"
        if not reason and bomb:
            reason = f"it expands to more than {limits.ratio:g} times its size"
        if reason:
            refused[name or repr(entry.filename)] = reason
            continue
        total += entry.file_size
        members[name] = Member(entry.file_size, key=entry.filename)
    if total > min(limits.total_bytes, _RATIO_SLACK + limits.ratio * path.stat().st_size):
        raise ArchiveBombError(
            f"{path.name} expands to {total} bytes, more than {limits.ratio:g} times its size or "
            f"{limits.total_bytes} bytes; if it is trusted, raise the limit, else delete it"
        )
    if len(entries) > limits.members:
        raise ArchiveError(f"{path.name} has {len(entries)} members, expected at most {limits.members}")
    return members, refused, ""


def _refusal(name: str, size: int, limits: ArchiveLimits) -> str:
    if not name:
        return "its path leads outside the archive or is no name"
    if size > limits.member_bytes:
        return f"it has {size} bytes, expected at most {limits.member_bytes}"
    return ""


def _header(block: bytes) -> tarfile.TarInfo | None:
    """Parse a header block; None if its checksum is wrong or it is none."""
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return None


class _TarIndexer:
    """Walks over the headers of a tar stream.

    The standard library's reader takes a damaged header for the end and reads attributes of any size into memory, so it
    parses single headers only.
    """

    def __init__(self, stream: Any, limits: ArchiveLimits, path: Path, first: int) -> None:
        self._stream = stream
        self._first = first
        self._limits = limits
        self._path = path
        self._members: dict[str, Member] = {}
        self._refused: dict[str, str] = {}

    def run(self) -> tuple[dict[str, Member], dict[str, str], str]:
        """Return members, refused ones and the damage."""
        try:
            damage = self._walk()
            if not (damage or self._first) and isinstance(self._stream, UnpackedStream):
                while self._stream.read(_COPY_BYTES):  # so that the checksum at the end is compared
                    pass
        except ArchiveBombError:
            raise
        except ArchiveError as error:
            damage = str(error)
        return self._members, self._refused, damage

    def _walk(self) -> str:
        position, extra = 0, {}
        while not self._first or len(self._members) < self._first:
            self._stream.seek(position)
            block = self._stream.read(_BLOCK)
            if len(block) < _BLOCK:
                return f"it ends after {position + len(block)} bytes without its end mark; it is truncated"
            if not any(block):
                return ""
            info = _header(block)
            if info is None or info.size < 0:
                return f"the header at byte {position} is damaged"
            data, position = position + _BLOCK, position + _BLOCK + -(-info.size // _BLOCK) * _BLOCK
            if info.type in (b"L", b"K", b"x", b"X", b"g"):
                if info.size > _HEADER_BYTES:
                    return f"the header at byte {data - _BLOCK} claims a name of {info.size} bytes"
                extra |= _attributes(info.type, self._stream.read(info.size))
                continue
            if "size" in extra:
                size = int(extra["size"]) if extra["size"].isdigit() else -1
                if size < 0:
                    return f"the header at byte {data - _BLOCK} claims the size {extra['size']!r}"
                info.size, position = size, data + -(-size // _BLOCK) * _BLOCK
            if not self._reaches(data + info.size):
                return f"it ends inside {extra.get('path', info.name)!r}; it is truncated"
            self._add(info, data, extra)
            if len(self._members) + len(self._refused) > self._limits.members:
                raise ArchiveBombError(
                    f"{self._path.name} expands to more than {self._limits.members} members"
                )
            extra = {}
        return ""

    def _add(self, info: tarfile.TarInfo, data: int, extra: Mapping[str, str]) -> None:
        if info.type == tarfile.DIRTYPE:
            return
        raw = extra.get("path", info.name)
        name = _safe_name(raw)
        reason = _refusal(name, info.size, self._limits)
        if not reason and any(key.startswith("GNU.sparse") for key in extra):
            reason = "it is stored sparsely"
        target = _safe_name(extra.get("linkpath", info.linkname))
        if not reason and info.type == tarfile.LNKTYPE and target in self._members:
            self._members[name] = self._members[target]  # a second name for the same content
            return
        if not reason and info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
            reason = "it is a link, a device or stored sparsely"
        if reason:
            self._refused[name or repr(raw)] = reason
        else:
            self._members[name] = Member(info.size, data)

    def _reaches(self, end: int) -> bool:
        if isinstance(self._stream, UnpackedStream):
            return self._stream.skip_to(end)
        return end <= self._path.stat().st_size


def _attributes(kind: bytes, content: bytes) -> dict[str, str]:
    """Parse what precedes a header: a long name (GNU), or lines ``<length> <key>=<value>`` (pax)."""
    if kind in (b"L", b"K"):
        text = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
        return {"path" if kind == b"L" else "linkpath": text}
    found = {}
    while match := re.match(rb"(\d{1,10}) ([^=\n]+)=", content):
        length = int(match[1])
        if not match.end() < length <= len(content):
            break
        if kind != b"g":  # attributes for all members could give every one of them the same name
            found[match[2].decode("utf-8", "replace")] = content[match.end() : length - 1].decode(
                "utf-8", "surrogateescape"
            )
        content = content[length:]
    return found
