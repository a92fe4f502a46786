"""Turning a complete staging directory into a zarr v3 store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.statistics import STATISTICS, FeatureStats, merge_pixels
from robot_datasets.store import layout
from robot_datasets.store.arrays import write_column, write_pieces
from robot_datasets.store.blob import BlobWriter
from robot_datasets.store.episode_table import EpisodeTable
from robot_datasets.store.layout import StoreSpec
from robot_datasets.store.rows import RowSpool
from robot_datasets.store.staging import Staging, sync_tree
from robot_datasets.store.zarr_files import ZarrFiles
from robot_datasets.streamed_statistics import statistics_of_pieces

_PIECE_ROWS = 1 << 14
_AT_ONCE_BYTES = 16 << 20
"""Columns up to this size are in memory for their statistics, which is faster; the figures are the same."""


def publish_store(
    staging: Staging,
    spec: StoreSpec,
    events: Iterable[Mapping[str, Any]],
    rows: RowSpool,
    blobs: Mapping[str, BlobWriter],
) -> None:
    """Write everything but the image payload, which is in place, then swap the store in.

    Repeatable: what an interrupted attempt left is removed first. Columns pass through memory a shard at a time.
    """
    table = EpisodeTable(events)
    _remove_all_but_payload(staging.store)
    files = ZarrFiles(staging.store, spec.to_attributes())
    table.write(files)
    columns = _Columns(files, rows, np.fromiter(table.n_steps, np.int64))
    for name in spec.low_dim:
        columns.copy(("data", name), layout.column_path(name))
        columns.write_statistics(name, columns.statistics(name))
    for name in spec.image_features:
        _write_image_arrays(files, name, columns, blobs[name])
        columns.copy(("histogram", name), f"{layout.stats_path(name)}/histogram")
        columns.write_statistics(name, columns.pixel_statistics(name, spec.features[name].dtype))
    sync_tree(staging.store)
    staging.swap_in()


class _Columns:
    """Carries columns from the spool into the store."""

    def __init__(self, files: ZarrFiles, rows: RowSpool, lengths: np.ndarray) -> None:
        self.files, self.lengths = files, lengths
        self._rows = rows

    def pieces(self, key: tuple[str, str], n_rows: int = _PIECE_ROWS) -> Iterator[np.ndarray]:
        return self._rows.pieces(key, self.lengths, n_rows)

    def copy(self, key: tuple[str, str], path: str, attributes: dict[str, Any] | None = None) -> None:
        block = self._rows.block(key)
        shape = (self._rows.n_rows(key, self.lengths), *block.shape)
        pieces = partial(self.pieces, key)
        write_pieces(self.files, path, pieces, shape=shape, dtype=block.dtype, attributes=attributes)

    def write_statistics(self, name: str, total: FeatureStats) -> None:
        attributes = {"statistics": list(STATISTICS)}
        path = layout.stats_path(name)
        self.copy(("stats", name), f"{path}/episodes", attributes)
        write_column(self.files, f"{path}/total", total.to_array(), attributes=attributes)

    def statistics(self, name: str) -> FeatureStats:
        key = ("data", name)
        n_bytes = self._rows.block(key).unit_bytes * self._rows.n_rows(key, self.lengths)
        if n_bytes <= _AT_ONCE_BYTES:
            return FeatureStats.of(self._rows.column(key, self.lengths))
        return statistics_of_pieces(partial(self.pieces, key))

    def pixel_statistics(self, name: str, dtype: str) -> FeatureStats:
        total = sum(p.sum(axis=0, dtype=np.int64) for p in self.pieces(("histogram", name)))
        return merge_pixels(self._rows.column(("stats", name), self.lengths), np.asarray(total)[None], dtype)


def _write_image_arrays(files: ZarrFiles, name: str, columns: _Columns, blob: BlobWriter) -> None:
    path = layout.image_path(name)

    def offsets(n_rows: int) -> Iterator[np.ndarray]:
        """Where every frame begins, and where the last one ends."""
        end = 0
        for sizes in columns.pieces(("length", name), n_rows):
            ends = end + np.cumsum(sizes)
            yield np.concatenate([[end], ends[:-1]])
            end = int(ends[-1])
        yield np.array([end])

    shape = (int(columns.lengths.sum()) + 1,)
    write_pieces(files, f"{path}/offsets", offsets, shape=shape, dtype=np.dtype(np.int64))
    n_bytes = blob.size
    files.plain_array(f"{path}/bytes", shape=(n_bytes,), dtype=np.dtype(np.uint8), chunk=blob.finish())


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
