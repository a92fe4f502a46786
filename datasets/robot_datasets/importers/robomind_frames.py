"""Frames of RoboMIND files: encoded bytes pass through untouched, the few raw ones become PNG."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.image_codec import decode_frame, encode_frame, frame_size, sniff_encoding

_FRAMES_PER_READ = 32
_RAW_COLOUR = {720 * 1280 * 3: (720, 1280), 480 * 640 * 3: (480, 640)}
_RAW_DEPTH = {720 * 1280: (720, 1280), 480 * 640: (480, 640)}


def stream_frames(dataset: Any, n_steps: int, *, depth: bool, swap_raw: bool) -> Iterator[bytes]:
    """Yield the first `n_steps` frames of a vlen uint8 dataset, a few at a time.

    Args:
        dataset: h5py dataset (T,) of encoded frames.
        n_steps: Frames to read.
        depth: Depth (uint16 PNG, or raw uint8) instead of colour (JPEG, or raw).
        swap_raw: Raw colour frames are BGR.

    Raises:
        EpisodeError: A frame cannot be read or is neither encoded nor of a known raw size.
    """
    for start in range(0, n_steps, _FRAMES_PER_READ):
        stop = min(n_steps, start + _FRAMES_PER_READ)
        try:
            block = dataset[start:stop]
        except (OSError, RuntimeError) as error:  # h5py raises both on damaged files
            raise EpisodeError(f"{dataset.name} steps {start}..{stop} cannot be read: {error}") from error
        for offset, frame in enumerate(block):
            data = np.asarray(frame, dtype=np.uint8).tobytes()
            try:
                yield _depth(data) if depth else _colour(data, swap_raw)
            except DatasetError as error:
                raise EpisodeError(f"{dataset.name} step {start + offset}: {error}") from error


def measure_frame(dataset: Any, *, depth: bool, swap_raw: bool) -> tuple[int, int]:
    """Return (height, width) [px] of the first frame, decoded to make sure."""
    frame = next(stream_frames(dataset, 1, depth=depth, swap_raw=swap_raw))
    decode_frame(frame)
    return frame_size(frame)


def depth_is_metres(dataset: Any) -> bool:
    """Apply RoboMIND's own rule to the first frame: if nothing is above 100, it is not in millimetres."""
    if len(dataset) == 0:
        return False
    pixels = decode_frame(next(stream_frames(dataset, 1, depth=True, swap_raw=False)))
    return 0 < int(pixels.max()) <= 100


def _colour(data: bytes, swap_raw: bool) -> bytes:
    if sniff_encoding(data) is not None:
        return data
    size = _RAW_COLOUR.get(len(data))
    if size is None:
        raise DatasetError(f"{len(data)} bytes are neither JPEG nor a raw frame of {_sizes(_RAW_COLOUR)}")
    pixels = np.frombuffer(data, dtype=np.uint8).reshape(*size, 3)
    return encode_frame(pixels[..., ::-1] if swap_raw else pixels, "png")


def _depth(data: bytes) -> bytes:
    if sniff_encoding(data) == "png":
        return data
    size = _RAW_DEPTH.get(len(data))
    if size is None:
        raise DatasetError(f"{len(data)} bytes are neither PNG nor raw depth of {_sizes(_RAW_DEPTH)}")
    return encode_frame(np.frombuffer(data, dtype=np.uint8).reshape(*size, 1).astype(np.uint16), "png")


def _sizes(table: dict[int, tuple[int, int]]) -> str:
    return " or ".join(f"{h}x{w}" for h, w in table.values())
