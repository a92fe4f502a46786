"""Taking in the frames of one camera: check each, append it, and sample some for statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.errors import DatasetError, UserError, describe_unexpected
from robot_datasets.features import Feature
from robot_datasets.image_codec import JPEG_BGR, BytesLike, decode_frame, decode_raw, encode_frame, frame_size
from robot_datasets.statistics import PixelStatistics
from robot_datasets.store.checksum import Checksum
from robot_datasets.store.layout import StoreSpec

SAMPLED_FRAMES = 2
"""Frames per episode and camera that image statistics are taken from, evenly spaced."""

SAMPLED_SIDE = 150
"""Pixels along the shorter side that image statistics are taken from, or up to twice as many."""

_GATHERED_BYTES = 1 << 18


class ByteSink(Protocol):
    """Where encoded frames go, one after the other."""

    def write(self, data: bytes) -> None:
        """Append the bytes of some frames."""
        ...


@dataclass(frozen=True)
class AppendedFrames:
    """Byte length of each frame (T,) int64, and statistics of the sampled ones."""

    lengths: np.ndarray
    pixels: PixelStatistics


def append_frames(
    episode: Episode, name: str, spec: StoreSpec, n_steps: int, sink: ByteSink, digest: Checksum
) -> AppendedFrames:
    """Stream one camera's frames into `sink` and `digest`; `EpisodeError` if any is unusable."""
    who = f"episode '{episode.source_id}': {name}"
    feature, encoding = spec.features[name], spec.encodings[name]
    wanted = sampled_steps(n_steps)
    lengths: list[int] = []
    samples: list[np.ndarray] = []
    digest.update(name.encode() + b"\0")
    out = _Gathered(sink, digest)
    for step, frame in enumerate(_readable(episode.images[name], who)):
        if step >= n_steps:
            raise EpisodeError(f"{who} has more than {n_steps} frames; expected one per step")
        try:
            check_frame(frame, feature, encoding)
            if step in wanted:
                samples.append(sampled_pixels(decode_as(frame, feature, encoding)))
        except DatasetError as error:
            raise EpisodeError(f"{who}, step {step}: {error}") from error
        out.write(frame)
        lengths.append(len(frame))
    out.flush()
    if len(lengths) != n_steps:
        raise EpisodeError(f"{who} has {len(lengths)} frames for {n_steps} steps; expected one per step")
    array = np.asarray(lengths, dtype="<i8")
    digest.update(array.tobytes())
    return AppendedFrames(array, PixelStatistics.of(samples, dtype=feature.dtype, channels=feature.shape[2]))


class _Gathered:
    """Hands frames on some at a time: many small writes cost twice as much as few large ones."""

    def __init__(self, sink: ByteSink, digest: Checksum) -> None:
        self._sink, self._digest = sink, digest
        self._waiting: list[bytes] = []
        self._n_bytes = 0

    def write(self, frame: bytes) -> None:
        """Keep a frame until there are enough."""
        self._waiting.append(frame)
        self._n_bytes += len(frame)
        if self._n_bytes >= _GATHERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand on what waits."""
        data = b"".join(self._waiting)
        self._sink.write(data)
        self._digest.update(data)
        self._waiting.clear()
        self._n_bytes = 0


def _readable(frames: Iterable[bytes], who: str) -> Iterator[bytes]:
    """Pass frames on; whatever goes wrong while reading them is the episode's fault, not the writer's."""
    iterator = iter(frames)
    while True:
        try:
            frame = next(iterator)
        except StopIteration:
            return
        except EpisodeError:
            raise
        except UserError as error:
            raise EpisodeError(f"{who}: {error}") from error
        except OSError as error:
            raise EpisodeError(f"{who} cannot be read from the source: {error}") from error
        except Exception as error:  # a bug of one importer must not end a conversion of days
            raise EpisodeError(f"{who}: {describe_unexpected(error)}") from error
        yield frame


def sampled_steps(n_steps: int) -> set[int]:
    """Return up to `SAMPLED_FRAMES` steps, evenly spaced and away from the ends."""
    return {(2 * k + 1) * n_steps // (2 * SAMPLED_FRAMES) for k in range(SAMPLED_FRAMES)}


def sampled_pixels(pixels: np.ndarray) -> np.ndarray:
    """Return pixels (h, w, C) on a grid of a frame (H, W, C), as many as its statistics need."""
    stride = max(1, min(pixels.shape[:2]) // SAMPLED_SIDE)
    return pixels[::stride, ::stride].copy()  # lets go of the frame


def check_frame(frame: BytesLike, feature: Feature, encoding: str) -> None:
    """Raise `DatasetError` unless the header says what the feature says (the pixels are not decoded)."""
    if encoding == "raw":
        expected = int(np.prod(feature.shape)) * np.dtype(feature.dtype).itemsize
        if len(frame) != expected:
            raise DatasetError(f"raw frame has {len(frame)} bytes, expected {expected} for {feature.shape}")
        return
    size = frame_size(frame)
    if size != feature.shape[:2] and not _fits(size, feature):
        raise DatasetError(f"frame is {size[0]}x{size[1]} px, expected {feature.shape[0]}x{feature.shape[1]}")


def _fits(size: tuple[int, int], feature: Feature) -> bool:
    """Whether a size is that of a feature, whose zeros fit any."""
    return all(want in (0, have) for want, have in zip(feature.shape[:2], size, strict=True))


def decode_as(
    frame: BytesLike, feature: Feature, encoding: str, *, out: np.ndarray | None = None
) -> np.ndarray:
    """Decode to (H, W, C) of the feature's type, RGB; `DatasetError` if the pixels are of another kind."""
    if encoding == "raw":
        return decode_raw(frame, feature.dtype, feature.shape, out=out)
    pixels = decode_frame(frame, out=out, swapped=encoding == JPEG_BGR)
    if (pixels.dtype, pixels.shape[2]) != (np.dtype(feature.dtype), feature.shape[2]):
        raise DatasetError(
            f"frame decodes to {pixels.dtype} with {pixels.shape[2]} channels, "
            f"expected {feature.dtype} with {feature.shape[2]}"
        )
    return pixels


def standard_frame(frame: BytesLike, feature: Feature, encoding: str) -> bytes:
    """Return bytes that any reader decodes to the right colours: the frame itself, or else a PNG of its pixels."""
    if encoding in ("raw", JPEG_BGR):
        return encode_frame(decode_as(frame, feature, encoding), "png")
    return bytes(frame)
