"""Videos of evaluated episodes, made after the evaluation by carrying out the recorded actions once more.

A task promises that a seed and the same actions give the same episode in any process, so nothing has to be
rendered while policies are timed, and only the episodes that are kept are rendered at all. The replay checks
the promise: its rewards must equal the recorded ones.

Frames go straight into the encoder, and the grid is decoded frame by frame: memory does not grow with the
length or the number of episodes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from robot_policies.configuration import ConfigError

if TYPE_CHECKING:
    from av.video.stream import VideoStream

    from robot_policies.evaluation.foresight import Watch
    from robot_policies.evaluation.results import EpisodeResult
    from robot_sim.task import Observation, TaskEnv

PASSED, FAILED, CANVAS, INK = (46, 160, 67), (218, 54, 51), (20, 22, 26), (230, 233, 238)
GRID_TILES = 25
GRID_WIDTH = 1280
HOLD_S = 1.0  # the grid stays on its end for a moment before it loops
TILE_SIZES = (120, 256)
BORDER, LABEL_HEIGHT, GAP = 4, 28, 6
REWARD_TOLERANCE = 1e-6


@dataclass(frozen=True, kw_only=True)
class VideoConfig:
    """Which episodes are filmed.

    Attributes:
        keep: ``none``, ``failures`` (episodes without success), ``first-n`` or ``all``.
        count: At most so many videos, for ``failures`` and ``first-n``.
    """

    keep: Literal["none", "failures", "first-n", "all"] = "first-n"
    count: int = 16

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(
                f"video.count: expected >= 1, got {self.count}; use video.keep=none for no videos"
            )

    def select(self, results: Sequence[EpisodeResult]) -> list[EpisodeResult]:
        """The episodes to film, in the order given. An episode without a single step has nothing to show."""
        shown = [r for r in results if r.steps > 0]
        if self.keep == "none":
            return []
        if self.keep == "all":
            return shown
        if self.keep == "failures":
            shown = [r for r in shown if not r.success]
        return shown[: self.count]


@dataclass(frozen=True, kw_only=True)
class Film:
    """An order to replay one episode and film it.

    Attributes:
        path: The mp4 to write.
        seed: The episode's seed.
        actions: (T, A) actions to carry out.
        rewards: (T,) rewards that the replay must return.
        watch: Observed frames to keep; None keeps none.
    """

    path: Path
    seed: int
    actions: np.ndarray
    rewards: np.ndarray
    watch: Watch | None = None


class VideoWriter:
    """Writes frames into an H.264 mp4 that browsers play; the file appears when the block ends well."""

    def __init__(self, path: Path, *, fps: float) -> None:
        self._path = path
        self._staging = path.with_name(f".{path.name}.tmp")
        self._container = av.open(str(self._staging), "w", format="mp4", options={"movflags": "+faststart"})
        self._rate = Fraction(fps).limit_denominator(1000)
        self._stream: VideoStream | None = None

    def __enter__(self) -> VideoWriter:
        return self

    def add(self, frame: np.ndarray) -> None:
        """Append a frame, (H, W, 3) uint8; all frames of a video have the same size."""
        if self._stream is None:
            self._stream = self._open_stream(*frame.shape[:2])
        # 4:2:0 needs even sizes: the last row or column is repeated.
        pad = ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0))
        even = np.pad(frame, pad, mode="edge") if frame.shape[0] % 2 or frame.shape[1] % 2 else frame
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        self._container.mux(self._stream.encode(picture))

    def _open_stream(self, height: int, width: int) -> VideoStream:
        stream = self._container.add_stream(
            "libx264", rate=self._rate, options={"crf": "23", "preset": "veryfast"}
        )
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        return stream

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._stream is not None:
            self._container.mux(self._stream.encode(None))
        self._container.close()
        if kind is None:
            os.replace(self._staging, self._path)
        else:
            self._staging.unlink(missing_ok=True)


def film_episode(env: TaskEnv, film: Film) -> str:
    """Replay an episode in `env` and film it; return "" or how the replay differs from the record."""
    observation, _ = env.reset(seed=film.seed)
    rewards = []
    seen: dict[int, np.ndarray] = {}
    with VideoWriter(film.path, fps=env.task_spec.fps) as video:
        video.add(_frame(env))
        _watch(film, 0, observation, seen)
        for step, action in enumerate(film.actions, start=1):
            observation, reward, *_ = env.step(action)
            rewards.append(float(reward))
            video.add(_frame(env))
            _watch(film, step, observation, seen)
    if film.watch is not None:
        film.watch.save(seen)
    if np.allclose(rewards, film.rewards, rtol=REWARD_TOLERANCE, atol=REWARD_TOLERANCE):
        return ""
    step = int(np.argmax(~np.isclose(rewards, film.rewards, rtol=REWARD_TOLERANCE, atol=REWARD_TOLERANCE)))
    return (
        f"the replay differs from the evaluated episode from step {step + 1} on: reward "
        f"{rewards[step]:.6g} instead of {film.rewards[step]:.6g}; the task is not deterministic"
    )


def _watch(film: Film, step: int, observation: Observation, seen: dict[int, np.ndarray]) -> None:
    if film.watch is not None and step in film.watch.steps:
        seen[step] = np.array(observation[film.watch.camera])


def _frame(env: TaskEnv) -> np.ndarray:
    frame = env.render()
    if not isinstance(frame, np.ndarray) or frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise TypeError("render() must return an (H, W, 3) uint8 array")
    return frame


def read_frames(path: Path) -> Iterator[np.ndarray]:
    """Decode a video frame by frame, (H, W, 3) uint8 each."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One episode of a grid: its video and what is written under it."""

    path: Path
    label: str
    passed: bool


