"""LeRobot datasets v2.1 and v3.0, written without the lerobot package."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

from robot_datasets.errors import DatasetError
from robot_datasets.exporters.base import Exporter
from robot_datasets.exporters.lerobot_plan import CHUNK_SIZE, ExportPlan
from robot_datasets.exporters.lerobot_shared import (
    DATA_FILE_MB,
    VIDEO_FILE_MB,
    EpisodeTable,
    SharedTables,
    SharedVideos,
)
from robot_datasets.exporters.lerobot_source import LeRobotSource
from robot_datasets.exporters.lerobot_statistics import flattened
from robot_datasets.exporters.lerobot_tables import DEFAULTS, episode_labels, tasks_table
from robot_datasets.exporters.video import (
    CODECS,
    DEPTH_CODEC,
    DEPTH_PIXEL_FORMAT,
    PIXEL_FORMAT,
    check_quality,
)
from robot_datasets.features import DEPTH_PREFIX, Feature
from robot_datasets.importers.base import Option
from robot_datasets.importers.lerobot_depth import DepthCoding
from robot_datasets.importers.lerobot_meta import SIDE_FILE

_DEPTH_UNITS = (("mm",), ("m",))


class _LeRobotExporter(Exporter):
    """What both versions share."""

    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "images",
            "video",
            "video loses detail; image keeps frames as they are, in the tables",
            ("video", "image"),
        ),
        Option(
            "depth",
            "image",
            "image keeps depth exactly, as 16-bit PNG in the tables; video is LeRobot 0.6's 12-bit coding (v3.0 only)",
            ("image", "video", "none"),
        ),
        Option("codec", "h264", "video codec; av1 is smaller and slower", tuple(CODECS)),
        Option("crf", "", "video quality, lower is better; empty = 18 for h264, 30 for av1"),
    )
    _version: ClassVar[str]

    def recognises(self, folder: Path) -> bool:
        """Whether there is a ``meta/info.json`` that tells a version."""
        try:
            return "codebase_version" in (folder / "meta" / "info.json").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            return False

    def check(self, store: LeRobotSource, options: Mapping[str, str]) -> list[str]:
        """Refuse frames of varying or odd size, where the format needs others; list what is left out."""
        check_quality(options["crf"])
        warnings = []
        for name, feature in store.features.items():
            if name in DEFAULTS:
                warnings.append(f"{name}: LeRobot keeps this name for itself; the column is left out")
            elif name.startswith(DEPTH_PREFIX):
                warnings += _check_depth(name, feature, options["depth"], self._version)
            elif name in store.spec.image_features:
                _check_size(name, feature, options["images"])
        if store.fps != int(store.fps):
            warnings.append(f"LeRobot expects a whole number of frames per second; {store.fps:g} is written")
        if store.warnings:
            warnings.append("the warnings of episodes are left out")
        return warnings

    def write(
        self,
        store: LeRobotSource,
        folder: Path,
        options: Mapping[str, str],
        progress: Callable[[int, int], None],
    ) -> None:
        """Write data, videos and metadata."""
        low_dim = {n: store.features[n] for n in store.spec.low_dim if n not in DEFAULTS}
        without = DEPTH_PREFIX if options["depth"] == "none" else " "
        cameras = [n for n in store.spec.image_features if not n.startswith(without)]
        (folder / "meta").mkdir()
        plan = ExportPlan(store, folder, options, low_dim, cameras)
        self._write_episodes(plan, progress)
        _write_json(folder / "meta" / "info.json", self._info(plan))
        features = {name: store.features[name].to_dict() for name in (*low_dim, *cameras)}
        _write_json(folder / SIDE_FILE, {"features": features})

    @abstractmethod
    def _write_episodes(self, plan: ExportPlan, progress: Callable[[int, int], None]) -> None:
        """Write everything but info.json."""

    @abstractmethod
    def _layout(self, plan: ExportPlan) -> dict[str, Any]:
        """Return the entries of info.json that are special to the version."""

    def _info(self, plan: ExportPlan) -> dict[str, Any]:
        store = plan.store
        features = {name: _feature_entry(feature) for name, feature in plan.low_dim.items()}
        features |= {name: _camera_entry(plan, name) for name in plan.cameras}
        features |= {name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in DEFAULTS.items()}
        return {
            "codebase_version": self._version,
            "robot_type": store.embodiment or None,
            "total_episodes": store.n_episodes,
            "total_frames": store.n_steps,
            "total_tasks": len(store.tasks),
            "chunks_size": CHUNK_SIZE,
            "fps": plan.fps,
            "splits": {"train": f"0:{store.n_episodes}"},
            **self._layout(plan),
            "features": features,
        }


class LeRobotV21(_LeRobotExporter):
    """LeRobot v2.1: one parquet file and one mp4 per camera for each episode."""

    name = "lerobot-v2.1"
    summary = "LeRobot dataset v2.1: a parquet file and an mp4 per camera for each episode"
    _version = "v2.1"
    _data = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    _video = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"

    def _write_episodes(self, plan: ExportPlan, progress: Callable[[int, int], None]) -> None:
        import pyarrow.parquet as pq

        store, meta = plan.store, plan.folder / "meta"
        _write_lines(meta / "tasks.jsonl", ({"task_index": i, "task": t} for i, t in enumerate(store.tasks)))
        labels = (episode_labels(store, e) for e in range(store.n_episodes))
        _write_lines(meta / "episodes.jsonl", labels)
        stats = ({"episode_index": e, "stats": _moments(plan, e)} for e in range(store.n_episodes))
        _write_lines(meta / "episodes_stats.jsonl", stats)
        for episode in range(store.n_episodes):
            place = {"episode_chunk": episode // CHUNK_SIZE, "episode_index": episode}
            path = plan.folder / self._data.format(**place)
            path.parent.mkdir(parents=True, exist_ok=True)
            with pq.ParquetWriter(path, plan.schema) as writer:
                plan.write_rows(writer, episode)
            for camera in plan.videos:
                video = plan.open_video(plan.folder / self._video.format(video_key=camera, **place), camera)
                for frame in plan.frames(camera, episode):
                    video.add(frame)
                video.close()
            progress(episode + 1, store.n_episodes)

    def _layout(self, plan: ExportPlan) -> dict[str, Any]:
        n_episodes = plan.store.n_episodes
        return {
            "total_videos": n_episodes * len(plan.videos),
            "total_chunks": -(-n_episodes // CHUNK_SIZE),
            "data_path": self._data,
            "video_path": self._video if plan.videos else None,
        }


class LeRobotV3(_LeRobotExporter):
    """LeRobot v3.0: episodes back to back in shared parquet and mp4 files."""

    name = "lerobot-v3"
    summary = "LeRobot dataset v3.0: many episodes to a parquet file and to an mp4 per camera"
    _version = "v3.0"
    _data = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
    _video = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

    def _write_episodes(self, plan: ExportPlan, progress: Callable[[int, int], None]) -> None:
        import pyarrow.parquet as pq

        store, meta = plan.store, plan.folder / "meta"
        pq.write_table(tasks_table(store.tasks), meta / "tasks.parquet")
        _write_json(meta / "stats.json", plan.statistics.of_all())
        with ExitStack() as stack:
            rows = SharedTables(plan, self._data)
            stack.callback(rows.close)
            videos = {camera: SharedVideos(plan, self._video, camera) for camera in plan.videos}
            for video in videos.values():
                stack.callback(video.close)
            episodes = EpisodeTable(meta / "episodes" / "chunk-000" / "file-000.parquet", plan)
            stack.callback(episodes.close)
            for episode in range(store.n_episodes):
                entry = episode_labels(store, episode) | rows.add(episode)
                for video in videos.values():
                    entry |= video.add(episode)
                entry |= {"meta/episodes/chunk_index": 0, "meta/episodes/file_index": 0}
                episodes.add(entry | flattened(plan.statistics.of_episode(episode)))
                progress(episode + 1, store.n_episodes)

    def _layout(self, plan: ExportPlan) -> dict[str, Any]:
        return {
            "data_files_size_in_mb": DATA_FILE_MB,
            "video_files_size_in_mb": VIDEO_FILE_MB,
            "data_path": self._data,
            "video_path": self._video if plan.videos else None,
        }


def _moments(plan: ExportPlan, episode: int) -> dict[str, dict[str, Any]]:
    kept = ("min", "max", "mean", "std", "count")
    stats = plan.statistics.of_episode(episode)
    return {name: {key: entry[key] for key in kept} for name, entry in stats.items()}


def _feature_entry(feature: Feature) -> dict[str, Any]:
    names = list(feature.names) or None
    return {"dtype": feature.dtype, "shape": list(feature.shape) or [1], "names": names}


def _camera_entry(plan: ExportPlan, name: str) -> dict[str, Any]:
    height, width, channels = plan.store.features[name].shape
    in_video, depth = name in plan.videos, name.startswith(DEPTH_PREFIX)
    entry: dict[str, Any] = {
        "dtype": "video" if in_video else "image",
        "shape": [height, width, channels],
        "names": ["height", "width", "channels"],
    }
    if in_video:
        entry["info"] = {
            "video.height": height,
            "video.width": width,
            "video.codec": DEPTH_CODEC if depth else plan.options["codec"],
            "video.pix_fmt": DEPTH_PIXEL_FORMAT if depth else PIXEL_FORMAT,
            "video.is_depth_map": depth,
            "video.fps": plan.fps,
            "video.channels": channels,
            "has_audio": False,
        }
    if depth:
        units = plan.store.features[name].units
        told = {"depth_unit": units[0]} if units in _DEPTH_UNITS else {}
        entry["info"] = {**entry.get("info", {}), "is_depth_map": True, **told}
    if depth and in_video:
        entry["info"] |= DepthCoding().to_info()
    return entry


def _check_depth(name: str, feature: Feature, how: str, version: str) -> list[str]:
    """Return what is lost of a depth camera; `DatasetError` if it cannot be written as asked."""
    if how == "none":
        return [f"{name}: depth is left out"]
    if not all(feature.shape[:2]):
        raise DatasetError(f"{name} has frames of varying size; LeRobot needs one size per camera")
    if how == "image":
        return (
            []
            if feature.units in _DEPTH_UNITS
            else [f"{name}: its unit is not told; LeRobot takes millimetres"]
        )
    if version != "v3.0":
        raise DatasetError(
            "depth in videos is of LeRobot v3.0; choose --option depth=image or the format lerobot-v3"
        )
    if feature.units != ("mm",):
        raise DatasetError(f"{name} is in {feature.units}, depth videos need mm; choose --option depth=image")
    coding = DepthCoding()
    return [
        f"{name}: depth is coded with 12 bits from {coding.minimum:g} to {coding.maximum:g} m; unknown depth (0) "
        f"becomes {coding.minimum:g} m"
    ]


def _check_size(name: str, feature: Feature, images: str) -> None:
    height, width = feature.shape[:2]
    if not (height and width):
        raise DatasetError(f"{name} has frames of varying size; LeRobot needs one size per camera")
    if images == "video" and (height % 2 or width % 2):
        raise DatasetError(
            f"{name} is {height}x{width} px, video needs even sizes; choose --option images=image"
        )


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=4, ensure_ascii=False) + "\n", encoding="utf-8")


def _write_lines(path: Path, rows: Iterator[dict[str, Any]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
