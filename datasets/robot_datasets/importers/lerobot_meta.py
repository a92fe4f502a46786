"""The metadata of a LeRobot dataset (v2.0, v2.1, v3.0): ``meta/*`` as written, and the files that are really there.

Metadata and files often disagree (folders copied in part, episodes deleted by hand, templates that were
never used, a version that was only announced), so `find_files` lists what exists and the importer compares.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from robot_datasets.errors import DatasetError
from robot_datasets.importers.file_tree import FileTree

DEFAULT_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index")
"""Columns of every dataset that describe the table, not the robot."""
INFO_FILE = "meta/info.json"
SIDE_FILE = "meta/robot_policies.json"
"""What LeRobot's metadata has no place for (units, frames, conventions), written by our exporter."""

_OWN_FILE = re.compile(r"^episode_(\d+)\.(parquet|mp4)$")
_SHARED_FILE = re.compile(r"^file[-_](\d+)\.(parquet|mp4)$")
_CHUNK = re.compile(r"^chunk-(\d+)$")
_FASTEST = 1e6
_MOST_COMPONENTS = 100_000
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


def read_info(tree: FileTree, warnings: list[str]) -> Info:
    """Read and check ``meta/info.json``; fields that are not what they should be are ignored with a warning.

    Raises:
        DatasetError: It is missing or damaged, describes no features, or is of another version.
    """
    raw = read_json(tree, INFO_FILE)
    if not isinstance(raw, dict) or not isinstance(raw.get("features"), dict):
        raise DatasetError(f"{INFO_FILE} has no 'features'; expected the info.json of a LeRobot dataset")
    version = str(raw.get("codebase_version", ""))
    match = re.match(r"^v?([23])\.\d+", version)
    if match is None:
        raise DatasetError(
            f"{INFO_FILE} has codebase_version '{version[:40]}', this importer reads v2.0, v2.1 and v3.0; "
            "bring it to one of them with LeRobot's own conversion scripts first"
        )
    fps, robot_type = raw.get("fps"), raw.get("robot_type")
    usable = isinstance(fps, (int, float)) and not isinstance(fps, bool) and 0 < fps < _FASTEST
    if not usable:
        warnings.append(f"info.json declares the rate {str(fps)[:40]!r}, expected Hz; ignored")
    if not isinstance(robot_type, (str, type(None))):
        warnings.append(f"info.json declares robot_type {str(robot_type)[:40]!r}, expected a text; ignored")
    return Info(
        version=version,
        major=int(match[1]),
        fps=float(fps) if usable and fps is not None else 0.0,
        robot_type=robot_type if isinstance(robot_type, str) else "",
        features={key: _feature(key, entry, warnings) for key, entry in raw["features"].items()},
        raw=raw,
    )


def _feature(key: str, entry: Any, warnings: list[str]) -> dict[str, Any]:
    """Return the description of a feature with what is of the right kind."""
    if not isinstance(entry, dict):
        warnings.append(
            f"info.json describes {key} by {str(entry)[:40]!r}, expected dtype and shape; ignored"
        )
        return {}
    kept = dict(entry)
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(dtype, str):
        warnings.append(f"info.json declares {key} of type {str(dtype)[:40]!r}; ignored")
        kept.pop("dtype", None)
    sizes = isinstance(shape, list) and all(isinstance(n, int) and 0 <= n < 1 << 31 for n in shape)
    if not sizes:
        warnings.append(f"info.json declares {key} of shape {str(shape)[:40]!r}; ignored")
        kept.pop("shape", None)
    return kept


def read_json(tree: FileTree, name: str) -> Any:
    """Read a JSON file; `DatasetError` if it is missing or damaged."""
    try:
        return json.loads(tree.read(name).decode("utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(f"{name} is missing; expected a LeRobot dataset with a meta folder") from error
    except OSError as error:
        raise DatasetError(f"{name} cannot be read ({error.strerror}); copy it again") from error
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


def modality_names(tree: FileTree, warnings: list[str]) -> dict[str, dict[int, str]]:
    """Return column -> component -> name from GR00T's ``meta/modality.json``; empty if there is none."""
    if not tree.has("meta/modality.json"):
        return {}
    names: dict[str, dict[int, str]] = {}
    try:
        modality = read_json(tree, "meta/modality.json")
    except DatasetError as error:
        warnings.append(str(error))
        return {}
    for group, column in (("state", "observation.state"), ("action", "action")):
        parts = modality.get(group) if isinstance(modality, Mapping) else None
        for part, span in (parts if isinstance(parts, Mapping) else {}).items():
            start, end = (span.get("start"), span.get("end")) if isinstance(span, Mapping) else (None, None)
            if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end < _MOST_COMPONENTS):
                warnings.append(
                    f"meta/modality.json: {part} is {str(span)[:40]}, expected start and end; ignored"
                )
                continue
            key = str(span.get("original_key") or column)
            for offset, index in enumerate(range(start, end)):
                names.setdefault(key, {})[index] = f"{part}.{offset}"
    return names
