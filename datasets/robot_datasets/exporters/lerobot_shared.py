"""LeRobot v3.0's shared files: tables and videos of many episodes, and the table that says where each lies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_datasets.exporters.lerobot_plan import CHUNK_SIZE, ExportPlan
from robot_datasets.exporters.lerobot_statistics import flattened
from robot_datasets.exporters.lerobot_tables import label_fields
from robot_datasets.exporters.video import VideoWriter

if TYPE_CHECKING:
    import pyarrow.parquet as pq

DATA_FILE_MB, VIDEO_FILE_MB = 100, 200
"""A file that has reached this size is followed by another one [MB]."""

_MB = 1_000_000
_EPISODES_AT_ONCE = 256


class SharedTables:
    """The data files, one after the other."""

    def __init__(self, plan: ExportPlan, template: str) -> None:
        self._plan = plan
        self._template = template
        self._number = -1
        self._file: Any = None
        self._writer: pq.ParquetWriter | None = None

    def add(self, episode: int) -> dict[str, Any]:
        """Append an episode's rows; return its place for the episode table."""
        import pyarrow.parquet as pq

        if self._writer is None or self._file.tell() >= DATA_FILE_MB * _MB:
            self.close()
            self._number += 1
            path = self._plan.folder / self._template.format(**_place(self._number))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("wb")
            self._writer = pq.ParquetWriter(self._file, self._plan.schema)
        self._plan.write_rows(self._writer, episode)
        store = self._plan.store
        return {f"data/{key}": value for key, value in _place(self._number).items()} | {
            "dataset_from_index": int(store.episode_starts[episode]),
            "dataset_to_index": int(store.episode_ends[episode]),
        }

    def close(self) -> None:
        """Finish the open file."""
        if self._writer is not None:
            self._writer.close()
            self._file.close()
            self._writer = None


class SharedVideos:
    """The mp4 files of one camera, one after the other."""

    def __init__(self, plan: ExportPlan, template: str, camera: str) -> None:
        self._plan = plan
        self._template = template
        self._camera = camera
        self._number = -1
        self._writer: VideoWriter | None = None

    def add(self, episode: int) -> dict[str, Any]:
        """Append an episode's frames; return their place for the episode table."""
        plan, camera = self._plan, self._camera
        writer = self._writer
        if writer is None or writer.n_bytes >= VIDEO_FILE_MB * _MB:
            self.close()
            self._number += 1
            path = plan.folder / self._template.format(video_key=camera, **_place(self._number))
            writer = self._writer = plan.open_video(path, camera)
        first = writer.n_frames
        for frame in plan.frames(camera, episode):
            writer.add(frame)
        values = _place(self._number) | {
            "from_timestamp": first / plan.store.fps,
            "to_timestamp": writer.n_frames / plan.store.fps,
        }
        return {f"videos/{camera}/{key}": value for key, value in values.items()}

    def close(self) -> None:
        """Finish the open file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class EpisodeTable:
    """The episode table, written some rows at a time."""

    def __init__(self, path: Path, plan: ExportPlan) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        fields = [*label_fields(), ("data/chunk_index", pa.int64()), ("data/file_index", pa.int64())]
        fields += [("dataset_from_index", pa.int64()), ("dataset_to_index", pa.int64())]
        for camera in plan.videos:
            fields += [(f"videos/{camera}/{key}", pa.int64()) for key in ("chunk_index", "file_index")]
            fields += [(f"videos/{camera}/{key}", pa.float64()) for key in ("from_timestamp", "to_timestamp")]
        fields += [(f"meta/episodes/{key}", pa.int64()) for key in ("chunk_index", "file_index")]
        first = flattened(plan.statistics.of_episode(0))
        fields += [(name, _stat_type(name, value)) for name, value in first.items()]
        path.parent.mkdir(parents=True)
        self._schema = pa.schema(fields)
        self._writer = pq.ParquetWriter(path, self._schema)
        self._rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> None:
        """Append an episode's row."""
        self._rows.append(row)
        if len(self._rows) >= _EPISODES_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Finish the open file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._rows = []


def _stat_type(name: str, value: Any) -> Any:
    import pyarrow as pa

    kind = pa.int64() if name.endswith("/count") else pa.float64()
    while isinstance(value, list):
        kind, value = pa.list_(kind), value[0]
    return kind


def _place(number: int) -> dict[str, int]:
    return {"chunk_index": number // CHUNK_SIZE, "file_index": number % CHUNK_SIZE}
