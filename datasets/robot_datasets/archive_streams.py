"""Compressed files as seekable streams of their content, with bounded memory and a limit on what they expand to.

Compressed data can only be read forward. To go back without beginning anew, a gzip stream keeps copies of the
decompressor's state along the way (some 50 KB each); the other formats keep a few readers at different places.
"""

from __future__ import annotations

import bz2
import io
import lzma
import zlib
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from robot_datasets.errors import DatasetError

MAGIC = {"gz": b"\x1f\x8b", "bz2": b"BZh", "xz": b"\xfd7zXZ\x00", "zst": b"\x28\xb5\x2f\xfd"}
"""Kind of compression -> first bytes of the file."""

_INPUT_BYTES = 1 << 16
_STEP_BYTES = 1 << 20
_CHECKPOINT_EVERY = 32 << 20
_MAX_CHECKPOINTS = 256
_RESTING_READERS = 8
_SLACK_BYTES = 64 << 20
"""Content up to this size is never called a bomb, however small the file."""
_XZ_MEMORY = 512 << 20
_NOWHERE = 1 << 62


class ArchiveError(DatasetError):
    """An archive is damaged, hostile, or of a kind that cannot be read."""


class ArchiveBombError(ArchiveError):
    """An archive expands beyond the limits."""


class _Reader(Protocol):
    """Reads the content forward."""

    consumed: int
    """Compressed bytes read so far."""

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes; empty at the end."""
        ...

    def copy(self) -> _Reader | None:
        """Return a reader at the same place, or None if the format has no such thing."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class _Gzip:
    """zlib's decompressor with the interface of lzma's and bz2's, and copies."""

    def __init__(self, inner: Any = None, pending: bytes = b"") -> None:
        self._inner = inner or zlib.decompressobj(wbits=31)
        self._pending = pending

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._pending

    def decompress(self, data: bytes, max_length: int) -> bytes:
        out = self._inner.decompress(self._pending + data, max_length)
        self._pending = self._inner.unconsumed_tail
        return out

    def copy(self) -> _Gzip:
        return _Gzip(self._inner.copy(), self._pending)


