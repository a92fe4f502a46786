"""Frames of LeRobot's image columns, in all the ways they are written, as frames that a store takes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from robot_datasets.archives import ArchiveError
from robot_datasets.episode import EpisodeError
from robot_datasets.image_codec import encode_frame, sniff_encoding
from robot_datasets.importers.file_tree import FileTree

_PNG_KIND = slice(24, 26)
_PNG_RGB = b"\x08\x02"  # bits per channel, colour type
_MM_PER_M = 1000.0
_UINT16_MAX = 65535


def frame_bytes(value: Any, tree: FileTree, who: str) -> bytes:
    """Return the encoded bytes of one entry: bytes, a path inside the dataset, a struct of both, or pixels.

    Raises:
        EpisodeError: It is empty, or the path is no file of the dataset.
    """
    path = value if isinstance(value, str) else ""
    if isinstance(value, dict):
        path, value = str(value.get("path") or ""), value.get("bytes")
    if isinstance(value, bytes) and value:
        return value
    if isinstance(value, list):
        return encode_frame(_pixels(value, who), "png")
    if not path:
        raise EpisodeError(f"{who} has an empty frame; expected an encoded image")
    try:
        return tree.read(path)
    except FileNotFoundError as error:
        raise EpisodeError(
            f"{who} refers to {path!r}, which is not a file of the dataset; copy it again"
        ) from error
    except (OSError, ArchiveError) as error:
        raise EpisodeError(f"{who}: {path!r} cannot be read ({error}); copy it again") from error


def _pixels(rows: list[Any], who: str) -> np.ndarray:
    """Turn nested lists into (H, W, 3) uint8; channels may come first."""
    try:
        array = np.asarray(rows)
    except ValueError as error:
        raise EpisodeError(f"{who} has rows of different lengths; expected an image") from error
    if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3:
        array = array.transpose(1, 2, 0)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    whole = array.dtype.kind in "iu" and array.size and array.min() >= 0 and array.max() <= 255
    if array.ndim != 3 or array.shape[2] != 3 or not whole:
        raise EpisodeError(
            f"{who} is {array.dtype} {array.shape}; expected pixels 0..255 of (height, width, 3)"
        )
    return array.astype(np.uint8)


def standard_frame(frame: bytes, depth_unit: str | None, who: str) -> bytes:
    """Return a frame as a store takes it, `colour_frame` if `depth_unit` is None, else `depth_frame`."""
    return colour_frame(frame, who) if depth_unit is None else depth_frame(frame, depth_unit, who)


def colour_frame(frame: bytes, who: str) -> bytes:
    """Pass JPEG and 8-bit RGB PNG through as they are; turn anything else that Pillow reads into such a PNG."""
    encoding = sniff_encoding(frame)
    if encoding == "jpeg" or (encoding == "png" and frame[_PNG_KIND] == _PNG_RGB):
        return frame
    return encode_frame(np.asarray(_opened(frame, who).convert("RGB")), "png")


def depth_frame(frame: bytes, unit: str, who: str) -> bytes:
    """Turn a depth image (16-bit PNG or TIFF, floats in a TIFF) into a 16-bit PNG in millimetres.

    Args:
        frame: The encoded image.
        unit: ``"mm"`` or ``"m"``; empty: metres if the pixels are floats, else millimetres, as in LeRobot.
        who: What to call it in errors.
    """
    image = _opened(frame, who)
    pixels = np.asarray(image)
    if pixels.ndim != 2 or pixels.dtype.kind not in "iuf":
        raise EpisodeError(
            f"{who} has a frame of mode {image.mode}; expected depth, one channel of 16 bits or floats"
        )
    in_metres = unit == "m" or (not unit and pixels.dtype.kind == "f")
    if sniff_encoding(frame) == "png" and pixels.dtype == np.uint16 and not in_metres:
        return frame
    return encode_frame(to_millimetres(pixels.astype(np.float64), _MM_PER_M if in_metres else 1.0), "png")


def to_millimetres(depth: np.ndarray, scale: float) -> np.ndarray:
    """Scale and round depth to uint16; what is no number is 0, which means unknown, and 65.535 m the largest value."""
    return np.rint(np.clip(np.nan_to_num(depth * scale, nan=0.0), 0, _UINT16_MAX)).astype(np.uint16)


def _opened(frame: bytes, who: str) -> Any:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(frame))
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise EpisodeError(f"{who} has a frame that is no image ({error}); copy it again") from error
    return image
