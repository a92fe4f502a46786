"""Frames of mp4 files by number: each file is decoded once, front to back.

A frame's number is its place in the order of presentation, counted over the packets of the file without
decoding them. Seconds are not compared: they drift in concatenated files and lie in many headers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from robot_datasets.archives import ArchiveError
from robot_datasets.episode import EpisodeError
from robot_datasets.importers.file_tree import FileTree
from robot_datasets.importers.lerobot_depth import DepthCoding, depth_codes

if TYPE_CHECKING:
    import av
    import av.container
    import av.video.reformatter
    import av.video.stream

_SEEK_AHEAD = 64
"""Frames that are rather decoded and dropped than jumped over."""


@dataclass(frozen=True)
class VideoPlace:
    """Where an episode lies in a video file.

    Attributes:
        file: Path below the dataset.
        before: Steps of the episodes before it in the same file.
        total: Steps of all episodes of the file; 0 if the file belongs to one episode.
        start_s: Declared start [s], for files that hold more or fewer frames than their episodes have steps.
    """

    file: str
    before: int = 0
    total: int = 0
    start_s: float = 0.0


@dataclass(frozen=True)
class VideoHeader:
    """What a file says of itself: frame size [px], rate [Hz], codec name, bits per pixel and channel."""

    height: int
    width: int
    rate: float
    codec: str
    bits: int


def _converter() -> av.video.reformatter.VideoReformatter:
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()


class VideoReader:
    """Reads the videos of one camera, one file open at a time."""

    def __init__(self, tree: FileTree, depth: DepthCoding | None = None) -> None:
        """Begin with no file open.

        Args:
            tree: Where the files are.
            depth: How depth is coded, if the camera is one of depth.
        """
        self._tree = tree
        self._depth = depth
        self._name = ""
        self._source: str | BinaryIO = ""
        self._container: av.container.InputContainer | None = None
        self._times = np.empty(0, np.int64)
        self._decoded: Iterator[tuple[int, av.VideoFrame]] = iter(())
        self._position = 0
        # Kept, and with one thread: for small frames setting a converter up takes longer than converting.
        self._to_rgb: av.video.reformatter.VideoReformatter = _converter()

    def header(self, name: str) -> VideoHeader:
        """Describe a file without decoding it."""
        stream = self._open(name)
        rate, codec = float(stream.average_rate or 0), stream.codec_context
        bits = codec.format.components[0].bits if codec.format is not None else 8
        return VideoHeader(stream.height, stream.width, rate, codec.name, bits)

    def locate(self, place: VideoPlace, n_steps: int, numbers: np.ndarray | None) -> np.ndarray:
        """Return the frame number in the file of every step, (T,) int64.

        Args:
            place: The episode's place.
            n_steps: Steps T of the episode.
            numbers: The episode's own frame numbers (T,), if its table has them; they matter only when the
                file has frames besides the episode's.

        Raises:
            EpisodeError: The file is damaged or has too few frames.
        """
        stream = self._open(place.file)
        n_frames = len(self._times)
        start = place.before
        if place.total and n_frames != place.total:  # not back to back: go by the declared time
            base = stream.time_base or 1
            half = 0.5 / float(stream.average_rate or 1)
            start = int(np.searchsorted(self._times * float(base), place.start_s - half))
        wanted = start + np.arange(n_steps)
        exact = n_frames == (place.total or n_steps)
        if (
            not exact
            and numbers is not None
            and len(numbers)
            and numbers[0] >= 0
            and np.all(np.diff(numbers) > 0)
        ):
            wanted = start + numbers
        if wanted[-1] >= n_frames:
            raise EpisodeError(
                f"{place.file} has {n_frames} frames, expected {wanted[-1] + 1} for {n_steps} steps; "
                "the video is incomplete, copy it again or leave the episode out"
            )
        return wanted

    def frames(self, name: str, wanted: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the frames of increasing numbers `wanted`: (H, W, 3) uint8 RGB, or (H, W, 1) uint16 depth [mm]."""
        from av.error import FFmpegError

        try:
            self._open(name)
            self._go_to(int(wanted[0]))
            for number in wanted.tolist():
                yield self._frame(name, number)
        except FFmpegError as error:
            self.close()
            raise EpisodeError(f"{name} does not decode ({error}); copy it again") from error

    def close(self) -> None:
        """Close the open file, if any."""
        if self._container is not None:
            self._container.close()
        if not isinstance(self._source, str):
            self._source.close()
        self._container, self._name, self._decoded, self._source = None, "", iter(()), ""

    def _frame(self, name: str, number: int) -> np.ndarray:
        for position, frame in self._decoded:
            self._position = position + 1
            if position == number and self._depth is not None:
                return self._depth.decode(depth_codes(frame))[..., None]
            if position == number:
                return self._to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
            if position > number:
                break
        raise EpisodeError(f"{name} lacks frame {number} of {len(self._times)}; it is damaged, copy it again")

    def _go_to(self, number: int) -> None:
        """Place the decoder before `number`: decode on if it is near, else jump to the key frame before it."""
        if self._position <= number <= self._position + _SEEK_AHEAD:
            return
        assert self._container is not None
        stream = self._container.streams.video[0]
        self._container.seek(int(self._times[number]), stream=stream, backward=True)
        self._decoded = self._decode()
        self._position = number

    def _decode(self) -> Iterator[tuple[int, av.VideoFrame]]:
        assert self._container is not None
        for frame in self._container.decode(self._container.streams.video[0]):
            if frame.pts is not None:
                yield int(np.searchsorted(self._times, frame.pts)), frame

    def _open(self, name: str) -> av.video.stream.VideoStream:
        import av
        from av.error import FFmpegError

        if self._container is not None and self._name == name:
            return self._container.streams.video[0]
        self.close()
        try:
            self._source = self._tree.source(name)
            container = av.open(self._source, "r")
        except (FFmpegError, OSError, ArchiveError) as error:
            raise EpisodeError(f"{name} cannot be opened as a video ({error}); copy it again") from error
        self._container, self._name = container, name
        if not container.streams.video or container.streams.video[0].codec_context is None:
            self.close()
            raise EpisodeError(
                f"{name} has no video that can be decoded; expected an mp4 of frames, copy it again"
            )
        stream = container.streams.video[0]
        try:
            times = [p.pts for p in container.demux(stream) if p.pts is not None and not p.is_discard]
            if times:
                container.seek(min(times), stream=stream, backward=True)
        except FFmpegError as error:
            self.close()
            raise EpisodeError(f"{name} is damaged ({error}); copy it again") from error
        stream.codec_context.thread_count = 1
        self._times = np.sort(np.asarray(times, np.int64))
        self._decoded, self._position = self._decode(), 0
        return stream
