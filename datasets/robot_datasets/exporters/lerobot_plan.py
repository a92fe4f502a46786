"""One export to LeRobot: where from, where to, which features how; what both versions write of an episode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from robot_datasets.exporters.lerobot_source import LeRobotSource
from robot_datasets.exporters.lerobot_statistics import LeRobotStatistics
from robot_datasets.exporters.lerobot_tables import episode_tables, schema
from robot_datasets.exporters.video import DepthVideoWriter, VideoWriter
from robot_datasets.features import DEPTH_PREFIX, Feature
from robot_datasets.importers.lerobot_depth import DepthCoding

if TYPE_CHECKING:
    import pyarrow.parquet as pq

CHUNK_SIZE = 1000
"""Files in a folder."""
_DECODED_AT_ONCE = 32


class ExportPlan:
    """One export: where from, where to, and which features how."""

    def __init__(
        self,
        store: LeRobotSource,
        folder: Path,
        options: Mapping[str, str],
        low_dim: Mapping[str, Feature],
        cameras: list[str],
    ) -> None:
        self.store = store
        self.folder = folder
        self.options = options
        self.low_dim = low_dim
        self.cameras = cameras
        self.videos = [camera for camera in cameras if self._is_video(camera)]
        self.in_table = [camera for camera in cameras if not self._is_video(camera)]
        self.fps: float = int(store.fps) if store.fps == int(store.fps) else store.fps
        self.statistics = LeRobotStatistics(store, [*low_dim, *cameras])
        self.schema = schema(low_dim, self.in_table)

    def _is_video(self, camera: str) -> bool:
        kind = "depth" if camera.startswith(DEPTH_PREFIX) else "images"
        return self.options[kind] == "video"

    def open_video(self, path: Path, camera: str) -> VideoWriter:
        """Start an mp4 of a camera."""
        height, width, _ = self.store.features[camera].shape
        if camera.startswith(DEPTH_PREFIX):
            return DepthVideoWriter(path, fps=self.store.fps, size=(height, width), coding=DepthCoding())
        codec, crf = self.options["codec"], self.options["crf"]
        return VideoWriter(path, fps=self.store.fps, size=(height, width), codec=codec, crf=crf)

    def write_rows(self, writer: pq.ParquetWriter, episode: int) -> None:
        """Append an episode's rows, a row group of its own (several if frames are in the table)."""
        for table in episode_tables(self.store, episode, self.low_dim, self.in_table, self.schema):
            writer.write_table(table)

    def frames(self, camera: str, episode: int) -> Iterator[np.ndarray]:
        """Yield an episode's frames, a few decoded at a time."""
        start, end = int(self.store.episode_starts[episode]), int(self.store.episode_ends[episode])
        for first in range(start, end, _DECODED_AT_ONCE):
            yield from self.store.images(camera).decode(np.arange(first, min(end, first + _DECODED_AT_ONCE)))
