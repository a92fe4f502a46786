"""Encoded frames: what they are, how large, and how to turn them into pixels and back.

JPEG goes through libjpeg-turbo (simplejpeg). PNG of 8-bit colour is decoded by libspng (pyspng), which takes a bit more
than half of the time of Pillow, which does the rest. All are imported on first use.
Colour images are RGB uint8 (H, W, 3); depth images are uint16 (H, W, 1).
"""

from __future__ import annotations

import io
import zlib
from typing import TypeAlias

import numpy as np

from robot_datasets.errors import DatasetError, unknown_name

BytesLike: TypeAlias = bytes | bytearray | memoryview
ENCODINGS = ("jpeg", "png", "raw")
"""What frames can be encoded to."""

JPEG_BGR = "jpeg_bgr"
"""JPEG or PNG frames whose red and blue are exchanged, as some recorders write them; decoding puts them right."""

STORED_ENCODINGS = (*ENCODINGS, JPEG_BGR)
"""What frames of a store can be."""

_MAX_PIXELS = 1 << 26
_START_OF_SCAN = 0xDA
_JPEG_MAGIC = b"\xff\xd8\xff"
_PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_RGB8 = b"\x08\x02"
"""Bits per sample and colour type of a PNG, at bytes 24 and 25: red, green and blue of 8 bits."""


def sniff_encoding(frame: BytesLike) -> str | None:
    """Return ``"jpeg"`` or ``"png"`` from the first bytes, or None if it is neither."""
    if frame[:3] == _JPEG_MAGIC:
        return "jpeg"
    return "png" if frame[:8] == _PNG_MAGIC else None


def frame_size(frame: BytesLike) -> tuple[int, int]:
    """Return (height, width) [px] of an encoded frame by reading its header only."""
    encoding = sniff_encoding(frame)
    if encoding == "jpeg":
        return _jpeg_size(frame)
    if encoding == "png":
        header = bytes(frame[16:24])
        if len(header) < 8:
            raise DatasetError(f"PNG frame of {len(frame)} bytes ends inside its header; copy it again")
        return _sane(int.from_bytes(header[4:8], "big"), int.from_bytes(header[:4], "big"))
    raise DatasetError(f"frame of {len(frame)} bytes is neither JPEG nor PNG; declare the encoding 'raw'")


def decode_frame(frame: BytesLike, *, out: np.ndarray | None = None, swapped: bool = False) -> np.ndarray:
    """Decode one JPEG or PNG frame to (H, W, C), uint8 RGB or uint16 depth.

    Args:
        frame: The encoded bytes.
        out: Optional C-contiguous (H, W, C) array to fill and return.
        swapped: Red and blue are exchanged in the frame; the result is RGB all the same.
    """
    encoding = sniff_encoding(frame)
    if encoding == "jpeg":
        return _decode_jpeg(frame, out, "BGR" if swapped else "RGB")
    if encoding == "png":
        frame_size(frame)
        pixels = _decode_png(frame)
        return _place(pixels[..., ::-1] if swapped and pixels.shape[2] == 3 else pixels, out)
    raise DatasetError(f"frame of {len(frame)} bytes is neither JPEG nor PNG; declare the encoding 'raw'")


def decode_raw(
    frame: BytesLike, dtype: str, shape: tuple[int, ...], *, out: np.ndarray | None = None
) -> np.ndarray:
    """View raw little-endian pixels as an array of `shape`, copied into `out` if given."""
    array = np.frombuffer(frame, dtype=np.dtype(dtype).newbyteorder("<"))
    if array.size != int(np.prod(shape)):
        raise DatasetError(f"raw frame has {array.size} values, expected {shape}; the frame is truncated")
    return _place(array.reshape(shape), out)


def encode_frame(image: np.ndarray, encoding: str, *, quality: int = 95) -> bytes:
    """Encode (H, W, 3) uint8 or (H, W[, 1]) uint16 pixels; the bytes depend on the pixels alone.

    Args:
        image: The pixels; colour is RGB.
        encoding: One of `ENCODINGS`; ``jpeg`` takes colour only and loses detail, the others do not.
        quality: JPEG quality, 1..100.
    """
    if (
        image.dtype.name not in ("uint8", "uint16")
        or not image.size
        or image.shape[2:] not in ((), (1,), (3,))
    ):
        raise DatasetError(
            f"an image has shape {image.shape} and type {image.dtype}; expected (height, width, 3) uint8 or "
            "(height, width, 1) uint16"
        )
    if encoding == "raw":
        return np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("<")).tobytes()
    if encoding == "png":
        return _encode_png(image)
    if encoding == "jpeg":
        import simplejpeg

        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise DatasetError(f"JPEG takes (H, W, 3) uint8, got {image.shape} {image.dtype}; use png")
        return simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality)
    raise DatasetError(unknown_name("image encoding", encoding, ENCODINGS))


