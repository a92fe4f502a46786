"""One episode after another of a LeRobot dataset: its rows as arrays, its frames, its instruction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.episode import Episode, EpisodeError, Segment
from robot_datasets.features import Feature
from robot_datasets.image_codec import encode_frame
from robot_datasets.importers.file_tree import FileTree
from robot_datasets.importers.instructions import instruction_of_steps
from robot_datasets.importers.lerobot_cameras import Frames
from robot_datasets.importers.lerobot_features import ColumnPlan
from robot_datasets.importers.lerobot_images import standard_frame
from robot_datasets.importers.lerobot_language import event_segments, persistent_segments
from robot_datasets.importers.lerobot_meta import split_of
from robot_datasets.importers.lerobot_places import LeRobotSet, Place
from robot_datasets.importers.lerobot_rows import RowReader, to_numpy
from robot_datasets.importers.lerobot_tables import EpisodeMeta
from robot_datasets.importers.lerobot_video import VideoReader

_INDICES = ("task_index", "frame_index", "episode_index")
_PERSISTENT = "language_persistent"
_INSTRUCTIONS = ("task", "language_instruction", "instruction")
"""Text columns that tell the instruction where there are no numbers of instructions."""


@dataclass(frozen=True)
class SetLabels:
    """What a dataset says of all its episodes: instruction by number, and info.json's ``splits``; picklable."""

    tasks: Mapping[int, str]
    splits: Any

    @classmethod
    def of(cls, source: LeRobotSet) -> SetLabels:
        """Return those of a dataset."""
        return cls(source.tasks, source.info.raw.get("splits"))


