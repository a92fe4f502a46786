"""Small LeRobot datasets in every layout, for tests of importers: v2.0, v2.1, v3.0, and what only claims to be one.

Each frame is one grey level, so that a test can tell which frame came with which step: `grey_levels`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.image_codec import encode_frame

FRAME_SIZE = (32, 48)
_INDEX_COLUMNS = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64"} | {
    "index": "int64",
    "task_index": "int64",
}


@dataclass
class ToyEpisode:
    """One episode to write.

    Attributes:
        columns: Column -> (T, ...) numbers.
        frames: Camera key -> (T, H, W, 3) uint8.
        task: Instruction.
        paraphrases: Other texts for it, which the episode table lists as well.
    """

    columns: dict[str, np.ndarray]
    frames: dict[str, np.ndarray] = field(default_factory=dict)
    task: str = "move"
    paraphrases: tuple[str, ...] = ()

    @property
    def n_steps(self) -> int:
        """Number of steps T."""
        return len(next(iter(self.columns.values())))


def grey_levels(episode: int, length: int) -> np.ndarray:
    """One grey level per step, (T,) uint8, told apart after lossy coding for some twenty steps."""
    return ((np.arange(length) * 12 + episode * 60) % 216 + 20).astype(np.uint8)


def grey_frames(episode: int, length: int, size: tuple[int, int] = FRAME_SIZE) -> np.ndarray:
    """Frames of `grey_levels`, (T, H, W, 3) uint8."""
    return np.broadcast_to(grey_levels(episode, length)[:, None, None, None], (length, *size, 3)).copy()


def write_mp4(path: Path, frames: np.ndarray, *, fps: float, codec: str = "libx264") -> None:
    """Encode (T, H, W, 3) uint8 frames."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"crf": "10", "preset": "ultrafast"} if codec == "libx264" else {"crf": "28", "preset": "12"}
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=round(fps), options={"g": "4", **options})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        stream.codec_context.thread_count = 1  # starting threads takes longer than these few small frames
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def write_lerobot(
    root: Path,
    episodes: Sequence[ToyEpisode],
    *,
    version: str = "v2.1",
    shared: bool | None = None,
    fps: float = 30.0,
    robot_type: str = "toy",
    images: str = "video",
    codec: str = "libx264",
    describe: Mapping[str, Mapping[str, Any]] | None = None,
    gap: int = 0,
    drift: float = 0.0,
) -> Path:
    """Write a dataset and return its folder.

    Args:
        root: Folder to make.
        episodes: At least one; all with the same columns and cameras.
        version: What info.json says.
        shared: Whether files are shared by episodes; None = as the version has it. False with ``v3.0`` is what the
            export called lerobot_RoboMIND looks like.
        fps: Rate [Hz].
        robot_type: What info.json says.
        images: ``"video"``, or ``"image"`` for PNG frames in the tables.
        codec: Encoder of the videos.
        describe: Additions to the entries of features in info.json.
        gap: Foreign frames before each episode in a shared video.
        drift: How much later each episode's declared start is than the one before [s].
    """
    shared = version.startswith("v3") if shared is None else shared
    tasks = list(dict.fromkeys(text for e in episodes for text in (e.task, *e.paraphrases)))
    _write_info(root, episodes, version, fps, robot_type, images, describe or {})
    firsts = np.cumsum([0, *(episode.n_steps for episode in episodes)])
    tables = [
        _table(e, i, int(firsts[i]), tasks, fps, e.frames if images == "image" else {})
        for i, e in enumerate(episodes)
    ]
    cameras = list(episodes[0].frames) if images == "video" else []
    if shared:
        _write_shared(root, episodes, tables, firsts, tasks, cameras, fps, codec, gap, drift)
    else:
        _write_own(root, episodes, tables, tasks, cameras, fps, codec)
    return root


def edit_info(root: Path, **values: Any) -> None:
    """Change entries of info.json."""
    path = root / "meta" / "info.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def _write_info(
    root: Path,
    episodes: Sequence[ToyEpisode],
    version: str,
    fps: float,
    robot_type: str,
    images: str,
    describe: Mapping[str, Mapping[str, Any]],
) -> None:
    first = episodes[0]
    features: dict[str, dict[str, Any]] = {
        name: {"dtype": str(values.dtype), "shape": list(values.shape[1:]) or [1], "names": None}
        for name, values in first.columns.items()
    }
    for name, frames in first.frames.items():
        shape = list(frames.shape[1:])
        features[name] = {"dtype": images, "shape": shape, "names": ["height", "width", "channel"]}
    features |= {n: {"dtype": dtype, "shape": [1], "names": None} for n, dtype in _INDEX_COLUMNS.items()}
    for name, addition in describe.items():
        features[name] = features.get(name, {}) | dict(addition)
    info = {
        "codebase_version": version,
        "robot_type": robot_type,
        "total_episodes": len(episodes),
        "total_frames": sum(episode.n_steps for episode in episodes),
        "fps": fps,
        "splits": {"train": f"0:{len(episodes)}"},
        "features": features,
    }
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))