_last_jpeg: tuple[bytes, tuple[int, int]] = (b"", (0, 0))
"""A JPEG header and the size it tells: a camera repeats it with every frame, and comparing is faster than parsing."""


def _jpeg_size(frame: BytesLike) -> tuple[int, int]:
    global _last_jpeg
    header, size = _last_jpeg  # taken together: another thread may replace them
    if header and bytes(frame[: len(header)]) == header:
        return size
    import simplejpeg

    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(frame, strict=False)
    except (ValueError, KeyError) as error:  # KeyError: the header ends too early
        raise DatasetError(
            f"JPEG header is unreadable ({error}); the frame is truncated or damaged, copy it again"
        ) from error
    size = _sane(int(height), int(width))
    _last_jpeg = (_jpeg_header(frame), size)
    return size


def _jpeg_header(frame: BytesLike) -> bytes:
    """Return a JPEG up to its first scan, which is all that its size is read from; empty if it cannot be told."""
    place = 2
    while place + 4 <= len(frame) and frame[place] == 0xFF:
        end = place + 2 + int.from_bytes(frame[place + 2 : place + 4], "big")
        if frame[place + 1] == _START_OF_SCAN:
            return bytes(frame[:end]) if end <= len(frame) else b""
        place = end
    return b""


def _sane(height: int, width: int) -> tuple[int, int]:
    """Return the size, or raise `DatasetError` before anything of it is allocated."""
    if not 0 < height * width <= _MAX_PIXELS:
        raise DatasetError(
            f"frame claims {height}x{width} px, expected at most {_MAX_PIXELS} pixels; it is damaged, copy it again"
        )
    return height, width


def _decode_jpeg(frame: BytesLike, out: np.ndarray | None, order: str) -> np.ndarray:
    import simplejpeg

    try:
        if out is None:
            frame_size(frame)
            return simplejpeg.decode_jpeg(frame, colorspace=order)
        size = frame_size(frame)
        if (*size, 3) != out.shape:
            raise DatasetError(
                f"frame is {size[0]}x{size[1]}x3, expected {out.shape}; sizes vary in this feature"
            )
        simplejpeg.decode_jpeg(frame, colorspace=order, buffer=out)
        return out
    except (ValueError, KeyError) as error:  # KeyError: the header ends too early
        raise DatasetError(
            f"JPEG frame of {len(frame)} bytes does not decode: {error}; it is damaged, copy it again"
        ) from error


def _decode_png(frame: BytesLike) -> np.ndarray:
    try:
        return _decode_rgb8(frame) if frame[24:26] == _RGB8 else _decode_any_png(frame)
    except (OSError, SyntaxError, ValueError, RuntimeError) as error:
        raise DatasetError(
            f"PNG frame of {len(frame)} bytes does not decode: {error}; it is damaged, copy it again"
        ) from error


def _decode_rgb8(frame: BytesLike) -> np.ndarray:
    import pyspng

    _check_chunks(frame)
    return pyspng.load(bytes(frame))


def _check_chunks(frame: BytesLike) -> None:
    """Raise `ValueError` unless every chunk of a PNG fits its checksum, which libspng does not look at here."""
    place, kind, view = len(_PNG_MAGIC), b"", memoryview(frame)
    while kind != b"IEND":
        end = place + 8 + int.from_bytes(view[place : place + 4], "big")
        kind = bytes(view[place + 4 : place + 8])
        if len(view) < end + 4:
            raise ValueError("it ends early")
        if zlib.crc32(view[place + 4 : end]) != int.from_bytes(view[end : end + 4], "big"):
            raise ValueError(f"chunk {kind.decode('latin-1')!r} does not fit its checksum")
        place = end + 4


def _decode_any_png(frame: BytesLike) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(frame)) as image:
        image.load()
        if image.mode in ("I;16", "I;16B", "I"):
            return np.asarray(image).astype(np.uint16)[..., None]
        if image.mode == "L":
            return np.asarray(image)[..., None]
        return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _encode_png(image: np.ndarray) -> bytes:
    from PIL import Image

    pixels = image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()


def _place(array: np.ndarray, out: np.ndarray | None) -> np.ndarray:
    if out is None:
        return array
    if array.shape != out.shape or array.dtype != out.dtype:
        raise DatasetError(
            f"frame is {array.shape} {array.dtype}, expected {out.shape} {out.dtype}; sizes vary in this feature"
        )
    out[...] = array
    return out
