"""Hostile archives: members that would leave the folder, links, bombs, members that are there twice; see `faults`."""

from __future__ import annotations

import io
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

_OUTSIDE = (
    "../../escaped.txt",
    "/tmp/escaped.txt",
    "set/../../escaped.txt",
    "..\\..\\escaped.txt",
    "C:\\escaped.txt",
)
_ZEROS = bytes(1 << 20)


def _members(path: Path) -> list[tuple[str, bytes]]:
    """Return name and content of all members, whatever the kind of archive."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return [(n, archive.read(n)) for n in archive.namelist() if not n.endswith("/")]
    with tarfile.open(path) as archive:
        files = [member for member in archive.getmembers() if member.isfile()]
        return [(m.name, stream.read()) for m in files if (stream := archive.extractfile(m)) is not None]


def _write(path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> None:
    """Write the archive anew; it stays as it was if its format cannot hold such members."""
    draft = path.with_name("draft")
    try:
        if path.suffix == ".zip":
            _write_zip(draft, members)
        else:
            _write_tar(draft, members, path.suffix)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _write_zip(path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]]) -> None:
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that is there twice is meant
        for name, data in members:
            info = zipfile.ZipInfo(name if isinstance(name, str) else name.name)
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w") as member:  # writestr would refuse an empty name
                member.write(data)


def _write_tar(path: Path, members: Iterable[tuple[str | tarfile.TarInfo, bytes]], suffix: str) -> None:
    with tarfile.open(path, "w:gz" if suffix == ".gz" else "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def _escaping(path: Path, random: Random) -> str | None:
    name = random.choice(_OUTSIDE)
    _write(path, [*_members(path), (name, b"escaped")])
    return f"has a member {name}"


def _renamed(path: Path, random: Random) -> str | None:
    members = _members(path)
    number = random.randrange(len(members))
    name = random.choice(["", ".", "a" * 5000, "set/\0meta", "set/\udcff", f"../{members[number][0]}"])
    try:
        _write(path, [(name, d) if i == number else (n, d) for i, (n, d) in enumerate(members)])
    except (ValueError, UnicodeError, OSError):
        return None
    return f"member {members[number][0]} is called {name[:40]!r}"


def _linked(path: Path, random: Random) -> str | None:
    members = _members(path)
    if path.suffix == ".zip":
        return None
    number = random.randrange(len(members))
    link = tarfile.TarInfo(members[number][0])
    link.type = random.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
    link.linkname = random.choice(["/etc/passwd", "../../../../etc/passwd", members[number][0]])
    _write(path, [(link, b"") if i == number else (n, d) for i, (n, d) in enumerate(members)])
    return f"member {link.name} is a link or device to {link.linkname}"


def _doubled(path: Path, random: Random) -> str | None:
    members = _members(path)
    name, data = random.choice(members)
    _write(path, [*members, (name, data[: len(data) // 2])])
    return f"member {name} is there twice"


def _removed(path: Path, random: Random) -> str | None:
    members = _members(path)
    gone = members.pop(random.randrange(len(members)))
    _write(path, members)
    return f"member {gone[0]} is missing"


def _bomb(path: Path, random: Random) -> str | None:
    """A member that unpacks to gigabytes of zeros, or says so."""
    if path.suffix != ".zip":
        return None
    members = _members(path)
    number = random.randrange(len(members))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for i, (name, data) in enumerate(members):
            if i != number:
                archive.writestr(name, data)
                continue
            with archive.open(name, "w", force_zip64=True) as member:
                for _ in range(64):
                    member.write(_ZEROS)
    return f"member {members[number][0]} unpacks to 64 MiB of zeros"


def _many(path: Path, random: Random) -> str | None:
    del random
    _write(path, [*_members(path), *((f"set/data/{i}", b"") for i in range(3000))])
    return "has 3000 empty members more"


def _nested(path: Path, random: Random) -> str | None:
    del random
    whole = path.read_bytes()
    _write(path, [(f"set/{path.name}", whole)])
    return "holds itself and nothing else"


ARCHIVE_FAULTS: dict[str, Callable[[Path, Random], str | None]] = {
    "escaping member": _escaping,
    "renamed member": _renamed,
    "link": _linked,
    "member twice": _doubled,
    "member missing": _removed,
    "bomb": _bomb,
    "many members": _many,
    "archive in archive": _nested,
}
"""Faults of an archive, by name."""