def _table(
    episode: ToyEpisode,
    index: int,
    first: int,
    tasks: list[str],
    fps: float,
    frames: Mapping[str, np.ndarray],
) -> Any:
    import pyarrow as pa

    steps = np.arange(episode.n_steps)
    columns: dict[str, Any] = {}
    for name, values in episode.columns.items():
        kind: Any = pa.from_numpy_dtype(values.dtype)
        for _ in values.shape[1:]:
            kind = pa.list_(kind)
        columns[name] = pa.array(values.tolist(), kind)
    for name, pixels in frames.items():
        encoded = [{"bytes": encode_frame(p, "png"), "path": f"{i}.png"} for i, p in enumerate(pixels)]
        columns[name] = pa.array(encoded)
    values = (steps / fps, steps, steps * 0 + index, steps + first, steps * 0 + tasks.index(episode.task))
    for (name, dtype), column in zip(_INDEX_COLUMNS.items(), values, strict=True):
        columns[name] = pa.array(column.astype(dtype))
    return pa.table(columns)


def _write_own(
    root: Path,
    episodes: Sequence[ToyEpisode],
    tables: Sequence[Any],
    tasks: list[str],
    cameras: list[str],
    fps: float,
    codec: str,
) -> None:
    import pyarrow.parquet as pq

    lines = [{"task_index": i, "task": task} for i, task in enumerate(tasks)]
    (root / "meta" / "tasks.jsonl").write_text("\n".join(map(json.dumps, lines)))
    rows = [
        {"episode_index": i, "tasks": [e.task, *e.paraphrases], "length": e.n_steps}
        for i, e in enumerate(episodes)
    ]
    (root / "meta" / "episodes.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "data" / "chunk-000").mkdir(parents=True)
    for i, episode in enumerate(episodes):
        pq.write_table(tables[i], root / "data" / "chunk-000" / f"episode_{i:06d}.parquet")
        for camera in cameras:
            path = root / "videos" / "chunk-000" / camera / f"episode_{i:06d}.mp4"
            write_mp4(path, episode.frames[camera], fps=fps, codec=codec)


def _write_shared(
    root: Path,
    episodes: Sequence[ToyEpisode],
    tables: Sequence[Any],
    firsts: np.ndarray,
    tasks: list[str],
    cameras: list[str],
    fps: float,
    codec: str,
    gap: int,
    drift: float,
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    half = (len(episodes) + 1) // 2
    table = pa.table({"task_index": list(range(len(tasks))), "__index_level_0__": tasks})
    pq.write_table(table, root / "meta" / "tasks.parquet")
    rows, ends = [], 0
    for i, episode in enumerate(episodes):
        n = episode.n_steps
        row: dict[str, Any] = {"episode_index": i, "tasks": [episode.task, *episode.paraphrases], "length": n}
        row |= {"data/chunk_index": 0, "data/file_index": int(i >= half)}
        row |= {"dataset_from_index": int(firsts[i]), "dataset_to_index": int(firsts[i + 1])}
        ends += gap
        for camera in cameras:
            row |= {f"videos/{camera}/chunk_index": 0, f"videos/{camera}/file_index": 0}
            row[f"videos/{camera}/from_timestamp"] = ends / fps + drift * i
            row[f"videos/{camera}/to_timestamp"] = (ends + n) / fps
        ends += n
        rows.append({**row, "stats/action/min": [0.0, 0.0]})
    folder = root / "meta" / "episodes" / "chunk-000"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "file-000.parquet")
    (root / "data" / "chunk-000").mkdir(parents=True)
    for number, part in enumerate((tables[:half], tables[half:])):
        if part:
            path = root / "data" / "chunk-000" / f"file-{number:03d}.parquet"
            pq.write_table(pa.concat_tables(part), path, row_group_size=4)
    for camera in cameras:
        frames = [
            np.concatenate([np.zeros_like(e.frames[camera][:1])] * gap + [e.frames[camera]]) for e in episodes
        ]
        path = root / "videos" / camera / "chunk-000" / "file-000.mp4"
        write_mp4(path, np.concatenate(frames), fps=fps, codec=codec)
