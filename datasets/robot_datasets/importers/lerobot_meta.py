"""The metadata of a LeRobot dataset (v2.0, v2.1, v3.0): ``meta/*`` as written, and the files that are really there.

Metadata and files often disagree (folders copied in part, episodes deleted by hand, templates that were
never used, a version that was only announced), so `find_files` lists what exists and the importer compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from robot_datasets.errors import DatasetError, one_line
from robot_datasets.importers.file_tree import FileTree

DEFAULT_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns of every dataset that describe the table, not the robot."""
INFO_FILE = "meta/info.json"
SIDE_FILE = "meta/robot_policies.json"
"""What LeRobot's metadata has no place for (units, frames, conventions), written by our exporter."""

_OWN_FILE = re.compile(r"^episode_(\d+)\.(parquet|mp4)$")
_SHARED_FILE = re.compile(r"^file[-_](\d+)\.(parquet|mp4)$")
_CHUNK = re.compile(r"^chunk-(\d+)$")
_LARGEST = 1 << 40
_WIDEST = 4096
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


@dataclass(frozen=True)
class Files:
    """What lies in the folder.

    Attributes:
        data: Data files by their number; (episode,), or (chunk, file) if they are shared by episodes.
        videos: The same per video key.
        sizes: Size of each file [bytes].
        shared_data: Whether data files are shared by episodes, as in v3.0.
        shared_videos: Whether videos are.
    """

    data: Mapping[tuple[int, ...], str]
    videos: Mapping[str, Mapping[tuple[int, ...], str]]
    sizes: Mapping[str, int]
    shared_data: bool
    shared_videos: bool


def read_info(tree: FileTree) -> Info:
    """Read and check ``meta/info.json``."""
    raw = read_json(tree, INFO_FILE)
    if not isinstance(raw, dict) or not isinstance(raw.get("features"), dict):
        raise DatasetError(f"{INFO_FILE} has no 'features'; expected the info.json of a LeRobot dataset")
    version = str(raw.get("codebase_version", ""))
    match = re.match(r"^v?([23])\.\d+", version)
    if match is None:
        raise DatasetError(
            f"{INFO_FILE} has codebase_version '{version}', this importer reads v2.0, v2.1 and v3.0; "
            "bring it to one of them with LeRobot's own conversion scripts first"
        )
    fps = raw.get("fps")
    return Info(
        version=version,
        major=int(match[1]),
        fps=float(fps) if isinstance(fps, (int, float)) and 0 < fps < float("inf") else 0.0,
        robot_type=str(raw.get("robot_type") or ""),
        features={k: v for k, v in raw["features"].items() if isinstance(v, dict)},
        raw=raw,
    )


