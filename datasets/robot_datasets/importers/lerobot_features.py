"""Which features a LeRobot dataset has: from its first readable files, with names and units from its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature
from robot_datasets.image_codec import frame_size, sniff_encoding
from robot_datasets.importers.file_tree import FileTree
from robot_datasets.importers.lerobot_cameras import (
    CameraFinder,
    Frames,
    camera_details,
    image_feature,
    image_name,
    is_depth,
)
from robot_datasets.importers.lerobot_images import standard_frame
from robot_datasets.importers.lerobot_meta import (
    DEFAULT_COLUMNS,
    SIDE_FILE,
    are_generic,
    component_names,
    modality_names,
    read_json,
)
from robot_datasets.importers.lerobot_places import LeRobotSet
from robot_datasets.importers.lerobot_rate import choose_rate
from robot_datasets.importers.lerobot_rows import Column, RowReader, describe_column, to_numpy

if TYPE_CHECKING:
    import pyarrow as pa

_LOOKED_AT = 256
_COMPARED_FILES = 5
_DTYPE_FIELDS = ("units", "frame", "rotation", "gripper", "meaning")


@dataclass(frozen=True)
class ColumnPlan:
    """What is read of each episode.

    Attributes:
        numbers: Feature -> parquet column of numbers.
        images: Image feature -> parquet column of frames.
        cameras: Image feature -> video.
        image_encodings: Usual encoding of the frames of `images`.
        language: Columns of annotations.
        texts: Columns of text.
    """

    numbers: Mapping[str, str]
    images: Mapping[str, Frames]
    cameras: Mapping[str, Frames]
    image_encodings: Mapping[str, str]
    language: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()


class FeaturePlanner:
    """Looks into the first readable data file and video of each camera; complaints go to `warnings`."""

    def __init__(self, source: LeRobotSet, options: Mapping[str, str], warnings: list[str]) -> None:
        """Prepare.

        Args:
            source: The dataset.
            options: ``cameras`` and ``timestamps`` as the importer declares them.
            warnings: Takes the complaints.
        """
        self._source = source
        self._declared = source.info.features
        self._options = options
        self._warnings = warnings
        self._cameras = CameraFinder(source, warnings)
        self._details = _side_features(source.tree)
        self._times = np.empty(0)
        self._table: pa.Table | None = None

    def columns(self) -> tuple[ColumnPlan, dict[str, Feature]]:
        """Return the plan of columns and all features."""
        file, rows, table, found = self._first_readable()
        self._times, self._table = _recorded_times(table), table
        self._warn_of_columns(found)
        numbers = {_low_dim_name(k): k for k, c in found.items() if c.kind == "numbers" and self._is_kept(k)}
        features = {name: self._feature(key, found[key]) for name, key in numbers.items()}
        images = dict(self._image_column(key) for key, column in found.items() if column.kind == "image")
        videos = {name: frames for name, frames in self._cameras.find().items() if name not in images}
        images, videos = (self._cameras.chosen(c, self._options["cameras"]) for c in (images, videos))
        encodings = {}
        for name, column in images.items():
            frame = next(rows.frames(file, 0, 1, column.key))
            frame = standard_frame(frame, column.unit if column.depth else None, f"{file}: {column.key}")
            features[name] = image_feature(name, *frame_size(frame))
            encodings[name] = sniff_encoding(frame) or "png"
        for name, frames in videos.items():
            header = self._cameras.headers[frames.key]
            features[name] = image_feature(name, header.height, header.width)
        language, texts = (
            tuple(n for n, c in found.items() if c.kind == kind) for kind in ("language", "text")
        )
        return ColumnPlan(numbers, images, videos, encodings, language, texts), features

    def rate(self) -> float:
        """Return the rate of the steps [Hz]."""
        rates = [header.rate for header in self._cameras.headers.values()]
        return choose_rate(self._source.info.fps, self._times, rates, self._warnings)

    def reach(self, key: str) -> float:
        """Return the largest absolute value of a column among the first rows; 0 if it is no column of numbers."""
        if self._table is None or key not in self._table.column_names:
            return 0.0
        values = self._table[key].combine_chunks()
        flat = values.flatten() if hasattr(values, "flatten") else values
        return float(np.abs(flat.to_numpy(zero_copy_only=False)).max(initial=0.0))

    @property
    def lost_cameras(self) -> list[str]:
        """Return the video keys that are declared and have no videos."""
        return self._cameras.lost

    def _type_of(self, key: str) -> str:
        return str(self._declared.get(key, {}).get("dtype") or "")

    def _first_readable(self) -> tuple[str, RowReader, pa.Table, dict[str, Column]]:
        """Return the first data file that reads well and has columns like those of most of the first few."""
        reasons: list[str] = []
        found: dict[Any, list[tuple[str, RowReader]]] = {}
        for file in sorted({place.file for place in self._source.places.values()}):
            rows = RowReader(self._source.tree)
            try:
                if rows.n_rows(file):
                    found.setdefault(self._kinds(file, rows), []).append((file, rows))
                else:
                    reasons.append(f"{file} has no rows")
            except EpisodeError as error:
                reasons.append(str(error))
            if sum(map(len, found.values())) == _COMPARED_FILES:
                break
        for file, rows in max(found.values(), key=len, default=[]):
            try:
                return file, rows, *self._first_rows(file, rows)
            except EpisodeError as error:
                reasons.append(str(error))
        raise DatasetError(f"the dataset has no readable data file; {(reasons or ['none was found'])[0]}")

    def _first_rows(self, file: str, rows: RowReader) -> tuple[pa.Table, dict[str, Column]]:
        """Read some rows and the first frame of every column of frames; `EpisodeError` if any is damaged."""
        table = rows.read(file, 0, min(rows.n_rows(file), _LOOKED_AT), rows.schema(file).names)
        found = {k: describe_column(table, k, self._type_of(k)) for k in table.column_names}
        for key, column in found.items():
            if column.kind == "image" and next(rows.frames(file, 0, 1, key), None) is None:
                raise EpisodeError(f"{file}: {key} has no frames")
        return table, found

    def _kinds(self, file: str, rows: RowReader) -> tuple[tuple[str, Column], ...]:
        """Return what the columns of a file are, those of encoded frames left out."""
        names = [name for name in rows.schema(file).names if self._type_of(name) != "image"]
        table = rows.read(file, 0, 1, names)
        return tuple((key, describe_column(table, key, self._type_of(key))) for key in sorted(names))

    def _warn_of_columns(self, found: Mapping[str, Column]) -> None:
        absent = [key for key in DEFAULT_COLUMNS if key not in found]
        if absent:
            self._warnings.append(
                f"the data has no column {', '.join(absent)}; rows are taken in their order"
            )
        for key, column in found.items():
            if column.kind in ("other", "text"):
                self._warnings.append(f"column {key} is text or of another kind that is not stored; left out")
            declared = self._type_of(key)
            if column.kind == "numbers" and key not in DEFAULT_COLUMNS and declared not in ("", column.dtype):
                self._warnings.append(
                    f"{key} is declared {declared}, its column is {column.dtype}, which is kept"
                )
        for key in self._declared:
            stored_apart = self._type_of(key) in ("video", "image") or key in DEFAULT_COLUMNS
            if key not in found and not stored_apart:
                self._warnings.append(f"feature {key} is declared, but the data has no such column")

    def _is_kept(self, key: str) -> bool:
        if key == "timestamp":
            return self._options["timestamps"] == "keep"
        return key not in DEFAULT_COLUMNS

    def _image_column(self, key: str) -> tuple[str, Frames]:
        entry = self._declared.get(key, {})
        depth = is_depth(entry)
        unit = str(camera_details(entry).get("depth_unit") or "")
        return image_name(key, depth=depth), Frames(key, depth=depth, unit=unit)

    def _feature(self, key: str, column: Column) -> Feature:
        """Describe a column of numbers; our own side file knows units and conventions, GR00T's names parts."""
        names: tuple[str, ...] = ()
        if len(column.shape) == 1:
            width = column.shape[0]
            names = component_names(self._declared.get(key, {}).get("names"), width)
            parts = modality_names(self._source.tree).get(key, {})
            if are_generic(names) and set(parts) == set(range(width)):
                names = tuple(parts[i] for i in range(width))
        details = self._details.get(key, {})
        fits = (details.get("dtype"), list(details.get("shape", ()))) == (column.dtype, list(column.shape))
        extra = {k: v for k, v in details.items() if k in _DTYPE_FIELDS} if fits else {}
        if key == "timestamp":
            extra = {"units": ("s",)}
        return Feature.from_dict(
            {"dtype": column.dtype, "shape": column.shape, "names": names, **extra}, where=key
        )


def _recorded_times(table: pa.Table) -> np.ndarray:
    """Return the times of the first episode among some rows; empty if there are none."""
    if "timestamp" not in table.column_names:
        return np.empty(0)
    times = to_numpy(table["timestamp"], (1,), "timestamp").reshape(-1)
    if times.dtype.kind not in "iuf":
        return np.empty(0)
    times = times.astype(np.float64)
    if "episode_index" not in table.column_names:
        return times
    numbers = to_numpy(table["episode_index"], (1,), "episode_index").reshape(-1)
    return times[numbers == numbers[0]]


def _low_dim_name(key: str) -> str:
    return key.replace("/", ".")


def _side_features(tree: FileTree) -> dict[str, dict[str, Any]]:
    if not tree.has(SIDE_FILE):
        return {}
    content = read_json(tree, SIDE_FILE)
    features = content.get("features") if isinstance(content, dict) else None
    return {k: v for k, v in features.items() if isinstance(v, dict)} if isinstance(features, dict) else {}
