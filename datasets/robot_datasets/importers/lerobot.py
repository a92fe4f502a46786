"""LeRobot datasets v2.0, v2.1 and v3.0, read from their files; the lerobot package is not needed.

What is in the folder counts, not what info.json says of it: differences are warnings, kept in the store's
source record. Video frames are decoded once, in order, and encoded again; image columns pass through as
they are.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.episode import Episode, EpisodeError, Segment
from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature
from robot_datasets.image_codec import ENCODINGS, encode_frame
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Option, Plan, Probe, Rejected
from robot_datasets.importers.lerobot_features import ColumnPlan, FeaturePlanner
from robot_datasets.importers.lerobot_meta import (
    EpisodeMeta,
    Files,
    Info,
    find_files,
    read_episodes,
    read_info,
    read_tasks,
    split_of,
)
from robot_datasets.importers.lerobot_rows import RowReader, to_numpy
from robot_datasets.importers.lerobot_video import VideoPlace, VideoReader

_logger = logging.getLogger(__name__)
_TAIL_BYTES = 4096


@dataclass(frozen=True)
class _Place:
    """Where an episode is: rows [start, stop) of a parquet file (None = its end), and its videos by feature."""

    file: str
    start: int = 0
    stop: int | None = None
    videos: Mapping[str, VideoPlace] = field(default_factory=dict)
    meta: EpisodeMeta = field(default_factory=lambda: EpisodeMeta(-1))


@dataclass(frozen=True)
class _Context:
    """What reading an episode needs: columns and cameras by feature, instructions by number."""

    columns: ColumnPlan
    tasks: Mapping[int, str]
    splits: Any


class LeRobot(Importer):
    """Importer of LeRobot datasets."""

    name = "lerobot"
    version = 1
    summary = "LeRobot dataset v2.0, v2.1 or v3.0: a folder with meta/info.json, data/ and videos/"
    options = (
        Option(
            "image_encoding",
            "jpeg",
            "how decoded video frames are stored; jpeg (quality 95) loses detail, png and raw do not",
            ENCODINGS,
        ),
        Option("cameras", "", "cameras to keep, comma-separated; empty = all that have files"),
        Option("fps", "", "rate of the steps [Hz]; empty = that of the dataset"),
        Option("embodiment", "", "robot name; empty = the dataset's robot_type"),
        Option("timestamps", "drop", "keep the recorded times as the feature 'timestamp'", ("drop", "keep")),
    )

    def probe(self, path: Path) -> Probe | None:
        """Recognise ``meta/info.json`` with a codebase_version."""
        file = path / "meta" / "info.json"
        if not file.is_file():
            return None
        try:
            info = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        if not isinstance(info, dict) or "codebase_version" not in info:
            return None
        return Probe(self.name, f"meta/info.json, codebase_version {info['codebase_version']}")

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        """Read the metadata, list the files, and look into the first readable ones for types and sizes."""
        info, warnings = read_info(path), []
        files, tasks = find_files(path, info.major), read_tasks(path, info.major)
        metas = read_episodes(path, info.major)
        if not files.data:
            raise DatasetError(
                f"{path} has no episode file below data/; expected parquet files of {info.version}"
            )
        places, rejected = _locate(path, info, files, metas)
        planner = FeaturePlanner(path, info, files, options, warnings)
        columns, features = planner.columns(sorted({place.file for place in places.values()}))
        refs, rejected = _with_videos(places, rejected, info, files, columns.cameras)
        warnings += _count_warnings(info, files, metas, len(places))
        fps = planner.rate()
        for warning in warnings:
            _logger.warning("%s: %s", path, warning)
        cameras = dict.fromkeys(columns.cameras, options["image_encoding"])
        return Plan(
            source=path,
            options={**options, "fps": f"{fps:g}", "embodiment": options["embodiment"] or info.robot_type},
            refs=refs,
            features=features,
            fps=fps,
            embodiment=options["embodiment"] or info.robot_type,
            checksum=_checksum(path, files),
            image_encodings={**cameras, **columns.image_encodings},
            rejected=rejected,
            notes={"codebase_version": info.version, "warnings": warnings},
            context=_Context(columns, tasks, info.raw.get("splits")),
        )

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        """Yield episodes; every video file is decoded once when they are asked for in order."""
        context: _Context = plan.context
        rows = RowReader(plan.source)
        videos = {name: VideoReader(plan.source) for name in context.columns.cameras}
        try:
            for ref in refs:
                try:
                    episode = _episode(ref, plan, rows, videos)
                except EpisodeError as error:
                    yield Rejected(ref.source_id, str(error))
                else:
                    yield episode
        finally:
            for reader in videos.values():
                reader.close()


def _episode(ref: EpisodeRef, plan: Plan, rows: RowReader, videos: Mapping[str, VideoReader]) -> Episode:
    context: _Context = plan.context
    place: _Place = ref.locator
    columns = context.columns
    there = set(rows.schema(place.file).names)
    wanted = [key for key in (*columns.numbers.values(), "task_index", "frame_index") if key in there]
    stop = rows.n_rows(place.file) if place.stop is None else place.stop
    table = rows.read(place.file, place.start, stop, list(dict.fromkeys(wanted)))
    data = {}
    for name, key in columns.numbers.items():
        if key not in there:
            raise EpisodeError(f"{place.file} has no column {key}; other episodes have it")
        values = to_numpy(table[key], plan.features[name].shape, f"{place.file}: {key}")
        data[name] = _lossless(values, plan.features[name], f"{place.file}: {key}")
    missing = [key for key in columns.images.values() if key not in there]
    if missing:
        raise EpisodeError(f"{place.file} has no column {missing[0]}; other episodes have it")
    images: dict[str, Iterator[bytes]] = {
        name: rows.frames(place.file, place.start, stop, key) for name, key in columns.images.items()
    }
    numbers = _integers(table, "frame_index")
    for name, reader in videos.items():
        frames = reader.locate(place.videos[name], table.num_rows, numbers)
        images[name] = _encoded(reader, place.videos[name].file, frames, plan.options["image_encoding"])
    task, segments = _task(_integers(table, "task_index"), context.tasks, place.meta)
    return Episode(
        ref.source_id,
        data,
        dict(images),
        task=task,
        success=place.meta.success,
        split=place.meta.split or split_of(place.meta.index, context.splits),
        segments=list(segments),
    )


def _encoded(reader: VideoReader, file: str, wanted: np.ndarray, encoding: str) -> Iterator[bytes]:
    for frame in reader.frames(file, wanted):
        yield encode_frame(frame, encoding)


def _integers(table: Any, key: str) -> np.ndarray | None:
    if key not in table.column_names:
        return None
    return to_numpy(table[key], (1,), key).reshape(-1).astype(np.int64)


def _lossless(values: np.ndarray, feature: Feature, who: str) -> np.ndarray:
    cast = values.astype(feature.dtype)
    if values.dtype != cast.dtype and not np.array_equal(cast.astype(values.dtype), values, equal_nan=True):
        raise EpisodeError(
            f"{who} is {values.dtype}, expected {feature.dtype} as in the first episode; convert it apart"
        )
    return cast


def _task(
    indices: np.ndarray | None, tasks: Mapping[int, str], meta: EpisodeMeta
) -> tuple[str, list[Segment]]:
    """Return the instruction; if it changes within the episode, all in order and the parts as segments."""
    if indices is None or any(int(i) not in tasks for i in np.unique(indices)):
        return (meta.tasks[0] if meta.tasks else ""), []
    starts = np.concatenate([[0], np.flatnonzero(np.diff(indices)) + 1])
    texts = [tasks[int(indices[start])] for start in starts]
    if len(texts) == 1:
        return texts[0], []
    ends = [*starts[1:].tolist(), len(indices)]
    segments = [Segment(int(a), int(b), "task", t) for a, b, t in zip(starts, ends, texts, strict=True)]
    return "; ".join(dict.fromkeys(texts)), segments


def _locate(
    path: Path, info: Info, files: Files, metas: Mapping[int, EpisodeMeta]
) -> tuple[dict[int, _Place], dict[int, str]]:
    """Find every episode's rows; return places and, for episodes without rows, reasons."""
    places: dict[int, _Place] = {}
    rejected: dict[int, str] = {}
    if info.major == 2:
        for (index,), file in files.data.items():
            places[index] = _Place(file)
    else:
        _locate_shared(RowReader(path), files, metas, places, rejected)
    for index in metas.keys() - places.keys() - rejected.keys():
        rejected[index] = "it is in the episode table, but no file below data/ holds its rows; copy it again"
    for index, place in places.items():
        meta = metas.get(index, EpisodeMeta(index))
        places[index] = _Place(place.file, place.start, place.stop, meta=meta)
    return dict(sorted(places.items())), rejected


