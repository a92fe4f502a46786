"""The first rows of a few data files of a LeRobot dataset: what its columns hold, by majority.

One file is enough if it holds what info.json declares. Otherwise some more are looked into, so that one damaged
episode does not decide for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.features import DTYPES
from robot_datasets.image_codec import frame_size
from robot_datasets.importers.lerobot_cameras import Frames, image_column
from robot_datasets.importers.lerobot_images import standard_frame
from robot_datasets.importers.lerobot_meta import DEFAULT_COLUMNS
from robot_datasets.importers.lerobot_places import LeRobotSet
from robot_datasets.importers.lerobot_rows import Column, RowReader, describe_column, to_numpy

if TYPE_CHECKING:
    import pyarrow as pa

_LOOKED_AT = 256
_SAMPLES = 5


@dataclass
class Sample:
    """The first rows of one data file, and what its columns hold."""

    file: str
    rows: RowReader
    table: pa.Table
    columns: dict[str, Column]


def take_samples(source: LeRobotSet) -> list[Sample]:
    """Look into the first file; if it is not as declared, into some more.

    Raises:
        DatasetError: No file can be read.
    """
    declared = source.info.features
    samples: list[Sample] = []
    reasons = []
    for file in sorted({place.file for place in source.places.values()}):
        rows = RowReader(source.tree)
        try:
            table = rows.read(file, 0, min(rows.n_rows(file), _LOOKED_AT), rows.names(file))
        except EpisodeError as error:
            reasons.append(str(error))
            continue
        columns = {k: describe_column(table, k, _dtype(declared.get(k, {}))) for k in table.column_names}
        samples.append(Sample(file, rows, table, columns))
        if len(samples) >= _SAMPLES or (len(samples) == 1 and _is_as_declared(samples[0], declared)):
            break
    if not samples:
        raise DatasetError(
            f"the dataset has no readable data file; {(reasons or ['none was found'])[0]}; copy it again"
        )
    return samples


def agreed_columns(samples: Sequence[Sample], declared: Mapping[str, Mapping[str, Any]]) -> dict[str, Column]:
    """Return, for the columns that at least half of the samples have, what most of them hold."""
    agreed = {}
    for key in dict.fromkeys(key for sample in samples for key in sample.columns):
        found = [sample.columns[key] for sample in samples if key in sample.columns]
        if 2 * len(found) < len(samples):
            continue
        commonest = Counter(found).most_common()
        ties = [column for column, count in commonest if count == commonest[0][1]]
        wanted = _declared_type(declared.get(key, {}))
        agreed[key] = next((c for c in ties if (c.dtype, list(c.shape)) == wanted), ties[0])
    return agreed


def first_frame(samples: Sequence[Sample], column: Frames) -> bytes:
    """Return the first frame of an image column that can be read, as a store takes it.

    Raises:
        DatasetError: None can.
    """
    reason: DatasetError | None = None
    for sample in samples:
        try:
            frame = next(sample.rows.frames(sample.file, 0, 1, column.key))
            unit = column.unit if column.depth else None
            frame = standard_frame(frame, unit, f"{sample.file}: {column.key}")
            frame_size(frame)
        except DatasetError as error:
            reason = error
        else:
            return frame
    raise reason or DatasetError(f"{column.key} has no frame; expected at least one")


def recorded_times(sample: Sample) -> np.ndarray:
    """Return the times of the first episode of a sample, (T,) float64; empty if there are none."""
    table, columns = sample.table, sample.columns
    if "timestamp" not in columns or columns["timestamp"].kind != "numbers":
        return np.empty(0)
    try:
        times = to_numpy(table["timestamp"], (1,), "timestamp").reshape(-1).astype(np.float64)
        if "episode_index" not in columns:
            return times
        numbers = to_numpy(table["episode_index"], (1,), "episode_index").reshape(-1)
    except EpisodeError:  # found again, and told, when the episode is read
        return np.empty(0)
    return times[numbers == numbers[:1]]


def _is_as_declared(sample: Sample, declared: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether all declared columns are there and hold what is declared, and the first frames can be read."""
    for key, entry in declared.items():
        if _dtype(entry) == "video" or key in DEFAULT_COLUMNS:
            continue
        column = sample.columns.get(key)
        if column is None:
            return False
        if _dtype(entry) in DTYPES and (column.dtype, list(column.shape)) != _declared_type(entry):
            return False
    images = [key for key, column in sample.columns.items() if column.kind == "image"]
    try:
        return all(first_frame([sample], image_column(key, declared.get(key, {}))[1]) for key in images)
    except DatasetError:
        return False


def _dtype(entry: Mapping[str, Any]) -> str:
    return str(entry.get("dtype") or "")


def _declared_type(entry: Mapping[str, Any]) -> tuple[str, list[int]]:
    return _dtype(entry), list(entry.get("shape") or [])
