"""Reading an episode store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.episode import Segment
from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import Feature
from robot_datasets.statistics import FeatureStats, merge_pixels
from robot_datasets.store import layout
from robot_datasets.store.arrays import chunk_keys, read_array, split_text
from robot_datasets.store.blob import LocalBlob, RemoteBlob
from robot_datasets.store.images import ImageColumn
from robot_datasets.store.layout import StoreSpec, canonical_bytes
from robot_datasets.store.location import Location
from robot_datasets.store.zarr_files import read_sharded

_NUMBER_COLUMNS = ("task_index", "success", "n_steps", "checksum")
_TEXT_COLUMNS = ("source_id", "split")


class EpisodeColumns(Mapping[str, Any]):
    """Per-episode columns, each read on first use: number arrays (E,), lists of text, lists of segments.

    Keys: ``source_id``, ``split`` (list of str), ``task_index``, ``n_steps`` (int64), ``success``
    (int8; -1 unknown, 0, 1), ``checksum`` ((E, 32) uint8), ``segments`` (list of lists of `Segment`).
    """

    def __init__(self, store: EpisodeStore) -> None:
        self._store = store
        self._cache: dict[str, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key not in self._cache:
            self._cache[key] = self._read(key)
        return self._cache[key]

    def __iter__(self) -> Iterator[str]:
        return iter((*_TEXT_COLUMNS, *_NUMBER_COLUMNS, "segments"))

    def __len__(self) -> int:
        return len(_TEXT_COLUMNS) + len(_NUMBER_COLUMNS) + 1

    def _read(self, key: str) -> Any:
        if key in _NUMBER_COLUMNS:
            return self._store.read_array(f"{layout.EPISODES}/{key}")
        if key in _TEXT_COLUMNS:
            return self._store.read_text(f"{layout.EPISODES}/{key}")
        if key == "segments":
            return self._segments()
        raise KeyError(unknown_name("episode column", key, self))

    def _segments(self) -> list[list[Segment]]:
        numbers = [
            self._store.read_array(f"{layout.SEGMENTS}/{n}").tolist() for n in ("episode", "start", "end")
        ]
        texts = [self._store.read_text(f"{layout.SEGMENTS}/{n}") for n in ("tag", "text")]
        result: list[list[Segment]] = [[] for _ in range(self._store.n_episodes)]
        for episode, start, end, tag, text in zip(*numbers, *texts, strict=True):
            result[episode].append(Segment(start, end, tag, text))
        return result


class EpisodeStore:
    """One dataset: episodes back to back, low-dimensional columns in RAM, images decoded on demand.

    Open with `EpisodeStore.open`. Nothing but the attributes and the episode boundaries is read then;
    columns are read whole on first use and kept. Instances can be pickled: the copy opens the path again.
    """

    def __init__(self, location: Location) -> None:
        """Open and check the structure; use `open`."""
        self._location = location
        self._group = location.open_group()
        self.spec = StoreSpec.from_attributes(self._group.attrs, where=location.address)
        self.episode_ends: np.ndarray = self.read_array(layout.EPISODE_ENDS)
        self._columns: dict[str, np.ndarray] = {}
        self._images: dict[str, ImageColumn] = {}
        self._tasks: list[str] | None = None
        self.episodes = EpisodeColumns(self)
        self._check_structure()

    @classmethod
    def open(cls, path: str | Path, *, storage_options: Mapping[str, Any] | None = None) -> EpisodeStore:
        """Open a store.

        Args:
            path: A directory, a zip of one, or an address for fsspec.
            storage_options: For fsspec, e.g. credentials.

        Raises:
            DatasetError: There is no store, it is of another format, or parts are missing.
        """
        return cls(Location(str(path), dict(storage_options or {})))

    @property
    def path(self) -> str:
        """The address the store was opened with."""
        return self._location.address

    @property
    def fps(self) -> float:
        """Rate of the steps [Hz]."""
        return self.spec.fps

    @property
    def embodiment(self) -> str:
        """Robot name; empty if unknown."""
        return self.spec.embodiment

    @property
    def features(self) -> dict[str, Feature]:
        """All features by name, images included."""
        return dict(self.spec.features)

    @property
    def attributes(self) -> dict[str, Any]:
        """The store's own attributes: format, source, conversion, features and so on."""
        return self.spec.to_attributes()[layout.ATTRIBUTE_KEY]

    @property
    def n_episodes(self) -> int:
        """Number of episodes E."""
        return len(self.episode_ends)

    @property
    def n_steps(self) -> int:
        """Number of steps T of all episodes together."""
        return int(self.episode_ends[-1])

    @property
    def episode_starts(self) -> np.ndarray:
        """First step of every episode, (E,) int64."""
        return np.concatenate([[0], self.episode_ends[:-1]]).astype(np.int64)

    @property
    def tasks(self) -> list[str]:
        """Distinct instructions; ``episodes["task_index"]`` points into it."""
        if self._tasks is None:
            self._tasks = self.read_text(layout.TASKS)
        return self._tasks

    @property
    def quarantined(self) -> dict[str, str]:
        """Source id -> reason of the episodes that conversion set aside."""
        ids, reasons = (self.read_text(f"{layout.QUARANTINE}/{name}") for name in ("source_id", "reason"))
        return dict(zip(ids, reasons, strict=True))

    @property
    def warnings(self) -> dict[int, list[str]]:
        """Episode number -> what was found wrong with it, although it was kept; empty in older stores."""
        if layout.WARNINGS not in self._group:
            return {}
        result: dict[int, list[str]] = {}
        texts = self.read_text(f"{layout.WARNINGS}/text")
        for episode, text in zip(self.read_array(f"{layout.WARNINGS}/episode").tolist(), texts, strict=True):
            result.setdefault(episode, []).append(text)
        return result

    @property
    def fingerprint(self) -> str:
        """A hash of the structure and of every episode's content, equal for equal stores."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(canonical_bytes(self.attributes))
        for array in (self.episode_ends, self.episodes["checksum"], self.episodes["task_index"]):
            digest.update(array.tobytes())
        digest.update(canonical_bytes(self.tasks))
        return digest.hexdigest()

    def column(self, name: str) -> np.ndarray:
        """Return a low-dimensional feature of all steps, (T, ...), read-only, kept in RAM."""
        if name not in self._columns:
            self._require(name, self.spec.low_dim, "low-dimensional feature")
            self._columns[name] = self.read_array(layout.column_path(name))
        return self._columns[name]

    def images(self, name: str) -> ImageColumn:
        """Return the frames of an image feature."""
        if name not in self._images:
            self._require(name, self.spec.image_features, "image feature")
            offsets = self.read_array(f"{layout.image_path(name)}/offsets")
            blob = self._blob(name)
            if offsets[0] != 0 or offsets[-1] != blob.size or np.any(np.diff(offsets) < 0):
                raise DatasetError(
                    f"{self.path}: the offsets of {name} do not fit its bytes; the store is damaged"
                )
            self._images[name] = ImageColumn(
                name, self.spec.features[name], self.spec.encodings[name], offsets, blob
            )
        return self._images[name]

    def stats(self, name: str, episodes: Sequence[int] | np.ndarray | None = None) -> FeatureStats:
        """Return statistics over all episodes, or over the given ones, each counted once.

        Low-dimensional features are exact, quantiles included. Images are statistics of sampled frames,
        per channel, with quantiles from summed histograms.

        Raises:
            DatasetError: No such feature or episode.
        """
        self._require(name, self.spec.features, "feature")
        path = layout.stats_path(name)
        if episodes is None:
            return FeatureStats.from_array(self.read_array(f"{path}/total"))
        chosen = np.unique(np.asarray(episodes, dtype=np.int64))
        if not len(chosen) or chosen[0] < 0 or chosen[-1] >= self.n_episodes:
            raise DatasetError(
                f"statistics need episodes within 0..{self.n_episodes - 1}, got {list(episodes)[:8]}"
            )
        if name in self.spec.image_features:
            tables, histograms = self.read_array(f"{path}/episodes"), self.read_array(f"{path}/histogram")
            return merge_pixels(tables[chosen], histograms[chosen], self.spec.features[name].dtype)
        column, starts = self.column(name), self.episode_starts
        return FeatureStats.of(np.concatenate([column[starts[e] : self.episode_ends[e]] for e in chosen]))

    def episode_stats(self, name: str) -> np.ndarray:
        """Return the statistics of every episode, (E, 10, ...), rows as `FeatureStats.to_array` orders them."""
        self._require(name, self.spec.features, "feature")
        return self.read_array(f"{layout.stats_path(name)}/episodes")

    def read_array(self, path: str) -> np.ndarray:
        """Read any array of the store whole, read-only; for parts that have no accessor of their own."""
        if self._location.is_local and (values := read_sharded(Path(self.path) / path)) is not None:
            values.flags.writeable = False
            return values
        array = self._array(path)
        keys = [f"{path}/{key}" for key in chunk_keys(array)]
        for missing in self._location.missing(keys)[:1]:
            raise DatasetError(f"{self.path} lacks {missing}; the store is damaged, copy or convert it again")
        try:
            return read_array(array)
        except DatasetError as error:
            raise DatasetError(f"{self.path}: {error}") from error

    def read_text(self, path: str) -> list[str]:
        """Read any text column of the store whole."""
        data = self.read_array(f"{path}/bytes").tobytes()
        return split_text(data, self.read_array(f"{path}/offsets"))

    def __reduce__(self) -> tuple[Any, ...]:
        return EpisodeStore, (self._location,)

    def __repr__(self) -> str:
        return f"EpisodeStore({self.path!r}: {self.n_episodes} episodes, {self.n_steps} steps)"

    def _array(self, path: str) -> Any:
        import zarr

        try:
            node = self._group[path]
        except KeyError as error:
            raise DatasetError(
                f"{self.path} lacks {path}; the store is damaged, copy or convert it again"
            ) from error
        if not isinstance(node, zarr.Array):
            raise DatasetError(f"{self.path}: {path} is a group, expected an array; the store is damaged")
        return node

    def _blob(self, name: str) -> LocalBlob | RemoteBlob:
        path = f"{layout.image_path(name)}/bytes"
        array = self._array(path)
        if array.dtype != np.uint8 or array.compressors or array.shards:
            raise DatasetError(
                f"{self.path}: {path} is not plain uint8; expected an uncompressed, unsharded payload"
            )
        blob = self._location.blob(path, chunk_bytes=array.chunks[0], size=array.shape[0])
        blob.check()
        return blob

    def _require(self, name: str, known: Sequence[str] | Mapping[str, Any], kind: str) -> None:
        if name not in known:
            raise DatasetError(f"{self.path}: {unknown_name(kind, name, known)}")

    def _check_structure(self) -> None:
        if not len(self.episode_ends) or np.any(np.diff(self.episode_ends, prepend=0) <= 0):
            raise DatasetError(
                f"{self.path}: {layout.EPISODE_ENDS} is empty or not increasing; the store is damaged"
            )
        expected = {layout.column_path(n): (self.n_steps, *self.features[n].shape) for n in self.spec.low_dim}
        for name in self.spec.image_features:
            if self._location.is_local:
                self._blob(name)
            expected[f"{layout.image_path(name)}/offsets"] = (self.n_steps + 1,)
        for path, shape in expected.items():
            found = self._array(path).shape
            if found != shape:
                raise DatasetError(
                    f"{self.path}: {path} has shape {found}, expected {shape}; the store is damaged"
                )
