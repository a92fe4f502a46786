"""The metadata of a LeRobot dataset (v2.0, v2.1, v3.0): ``meta/*`` as written, and the files that are really there.

Metadata and files often disagree (folders copied in part, episodes deleted by hand, templates that were
never used), so `find_files` lists what exists and the importer compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from robot_datasets.errors import DatasetError

DEFAULT_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns of every dataset that describe the table, not the robot."""
SIDE_FILE = "meta/robot_policies.json"
"""What LeRobot's metadata has no place for (units, frames, conventions), written by our exporter."""

_V2_FILE = re.compile(r"^episode_(\d+)\.(parquet|mp4)$")
_V3_FILE = re.compile(r"^file-(\d+)\.(parquet|mp4)$")
_CHUNK = re.compile(r"^chunk-(\d+)$")
_GENERIC_NAME = re.compile(r"^(motor|dim|joint|state|action)?_?\d+$")


@dataclass(frozen=True)
class Info:
    """``meta/info.json``: what the dataset says about itself; `major` is 2 or 3, `fps` 0 if unusable."""

    version: str
    major: int
    fps: float
    robot_type: str
    features: Mapping[str, Mapping[str, Any]]
    raw: Mapping[str, Any]


@dataclass(frozen=True)
class EpisodeMeta:
    """One row of the episode table; empty fields are not in it.

    Attributes:
        index: Episode number.
        tasks: Instructions.
        length: Number of steps.
        rows: First and one past the last row of the whole dataset (v3.0).
        videos: Video key -> (chunk, file, start [s]) in a shared mp4 (v3.0).
        success: Whether the goal was reached (written by our exporter).
        split: ``"train"``, ``"val"`` or empty (written by our exporter).
    """

    index: int
    tasks: tuple[str, ...] = ()
    length: int | None = None
    rows: tuple[int, int] | None = None
    videos: Mapping[str, tuple[int, int, float]] = field(default_factory=dict)
    success: bool | None = None
    split: str = ""


@dataclass(frozen=True)
class Files:
    """What lies in the folder: data files and, per video key, mp4s, by their number (v3.0: chunk and file)."""

    data: Mapping[tuple[int, ...], str]
    videos: Mapping[str, Mapping[tuple[int, ...], str]]
    sizes: Mapping[str, int]


def read_info(root: Path) -> Info:
    """Read and check ``meta/info.json``."""
    path = root / "meta" / "info.json"
    raw = read_json(path)
    if not isinstance(raw, dict) or not isinstance(raw.get("features"), dict):
        raise DatasetError(f"{path} has no 'features'; expected the info.json of a LeRobot dataset")
    version = str(raw.get("codebase_version", ""))
    match = re.match(r"^v?([23])\.\d+", version)
    if match is None:
        raise DatasetError(
            f"{path} has codebase_version '{version}', this importer reads v2.0, v2.1 and v3.0; "
            "bring it to one of them with LeRobot's own conversion scripts first"
        )
    fps = raw.get("fps")
    return Info(
        version=version,
        major=int(match[1]),
        fps=float(fps) if isinstance(fps, (int, float)) and fps > 0 else 0.0,
        robot_type=str(raw.get("robot_type") or ""),
        features={k: v for k, v in raw["features"].items() if isinstance(v, dict)},
        raw=raw,
    )


