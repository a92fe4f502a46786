"""Frames in ROS 2 messages: compressed ones pass through as they are, raw ones are encoded."""

from __future__ import annotations

from typing import Any

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.image_codec import decode_frame, encode_frame, sniff_encoding
from robot_datasets.importers.rosbag2_storage import BagError

COMPRESSED_TYPE = "sensor_msgs/msg/CompressedImage"
RAW_TYPE = "sensor_msgs/msg/Image"

_COLOUR = {
    "rgb8": (0, 1, 2),
    "bgr8": (2, 1, 0),
    "rgba8": (0, 1, 2),
    "bgra8": (2, 1, 0),
    "mono8": (0, 0, 0),
} | {
    "8UC1": (0, 0, 0),
    "8UC3": (2, 1, 0),
}
"""Encoding -> which channels of a pixel are red, green and blue; OpenCV's 8UC3 is BGR by convention."""

COLOUR_ENCODINGS = tuple(_COLOUR)
"""Raw encodings that are read as colour."""

_CHANNELS = {"rgb8": 3, "bgr8": 3, "8UC3": 3, "rgba8": 4, "bgra8": 4, "mono8": 1, "8UC1": 1}
_DEPTH = {"16UC1": np.dtype(np.uint16), "mono16": np.dtype(np.uint16), "32FC1": np.dtype(np.float32)}
_COMPRESSED_DEPTH = "compressedDepth"
_COMPRESSED_DEPTH_HEADER = 12
_MM_PER_M = 1000.0


def frame_of(message: Any, kind: str, topic: str, *, depth: bool, encoding: str) -> bytes:
    """Return the encoded frame in a message.

    Args:
        message: A decoded `COMPRESSED_TYPE` or `RAW_TYPE` message.
        kind: Which of the two.
        topic: For errors.
        depth: Depth is wanted, in mm, instead of colour.
        encoding: What raw colour is encoded to; depth becomes PNG.

    Raises:
        EpisodeError: The message holds another kind of image, or a damaged one.
    """
    try:
        if kind == COMPRESSED_TYPE:
            return _compressed(message, topic, depth)
        pixels = _depth_pixels(message, topic) if depth else colour_pixels(message, topic)
        return encode_frame(pixels, "png" if depth else encoding)
    except EpisodeError:
        raise
    except DatasetError as error:
        raise BagError(f"{topic}: {error}") from error
    except (AttributeError, TypeError, ValueError, OverflowError) as error:
        raise BagError(
            f"{topic}: the bag defines {kind} with other fields than ROS 2 ({error}); "
            "the file is damaged, copy it again"
        ) from error


def check_type(kind: str, topic: str) -> None:
    """Raise `BagError`, which is about one bag, unless messages of a type hold frames."""
    if kind not in (COMPRESSED_TYPE, RAW_TYPE):
        raise BagError(f"{topic} is of type {kind}; a camera's topic holds {COMPRESSED_TYPE} or {RAW_TYPE}")


def _compressed(message: Any, topic: str, depth: bool) -> bytes:
    data = np.asarray(message.data, np.uint8).tobytes()
    if _COMPRESSED_DEPTH in message.format:
        if not message.format.startswith("16UC1"):
            raise BagError(
                f"{topic}: depth is compressed as '{message.format}'; only 16UC1 is kept without loss"
            )
        data = data[_COMPRESSED_DEPTH_HEADER:]
    if sniff_encoding(data) is None:
        raise BagError(
            f"{topic}: {len(data)} bytes of format '{message.format}' are neither JPEG nor PNG; record images as "
            "one of these"
        )
    if depth and decode_frame(data).dtype != np.uint16:
        raise BagError(f"{topic}: format '{message.format}' holds no 16-bit depth")
    return data


def colour_pixels(message: Any, topic: str) -> np.ndarray:
    """Return the pixels of a raw colour or grey image as (H, W, 3) uint8 RGB.

    Args:
        message: Of `RAW_TYPE`.
        topic: For errors.

    Raises:
        EpisodeError: It is no 8-bit colour or grey, or truncated.
    """
    order = _COLOUR.get(message.encoding)
    if order is None:
        raise BagError(f"{topic}: raw images of encoding '{message.encoding}'; expected {', '.join(_COLOUR)}")
    channels = _CHANNELS[message.encoding]
    rows = _rows(message, topic, np.dtype(np.uint8), channels)
    return np.ascontiguousarray(rows.reshape(message.height, message.width, channels)[..., order])


def _depth_pixels(message: Any, topic: str) -> np.ndarray:
    dtype = _DEPTH.get(message.encoding)
    if dtype is None:
        raise BagError(f"{topic}: depth of encoding '{message.encoding}'; expected {', '.join(_DEPTH)}")
    values = _rows(message, topic, dtype, 1).reshape(message.height, message.width, 1)
    if dtype.kind == "u":
        return values.astype(np.uint16)
    metres = np.where(np.isfinite(values), values, 0.0)  # no return is NaN or infinite; 0 mm means the same
    millimetres = np.rint(metres * _MM_PER_M)
    return np.where((millimetres >= 0) & (millimetres < 1 << 16), millimetres, 0).astype(np.uint16)


def _rows(message: Any, topic: str, dtype: np.dtype, channels: int) -> np.ndarray:
    """Return the pixels without the padding at the end of each row, in the machine's byte order."""
    data = np.asarray(message.data, np.uint8)
    width = message.width * channels * dtype.itemsize
    step = message.step or width
    if step < width or len(data) < step * message.height or not message.height or not message.width:
        raise BagError(
            f"{topic}: {len(data)} bytes for {message.height}x{message.width} px of {message.encoding} "
            f"with rows of {message.step}; the image is truncated"
        )
    rows = np.ascontiguousarray(data[: step * message.height].reshape(message.height, step)[:, :width])
    stored = dtype.newbyteorder(">" if message.is_bigendian else "<")
    return rows.view(stored).astype(dtype)
