"""Which features a LeRobot dataset has: from its first readable files, with names and units from its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import IMAGE_PREFIX, Feature
from robot_datasets.image_codec import frame_size, sniff_encoding
from robot_datasets.importers.lerobot_meta import (
    DEFAULT_COLUMNS,
    SIDE_FILE,
    Files,
    Info,
    are_generic,
    component_names,
    modality_names,
    read_json,
)
from robot_datasets.importers.lerobot_rows import Column, RowReader, describe_column, to_numpy
from robot_datasets.importers.lerobot_video import VideoHeader, VideoReader

_RATE_TOLERANCE = 0.01
_LOOKED_AT = 256
_DTYPE_FIELDS = ("units", "frame", "rotation", "gripper", "meaning")


@dataclass(frozen=True)
class ColumnPlan:
    """Feature -> parquet column of numbers, of encoded frames, and -> video key; encodings of the frames."""

    numbers: Mapping[str, str]
    images: Mapping[str, str]
    cameras: Mapping[str, str]
    image_encodings: Mapping[str, str]


class FeaturePlanner:
    """Looks into the first readable data file and video of each camera; complaints go to `warnings`."""

    def __init__(
        self, root: Path, info: Info, files: Files, options: Mapping[str, str], warnings: list[str]
    ) -> None:
        self._root = root
        self._info = info
        self._files = files
        self._options = options
        self._warnings = warnings
        self._times = np.empty(0)
        self._video_rates: list[float] = []
        self._details = _side_features(root)

    def columns(self, data_files: Sequence[str]) -> tuple[ColumnPlan, dict[str, Feature]]:
        """Return the plan of columns and all features."""
        file, rows = self._first_readable(data_files)
        table = rows.read(file, 0, min(rows.n_rows(file), _LOOKED_AT), rows.schema(file).names)
        found = {key: describe_column(table, key) for key in table.column_names}
        if "timestamp" in found:
            times = to_numpy(table["timestamp"], (1,), "timestamp").reshape(-1).astype(np.float64)
            numbered = "episode_index" in found and self._info.major == 3
            first = (
                table["episode_index"].to_pylist().count(table["episode_index"][0].as_py())
                if numbered
                else None
            )
            self._times = times[:first]
        self._warn_of_columns(found)
        numbers = {_low_dim_name(k): k for k, c in found.items() if c.kind == "numbers" and self._is_kept(k)}
        features = {name: self._feature(key, found[key]) for name, key in numbers.items()}
        images = {image_name(k): k for k, c in found.items() if c.kind == "image"}
        cameras = {image_name(k): k for k in self._video_keys() if image_name(k) not in images}
        images, cameras = self._chosen(images), self._chosen(cameras)
        encodings = {}
        for name, key in images.items():
            frame = next(rows.frames(file, 0, 1, key))
            features[name] = Feature(dtype="uint8", shape=(*frame_size(frame), 3))
            encodings[name] = sniff_encoding(frame) or "png"
        for name, key in list(cameras.items()):
            header = self._first_header(key)
            if header is None:
                del cameras[name]
            else:
                features[name] = Feature(dtype="uint8", shape=(header.height, header.width, 3))
        return ColumnPlan(numbers, images, cameras, encodings), features

    def rate(self) -> float:
        """Return the rate of the steps [Hz]: the option, else the declared one unless the recorded times differ."""
        if self._options["fps"]:
            return _positive(self._options["fps"])
        declared = self._info.fps
        gaps = np.diff(self._times)
        recorded = float(1 / np.median(gaps)) if len(gaps) and np.median(gaps) > 0 else 0.0
        if not declared and not recorded:
            raise DatasetError(f"{self._root} tells no rate; give it in Hz with --option fps=30")
        for rate in self._video_rates:
            if declared and rate and abs(rate - declared) > _RATE_TOLERANCE * declared:
                self._warnings.append(f"info.json declares {declared:g} Hz, a video runs at {rate:g} Hz")
        if not recorded or (declared and abs(recorded - declared) <= _RATE_TOLERANCE * declared):
            return declared
        close = [rate for rate in self._video_rates if abs(rate - recorded) <= _RATE_TOLERANCE * recorded]
        chosen = round((close or [recorded])[0], 3)
        self._warnings.append(
            f"info.json declares {declared:g} Hz, the recorded times are {recorded:.4g} Hz apart; "
            f"{chosen:g} Hz is used, choose another rate with --option fps"
        )
        return chosen

    def _first_readable(self, data_files: Sequence[str]) -> tuple[str, RowReader]:
        reasons = []
        for file in data_files:
            rows = RowReader(self._root)
            try:
                if rows.n_rows(file):
                    return file, rows
                reasons.append(f"{file} has no rows")
            except EpisodeError as error:
                reasons.append(str(error))
        raise DatasetError(f"{self._root} has no readable data file; {(reasons or ['none was found'])[0]}")

    def _warn_of_columns(self, found: Mapping[str, Column]) -> None:
        absent = [key for key in DEFAULT_COLUMNS if key not in found]
        if absent:
            self._warnings.append(
                f"the data has no column {', '.join(absent)}; rows are taken in their order"
            )
        for key, column in found.items():
            if column.kind == "other":
                self._warnings.append(f"column {key} is text or of another kind that is not stored; left out")
            declared = self._info.features.get(key, {}).get("dtype")
            if (
                column.kind == "numbers"
                and key not in DEFAULT_COLUMNS
                and declared not in (None, column.dtype)
            ):
                self._warnings.append(
                    f"{key} is declared {declared}, its column is {column.dtype}, which is kept"
                )
        for key, entry in self._info.features.items():
            if (
                entry.get("dtype") not in ("video", "image")
                and key not in found
                and key not in DEFAULT_COLUMNS
            ):
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
            names = component_names(self._info.features.get(key, {}).get("names"), width)
            parts = modality_names(self._root).get(key, {})
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

    def _video_keys(self) -> list[str]:
        """Return the cameras that have files; complain of declared ones without, and of others."""
        declared = {k for k, entry in self._info.features.items() if entry.get("dtype") == "video"}
        for key in sorted(declared - set(self._files.videos)):
            self._warnings.append(f"camera {key} is declared, but has no video below videos/; left out")
        for key in sorted(set(self._files.videos) - declared - {""}):
            self._warnings.append(f"camera {key} is not declared in info.json, but has videos; taken in")
        keys = []
        for key in sorted(set(self._files.videos) - {""}):
            entry = self._info.features.get(key, {})
            details = {**(entry.get("info") or {}), **(entry.get("video_info") or {})}
            if details.get("video.is_depth_map") or details.get("is_depth_map"):
                self._warnings.append(
                    f"camera {key} is a video of quantised depth, which is not read; left out"
                )
            else:
                keys.append(key)
        return keys

    def _chosen(self, cameras: dict[str, str]) -> dict[str, str]:
        wanted = [name.strip() for name in self._options["cameras"].split(",") if name.strip()]
        if not wanted:
            return cameras
        known = {k for k in self._files.videos if k} | set(self._info.features)
        for name in wanted:
            if name not in known and IMAGE_PREFIX + name not in known:
                shorts = sorted(k.removeprefix(IMAGE_PREFIX) for k in self._files.videos)
                raise DatasetError(f"option cameras: {unknown_name('camera', name, shorts)}")
        return {n: k for n, k in cameras.items() if k in wanted or n.removeprefix(IMAGE_PREFIX) in wanted}

    def _first_header(self, key: str) -> VideoHeader | None:
        reader, reasons = VideoReader(self._root), []
        for file in self._files.videos[key].values():
            try:
                header = reader.header(file)
            except EpisodeError as error:
                reasons.append(str(error))
                continue
            finally:
                reader.close()
            self._compare(key, header)
            return header
        self._warnings.append(f"camera {key} has no readable video ({reasons[0]}); left out")
        return None

    def _compare(self, key: str, header: VideoHeader) -> None:
        self._video_rates.append(header.rate)
        entry = self._info.features.get(key, {})
        details = {**(entry.get("info") or {}), **(entry.get("video_info") or {})}
        codec = str(details.get("video.codec") or "")
        if (
            codec
            and codec not in header.codec
            and header.codec not in codec
            and not _same_codec(codec, header.codec)
        ):
            self._warnings.append(f"camera {key} is declared {codec}, its video is {header.codec}")
        shape = entry.get("shape") or []
        if len(shape) == 3 and {header.height, header.width} - set(shape):
            self._warnings.append(
                f"camera {key} is declared {shape}, its video is {header.height}x{header.width}"
            )


def _same_codec(declared: str, found: str) -> bool:
    """Whether a decoder's name belongs to a declared codec: ``libdav1d`` is av1, ``libx264`` makes h264."""
    families = (("av1", "dav1d", "svtav1", "aom"), ("h264", "x264", "avc"), ("hevc", "h265", "x265"))
    return any(any(n in declared for n in f) and any(n in found for n in f) for f in families)


def image_name(key: str) -> str:
    """``observation.images.top``, ``observation.image``, ``cam/top`` -> a feature name with our image prefix."""
    if key.startswith(IMAGE_PREFIX):
        return IMAGE_PREFIX + key.removeprefix(IMAGE_PREFIX).replace("/", ".")
    short = key.removeprefix("observation.").removeprefix("images.").replace("/", ".")
    return IMAGE_PREFIX + short


def _low_dim_name(key: str) -> str:
    return key.replace("/", ".")


def _side_features(root: Path) -> dict[str, dict[str, Any]]:
    path = root / SIDE_FILE
    if not path.is_file():
        return {}
    content = read_json(path)
    features = content.get("features") if isinstance(content, dict) else None
    return {k: v for k, v in features.items() if isinstance(v, dict)} if isinstance(features, dict) else {}


def _positive(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not rate > 0:
        raise DatasetError(f"fps is '{text}'; expected a positive number [Hz], for example --option fps=30")
    return rate
