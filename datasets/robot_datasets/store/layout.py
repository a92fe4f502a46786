"""Where everything lies in an episode store, and the attributes that describe it. See docs/episode-store.md."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import DEPTH_PREFIX, IMAGE_PREFIX, Feature, camera_name, is_image
from robot_datasets.image_codec import JPEG_BGR, STORED_ENCODINGS

FORMAT = 1
"""Version of the layout; a reader refuses stores of a newer one."""

ATTRIBUTE_KEY = "robot_policies"
IMAGE_CHUNK_BYTES = 128 << 20
"""Size of one payload file of encoded frames [bytes]."""

EPISODE_ENDS = "meta/episode_ends"
EPISODES = "meta/episodes"
SEGMENTS = "meta/segments"
TASKS = "meta/tasks"
QUARANTINE = "meta/quarantine"
WARNINGS = "meta/warnings"

_COLUMN_CHUNK_BYTES = 4 << 20
_CHUNKS_PER_SHARD = 16


def column_path(feature: str) -> str:
    """``action`` -> ``data/action``."""
    return f"data/{feature}"


def image_path(feature: str) -> str:
    """``observation.images.top`` -> ``images/top``; ``observation.depth.top`` -> ``depth/top``."""
    return f"{'depth' if feature.startswith(DEPTH_PREFIX) else 'images'}/{camera_name(feature)}"


def stats_path(feature: str) -> str:
    """``action`` -> ``meta/stats/action``."""
    return f"meta/stats/{feature}"


def column_chunks(rows: int, row_bytes: int) -> tuple[int, int]:
    """Return (rows per chunk, rows per shard): chunks of about 4 MiB, 16 to a shard, none longer than the column."""
    power = int(math.log2(max(1, _COLUMN_CHUNK_BYTES // max(1, row_bytes))))
    chunk = max(1, min(rows, 1 << power))
    return chunk, chunk * min(_CHUNKS_PER_SHARD, max(1, -(-rows // chunk)))


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """What the root attributes of a store say.

    Attributes:
        features: All features by name, images and depth included.
        fps: Rate of the steps [Hz].
        embodiment: Robot name, e.g. ``"franka"``; empty if unknown.
        source: Where the data came from, JSON-ready.
        conversion: How it was converted (importer, version, options, checksum), JSON-ready.
        encodings: Encoding of each image feature, one of `STORED_ENCODINGS`; frames of a feature that is
            not ``raw`` carry their own magic bytes, so JPEG and PNG may be mixed and the commoner is named.
    """

    features: Mapping[str, Feature]
    fps: float
    embodiment: str
    source: Mapping[str, Any]
    conversion: Mapping[str, Any]
    encodings: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.fps > 0:
            raise DatasetError(f"fps must be positive, got {self.fps}")
        if not self.low_dim:
            raise DatasetError("a store needs at least one low-dimensional feature; got only images")
        for name, encoding in self.encodings.items():
            if name not in self.image_features:
                raise DatasetError(unknown_name("image feature", name, self.image_features))
            if encoding not in STORED_ENCODINGS:
                raise DatasetError(unknown_name("image encoding", encoding, STORED_ENCODINGS))
        for name in self.features:
            _check_feature(name, self.features[name], self.encodings.get(name, ""))

    @property
    def low_dim(self) -> list[str]:
        """Names of the features stored as arrays, sorted."""
        return sorted(name for name in self.features if not is_image(name))

    @property
    def image_features(self) -> list[str]:
        """Names of the features stored as encoded frames, sorted."""
        return sorted(name for name in self.features if is_image(name))

    def to_attributes(self) -> dict[str, Any]:
        """Return the root attributes; key order is fixed, so equal specs give equal bytes."""
        spec = {
            "format": FORMAT,
            "fps": float(self.fps),
            "embodiment": self.embodiment,
            "source": _sorted(self.source),
            "conversion": _sorted(self.conversion),
            "features": {name: self.features[name].to_dict() for name in sorted(self.features)},
            "encodings": {name: self.encodings[name] for name in sorted(self.encodings)},
        }
        return {ATTRIBUTE_KEY: spec}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], *, where: str) -> StoreSpec:
        """Parse root attributes; `where` names the store in errors."""
        values = attributes.get(ATTRIBUTE_KEY)
        if not isinstance(values, Mapping):
            raise DatasetError(
                f"{where} is a zarr group without '{ATTRIBUTE_KEY}' attributes; expected an episode store, "
                "make one with: robot-policies convert SOURCE OUT"
            )
        if values.get("format") != FORMAT:
            raise DatasetError(
                f"{where} has format {values.get('format')}, this version reads {FORMAT}; "
                "convert it again or install the version that wrote it"
            )
        required = ("fps", "embodiment", "source", "conversion", "features", "encodings")
        missing = [key for key in required if key not in values]
        if missing:
            raise DatasetError(f"{where} lacks the attributes {', '.join(missing)}; the store is damaged")
        features = {n: Feature.from_dict(f, where=f"{where}: {n}") for n, f in values["features"].items()}
        rest = {key: values[key] for key in required if key != "features"}
        return cls(features=features, **rest)


def canonical_json(value: object) -> str:
    """Return one-line JSON with sorted keys, the same text for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_bytes(value: object) -> bytes:
    """Return `canonical_json` in UTF-8; halves of characters, which UTF-8 does not have, stay JSON escapes."""
    return canonical_json(value).encode("utf-8", "backslashreplace")


def storable_text(text: str) -> str:
    """Return text as it can be stored: what is no character, as in undecodable file names, becomes an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _sorted(values: Mapping[str, Any]) -> dict[str, Any]:
    return json.loads(canonical_json(dict(values)))


def _check_feature(name: str, feature: Feature, encoding: str) -> None:
    if not name or any(c in name for c in "/\\\0") or name.startswith((".", "__")) or name == "zarr.json":
        raise DatasetError(
            f"feature name {name!r} cannot be stored; use letters, digits, dots and underscores"
        )
    if not is_image(name):
        if 0 in feature.shape:
            raise DatasetError(f"feature '{name}' has shape {feature.shape}; only image sizes may vary (0)")
        return
    expected = ("uint8", 3) if name.startswith(IMAGE_PREFIX) else ("uint16", 1)
    if len(feature.shape) != 3 or (feature.dtype, feature.shape[2]) != expected:
        raise DatasetError(
            f"'{name}' is {feature.dtype} {feature.shape}; expected {expected[0]} (height, width, {expected[1]})"
        )
    if encoding == JPEG_BGR and not name.startswith(IMAGE_PREFIX):
        raise DatasetError(f"'{name}' is stored as {JPEG_BGR}, which is for colour; depth is png or raw")
    if encoding == "raw" and 0 in feature.shape:
        raise DatasetError(f"'{name}' is stored raw, so its size must be fixed, got {feature.shape}")
