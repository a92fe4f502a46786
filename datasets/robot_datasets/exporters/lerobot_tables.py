"""LeRobot's tables: the columns of an episode, their types, and the episode and instruction tables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.exporters.lerobot_source import LeRobotSource
from robot_datasets.features import Feature
from robot_datasets.store.frames import standard_frame

if TYPE_CHECKING:
    import pyarrow as pa

DEFAULTS = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
"""The columns that every LeRobot dataset has, each of shape (1,)."""
FRAME_ROWS = 256
"""Rows in memory at a time when frames are stored in the table."""


def default_columns(store: LeRobotSource, episode: int) -> dict[str, np.ndarray]:
    """Return the book-keeping columns of an episode, (T,) each; times are exactly frame_index / fps."""
    start, end = int(store.episode_starts[episode]), int(store.episode_ends[episode])
    steps = np.arange(end - start)
    values = {
        "timestamp": steps / store.fps,
        "frame_index": steps,
        "episode_index": np.full(len(steps), episode),
        "index": steps + start,
        "task_index": np.full(len(steps), int(store.episodes["task_index"][episode])),
    }
    return {name: values[name].astype(dtype) for name, dtype in DEFAULTS.items()}


def schema(low_dim: Mapping[str, Feature], images: Sequence[str]) -> pa.Schema:
    """Return the Arrow schema, with the metadata by which Hugging Face datasets know images and arrays."""
    import pyarrow as pa

    fields, described = [], {}
    for name, feature in low_dim.items():
        fields.append(pa.field(name, _arrow_type(feature)))
        described[name] = _hf_type(feature)
    for name in images:
        fields.append(pa.field(name, pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
        described[name] = {"_type": "Image"}
    for name, dtype in DEFAULTS.items():
        fields.append(pa.field(name, _value_type(dtype)))
        described[name] = {"dtype": dtype, "_type": "Value"}
    return pa.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": described}})})


def episode_tables(
    store: LeRobotSource,
    episode: int,
    low_dim: Mapping[str, Feature],
    images: Sequence[str],
    types: pa.Schema,
) -> Iterator[pa.Table]:
    """Yield the rows of an episode: one table, or several if they hold frames."""
    import pyarrow as pa

    start, end = int(store.episode_starts[episode]), int(store.episode_ends[episode])
    defaults = default_columns(store, episode)
    block = FRAME_ROWS if images else end - start
    for first in range(start, end, block):
        last = min(end, first + block)
        columns: list[Any] = [_array(store.column(n)[first:last], f) for n, f in low_dim.items()]
        columns += [_frames(store, name, first, last, first - start) for name in images]
        columns += [pa.array(values[first - start : last - start]) for values in defaults.values()]
        yield pa.Table.from_arrays(columns, schema=types)


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """Return v3.0's table of instructions; pandas, with which LeRobot reads it, takes the text as the index."""
    import pyarrow as pa

    index = "__index_level_0__"
    described = [
        {"name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
        {"name": None, "field_name": index, "pandas_type": "unicode", "numpy_type": "object"},
    ]
    pandas = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [{**entry, "metadata": None} for entry in described],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    types = pa.schema(
        [("task_index", pa.int64()), (index, pa.string())], metadata={"pandas": json.dumps(pandas)}
    )
    return pa.table({"task_index": list(range(len(tasks))), index: list(tasks)}, schema=types)


def episode_labels(store: LeRobotSource, episode: int) -> dict[str, Any]:
    """Return what an episode's row says besides its place; the last four are ours, others ignore them."""
    success = int(store.episodes["success"][episode])
    return {
        "episode_index": episode,
        "tasks": [store.tasks[int(store.episodes["task_index"][episode])]],
        "length": int(store.episodes["n_steps"][episode]),
        "success": None if success < 0 else bool(success),
        "split": store.episodes["split"][episode],
        "source_id": store.episodes["source_id"][episode],
        "segments": json.dumps(
            [asdict(part) for part in store.episodes["segments"][episode]], ensure_ascii=False
        ),
    }


def label_fields() -> list[tuple[str, Any]]:
    """Return the Arrow types of `episode_labels`."""
    import pyarrow as pa

    return [
        ("episode_index", pa.int64()),
        ("tasks", pa.list_(pa.string())),
        ("length", pa.int64()),
        ("success", pa.bool_()),
        ("split", pa.string()),
        ("source_id", pa.string()),
        ("segments", pa.string()),
    ]


def _value_type(dtype: str) -> Any:
    import pyarrow as pa

    return pa.from_numpy_dtype(np.dtype(dtype))


def _is_scalar(feature: Feature) -> bool:
    return feature.shape in ((), (1,))


def _arrow_type(feature: Feature) -> Any:
    import pyarrow as pa

    kind = _value_type(feature.dtype)
    if _is_scalar(feature):
        return kind
    if len(feature.shape) == 1:
        return pa.list_(kind, feature.shape[0])
    for _ in feature.shape:
        kind = pa.list_(kind)
    return kind


def _hf_type(feature: Feature) -> dict[str, Any]:
    value = {"dtype": feature.dtype, "_type": "Value"}
    if _is_scalar(feature):
        return value
    if len(feature.shape) == 1:
        return {"feature": value, "length": feature.shape[0], "_type": "Sequence"}
    return {"shape": list(feature.shape), "dtype": feature.dtype, "_type": f"Array{len(feature.shape)}D"}


def _array(values: np.ndarray, feature: Feature) -> Any:
    import pyarrow as pa

    flat = np.ascontiguousarray(values).reshape(-1)
    flat = flat.astype(flat.dtype.newbyteorder("="), copy=False)
    if _is_scalar(feature):
        return pa.array(flat)
    if len(feature.shape) == 1:
        return pa.FixedSizeListArray.from_arrays(pa.array(flat), feature.shape[0])
    array: Any = pa.array(flat)
    for size in reversed(feature.shape):
        offsets = np.arange(0, len(array) + 1, size, dtype=np.int32)
        array = pa.ListArray.from_arrays(pa.array(offsets), array)
    return array


def _frames(store: LeRobotSource, name: str, first: int, last: int, step: int) -> Any:
    """Return frames as LeRobot keeps them in tables; what other readers would decode wrongly becomes PNG."""
    import pyarrow as pa

    column, rows = store.images(name), []
    for offset, frame in enumerate(column.encoded_many(np.arange(first, last))):
        encoded = standard_frame(frame, column.feature, column.encoding)
        rows.append({"bytes": encoded, "path": f"frame_{step + offset:06d}.png"})
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