class EpisodeReader:
    """Reads the episodes of one dataset; keeps the file open that several of them share."""

    def __init__(
        self,
        tree: FileTree,
        labels: SetLabels,
        columns: ColumnPlan,
        features: Mapping[str, Feature],
        encodings: Mapping[str, str],
        fps: float,
    ) -> None:
        """Prepare.

        Args:
            tree: The dataset's files.
            labels: Its instructions and splits.
            columns: What to read.
            features: The features that the columns become; types and shapes are checked against them.
            encodings: Image feature of a video -> how its frames are encoded.
            fps: Rate of the steps [Hz].
        """
        self._columns = columns
        self._features = features
        self._encodings = encodings
        self._tasks = labels.tasks
        self._splits = labels.splits
        self._fps = fps
        self._rows = RowReader(tree)
        self._videos = {name: VideoReader(tree, frames.coding) for name, frames in columns.cameras.items()}

    def __enter__(self) -> EpisodeReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all files."""
        for reader in self._videos.values():
            reader.close()

    def read(self, source_id: str, place: Place) -> Episode:
        """Read an episode; its frames come when they are asked for.

        Raises:
            EpisodeError: Files or columns are missing or damaged, or of another type than in other episodes.
        """
        columns, rows = self._columns, self._rows
        there = set(rows.names(place.file))
        needed = [*columns.numbers.values(), *(frames.key for frames in columns.images.values())]
        missing = [key for key in needed if key not in there]
        if missing:
            raise EpisodeError(f"{place.file} has no column {missing[0]}; other episodes have it")
        optional = (*_INDICES, *columns.language, *self._instruction_column(there))
        wanted = dict.fromkeys([*columns.numbers.values(), *(key for key in optional if key in there)])
        stop = rows.n_rows(place.file) if place.stop is None else place.stop
        table = rows.read(place.file, place.start, stop, list(wanted))
        data = {name: self._numbers(name, table, key, place.file) for name, key in columns.numbers.items()}
        images: dict[str, Iterator[bytes]] = {
            name: self._column_frames(frames, place, stop) for name, frames in columns.images.items()
        }
        warnings: list[str] = []
        numbers = {key: _integers(table, key, warnings) for key in _INDICES}
        for name, reader in self._videos.items():
            steps = reader.locate(place.videos[name], table.num_rows, numbers["frame_index"])
            images[name] = _encoded(reader, place.videos[name].file, steps, self._encodings[name])
        warnings += _contradictions(table.num_rows, place.meta, numbers)
        task, segments = self._labels(table, place.meta, numbers["task_index"], warnings)
        return Episode(
            source_id,
            data,
            dict(images),
            task=task,
            success=place.meta.success,
            split=place.meta.split or split_of(place.meta.index, self._splits),
            segments=list(segments),
            warnings=warnings,
        )

    def _numbers(self, name: str, table: Any, key: str, file: str) -> np.ndarray:
        feature, who = self._features[name], f"{file}: {key}"
        values = to_numpy(table[key], feature.shape, who)
        cast = values.astype(feature.dtype)
        if values.dtype != cast.dtype and not np.array_equal(
            cast.astype(values.dtype), values, equal_nan=values.dtype.kind == "f"
        ):
            raise EpisodeError(
                f"{who} is {values.dtype}, expected {feature.dtype} as in the first episode; convert it apart"
            )
        return cast

    def _column_frames(self, frames: Frames, place: Place, stop: int) -> Iterator[bytes]:
        who = f"{place.file}: {frames.key}"
        for frame in self._rows.frames(place.file, place.start, stop, frames.key):
            yield standard_frame(frame, frames.unit if frames.depth else None, who)

    def _instruction_column(self, there: set[str]) -> list[str]:
        if self._tasks and "task_index" in there:
            return []
        return [key for key in _INSTRUCTIONS if key in self._columns.texts and key in there][:1]

    def _labels(
        self, table: Any, meta: EpisodeMeta, indices: np.ndarray | None, warnings: list[str]
    ) -> tuple[str, list[Segment]]:
        """Return the instruction, and labelled parts: annotations, paraphrases, changes of the instruction."""
        task, segments = self._instruction(table, meta, indices, warnings)
        told = {task, *(segment.text for segment in segments)}
        known, n_steps = set(self._tasks.values()), table.num_rows
        others = [text for text in meta.tasks if text not in told]
        if known and meta.tasks and not told & set(meta.tasks):
            warnings.append(
                f"the instruction is '{task}', the episode table says '{others[0]}'; the former is taken"
            )
            others = []
        for text in others:
            if known and text not in known:
                warnings.append(
                    f"the episode table has '{text}', which the table of instructions lacks; ignored"
                )
            else:
                segments.append(Segment(0, n_steps, "paraphrase", text))
        times = np.arange(n_steps) / self._fps
        for key in self._columns.language:
            if key not in table.column_names:
                continue
            if key == _PERSISTENT:
                segments += persistent_segments(table[key][0].as_py() or (), times)
            else:
                segments += event_segments(table[key].to_pylist())
        return task, segments + [Segment.of(part) for part in meta.segments]

    def _instruction(
        self, table: Any, meta: EpisodeMeta, indices: np.ndarray | None, warnings: list[str]
    ) -> tuple[str, list[Segment]]:
        texts = self._instruction_column(set(table.column_names))
        if indices is not None and self._tasks:
            unknown = [int(i) for i in np.unique(indices) if int(i) not in self._tasks]
            if not unknown:
                return instruction_of_steps([self._tasks[i] for i in indices.tolist()])
            warnings.append(
                f"task_index is {unknown[0]}, which the table of instructions lacks; the episode table's is taken"
            )
        elif texts:
            return instruction_of_steps([str(text or "") for text in table[texts[0]].to_pylist()])
        return (meta.tasks[0] if meta.tasks else ""), []


def _contradictions(n_steps: int, meta: EpisodeMeta, numbers: Mapping[str, np.ndarray | None]) -> list[str]:
    """Compare an episode's rows with the episode table and with their own numbers."""
    found = []
    if meta.length is not None and meta.length != n_steps:
        found.append(f"it has {n_steps} rows, the episode table says {meta.length}; the rows are taken")
    steps, episodes = numbers["frame_index"], numbers["episode_index"]
    if steps is not None and not np.array_equal(steps, np.arange(n_steps)):
        found.append("frame_index does not count 0, 1, 2, ...; rows were left out, repeated or rearranged")
    if episodes is not None and meta.index >= 0 and not np.all(episodes == meta.index):
        found.append(f"episode_index is {int(episodes[0])} in the file of episode {meta.index}")
    return found


def _encoded(reader: VideoReader, file: str, wanted: np.ndarray, encoding: str) -> Iterator[bytes]:
    for frame in reader.frames(file, wanted):
        yield encode_frame(frame, encoding)


def _integers(table: Any, key: str, warnings: list[str]) -> np.ndarray | None:
    """Return a column of whole numbers, (T,); None if there is none, with a warning if it is something else."""
    if key not in table.column_names:
        return None
    try:
        values = to_numpy(table[key], (1,), key).reshape(-1)
    except EpisodeError as error:
        warnings.append(f"{error}; the column is ignored")
        return None
    whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        warnings.append(f"{key} holds fractions, expected whole numbers; the column is ignored")
        return None
    return whole
