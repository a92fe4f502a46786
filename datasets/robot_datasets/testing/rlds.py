"""Small RLDS datasets in TFDS folders, with the faults that real ones have."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.image_codec import encode_frame
from robot_datasets.importers.rlds_features import STEPS, RecordKey
from robot_datasets.importers.tfrecord import masked_crc32c

_CLASSES = "tensorflow_datasets.core.features."
RldsEpisode = dict[str, Any]
"""Key of a record -> numbers as an array (T, ...), texts and encoded images as a list of bytes."""


def rlds_keys(*, image_size: int = 8) -> list[RecordKey]:
    """Describe records like those of a usual dataset: state, camera, action, instruction, the step flags."""
    numbers = [
        ("observation/state", "float32", (4,)),
        ("action", "float32", (3,)),
        ("reward", "float32", ()),
        ("discount", "float32", ()),
        *((name, "bool", ()) for name in ("is_first", "is_last", "is_terminal")),
    ]
    keys = [RecordKey(STEPS + name, "numbers", dtype, shape) for name, dtype, shape in numbers]
    size = (image_size, image_size, 3)
    keys.append(RecordKey(STEPS + "observation/image", "image", "uint8", size))
    keys.append(RecordKey(STEPS + "language_instruction", "text", "string", ()))
    keys.append(RecordKey("episode_metadata/episode_id", "numbers", "int32", ()))
    return keys


def rlds_episode(n_steps: int, seed: int, *, image_size: int = 8) -> RldsEpisode:
    """Make a random episode with the keys of `rlds_keys`; negative numbers and several bytes included."""
    random = np.random.default_rng((seed, n_steps))
    frames = random.integers(0, 256, (n_steps, image_size, image_size, 3), dtype=np.uint8)
    flags = np.arange(n_steps)
    return {
        STEPS + "observation/state": random.normal(size=(n_steps, 4)).astype(np.float32),
        STEPS + "action": random.normal(size=(n_steps, 3)).astype(np.float32),
        STEPS + "reward": (flags == n_steps - 1).astype(np.float32),
        STEPS + "discount": np.ones(n_steps, np.float32),
        STEPS + "is_first": flags == 0,
        STEPS + "is_last": flags == n_steps - 1,
        STEPS + "is_terminal": flags == n_steps - 1,
        STEPS + "observation/image": [encode_frame(frame, "jpeg") for frame in frames],
        STEPS + "language_instruction": [f"task {seed}".encode()] * n_steps,
        "episode_metadata/episode_id": np.array([seed - 1]),
    }


def write_rlds(
    root: Path,
    episodes: Sequence[RldsEpisode],
    *,
    keys: Sequence[RecordKey],
    shards: int = 1,
    split: str = "train",
    declared: Sequence[int] | None = None,
    form: str = "proto",
    edit: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Write a dataset to `root`, which is to be ``<name>/<version>``.

    Args:
        root: Folder to make or, for a further split, to add to.
        episodes: The episodes, dealt out to the shards in turn.
        keys: What the records hold.
        shards: Number of files.
        split: Name of the split.
        declared: Episodes per shard according to ``dataset_info.json``; the truth if left out.
        form: Generation of ``features.json``: ``"proto"``, ``"wrapped"`` or ``"plain"``.
        edit: Changes ``dataset_info.json`` before it is written.

    Returns:
        `root`.
    """
    root.mkdir(parents=True, exist_ok=True)
    dealt = [episodes[number::shards] for number in range(shards)]
    for number, part in enumerate(dealt):
        name = f"{root.parent.name}-{split}.tfrecord-{number:05d}-of-{shards:05d}"
        (root / name).write_bytes(b"".join(frame_record(encode_example(e, keys)) for e in part))
    (root / "features.json").write_text(json.dumps(describe(keys, form=form)), encoding="utf-8")
    info_file = root / "dataset_info.json"
    info = json.loads(info_file.read_text(encoding="utf-8")) if info_file.exists() else {}
    info |= {"name": root.parent.name, "version": root.name, "fileFormat": "tfrecord"}
    lengths = [str(len(part)) for part in dealt] if declared is None else [str(n) for n in declared]
    info.setdefault("splits", []).append({"name": split, "shardLengths": lengths})
    if edit is not None:
        edit(info)
    info_file.write_text(json.dumps(info), encoding="utf-8")
    return root


def frame_record(data: bytes) -> bytes:
    """Put length and checksums around a record."""
    length = struct.pack("<Q", len(data))
    sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, data)]
    return length + sums[0] + data + sums[1]


def encode_example(episode: Mapping[str, Any], keys: Sequence[RecordKey]) -> bytes:
    """Write an episode as a ``tf.train.Example``; keys that it lacks are left out."""
    known = {key.path: key for key in keys}
    entries = b""
    for path, values in episode.items():
        entry = _field(1, path.encode()) + _field(2, _list(values, known[path]))
        entries += _field(1, entry)
    return _field(1, entries)


def describe(keys: Sequence[RecordKey], *, form: str = "proto") -> dict[str, Any]:
    """Return the content of ``features.json``."""
    tree: dict[str, Any] = {}
    for key in keys:
        *folders, leaf = key.path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[leaf] = key
    return _describe(tree, form, top=True)


def _list(values: Any, key: RecordKey) -> bytes:
    if isinstance(values, list):
        return _field(1, b"".join(_field(1, value) for value in values))
    if key.encoding:
        rows = [np.asarray(row, np.dtype(key.dtype).newbyteorder("<")).tobytes() for row in values]
        packed = [zlib.compress(row) for row in rows] if key.encoding == "zlib" else rows
        return _field(1, b"".join(_field(1, row) for row in packed))
    if np.asarray(values).dtype.kind == "f":
        return _field(2, _field(1, np.asarray(values, "<f4").tobytes()))
    return _field(3, _field(1, b"".join(_varint(int(v)) for v in np.asarray(values).ravel())))


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF  # negative numbers take ten bytes
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _describe(node: Any, form: str, *, top: bool = False) -> dict[str, Any]:
    if isinstance(node, RecordKey):
        return _leaf(node, form)
    children = {
        name: _wrap("dataset_feature.Dataset", "sequence", {"feature": _describe(child, form)}, form)
        if top and name == "steps"
        else _describe(child, form)
        for name, child in node.items()
    }
    return _wrap("features_dict.FeaturesDict", "featuresDict", {"features": children}, form)


def _leaf(key: RecordKey, form: str) -> dict[str, Any]:
    shape: Any = {"dimensions": [str(n) for n in key.shape]} if key.shape else {}
    if form == "plain":
        shape = [None if n == -1 else n for n in key.shape]
    if key.kind == "image":
        content = {"shape": shape, "dtype": key.dtype, "encodingFormat": "jpeg"}
        return _wrap("image_feature.Image", "image", content, form)
    if key.kind == "text":
        return _wrap("text_feature.Text", "text", {}, form)
    content = {"shape": shape, "dtype": key.dtype, "encoding": key.encoding or "none"}
    return _wrap("tensor_feature.Tensor", "tensor", content, form)


def _wrap(name: str, key: str, content: dict[str, Any], form: str) -> dict[str, Any]:
    if form == "proto":
        return {"pythonClassName": _CLASSES + name, key: content}
    if form == "wrapped":
        return {
            "type": _CLASSES + name,
            "content": json.dumps(content),
            "proto_cls": f"tensorflow_datasets.{key}",
        }
    inner = content.get("features", content.get("feature", content))
    return {"type": _CLASSES + name, "content": inner}
