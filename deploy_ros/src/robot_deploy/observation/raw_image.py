"""Uncompressed frames on their way from a message to the policy's process: bytes as they came, with what they mean.

They are neither converted nor copied pixel by pixel where messages are received; who uses a frame unpacks it, by the
same code with which a recording is converted.
"""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.image_codec import decode_frame
from robot_datasets.importers.rosbag2_images import COLOUR_ENCODINGS, colour_pixels

_MAGIC = b"\x00rawimg1"  # no JPEG and no PNG begins like this
_HEAD = struct.Struct("<8sIIIBB")


def pack_raw(message: Any) -> bytes:
    """Return the frame of a ``sensor_msgs/Image`` as bytes.

    Raises:
        DatasetError: Its encoding is no 8-bit colour or grey.
    """
    if message.encoding not in COLOUR_ENCODINGS:
        raise DatasetError(
            f"raw images of encoding '{message.encoding}'; expected {', '.join(COLOUR_ENCODINGS)}"
        )
    kind = COLOUR_ENCODINGS.index(message.encoding)
    head = _HEAD.pack(_MAGIC, message.height, message.width, message.step, kind, bool(message.is_bigendian))
    return head + message.data.tobytes()


def is_raw(frame: bytes) -> bool:
    """Whether bytes were made by `pack_raw`."""
    return frame[: len(_MAGIC)] == _MAGIC


def frame_pixels(frame: bytes) -> np.ndarray:
    """Return a frame, packed, JPEG or PNG, as (H, W, 3) uint8 RGB.

    Raises:
        DatasetError: It is damaged or truncated.
    """
    if not is_raw(frame):
        return decode_frame(frame)
    if len(frame) < _HEAD.size:
        raise DatasetError(f"a raw frame of {len(frame)} bytes ends inside its head")
    _, height, width, step, kind, bigendian = _HEAD.unpack_from(frame)
    if kind >= len(COLOUR_ENCODINGS):
        raise DatasetError(f"a raw frame of encoding number {kind}; there are {len(COLOUR_ENCODINGS)}")
    data = np.frombuffer(frame, np.uint8, offset=_HEAD.size)
    message = SimpleNamespace(
        height=height,
        width=width,
        step=step,
        encoding=COLOUR_ENCODINGS[kind],
        is_bigendian=bigendian,
        data=data,
    )
    return colour_pixels(message, "image")
