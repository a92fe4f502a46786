"""Rules about camera frames: black, blank, repeated."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from robot_datasets.checks.context import EpisodeContext, longest_run
from robot_datasets.checks.finding import Finding
from robot_datasets.errors import DatasetError
from robot_datasets.features import IMAGE_PREFIX, STATE
from robot_datasets.store.frames import decode_as
from robot_datasets.store.images import ImageColumn

SAMPLED_FRAMES = 8
BLACK_LEVEL = 4.0
"""Mean grey level below which a frame is black, of 255."""
BLANK_DEVIATION = 1.0
FROZEN_SECONDS = 1.0
AT_WORK = 0.1
SEEN_MOVES = 0.02
"""Motion per step, in usual ranges, that a camera must show."""
REPEATED_STEPS = 0.3


def dark_frames(episode: EpisodeContext) -> Iterator[Finding]:
    """Colour frames that are black, or of one colour; a few frames of each episode are looked at."""
    for name, column in episode.images():
        if not name.startswith(IMAGE_PREFIX):
            continue
        steps = np.unique(np.linspace(0, episode.n_steps - 1, SAMPLED_FRAMES).astype(int))
        frames = [pixels for step in steps if (pixels := _pixels(column, episode.start + step)) is not None]
        black = sum(float(frame.mean()) < BLACK_LEVEL for frame in frames)
        blank = sum(float(frame.std()) < BLANK_DEVIATION for frame in frames) - black
        for code, count in (("black-frames", black), ("blank-frames", max(0, blank))):
            if count:
                yield Finding(
                    code=code,
                    severity="warning",
                    feature=name,
                    number=count / len(frames),
                    detail=f"{count} of {len(frames)} sampled frames are {code.partition('-')[0]}",
                    remedy="drop the episode, or the camera (robot-policies drop --feature)",
                )


def frozen_frames(episode: EpisodeContext) -> Iterator[Finding]:
    """A picture that stands still for a second or more while the robot moves."""
    reference = episode.parent.signals.get(STATE)
    if reference is None:
        return
    for name, same in _repeats(episode):
        first, end = longest_run(same)
        travel = episode.travel(reference, first, end + 1)
        if (end - first) / episode.fps >= FROZEN_SECONDS and travel > AT_WORK:
            yield Finding(
                code="frozen-frames",
                severity="warning",
                feature=name,
                number=(end - first) / episode.fps,
                detail=f"stands still for {(end - first) / episode.fps:.1f} s from step {first}, while "
                f"{reference.name} covers {travel:.0%} of its usual range",
                remedy="cut that part out (robot-policies trim), or drop the episode",
            )


def slow_camera(episode: EpisodeContext) -> Iterator[Finding]:
    """A camera that delivers fewer pictures than are stored."""
    reference = episode.parent.signals.get(STATE)
    if reference is None:
        return
    moving = episode.moves(reference, SEEN_MOVES)
    for name, same in _repeats(episode):
        first, end = longest_run(same)
        if moving.sum() < 20 or (end - first) / episode.fps >= FROZEN_SECONDS:
            continue
        share = float(same[moving].mean())
        if share > REPEATED_STEPS:
            yield Finding(
                code="slow-camera",
                severity="warning",
                feature=name,
                number=share,
                detail=f"repeats its last frame in {share:.0%} of the steps in which {reference.name} moves, as if it "
                f"ran at {episode.fps * (1 - share):.1f} of {episode.fps:g} Hz",
                remedy="convert at the rate of the camera",
            )


def _repeats(episode: EpisodeContext) -> Iterator[tuple[str, np.ndarray]]:
    """Image features, and whether each frame is equal to the one before, byte for byte, (T-1,)."""
    for name, column in episode.images():
        lengths = np.diff(column.offsets[episode.start : episode.end + 1])
        same = lengths[1:] == lengths[:-1]  # frames of other lengths differ; most of them need not be read
        for i in np.flatnonzero(same):
            same[i] = _digest(column, episode.start + i) == _digest(column, episode.start + i + 1)
        yield name, same


def _digest(column: ImageColumn, step: int) -> bytes:
    return hashlib.blake2b(column.encoded(step), digest_size=16).digest()


def _pixels(column: ImageColumn, step: int) -> np.ndarray | None:
    """Decode a frame; None if it is damaged, which reading the whole store reports."""
    try:
        return decode_as(column.encoded(step), column.feature, column.encoding)
    except DatasetError:
        return None
