"""Taking in one episode: check it, send its frames where they shall lie, and compute all that is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.episode import Episode, Segment
from robot_datasets.statistics import FeatureStats
from robot_datasets.store.checksum import new_checksum
from robot_datasets.store.frames import ByteSink, append_frames
from robot_datasets.store.intake import checked_columns, checked_segments
from robot_datasets.store.layout import StoreSpec, storable_text


@dataclass(frozen=True)
class EpisodeRecord:
    """What is kept of an episode besides its frames.

    Attributes:
        entry: Its journal line, but for the payload's sizes, which depend on where the frames come to lie.
        arrays: Its columns, frame lengths and statistics, by the keys of `robot_datasets.store.rows`.
    """

    entry: dict[str, Any]
    arrays: dict[tuple[str, str], np.ndarray]

    @property
    def n_steps(self) -> int:
        """Number of steps."""
        return self.entry["n_steps"]


def take_in(episode: Episode, spec: StoreSpec, sinks: Mapping[str, ByteSink]) -> EpisodeRecord:
    """Stream the frames of every camera into its sink and return the rest.

    Args:
        episode: Its images are consumed.
        spec: What the store holds.
        sinks: Where the bytes of each image feature go.

    Raises:
        EpisodeError: The episode does not fit the features, has non-finite values or damaged frames; the
            sinks may hold part of it then.
    """
    columns = checked_columns(episode, spec)
    n_steps = episode.n_steps
    segments = checked_segments(episode, n_steps)
    digest = new_checksum()
    arrays: dict[tuple[str, str], np.ndarray] = {}
    for name, column in columns.items():
        digest.update(name.encode() + b"\0" + column.tobytes())
        arrays["data", name] = column
        arrays["stats", name] = FeatureStats.of(column).to_array()
    for name in spec.image_features:
        frames = append_frames(episode, name, spec, n_steps, sinks[name], digest)
        arrays["length", name] = frames.lengths
        arrays["stats", name] = frames.pixels.table
        arrays["histogram", name] = frames.pixels.histogram
    entry = {
        "source_id": storable_text(episode.source_id),
        "n_steps": n_steps,
        "task": storable_text(episode.task),
        "success": None if episode.success is None else bool(episode.success),
        "split": episode.split,
        "segments": [_segment_row(s) for s in segments],
        "warnings": [
            *map(storable_text, dict.fromkeys(episode.warnings))
        ],  # last: reading the frames may have added some
        "checksum": digest.hexdigest(),
    }
    return EpisodeRecord(entry, arrays)


def left_out(source_id: str, reason: str) -> dict[str, Any]:
    """Return the journal line of an episode that was set aside."""
    return {"quarantine": storable_text(source_id), "reason": storable_text(reason)}


def _segment_row(segment: Segment) -> list[Any]:
    return [segment.start, segment.end, storable_text(segment.tag), storable_text(segment.text)]
