"""A known picture for camera streams: which colour is where, so that exchanged channels and shifted frames show."""

from __future__ import annotations

import io
from typing import Literal

import numpy as np

from robot_datasets.image_codec import encode_frame

APPLE = (210, 30, 40)
"""Colour of the left half: red."""
PLATE = (30, 60, 200)
"""Colour of the right half: blue."""
_TOLERANCE = 14.0


def scene(step: int, size: tuple[int, int] = (32, 48)) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB: a red half, a blue half, and a white bar that moves by one column a step."""
    height, width = size
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = APPLE, PLATE
    pixels[: height // 4, step % width] = 255
    return pixels


def scene_frame(
    step: int,
    size: tuple[int, int] = (32, 48),
    *,
    encoding: Literal["jpeg", "png", "raw"] = "jpeg",
    order: Literal["rgb", "bgr"] = "rgb",
) -> bytes:
    """Return the scene encoded; with order ``"bgr"`` red and blue are exchanged in the file."""
    pixels = scene(step, size)
    return encode_frame(np.ascontiguousarray(pixels if order == "rgb" else pixels[..., ::-1]), encoding)


def assert_scene(pixels: np.ndarray) -> None:
    """Raise `AssertionError` unless decoded RGB pixels (H, W, 3) are red on the left and blue on the right."""
    height, width = pixels.shape[:2]
    left = pixels[height // 2 :, : width // 2 - 4].reshape(-1, 3).mean(axis=0)
    right = pixels[height // 2 :, width // 2 + 4 :].reshape(-1, 3).mean(axis=0)
    assert np.abs(left - APPLE).max() < _TOLERANCE, f"left half is {left.round()}, expected {APPLE}"
    assert np.abs(right - PLATE).max() < _TOLERANCE, f"right half is {right.round()}, expected {PLATE}"


def depth_frame(step: int, size: tuple[int, int] = (32, 48), *, metres: bool = False) -> bytes:
    """Return 16-bit greyscale PNG: a ramp from 500 mm up that grows by 1 mm a step, or the same in whole metres."""
    from PIL import Image

    height, width = size
    ramp = 500 + step + np.arange(width, dtype=np.uint16) * 20
    pixels = np.repeat((ramp // 1000 if metres else ramp)[None], height, axis=0).astype(np.uint16)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
