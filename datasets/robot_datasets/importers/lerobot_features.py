"""Which features a LeRobot dataset has: from its first readable files, with names and units from its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.features import Feature
from robot_datasets.image_codec import frame_size, sniff_encoding
from robot_datasets.importers.file_tree import FileTree
from robot_datasets.importers.lerobot_cameras import CameraFinder, Frames, image_column, image_feature
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
from robot_datasets.importers.lerobot_rows import Column
from robot_datasets.importers.lerobot_samples import agreed_columns, first_frame, recorded_times, take_samples

if TYPE_CHECKING:
    import pyarrow as pa

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
    """Looks into the first readable data file and video of each camera; complaints go to `warnings`.

    If a file contradicts info.json, some more are looked into, and what most of them hold is taken, so that one
    damaged episode does not decide for all.
    """

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
        self._details = _side_features(source.tree, warnings)
        self._parts = modality_names(source.tree, warnings)
        self._times = np.empty(0)
        self._table: pa.Table | None = None

    def columns(self) -> tuple[ColumnPlan, dict[str, Feature]]:
        """Return the plan of columns and all features."""
        samples = take_samples(self._source)
        found = agreed_columns(samples, self._declared)
        usual = next((s for s in samples if s.columns == found), samples[0])
        self._times, self._table = recorded_times(usual), usual.table
        self._warn_of_columns(found)
        numbers = {_low_dim_name(k): k for k, c in found.items() if c.kind == "numbers" and self._is_kept(k)}
        features = {name: self._feature(key, found[key]) for name, key in numbers.items()}
        images = dict(
            image_column(key, self._declared.get(key, {}))
            for key, column in found.items()
            if column.kind == "image"
        )
        videos = {name: frames for name, frames in self._cameras.find().items() if name not in images}
        images, videos = (self._cameras.chosen(c, self._options["cameras"]) for c in (images, videos))
        encodings = {}
        for name, column in images.items():
            frame = first_frame(samples, column)
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
            shape = self._declared.get(key, {}).get("shape")
            if column.kind == "numbers" and shape not in (None, list(column.shape), []):
                self._warnings.append(
                    f"{key} is declared of shape {shape}, its column has {list(column.shape)}, which is kept"
                )
        for key in self._declared:
            stored_apart = self._type_of(key) in ("video", "image") or key in DEFAULT_COLUMNS
            if key not in found and not stored_apart:
                self._warnings.append(f"feature {key} is declared, but the data has no such column")

    def _is_kept(self, key: str) -> bool:
        if key == "timestamp":
            return self._options["timestamps"] == "keep"
        return key not in DEFAULT_COLUMNS

    def _feature(self, key: str, column: Column) -> Feature:
        """Describe a column of numbers; our own side file knows units and conventions, GR00T's names parts."""
        names: tuple[str, ...] = ()
        if len(column.shape) == 1:
            width = column.shape[0]
            told = self._declared.get(key, {}).get("names")
            names, parts = component_names(told, width), self._parts.get(key, {})
            if told and not names and width > 1:
                self._warnings.append(f"{key} has names {str(told)[:60]}, expected {width} texts; ignored")
            if are_generic(names) and set(parts) == set(range(width)):
                names = tuple(parts[i] for i in range(width))
        details = self._details.get(key, {})
        fits = (details.get("dtype"), list(details.get("shape", ()))) == (column.dtype, list(column.shape))
        extra = {k: v for k, v in details.items() if k in _DTYPE_FIELDS} if fits else {}
        if key == "timestamp":
            extra = {"units": ("s",)}
        plain = {"dtype": column.dtype, "shape": column.shape, "names": names}
        try:
            return Feature.from_dict({**plain, **extra}, where=key)
        except (DatasetError, TypeError) as error:
            self._warnings.append(f"{SIDE_FILE} describes {key} wrongly ({error}); ignored")
            return Feature.from_dict(plain, where=key)


def _low_dim_name(key: str) -> str:
    return key.replace("/", ".")


def _side_features(tree: FileTree, warnings: list[str]) -> dict[str, dict[str, Any]]:
    """Return what our own exporter noted of each feature."""
    if not tree.has(SIDE_FILE):
        return {}
    try:
        content = read_json(tree, SIDE_FILE)
    except DatasetError as error:
        warnings.append(str(error))
        return {}
    features = content.get("features") if isinstance(content, dict) else None
    if not isinstance(features, dict):
        warnings.append(f"{SIDE_FILE} has no 'features'; units and conventions are not known")
        return {}
    return {k: v for k, v in features.items() if isinstance(v, dict)}