class _Pump:
    """Feeds a file to a decompressor of the standard library; several streams back to back count as one."""

    def __init__(self, path: Path, kind: str, decoder: Any = None, position: int = 0) -> None:
        self._path = path
        self._kind = kind
        self._decoder = decoder or self._new()
        self._file: BinaryIO | None = None
        self._left_over = b""
        self.consumed = position

    def read(self, size: int) -> bytes:
        while True:
            if self._decoder.eof and not self._next_stream():
                return b""
            data = b""
            if self._decoder.needs_input:
                data, self._left_over = self._left_over or self._input(), b""
                if not data:
                    raise ArchiveError("the compressed data ends too early; the file is truncated")
            before = self._decoder.copy() if self._kind == "gz" else None
            try:
                out = self._decoder.decompress(data, size)
            except (zlib.error, lzma.LZMAError, OSError, EOFError) as error:
                if before is None or size == 1:
                    raise ArchiveError(f"the compressed data is damaged ({error})") from error
                self._decoder, self._left_over, size = before, data, max(1, size // 32)  # get what is sound
                continue
            if out:
                return out

    def copy(self) -> _Pump | None:
        if self._kind != "gz" or self._left_over:
            return None
        return _Pump(self._path, self._kind, self._decoder.copy(), self.consumed)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _input(self) -> bytes:
        """Read on in the file, which is opened only now: a copy kept as a checkpoint takes no descriptor."""
        if self._file is None:
            self._file = self._path.open("rb")
            self._file.seek(self.consumed)
        data = self._file.read(_INPUT_BYTES)
        self.consumed += len(data)
        return data

    def _next_stream(self) -> bool:
        """Begin another stream if one follows; padding and whatever else is not one end the content."""
        data = self._decoder.unused_data or self._input()
        if not data.startswith(MAGIC[self._kind][:2]):
            return False
        self._decoder, self._left_over = self._new(), data
        return True

    def _new(self) -> Any:
        if self._kind == "gz":
            return _Gzip()
        return bz2.BZ2Decompressor() if self._kind == "bz2" else lzma.LZMADecompressor(memlimit=_XZ_MEMORY)


class _Zstandard:
    """Reads zstd through Arrow, which brings it along."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa

        self._errors = (pa.ArrowException, OSError)
        self._file = pa.OSFile(str(path))
        self._stream = pa.CompressedInputStream(self._file, "zstd")
        self.consumed = 0

    def read(self, size: int) -> bytes:
        try:
            out = self._stream.read(size)
        except self._errors as error:
            raise ArchiveError(f"the compressed data is damaged or ends too early ({error})") from error
        self.consumed = self._file.tell()
        return out

    def copy(self) -> None:
        return None

    def close(self) -> None:
        self._file.close()


class UnpackedStream(io.RawIOBase):
    """The content of a compressed file; seeking forward decompresses what lies between."""

    def __init__(self, path: Path, kind: str, *, max_bytes: int, max_ratio: float) -> None:
        """Open a file.

        Args:
            path: The file.
            kind: One of `MAGIC`.
            max_bytes: Content beyond this is an error [bytes].
            max_ratio: So is content this many times as large as the compressed bytes it came from.
        """
        self._path = path
        self._kind = kind
        self._max_bytes = max_bytes
        self._max_ratio = max_ratio
        self._wanted = 0
        self._at = 0
        self._reader: _Reader = self._new()
        self._buffer = b""
        self._checkpoints: dict[int, _Reader] = {}
        self._spacing = _CHECKPOINT_EVERY
        self._resting: dict[int, tuple[_Reader, bytes]] = {}

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the place in the content [bytes]."""
        return self._wanted

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the content, counted from its beginning or from here; costs nothing until read."""
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("the end of compressed content is not known")
        self._wanted = offset + (self._wanted if whence == io.SEEK_CUR else 0)
        return self._wanted

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes (-1: all that is left), fewer only at the end.

        Raises:
            ArchiveError: The file is damaged or truncated, or expands beyond the limits.
        """
        self._go_to(self._wanted)
        parts, missing = [], size
        while missing:
            part = self._take(_STEP_BYTES if missing < 0 else min(missing, _STEP_BYTES))
            if not part:
                break
            parts.append(part)
            missing -= len(part) if missing > 0 else 0
        self._wanted = self._at
        return b"".join(parts)

    def skip_to(self, position: int) -> bool:
        """Go to a place by decompressing up to it; False if the content ends before."""
        self._wanted = position
        self._go_to(position)
        return self._at == position

    def close(self) -> None:
        """Close all readers."""
        if not self.closed:
            for reader in (self._reader, *(reader for reader, _ in self._resting.values())):
                reader.close()
        super().close()

    def _take(self, size: int) -> bytes:
        """Return the next bytes of the content and note the way back."""
        if not self._buffer:
            try:
                self._buffer = self._reader.read(_STEP_BYTES)
            except ArchiveError:
                self._at = _NOWHERE
                raise
            end = self._at + len(self._buffer)
            self._check(end)
            if end >= self._spacing + max(self._checkpoints, default=0) and (copy := self._reader.copy()):
                self._checkpoints[end] = copy
                self._thin_out()
        part, self._buffer = self._buffer[:size], self._buffer[size:]
        self._at += len(part)
        return part

    def _check(self, n_bytes: int) -> None:
        too_many = n_bytes > self._max_bytes
        bomb = n_bytes > _SLACK_BYTES + self._max_ratio * max(self._reader.consumed, 1)
        if too_many or bomb:
            limit = f"{self._max_bytes} bytes" if too_many else f"{self._max_ratio:g} times its size"
            raise ArchiveBombError(
                f"{self._path.name} expands to more than {limit}; if it is trusted, raise the limit, else delete it"
            )

    def _thin_out(self) -> None:
        """Keep the number of checkpoints bounded: drop every other one and space new ones wider."""
        if len(self._checkpoints) > _MAX_CHECKPOINTS:
            self._spacing *= 2
            for place in sorted(self._checkpoints)[::2]:
                del self._checkpoints[place]

    def _go_to(self, position: int) -> None:
        if position != self._at:
            self._change_reader(position)
        while self._at < position:
            if not self._take(min(_STEP_BYTES, position - self._at)):
                return

    def _change_reader(self, position: int) -> None:
        """Continue with whichever reader is nearest before `position`; begin anew if there is none."""
        current = self._at if self._at <= position else -1
        resting = max((p for p in self._resting if p <= position), default=-1)
        checkpoint = max((p for p in self._checkpoints if p <= position), default=-1)
        nearest = max(current, resting, checkpoint)
        if current == nearest and current >= 0:
            return
        buffer = b""
        reader = self._checkpoints[checkpoint].copy() if nearest == checkpoint >= 0 else None
        if reader is None and nearest == resting >= 0:
            reader, buffer = self._resting.pop(resting)
        self._rest()
        if reader is None:
            reader, nearest = self._new(), 0
        self._reader, self._buffer, self._at = reader, buffer, nearest

    def _rest(self) -> None:
        """Put the current reader aside unless it is broken; forget the oldest one, and one at the same place."""
        if self._at == _NOWHERE:
            self._reader.close()
            return
        forgotten = self._resting.pop(self._at, None)
        if forgotten is None and len(self._resting) >= _RESTING_READERS:
            forgotten = self._resting.pop(next(iter(self._resting)))
        if forgotten is not None:
            forgotten[0].close()
        self._resting[self._at] = self._reader, self._buffer

    def _new(self) -> _Reader:
        return _Zstandard(self._path) if self._kind == "zst" else _Pump(self._path, self._kind)