def read_json(path: Path) -> Any:
    """Read a JSON file; `DatasetError` if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DatasetError(f"{path} is missing; expected a LeRobot dataset with a meta folder") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} is not JSON ({error}); copy it again") from error


def find_files(root: Path, major: int) -> Files:
    """List parquet and mp4 files by the numbers in their names, wherever below data/ and videos/ they lie."""
    data: dict[tuple[int, ...], str] = {}
    videos: dict[str, dict[tuple[int, ...], str]] = {}
    sizes: dict[str, int] = {}
    for folder in ("data", "videos"):
        for path in sorted((root / folder).rglob("*")):
            relative = PurePosixPath(path.relative_to(root).as_posix())
            number = _number(relative, major)
            if number is None or not path.is_file():
                continue
            sizes[str(relative)] = path.stat().st_size
            if folder == "data":
                data.setdefault(number, str(relative))
            else:
                videos.setdefault(_video_key(relative), {}).setdefault(number, str(relative))
    return Files(data, videos, sizes)


def _number(path: PurePosixPath, major: int) -> tuple[int, ...] | None:
    match = (_V2_FILE if major == 2 else _V3_FILE).match(path.name)
    if match is None:
        return None
    if major == 2:
        return (int(match[1]),)
    chunks = [int(m[1]) for part in path.parts[:-1] if (m := _CHUNK.match(part))]
    return (chunks[-1] if chunks else 0, int(match[1]))


def _video_key(path: PurePosixPath) -> str:
    """``videos/chunk-000/KEY/x.mp4`` and ``videos/KEY/chunk-000/x.mp4`` -> KEY; empty if there is none."""
    folders = [part for part in path.parts[1:-1] if not _CHUNK.match(part)]
    return folders[-1] if folders else ""


def read_tasks(root: Path, major: int) -> dict[int, str]:
    """Return task number -> instruction; empty if the table is missing."""
    if major == 2:
        rows = _json_lines(root / "meta" / "tasks.jsonl")
        return {
            int(row["task_index"]): str(row["task"]) for row in rows if {"task_index", "task"} <= set(row)
        }
    path = root / "meta" / "tasks.parquet"
    if not path.is_file():
        return {}
    table = _parquet(path)
    texts = [name for name in table.column_names if name != "task_index"]
    if "task_index" not in table.column_names or not texts:
        raise DatasetError(f"{path} has columns {table.column_names}; expected the task text and task_index")
    pairs = zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True)
    return {int(index): str(text) for index, text in pairs}


def read_episodes(root: Path, major: int) -> dict[int, EpisodeMeta]:
    """Return the episode table by episode number; empty if it is missing."""
    if major == 2:
        rows: Iterator[Mapping[str, Any]] = _json_lines(root / "meta" / "episodes.jsonl")
    else:
        rows = _episode_rows(root / "meta" / "episodes")
    return {meta.index: meta for meta in map(_episode_meta, rows)}


def _episode_rows(folder: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow.parquet as pq

    for path in sorted(folder.rglob("*.parquet")):
        names = [n for n in _parquet_schema(path).names if not n.startswith("stats/")]
        yield from pq.read_table(path, columns=names).to_pylist()


def _episode_meta(row: Mapping[str, Any]) -> EpisodeMeta:
    if "episode_index" not in row:
        raise DatasetError(
            f"the episode table has a row without episode_index: {sorted(row)[:6]}; it is damaged"
        )
    videos = {}
    for name, value in row.items():
        if name.startswith("videos/") and name.endswith("/from_timestamp") and value is not None:
            base = name.removesuffix("/from_timestamp")
            place = row.get(f"{base}/chunk_index"), row.get(f"{base}/file_index")
            if None not in place:
                videos[base.removeprefix("videos/")] = (int(place[0] or 0), int(place[1] or 0), float(value))
    first, last = row.get("dataset_from_index"), row.get("dataset_to_index")
    tasks = row.get("tasks") or ()
    return EpisodeMeta(
        index=int(row["episode_index"]),
        tasks=(tasks,) if isinstance(tasks, str) else tuple(map(str, tasks)),
        length=None if row.get("length") is None else int(row["length"]),
        rows=None if first is None or last is None else (int(first), int(last)),
        videos=videos,
        success=None if row.get("success") is None else bool(row["success"]),
        split=row["split"] if row.get("split") in ("train", "val") else "",
    )


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        return
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DatasetError(
                f"{path}, line {number} is not JSON ({error}); repair or delete the line"
            ) from error
        if isinstance(row, dict):
            yield row


def _parquet(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is not readable parquet ({error}); copy it again") from error


def _parquet_schema(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{path} is not readable parquet ({error}); copy it again") from error


def split_of(index: int, splits: Any) -> str:
    """Return ``"train"`` or ``"val"`` if info.json's ranges make such a distinction, else empty."""
    if not isinstance(splits, Mapping) or not {"val", "validation"} & set(splits):
        return ""
    for name, span in splits.items():
        match = re.match(r"^(\d+):(\d+)$", str(span))
        if match and int(match[1]) <= index < int(match[2]):
            return {"train": "train", "val": "val", "validation": "val"}.get(name, "")
    return ""


def component_names(declared: Any, width: int) -> tuple[str, ...]:
    """Flatten the ways LeRobot datasets name components: a list, ``{"motors": [...]}``, ``{"x": 0, "y": 1}``."""
    if isinstance(declared, Mapping):
        if declared and all(isinstance(v, int) for v in declared.values()):
            declared = sorted(declared, key=lambda key: declared[key])
        else:
            declared = [n for v in declared.values() for n in (v if isinstance(v, list) else [v])]
    if not isinstance(declared, Sequence) or isinstance(declared, str) or len(declared) != width:
        return ()
    return tuple(map(str, declared)) if all(isinstance(n, str) for n in declared) else ()


def are_generic(names: Sequence[str]) -> bool:
    """Whether names are mere numbers, such as ``motor_0``."""
    return all(_GENERIC_NAME.match(name) for name in names)


def modality_names(root: Path) -> dict[str, dict[int, str]]:
    """Return column -> component -> name from GR00T's ``meta/modality.json``; empty if there is none."""
    path = root / "meta" / "modality.json"
    if not path.is_file():
        return {}
    modality, names = read_json(path), {}
    for group, column in (("state", "observation.state"), ("action", "action")):
        for part, span in (modality.get(group) or {}).items():
            if not isinstance(span, Mapping) or not {"start", "end"} <= set(span):
                continue
            key = str(span.get("original_key") or column)
            for offset, index in enumerate(range(int(span["start"]), int(span["end"]))):
                names.setdefault(key, {})[index] = f"{part}.{offset}"
    return names