def read_json(tree: FileTree, name: str) -> Any:
    """Read a JSON file; `DatasetError` if it is missing or damaged."""
    try:
        return json.loads(tree.read(name).decode("utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{name} is missing; expected a LeRobot dataset with a meta folder") from error
    except (ValueError, UnicodeDecodeError, RecursionError) as error:
        raise DatasetError(f"{name} is not JSON ({error}); copy it again") from error


def find_files(tree: FileTree, major: int) -> Files:
    """List parquet and mp4 files by the numbers in their names, wherever below data/ and videos/ they lie.

    Whether files are shared by episodes is told by their names; only if both kinds are there by the version.
    """
    found: dict[tuple[str, bool], dict[str, dict[tuple[int, ...], str]]] = {}
    sizes: dict[str, int] = {}
    for folder in ("data", "videos"):
        for name, size in tree.files(folder).items():
            relative = PurePosixPath(name)
            number = _number(relative)
            if number is None:
                continue
            sizes[name] = size
            key = "" if folder == "data" else _video_key(relative)
            kind = found.setdefault((folder, len(number) == 2), {})
            kind.setdefault(key, {}).setdefault(number, name)
    shared_data, shared_videos = (_is_shared(found, folder, major) for folder in ("data", "videos"))
    data = found.get(("data", shared_data), {}).get("", {})
    return Files(data, found.get(("videos", shared_videos), {}), sizes, shared_data, shared_videos)


def _is_shared(found: Mapping[tuple[str, bool], Any], folder: str, major: int) -> bool:
    kinds = {shared for name, shared in found if name == folder}
    return kinds.pop() if len(kinds) == 1 else major == 3


def _number(path: PurePosixPath) -> tuple[int, ...] | None:
    """Return (episode,) of ``episode_000012.mp4``, (chunk, file) of ``chunk-000/file-012.mp4``."""
    if match := _OWN_FILE.match(path.name):
        return (int(match[1]),)
    if match := _SHARED_FILE.match(path.name):
        chunks = [int(m[1]) for part in path.parts[:-1] if (m := _CHUNK.match(part))]
        return (chunks[-1] if chunks else 0, int(match[1]))
    return None


def _video_key(path: PurePosixPath) -> str:
    """``videos/chunk-000/KEY/x.mp4`` and ``videos/KEY/chunk-000/x.mp4`` -> KEY; empty if there is none."""
    folders = [part for part in path.parts[1:-1] if not _CHUNK.match(part)]
    return folders[-1] if folders else ""


def read_tasks(tree: FileTree, warnings: list[str]) -> dict[int, str]:
    """Return task number -> instruction, from whichever table is there; empty if none is.

    Args:
        tree: The dataset's files.
        warnings: Takes complaints about instructions that are no text and left out.

    Raises:
        DatasetError: The table is damaged.
    """
    name = "meta/tasks.parquet" if tree.has("meta/tasks.parquet") else "meta/tasks.jsonl"
    if name.endswith(".jsonl"):
        rows = [row for row in _json_lines(tree, name) if {"task_index", "task"} <= set(row)]
        pairs = [(row["task_index"], row["task"]) for row in rows]
    else:
        table = _parquet(tree, name)
        texts = [column for column in table.column_names if column != "task_index"]
        if "task_index" not in table.column_names or not texts:
            raise DatasetError(
                f"{name} has columns {table.column_names}; expected the task text and task_index"
            )
        pairs = list(zip(table["task_index"].to_pylist(), table[texts[0]].to_pylist(), strict=True))
    found = {_integer(index, f"{name}: task_index"): text for index, text in pairs}
    for index, text in found.items():
        if not isinstance(text, str):
            warnings.append(f"{name}: instruction {index} is {str(text)[:40]!r}, expected text; left out")
    return {index: text for index, text in found.items() if isinstance(text, str)}


def read_episodes(tree: FileTree, warnings: list[str]) -> dict[int, EpisodeMeta]:
    """Return the episode table by episode number, from whichever file is there; empty if none is.

    Args:
        tree: The dataset's files.
        warnings: Takes complaints about instructions that are no text and left out.

    Raises:
        DatasetError: The table is damaged.
    """
    rows = _episode_rows(tree) if tree.files("meta/episodes") else _json_lines(tree, "meta/episodes.jsonl")
    return {meta.index: meta for meta in (_episode_meta(row, warnings) for row in rows)}


def _episode_rows(tree: FileTree) -> Iterator[Mapping[str, Any]]:
    for name in tree.files("meta/episodes"):
        if name.endswith(".parquet"):
            yield from _parquet(tree, name, lambda column: not column.startswith("stats/")).to_pylist()


def _episode_meta(row: Mapping[str, Any], warnings: list[str]) -> EpisodeMeta:
    if "episode_index" not in row:
        raise DatasetError(
            f"the episode table has a row without episode_index: {sorted(row)[:6]}; it is damaged"
        )
    index = _integer(row["episode_index"], "the episode table: episode_index")
    who = f"the episode table, episode {index}"
    videos = {}
    for name, value in row.items():
        if name.startswith("videos/") and name.endswith("/from_timestamp") and value is not None:
            base = name.removesuffix("/from_timestamp")
            place = [row.get(f"{base}/{key}") for key in ("chunk_index", "file_index")]
            if None not in place:
                chunk, file = (_integer(number, f"{who}: {base}") for number in place)
                videos[base.removeprefix("videos/")] = (chunk, file, _number_of(value, f"{who}: {name}"))
    rows = [row.get("dataset_from_index"), row.get("dataset_to_index")]
    first, last = (None if n is None else _integer(n, f"{who}: dataset_from_index/to_index") for n in rows)
    length = row.get("length")
    return EpisodeMeta(
        index=index,
        tasks=_instructions(row.get("tasks"), who, warnings),
        length=None if length is None else _integer(length, f"{who}: length"),
        rows=None if first is None or last is None else (first, last),
        videos=videos,
        success=None if row.get("success") is None else bool(row["success"]),
        split=row["split"] if row.get("split") in ("train", "val") else "",
        segments=_segments(row.get("segments")),
    )


def _instructions(value: Any, who: str, warnings: list[str]) -> tuple[str, ...]:
    found = [value] if isinstance(value, str) else value or []
    if not isinstance(found, (list, tuple)) or not all(isinstance(text, str) for text in found):
        warnings.append(f"{who}: tasks is {str(value)[:40]!r}, expected a list of texts; left out")
        return ()
    return tuple(found)


def _integer(value: Any, where: str) -> int:
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or abs(value) > _LARGEST:
        raise DatasetError(f"{where} is {str(value)[:40]!r}, expected an integer; repair it or copy it again")
    return int(value)


def _number_of(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _LARGEST:
        raise DatasetError(f"{where} is {str(value)[:40]!r}, expected a number; repair it or copy it again")
    return float(value)


def _segments(value: Any) -> tuple[Mapping[str, Any], ...]:
    """Read labelled parts, written as a list or as the text of one; what is neither is somebody else's column."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return ()
    sound = isinstance(value, list) and all(
        isinstance(part, Mapping) and set(part) == {"start", "end", "tag", "text"} for part in value
    )
    return tuple(value) if sound else ()


def _json_lines(tree: FileTree, name: str) -> Iterator[dict[str, Any]]:
    if not tree.has(name):
        return
    try:
        lines = tree.read(name).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{name} is not text ({error}); copy it again") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DatasetError(
                f"{name}, line {number} is not JSON ({error}); repair or delete the line"
            ) from error
        if isinstance(row, dict):
            yield row


def _parquet(tree: FileTree, name: str, wanted: Callable[[str], bool] = bool) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    source = tree.source(name)
    try:
        with pq.ParquetFile(source) as file:
            return file.read(columns=[c for c in file.schema_arrow.names if wanted(c)])
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"{name} is not readable parquet ({one_line(error)}); copy it again") from error
    finally:
        if not isinstance(source, str):
            source.close()


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


def modality_names(tree: FileTree) -> dict[str, dict[int, str]]:
    """Return column -> component -> name from GR00T's ``meta/modality.json``; empty if there is none."""
    if not tree.has("meta/modality.json"):
        return {}
    modality, names = read_json(tree, "meta/modality.json"), {}
    for group, column in (("state", "observation.state"), ("action", "action")):
        parts = modality.get(group) if isinstance(modality, Mapping) else None
        for part, span in (parts if isinstance(parts, Mapping) else {}).items():
            if not isinstance(span, Mapping) or not {"start", "end"} <= set(span):
                continue
            key = str(span.get("original_key") or column)
            start, end = (_integer(span[edge], f"meta/modality.json: {part}") for edge in ("start", "end"))
            for offset, index in enumerate(range(start, min(end, start + _WIDEST))):
                names.setdefault(key, {})[index] = f"{part}.{offset}"
    return names