def _locate_shared(
    rows: RowReader,
    files: Files,
    metas: Mapping[int, EpisodeMeta],
    places: dict[int, _Place],
    rejected: dict[int, str],
) -> None:
    """v3.0: find runs of episode numbers in the shared files; without such a column, go by the table."""
    first_row = 0
    for file in files.data.values():
        try:
            n_rows, named = rows.n_rows(file), "episode_index" in rows.schema(file).names
            runs = rows.episode_runs(file) if named else _declared_runs(metas, first_row, n_rows)
        except EpisodeError as error:
            _logger.warning("%s", error)
            continue
        first_row += n_rows
        for index, start, stop in runs:
            if index in places or index in rejected:
                rejected[index] = f"its rows are scattered, in {file} and elsewhere; expected one block"
                places.pop(index, None)
            else:
                places[index] = _Place(file, start, stop)


def _declared_runs(metas: Mapping[int, EpisodeMeta], first: int, n_rows: int) -> list[tuple[int, int, int]]:
    spans = [(m.index, m.rows[0] - first, m.rows[1] - first) for m in metas.values() if m.rows]
    return [(index, start, stop) for index, start, stop in spans if 0 <= start < stop <= n_rows]


def _with_videos(
    places: Mapping[int, _Place],
    rejected: Mapping[int, str],
    info: Info,
    files: Files,
    cameras: Mapping[str, str],
) -> tuple[list[EpisodeRef], list[Rejected]]:
    """Give every episode its videos; those that lack one are rejected."""
    reasons = dict(rejected)
    shared = {n: _shared_places(key, files, places) for n, key in cameras.items()} if info.major == 3 else {}
    refs = []
    for index, place in places.items():
        videos: dict[str, VideoPlace] = {}
        for name, key in cameras.items():
            if info.major == 3:
                found = shared[name].get(index)
            else:
                file = files.videos[key].get((index,))
                found = VideoPlace(file) if file else None
            if found is None:
                reasons[index] = (
                    f"no video of {key} was found for it below videos/; copy it again, "
                    "or convert without that camera: --option cameras=..."
                )
                break
            videos[name] = found
        else:
            located = _Place(place.file, place.start, place.stop, videos, place.meta)
            refs.append(EpisodeRef(f"episode_{index:06d}", located))
    return refs, [Rejected(f"episode_{index:06d}", reason) for index, reason in sorted(reasons.items())]


