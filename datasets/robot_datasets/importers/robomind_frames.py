"""Frames of RoboMIND files: encoded bytes pass through untouched; the few that cannot become PNG.

The rule of the colours (both releases): what the authors call "BGR" or "RGB" is the order of the array that
OpenCV's ``imdecode`` returns. A standards-true decoder returns the opposite order. So files documented as "BGR" are
true, and in those documented as "RGB" red and blue are exchanged. Raw pixels are in the documented order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.image_codec import JPEG_BGR, decode_frame, encode_frame, frame_size, sniff_encoding
from robot_datasets.importers.hdf5_vlen import open_byte_strings

_FRAMES_PER_READ = 4
_RAW_COLOUR = {720 * 1280 * 3: (720, 1280), 480 * 640 * 3: (480, 640)}
_RAW_DEPTH = {720 * 1280: (720, 1280), 480 * 640: (480, 640)}
_JPEG_END = b"\xff\xd9"
_METRES_LIMIT = 100
_DEPTH_SAMPLES = 4


@dataclass(frozen=True)
class ColourRule:
    """How the colour frames of one file become those of one feature.

    Attributes:
        file: What a standards-true decoder returns of the file's frames, ``"rgb"`` or ``"bgr"``.
        stored: The same of the feature's frames in the store.
        size: (height, width) [px] that every frame must have; zeros allow any.
    """

    file: str
    stored: str
    size: tuple[int, int] = (0, 0)

    @property
    def encoding(self) -> str:
        """Encoding of the feature in the store."""
        return "jpeg" if self.stored == "rgb" else JPEG_BGR


@dataclass(frozen=True)
class DepthRule:
    """How the depth frames of one file are read: in metres by the authors' rule, and of which size (0: any)."""

    metres: bool = False
    size: tuple[int, int] = (0, 0)


def stream_frames(dataset: Any, rows: np.ndarray, rule: ColourRule | DepthRule) -> Iterator[bytes]:
    """Yield frames of a dataset, a few at a time.

    Args:
        dataset: h5py dataset (T,) of encoded frames.
        rows: (K,) non-decreasing rows to read; a row may come again.
        rule: What to make of them.

    Raises:
        EpisodeError: A frame cannot be read, is neither encoded nor of a known raw size, ends early, or is
            of another size than the feature.
    """
    with open_byte_strings(dataset) as source:
        for first in range(0, len(rows), _FRAMES_PER_READ):
            wanted = rows[first : first + _FRAMES_PER_READ]
            start = int(wanted[0])
            block = source.read(start, int(wanted[-1]) + 1)
            for row in wanted:
                data = block[row - start]
                try:
                    frame = _depth(data, rule) if isinstance(rule, DepthRule) else _colour(data, rule)
                    _check_size(frame, rule.size)
                except DatasetError as error:
                    raise EpisodeError(f"{dataset.name} step {row}: {error}") from error
                yield frame


def measure_frame(dataset: Any, rule: ColourRule | DepthRule) -> tuple[int, int]:
    """Return (height, width) [px] of the first frame, decoded to make sure."""
    if not len(dataset):
        raise EpisodeError(f"{dataset.name} has no frames; expected one per step")
    height, width = _decoded(dataset, 0, rule).shape[:2]
    return height, width


def depth_is_metres(dataset: Any) -> bool:
    """Apply the authors' rule to a few frames: if nothing is above 100, it is not in millimetres."""
    n = len(dataset)
    rows = np.unique([(2 * k + 1) * n // (2 * _DEPTH_SAMPLES) for k in range(_DEPTH_SAMPLES)]) if n else []
    largest = max((int(_decoded(dataset, int(row), DepthRule()).max()) for row in rows), default=0)
    return 0 < largest <= _METRES_LIMIT


def moves(dataset: Any, rule: ColourRule) -> bool:
    """Whether the picture changes between the first and the middle frame, by more than a camera's noise."""
    first, middle = (_thumbnail(_decoded(dataset, row, rule)) for row in (0, len(dataset) // 2))
    return first.shape == middle.shape and bool(np.abs(first - middle).max() > 10)


def _decoded(dataset: Any, row: int, rule: ColourRule | DepthRule) -> np.ndarray:
    (frame,) = stream_frames(dataset, np.array([row]), rule)
    try:
        return decode_frame(frame)
    except DatasetError as error:
        raise EpisodeError(f"{dataset.name} step {row}: {error}") from error


def _thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Return means over blocks of 16 x 16 px, which noise hardly changes."""
    height, width = (max(1, n // 16) for n in pixels.shape[:2])
    block = pixels[: height * (pixels.shape[0] // height), : width * (pixels.shape[1] // width)].astype(
        np.float32
    )
    return block.reshape(height, pixels.shape[0] // height, width, pixels.shape[1] // width, -1).mean(
        axis=(1, 3)
    )


def _check_size(frame: bytes, size: tuple[int, int]) -> None:
    if not any(size):
        return
    found = frame_size(frame)
    if found != size:
        raise DatasetError(
            f"frame is {found[0]}x{found[1]} px, expected {size[0]}x{size[1]}; "
            "convert with --option frame_size=any to keep sizes that vary"
        )


def _colour(data: bytes, rule: ColourRule) -> bytes:
    encoding = sniff_encoding(data)
    if encoding is None:
        size = _RAW_COLOUR.get(len(data))
        if size is None:
            raise DatasetError(
                f"{len(data)} bytes are neither JPEG nor a raw frame of {_sizes(_RAW_COLOUR)}; copy the file again"
            )
        pixels = np.frombuffer(data, dtype=np.uint8).reshape(*size, 3)  # opposite to what a decoder returns
        return encode_frame(pixels[..., ::-1] if rule.file == rule.stored else pixels, "png")
    if encoding == "jpeg" and data[-2:] != _JPEG_END and not data.rstrip(b"\0").endswith(_JPEG_END):
        raise DatasetError(
            f"JPEG frame of {len(data)} bytes lacks its end; it is truncated, copy the file again"
        )
    if rule.file == rule.stored:
        return data
    return encode_frame(decode_frame(data)[..., ::-1], "png")


def _depth(data: bytes, rule: DepthRule) -> bytes:
    encoding = sniff_encoding(data)
    if encoding == "png" and data[24:26] == b"\x10\x00" and not rule.metres:  # 16 bit, grey
        return data
    if encoding is None:
        size = _RAW_DEPTH.get(len(data))
        if size is None:
            raise DatasetError(
                f"{len(data)} bytes are neither PNG nor raw depth of {_sizes(_RAW_DEPTH)}; copy the file again"
            )
        pixels = np.frombuffer(data, dtype=np.uint8).reshape(*size, 1)
    else:
        pixels = decode_frame(data)
    if encoding == "jpeg" or pixels.shape[2] != 1:
        raise DatasetError(
            f"depth frame is {encoding} of {pixels.shape[2]} channels; expected grey PNG or raw"
        )
    scale = 1000 if rule.metres else 1
    return encode_frame(np.minimum(pixels.astype(np.uint32) * scale, 65535).astype(np.uint16), "png")


def _sizes(table: dict[int, tuple[int, int]]) -> str:
    return " or ".join(f"{h}x{w}" for h, w in table.values())
