"""Turning a complete staging directory into a zarr v3 store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.statistics import STATISTICS, FeatureStats, merge_pixels
from robot_datasets.store import layout
from robot_datasets.store.arrays import write_column, write_text
from robot_datasets.store.blob import BlobWriter
from robot_datasets.store.layout import StoreSpec
from robot_datasets.store.rows import RowSpool
from robot_datasets.store.staging import Staging, sync_tree

if TYPE_CHECKING:
    import zarr

_SUCCESS_CODE = {None: -1, False: 0, True: 1}


def publish_store(
    staging: Staging,
    spec: StoreSpec,
    entries: Sequence[Mapping[str, Any]],
    rows: RowSpool,
    blobs: Mapping[str, BlobWriter],
) -> None:
    """Write everything but the image payload, which is in place, then swap the store in.

    Repeatable: what an interrupted attempt left is removed first.
    """
    import zarr

    episodes = [entry for entry in entries if "source_id" in entry]
    lengths = [entry["n_steps"] for entry in episodes]
    _remove_all_but_payload(staging.store)
    root = zarr.create_group(str(staging.store), zarr_format=3, attributes=spec.to_attributes())
    write_column(root, layout.EPISODE_ENDS, np.cumsum(lengths, dtype=np.int64))
    _write_episodes(root, episodes)
    _write_quarantine(root, entries)
    _write_warnings(root, episodes)
    for name in spec.low_dim:
        column = rows.column(("data", name), lengths)
        write_column(root, layout.column_path(name), column)
        _write_stats(root, name, rows, lengths, FeatureStats.of(column))
        del column
    for name in spec.image_features:
        _write_image_arrays(root, name, rows, lengths, blobs[name])
        tables, histograms = rows.column(("stats", name), lengths), rows.column(("histogram", name), lengths)
        write_column(root, f"{layout.stats_path(name)}/histogram", histograms)
        _write_stats(root, name, rows, lengths, merge_pixels(tables, histograms, spec.features[name].dtype))
    sync_tree(staging.store)
    staging.swap_in()


def _write_episodes(root: zarr.Group, episodes: Sequence[Mapping[str, Any]]) -> None:
    tasks = list(dict.fromkeys(entry["task"] for entry in episodes))
    index = {task: i for i, task in enumerate(tasks)}
    write_text(root, layout.TASKS, tasks)
    columns = {
        "task_index": np.array([index[e["task"]] for e in episodes], dtype=np.int64),
        "success": np.array([_SUCCESS_CODE[e["success"]] for e in episodes], dtype=np.int8),
        "n_steps": np.array([e["n_steps"] for e in episodes], dtype=np.int64),
        "checksum": np.array([list(bytes.fromhex(e["checksum"])) for e in episodes], dtype=np.uint8),
    }
    for name, column in columns.items():
        write_column(root, f"{layout.EPISODES}/{name}", column)
    write_text(root, f"{layout.EPISODES}/source_id", [e["source_id"] for e in episodes])
    write_text(root, f"{layout.EPISODES}/split", [e["split"] for e in episodes])
    segments = [(i, *row) for i, e in enumerate(episodes) for row in e["segments"]]
    for position, name in enumerate(("episode", "start", "end")):
        values = np.array([s[position] for s in segments], dtype=np.int64)
        write_column(root, f"{layout.SEGMENTS}/{name}", values)
    for position, name in enumerate(("tag", "text"), start=3):
        write_text(root, f"{layout.SEGMENTS}/{name}", [str(s[position]) for s in segments])


def _write_quarantine(root: zarr.Group, entries: Sequence[Mapping[str, Any]]) -> None:
    set_aside = [entry for entry in entries if "quarantine" in entry]
    write_text(root, f"{layout.QUARANTINE}/source_id", [entry["quarantine"] for entry in set_aside])
    write_text(root, f"{layout.QUARANTINE}/reason", [entry["reason"] for entry in set_aside])


def _write_warnings(root: zarr.Group, episodes: Sequence[Mapping[str, Any]]) -> None:
    found = [(i, text) for i, e in enumerate(episodes) for text in e.get("warnings", ())]
    write_column(root, f"{layout.WARNINGS}/episode", np.array([i for i, _ in found], dtype=np.int64))
    write_text(root, f"{layout.WARNINGS}/text", [text for _, text in found])


def _write_stats(
    root: zarr.Group, name: str, rows: RowSpool, lengths: Sequence[int], total: FeatureStats
) -> None:
    attributes = {"statistics": list(STATISTICS)}
    path = layout.stats_path(name)
    write_column(root, f"{path}/episodes", rows.column(("stats", name), lengths), attributes=attributes)
    write_column(root, f"{path}/total", total.to_array(), attributes=attributes)


def _write_image_arrays(
    root: zarr.Group, name: str, rows: RowSpool, lengths: Sequence[int], blob: BlobWriter
) -> None:
    path = layout.image_path(name)
    sizes = rows.column(("length", name), lengths)
    offsets = np.zeros(len(sizes) + 1, dtype=np.int64)
    np.cumsum(sizes, out=offsets[1:])
    write_column(root, f"{path}/offsets", offsets)
    root.create_array(
        f"{path}/bytes",
        shape=(blob.size,),
        dtype=np.uint8,
        chunks=(blob.finish(),),
        compressors=None,
        fill_value=0,
    )


def _remove_all_but_payload(store: Path) -> None:
    if not store.exists():
        return
    for path in sorted(store.rglob("*"), reverse=True):
        in_payload = (
            path.parent.name == "c" and path.parent.parent.name == "bytes" and _is_image_path(store, path)
        )
        if path.is_file() and not in_payload:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _is_image_path(store: Path, path: Path) -> bool:
    return path.relative_to(store).parts[0] in ("images", "depth")