def _shared_places(key: str, files: Files, places: Mapping[int, _Place]) -> dict[int, VideoPlace]:
    """v3.0: order the episodes of each mp4 and count the steps before each."""
    members: dict[str, list[tuple[float, int]]] = {}
    for index, place in places.items():
        declared = place.meta.videos.get(key)
        if declared is not None and declared[:2] in files.videos[key]:
            members.setdefault(files.videos[key][declared[:2]], []).append((declared[2], index))
    result = {}
    for file, episodes in members.items():
        lengths = {index: (places[index].stop or 0) - places[index].start for _, index in episodes}
        before, total = 0, sum(lengths.values())
        for start_s, index in sorted(episodes):
            result[index] = VideoPlace(file, before, total, start_s)
            before += lengths[index]
    return result


def _count_warnings(info: Info, files: Files, metas: Mapping[int, EpisodeMeta], n_episodes: int) -> list[str]:
    warnings = []
    if not metas:
        warnings.append(
            "the episode table in meta/ is missing or empty; instructions come from the rows alone"
        )
    declared = info.raw.get("total_episodes")
    if isinstance(declared, int) and declared != n_episodes:
        warnings.append(f"info.json declares {declared} episodes, {n_episodes} were found")
    frames, lengths = info.raw.get("total_frames"), [m.length for m in metas.values()]
    if isinstance(frames, int) and lengths and None not in lengths and sum(n or 0 for n in lengths) != frames:
        warnings.append(
            f"info.json declares {frames} frames, the episode table has {sum(n or 0 for n in lengths)}"
        )
    n_videos = sum(len(found) for found in files.videos.values())
    if (
        info.major == 2
        and isinstance(info.raw.get("total_videos"), int)
        and info.raw["total_videos"] != n_videos
    ):
        warnings.append(f"info.json declares {info.raw['total_videos']} videos, {n_videos} were found")
    return warnings


def _checksum(path: Path, files: Files) -> str:
    """Hash the metadata, all names and sizes, and the end of each parquet file, which sums up its columns."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(p for p in (path / "meta").rglob("*") if p.is_file()):
        digest.update(file.relative_to(path).as_posix().encode() + b"\0" + file.read_bytes())
    for name in sorted(files.sizes):
        digest.update(f"{name}\0{files.sizes[name]}\n".encode())
        if name.endswith(".parquet"):
            with (path / name).open("rb") as stream:
                stream.seek(max(0, files.sizes[name] - _TAIL_BYTES))
                digest.update(stream.read())
    return digest.hexdigest()
