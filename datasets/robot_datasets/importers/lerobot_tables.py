"""LeRobot's tables of episodes and instructions: JSON lines (v2) or parquet (v3.0), every field checked.

A row or field that cannot be used costs itself, with a warning: the rows of the episodes are elsewhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from robot_datasets.archives import ArchiveError
from robot_datasets.errors import DatasetError, one_line
from robot_datasets.importers.file_tree import FileTree

_TASKS = ("meta/tasks.parquet", "meta/tasks.jsonl")
_EPISODES = ("meta/episodes", "meta/episodes.jsonl")
_LARGEST = 1 << 53


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
        segments: Labelled parts, as mappings (written by our exporter).
    """

    index: int
    tasks: tuple[str, ...] = ()
    length: int | None = None
    rows: tuple[int, int] | None = None
    videos: Mapping[str, tuple[int, int, float]] = field(default_factory=dict)
    success: bool | None = None
    split: str = ""
    segments: tuple[Mapping[str, Any], ...] = ()


def read_tasks(tree: FileTree, warnings: list[str]) -> dict[int, str]:
    """Return task number -> instruction, from whichever table is there; empty if none is or it is unreadable."""
    if tree.has(_TASKS[0]):
        try:
            table = read_parquet(tree, _TASKS[0])
        except DatasetError as error:
            warnings.append(f"{error}; instructions come from the episode table")
            return {}
        texts = [name for name in table.column_names if name != "task_index"]
        if "task_index" not in table.column_names or not texts:
            warnings.append(f"{_TASKS[0]} has columns {table.column_names}; expected the text and task_index")
            return {}
        rows: Iterator[Any] = (
            {"task_index": r["task_index"], "task": r[texts[0]]} for r in table.to_pylist()
        )
        name = _TASKS[0]
    else:
        rows, name = _json_lines(tree, _TASKS[1], warnings), _TASKS[1]
    tasks: dict[int, str] = {}
    for row in rows:
        index, text = _whole(row.get("task_index")), row.get("task")
        if index is None or not isinstance(text, str):
            warnings.append(f"{name}: {_shown(row)} is no row of a number and a text; left out")
        elif tasks.setdefault(index, text) != text:
            warnings.append(
                f"{name}: number {index} is given twice, with different texts; the first is taken"
            )
    return tasks


def read_episodes(tree: FileTree, warnings: list[str]) -> dict[int, EpisodeMeta]:
    """Return the episode table by episode number, from whichever file is there; empty if none is.

    Raises:
        DatasetError: There is one in parquet, and no file of it is readable.
    """
    parquet = [name for name in tree.files(_EPISODES[0]) if name.endswith(".parquet")]
    rows = _parquet_rows(tree, parquet, warnings) if parquet else _json_lines(tree, _EPISODES[1], warnings)
    found: dict[int, EpisodeMeta] = {}
    for row in rows:
        meta = _episode_meta(row, warnings)
        if meta is None:
            continue
        if meta.index in found:
            warnings.append(f"the episode table has several rows of episode {meta.index}; the first is taken")
        found.setdefault(meta.index, meta)
    return found


def read_parquet(tree: FileTree, name: str, wanted: Callable[[str], bool] = bool) -> Any:
    """Read a parquet file as an Arrow table, with the columns that `wanted` says.

    Raises:
        DatasetError: It is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    source: Any = ""
    try:
        source = tree.source(name)
        with pq.ParquetFile(source) as file:
            return file.read(columns=[c for c in file.schema_arrow.names if wanted(c)])
    except (pa.ArrowException, OSError, UnicodeDecodeError, ArchiveError) as error:
        raise DatasetError(f"{name} is not readable parquet ({one_line(error)}); copy it again") from error
    finally:
        if not isinstance(source, str):
            source.close()


def _parquet_rows(tree: FileTree, names: list[str], warnings: list[str]) -> Iterator[Mapping[str, Any]]:
    errors: list[DatasetError] = []
    for name in names:
        try:
            rows = read_parquet(tree, name, lambda column: not column.startswith("stats/")).to_pylist()
        except DatasetError as error:
            errors.append(error)
            continue
        yield from rows
    if len(errors) == len(names):
        raise errors[0]
    warnings += [f"{error}; its episodes may lack their videos" for error in errors]


def _json_lines(tree: FileTree, name: str, warnings: list[str]) -> Iterator[dict[str, Any]]:
    if not tree.has(name):
        return
    try:
        lines = tree.read(name).decode("utf-8").splitlines()
    except (OSError, UnicodeDecodeError, ArchiveError) as error:
        warnings.append(f"{name} cannot be read as text ({one_line(error)}); copy it again")
        return
    bad = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict):
            yield row
        else:
            bad.append(number)
    if bad:
        warnings.append(
            f"{name}: {len(bad)} of {len(lines)} lines are no JSON objects, the first is {bad[0]}; left out"
        )


def _episode_meta(row: Mapping[str, Any], warnings: list[str]) -> EpisodeMeta | None:
    index = _whole(row.get("episode_index"))
    if index is None:
        warnings.append(
            f"the episode table has a row without a usable episode_index: {_shown(row)}; left out"
        )
        return None

    def number(name: str) -> int | None:
        value = _whole(row.get(name))
        if value is None and row.get(name) is not None:
            warnings.append(
                f"episode {index}: {name} is {_shown(row[name])}, expected a whole number; ignored"
            )
        return value

    first, last = number("dataset_from_index"), number("dataset_to_index")
    listed = row.get("tasks")
    listed = [listed] if isinstance(listed, str) else listed if isinstance(listed, list) else []
    tasks = tuple(text for text in listed if isinstance(text, str))
    if len(tasks) != len(listed) or (row.get("tasks") is not None and not listed and row["tasks"] != []):
        warnings.append(
            f"episode {index}: tasks are {_shown(row['tasks'])}, expected texts; others are ignored"
        )
    return EpisodeMeta(
        index=index,
        tasks=tasks,
        length=number("length"),
        rows=None if first is None or last is None else (first, last),
        videos=_video_places(row, index, warnings),
        success=row["success"] if isinstance(row.get("success"), bool) else None,
        split=row["split"] if row.get("split") in ("train", "val") else "",
        segments=_segments(row.get("segments")),
    )


def _video_places(
    row: Mapping[str, Any], index: int, warnings: list[str]
) -> dict[str, tuple[int, int, float]]:
    places = {}
    for name in row:
        if not (name.startswith("videos/") and name.endswith("/from_timestamp")):
            continue
        base = name.removesuffix("/from_timestamp")
        chunk, file = _whole(row.get(f"{base}/chunk_index")), _whole(row.get(f"{base}/file_index"))
        start = row[name]
        usable = isinstance(start, (int, float)) and math.isfinite(start)
        if chunk is not None and file is not None and usable:
            places[base.removeprefix("videos/")] = chunk, file, float(start)
        elif (chunk, file, start) != (None, None, None):
            warnings.append(f"episode {index}: its place in {base} is no place; ignored")
    return places


def _segments(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Read labelled parts, written as a list or as the text of one; what is neither is somebody else's column."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return ()
    sound = isinstance(value, list) and all(
        isinstance(part, Mapping)
        and set(part) == {"start", "end", "tag", "text"}
        and None not in (_whole(part["start"]), _whole(part["end"]))
        and isinstance(part["tag"], str)
        and isinstance(part["text"], str)
        for part in value
    )
    return tuple(value) if sound else ()


def _whole(value: Any) -> int | None:
    """Return a number as it is counted with; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if 0 <= value < _LARGEST and value == int(value) else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
