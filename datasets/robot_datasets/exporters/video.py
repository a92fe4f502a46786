"""Encoding frames into an mp4 that LeRobot reads: constant rate, a key frame every other frame; colour or depth."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.importers.lerobot_depth import DepthCoding

if TYPE_CHECKING:
    import av
    import av.container
    import av.video.stream

KEY_FRAME_EVERY = 2
"""Random access decodes at most so many frames."""
PIXEL_FORMAT = "yuv420p"
CODECS = {"h264": ("libx264", "18"), "av1": ("libsvtav1", "30")}
"""Codec -> encoder and default quality (constant rate factor; lower is better and larger)."""
DEPTH_CODEC, DEPTH_PIXEL_FORMAT = "hevc", "gray12le"
"""How LeRobot 0.6 keeps depth: lossless HEVC of 12-bit codes."""


class VideoWriter:
    """One mp4 file, written frame by frame."""

    def __init__(self, path: Path, *, fps: float, size: tuple[int, int], codec: str, crf: str) -> None:
        """Start a file.

        Args:
            path: The file.
            fps: Frames per second.
            size: Height and width [px], both even.
            codec: One of `CODECS`.
            crf: Quality; empty for the codec's default.
        """
        encoder, quality = CODECS[codec]
        speed = {"preset": "12"} if codec == "av1" else {"preset": "veryfast", "bf": "0"}
        self._open(path, fps, size, encoder, PIXEL_FORMAT, {"crf": crf or quality, **speed})

    def _open(
        self,
        path: Path,
        fps: float,
        size: tuple[int, int],
        encoder: str,
        pixel_format: str,
        options: dict[str, str],
    ) -> None:
        import av

        path.parent.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("SVT_LOG", "1")  # else the AV1 encoder tells its settings on stderr
        rate = Fraction(fps).limit_denominator(1001)
        self._container: av.container.OutputContainer = av.open(str(path), "w", format="mp4")
        stream = self._container.add_stream(
            encoder, rate=rate, options={"g": str(KEY_FRAME_EVERY), **options}
        )
        self._stream = cast("av.video.stream.VideoStream", stream)
        self._stream.height, self._stream.width = size
        self._stream.pix_fmt = pixel_format
        self._stream.thread_count = 1  # several threads give other bytes once in some sixty runs
        self._rate = rate
        self.n_frames = 0
        self.n_bytes = 0

    def add(self, frame: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8 RGB."""
        picture = self._picture(frame)
        picture.pts, picture.time_base = self.n_frames, 1 / self._rate
        self._mux(picture)
        self.n_frames += 1

    def close(self) -> None:
        """Write what the encoder still holds and finish the file."""
        if self.n_frames:
            self._mux(None)
        self._container.close()

    def _picture(self, frame: np.ndarray) -> av.VideoFrame:
        import av

        return av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")

    def _mux(self, picture: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(picture):
            self.n_bytes += packet.size
            self._container.mux(packet)


class DepthVideoWriter(VideoWriter):
    """One mp4 file of depth, as LeRobot 0.6 codes it; the video is lossless, the coding is not."""

    def __init__(self, path: Path, *, fps: float, size: tuple[int, int], coding: DepthCoding) -> None:
        """Start a file.

        Args:
            path: The file.
            fps: Frames per second.
            size: Height and width [px].
            coding: From millimetres to codes.
        """
        self._coding = coding
        # one pool of one thread: x265 takes its own number, whatever the stream says
        params = "lossless=1:log-level=none:pools=1:frame-threads=1"
        self._open(path, fps, size, "libx265", DEPTH_PIXEL_FORMAT, {"x265-params": params, "preset": "fast"})

    def _picture(self, frame: np.ndarray) -> av.VideoFrame:
        """Turn (H, W, 1) uint16 depth [mm] into a picture of codes."""
        import av

        codes = self._coding.encode(frame[..., 0])
        picture = av.VideoFrame(codes.shape[1], codes.shape[0], DEPTH_PIXEL_FORMAT)
        rows = np.zeros((codes.shape[0], picture.planes[0].line_size // 2), np.uint16)
        rows[:, : codes.shape[1]] = codes
        picture.planes[0].update(rows.tobytes())
        return picture


def check_quality(crf: str) -> None:
    """Raise `DatasetError` unless `crf` is empty or a number that the encoders take."""
    if crf and not (crf.isdigit() and int(crf) <= 51):
        raise DatasetError(f"option crf: got '{crf}', expected a whole number 0..51, lower is better")
