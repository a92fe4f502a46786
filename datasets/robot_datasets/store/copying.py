"""Appending to files without a buffer in between: what was written is in the file, and nothing else ever is.

A buffered file that could not be written, because the disk is full, would try again when it is closed.
"""

from __future__ import annotations

import errno
import os
from io import FileIO
from pathlib import Path

_BLOCK_BYTES = 1 << 20
_NOT_HERE = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EPERM)


def open_at_end(path: Path) -> FileIO:
    """Open a file for writing behind what it holds; not with ``"a"``, into which the system copies no bytes."""
    file = FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666), "w")
    file.seek(0, os.SEEK_END)
    return file


def write_all(file: FileIO, data: bytes | memoryview) -> None:
    """Write all of `data`; `OSError` if the disk takes only part of it."""
    view = memoryview(data).cast("B")
    while len(view):
        view = view[file.write(view) :]


def write_all_at(file: FileIO, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset` of the file; `OSError` if the disk takes only part of it."""
    view = memoryview(data).cast("B")
    while len(view):
        written = os.pwrite(file.fileno(), view, offset)
        offset += written
        view = view[written:]


def append_file(source: Path, start: int, n_bytes: int, target: FileIO) -> None:
    """Append bytes [start, start + n_bytes) of a file to `target`.

    On a network file system `copy_file_range` copies on the server, on others that can it shares the blocks.

    Raises:
        OSError: Reading or writing failed, or the file is shorter than promised.
    """
    with FileIO(source) as file:
        done = _in_kernel(file.fileno(), start, n_bytes, target.fileno())
        file.seek(start + done)
        while done < n_bytes:
            block = file.read(min(_BLOCK_BYTES, n_bytes - done))
            if not block:
                promised = f"{start + n_bytes} were promised"
                raise OSError(errno.EIO, f"{source} ends after {start + done} bytes, {promised}")
            write_all(target, block)
            done += len(block)


def _in_kernel(source: int, start: int, n_bytes: int, target: int) -> int:
    """Copy as much as the system does by itself, and return how much."""
    done = 0
    if not hasattr(os, "copy_file_range"):
        return done
    while done < n_bytes:
        try:
            copied = os.copy_file_range(source, target, n_bytes - done, start + done)
        except OSError as error:
            if error.errno in _NOT_HERE and not done:
                return 0
            raise
        if copied == 0:
            return done
        done += copied
    return done