def write_grid(path: Path, tiles: Sequence[Tile], *, fps: float) -> None:
    """Write one video that plays up to `GRID_TILES` episodes side by side.

    Each has a green or red border and a label; an episode that ends early stays on its last frame, dimmed.
    """
    tiles = tiles[:GRID_TILES]
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    size = int(np.clip(GRID_WIDTH // columns - GAP, *TILE_SIZES)) // 2 * 2
    sources = [read_frames(tile.path) for tile in tiles]
    shown: list[Image.Image | None] = [None] * len(tiles)
    canvas: Image.Image | None = None
    with VideoWriter(path, fps=fps) as video:
        while True:
            running = [_advance(source) for source in sources]
            if all(frame is None for frame in running):
                break
            canvas = Image.new(
                "RGB", (columns * (size + GAP) + GAP, rows * (size + LABEL_HEIGHT + GAP) + GAP), CANVAS
            )
            for i, (tile, frame) in enumerate(zip(tiles, running, strict=True)):
                if frame is not None:
                    shown[i] = _draw_tile(tile, frame, size)
                corner = (
                    GAP + i % columns * (size + GAP),
                    GAP + i // columns * (size + LABEL_HEIGHT + GAP),
                )
                picture = shown[i]
                if picture is not None:
                    canvas.paste(picture if frame is not None else _dimmed(picture, size), corner)
            video.add(np.asarray(canvas))
        for _ in range(round(HOLD_S * fps) if canvas is not None else 0):
            video.add(np.asarray(canvas))


def _advance(source: Iterator[np.ndarray]) -> np.ndarray | None:
    return next(source, None)


def _draw_tile(tile: Tile, frame: np.ndarray, size: int) -> Image.Image:
    colour = PASSED if tile.passed else FAILED
    picture = Image.new("RGB", (size, size + LABEL_HEIGHT), CANVAS)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, size - 1, size - 1), fill=colour)
    inner = size - 2 * BORDER
    image = Image.fromarray(frame)
    scale = inner / max(image.size)
    image = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BILINEAR
    )
    draw.rectangle((BORDER, BORDER, size - BORDER - 1, size - BORDER - 1), fill=CANVAS)
    picture.paste(image, (BORDER + (inner - image.width) // 2, BORDER + (inner - image.height) // 2))
    font = label_font(17 if size >= 160 else 12)
    middle = size + LABEL_HEIGHT // 2
    mark = "\N{CHECK MARK}" if tile.passed else "\N{MULTIPLICATION X}"
    draw.text((4, middle), mark, fill=colour, font=font, anchor="lm")
    draw.text((24, middle), tile.label, fill=INK, font=font, anchor="lm")
    return picture


def _dimmed(picture: Image.Image, size: int) -> Image.Image:
    """The tile with its picture, but not its border and label, darkened: this episode is over."""
    result = picture.copy()
    box = (BORDER, BORDER, size - BORDER, size - BORDER)
    inner = picture.crop(box)
    result.paste(Image.blend(inner, Image.new("RGB", inner.size, CANVAS), 0.35), box)
    return result


def label_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, from the copy that matplotlib brings: the same labels on every machine."""
    import matplotlib as mpl

    path = Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size)
