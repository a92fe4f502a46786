"""TFDS's ``features.json``: what each key of a record holds. A record itself tells neither shapes nor types.

Three generations of the file are around: nested protobuf JSON (``pythonClassName``), the same below ``type`` and
``content``, and ``content`` without protobuf. All become one flat table.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.importers.tfrecord import ExampleValue

STEPS = "steps/"
_TEXT_TYPES = ("string", "object")
_STORED_AS = {
    "float16": "float32",
    "float32": "float32",
    "float64": "float32",  # a record holds floats in 32 bits whatever was declared
    "bool": "bool",
    "uint8": "uint8",
    "uint16": "uint16",
    "int8": "int32",
    "int16": "int32",
    "int32": "int32",
    "uint32": "int64",
    "int64": "int64",
}
_CONTENT_KEYS = {"FeaturesDict": "featuresDict", "Dataset": "sequence", "Sequence": "sequence"} | {
    "Image": "image",
    "Text": "text",
    "Tensor": "tensor",
    "Scalar": "tensor",
    "ClassLabel": "classLabel",
}


@dataclass(frozen=True)
class RecordKey:
    """What one key of a record holds.

    Attributes:
        path: The key, e.g. ``steps/observation/state``.
        kind: ``"numbers"``, ``"image"``, ``"text"``, or ``"other"`` for what is not read.
        dtype: NumPy type that was declared.
        shape: Shape of one step (or of the one value, outside ``steps``); -1 where it varies.
        encoding: ``"bytes"`` or ``"zlib"`` if numbers are packed into byte strings, else empty.
    """

    path: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    encoding: str = ""

    @property
    def per_step(self) -> bool:
        """Whether there is one value for each step."""
        return self.path.startswith(STEPS)

    @property
    def stored_dtype(self) -> str:
        """Type in which numbers are stored without loss; empty if there is none."""
        return "float64" if self.encoding and self.dtype == "float64" else _STORED_AS.get(self.dtype, "")

    def read(self, value: ExampleValue) -> np.ndarray:
        """Return the numbers of a record, (T, *shape), or (1, *shape) outside ``steps``.

        Raises:
            EpisodeError: They do not divide into steps of that shape.
        """
        flat = self._unpacked(value) if self.encoding else value.numbers()
        size = math.prod(self.shape)
        if self.kind != "numbers" or -1 in self.shape or not size or len(flat) % size:
            raise EpisodeError(
                f"{self.path} has {len(flat)} values, expected a multiple of {size} for steps of shape {self.shape}"
            )
        return flat.reshape(-1, *self.shape).astype(self.stored_dtype, copy=False)

    def _unpacked(self, value: ExampleValue) -> np.ndarray:
        try:
            parts = [zlib.decompress(s) if self.encoding == "zlib" else s for s in value.byte_strings()]
            arrays = [np.frombuffer(part, np.dtype(self.dtype).newbyteorder("<")) for part in parts]
        except (zlib.error, ValueError) as error:
            raise EpisodeError(
                f"{self.path} does not unpack as {self.encoding} of {self.dtype}: {error}"
            ) from error
        return np.concatenate(arrays) if arrays else np.empty(0, self.dtype)


def read_features(path: Path) -> dict[str, RecordKey]:
    """Read a ``features.json``.

    Returns:
        Key of a record -> what it holds.

    Raises:
        DatasetError: The file is damaged, or describes no episodes.
    """
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        keys = {key.path: key for key in _walk(tree, "")}
    except (OSError, ValueError, RecursionError, AttributeError, TypeError) as error:
        raise DatasetError(
            f"{path} cannot be read ({error}); expected TFDS's description, copy it again"
        ) from error
    if not any(key.per_step for key in keys.values()):
        found = ", ".join(sorted(keys)[:8]) or "nothing"
        raise DatasetError(f"{path} describes {found}, expected steps/...; this is no RLDS dataset")
    return keys


def _walk(node: Mapping[str, Any], path: str) -> Iterator[RecordKey]:
    node = _modern(node)
    if "featuresDict" in node:
        for name, child in node["featuresDict"].get("features", {}).items():
            yield from _walk(child, f"{path}/{name}" if path else name)
    elif "sequence" in node and path == STEPS.rstrip("/"):
        yield from _walk(node["sequence"]["feature"], path)
    else:
        yield _leaf(node, path)


def _leaf(node: Mapping[str, Any], path: str) -> RecordKey:
    if "image" in node:
        image = node["image"]
        return RecordKey(path, "image", str(image.get("dtype") or "uint8"), _shape(image))
    if "text" in node:
        return RecordKey(path, "text", "string", ())
    if "tensor" in node:
        tensor = node["tensor"]
        dtype = str(tensor.get("dtype", ""))
        encoding = str(tensor.get("encoding", "")).lower()
        kind = "text" if dtype in _TEXT_TYPES else "numbers" if dtype in _STORED_AS else "other"
        return RecordKey(path, kind, dtype, _shape(tensor), "" if encoding == "none" else encoding)
    if "classLabel" in node:
        return RecordKey(path, "numbers", "int64", ())
    return RecordKey(path, "other", "", ())  # sequences within a step, audio, video


def _shape(node: Mapping[str, Any]) -> tuple[int, ...]:
    shape = node.get("shape") or {}
    sizes = shape.get("dimensions", ()) if isinstance(shape, Mapping) else shape
    return tuple(-1 if size is None else int(size) for size in sizes)


def _modern(node: Mapping[str, Any]) -> Mapping[str, Any]:
    """Bring the older forms, ``type`` and ``content``, to that of today."""
    if "type" not in node or "content" not in node:
        return node
    content = node["content"]
    if isinstance(content, str):
        content = json.loads(content)
    key = _CONTENT_KEYS.get(str(node["type"]).rpartition(".")[2], "other")
    if key == "featuresDict" and "features" not in content:
        content = {"features": content}
    if key == "sequence" and "feature" not in content:
        content = {"feature": content}
    return {key: content}
