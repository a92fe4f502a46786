"""diffusion_policy's replay buffer, written as its own code writes it: zarr v2, ``data/*`` and ``meta/episode_ends``.

Its reader takes every array below ``data`` and ``meta``, so what it has no array for (instructions, success, units,
boundaries of segments) goes into the attributes, which it ignores.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from robot_datasets.errors import DatasetError
from robot_datasets.exporters.base import Exporter
from robot_datasets.features import ACTION, DEPTH_PREFIX, IMAGE_PREFIX, STATE
from robot_datasets.importers.base import Option
from robot_datasets.schemas import EmbodimentSchema, schemas_of
from robot_datasets.side_record import KEY, Placement, SideRecord
from robot_datasets.store import EpisodeStore
from robot_datasets.store.arrays import require_zarr

_FORMAT = "diffusion_policy_zarr"
_CHUNK_BYTES = 2_000_000
_OBSERVATION = "observation."
_DEPTH = "depth_"
_SHAPES = {"keypoint": (9, 2)}
"""Shape of one step of arrays whose features are flat in a store."""


class DiffusionPolicyBuffer(Exporter):
    """Writer of replay buffers."""

    name = _FORMAT
    summary = "diffusion_policy replay buffer: a zarr v2 folder of data/* and meta/episode_ends"
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "keys",
            "auto",
            "auto = keys of the original where the store is of a known benchmark (PushT), else those of the store",
            ("auto", "store"),
        ),
    )

    def recognises(self, folder: Path) -> bool:
        """Whether there are zarr v2 groups of a buffer."""
        return (folder / "data" / ".zgroup").is_file() and (folder / "meta" / ".zgroup").is_file()

    def check(self, store: EpisodeStore, options: Mapping[str, str]) -> list[str]:
        """Refuse frames of varying size; list what only our own importer will find again."""
        require_zarr()
        for name in store.spec.image_features:
            if 0 in store.features[name].shape:
                raise DatasetError(
                    f"{name} has frames of varying size; an array has one, leave the camera out"
                )
        _placements(store, options["keys"])
        said = ["instructions"] if any(store.tasks) else []
        said += ["success"] if np.any(store.episodes["success"] >= 0) else []
        said += ["splits"] if any(store.episodes["split"]) else []
        said += ["segments"] if any(store.episodes["segments"]) else []
        kept = ", ".join([*said, "rate", "units"])
        return [f"{kept} are kept in the attributes only, where diffusion_policy does not look"]

    def write(
        self,
        store: EpisodeStore,
        folder: Path,
        options: Mapping[str, str],
        progress: Callable[[int, int], None],
    ) -> None:
        """Write one array after another, chunk by chunk."""
        import zarr

        placements = _placements(store, options["keys"])
        sources = {place.arrays[0]: name for name, place in placements.items() if place.stop is None}
        root = zarr.create_group(str(folder), zarr_format=2)
        root.attrs[KEY] = SideRecord.of(store, placements).to_dict()
        data, meta = root.create_group("data"), root.create_group("meta")
        _write_ends(meta, store.episode_ends)
        done, total = 0, store.n_steps * len(sources)
        reported = 0
        for key, name in sources.items():
            shape = _shape(store, key, name)
            array = _create(data, key, (store.n_steps, *shape), store.features[name].dtype)
            for start, rows in _blocks(store, name, array.chunks[0]):
                array[start : start + len(rows)] = rows.reshape(len(rows), *shape)
                done += len(rows)
                finished = done * store.n_episodes // total
                if finished > reported:
                    reported = finished
                    progress(reported, store.n_episodes)


def _placements(store: EpisodeStore, keys: str) -> dict[str, Placement]:
    """Return where every feature goes; features of a benchmark that are parts of one array share it."""
    known = _known_schema(store) if keys == "auto" else None
    places = {} if known is None else _schema_places(known)
    places = {name: place for name, place in places.items() if name in store.features}
    for name in store.features:
        places.setdefault(name, Placement((_key(name),)))
    taken: dict[str, str] = {}
    for name, place in places.items():
        key = place.arrays[0]
        if place.stop is None and taken.setdefault(key, name) != name:
            raise DatasetError(f"{taken[key]} and {name} would both become data/{key}; rename one of them")
    return places


def _known_schema(store: EpisodeStore) -> EmbodimentSchema | None:
    """Return the schema of a benchmark whose features the store has, and whose parts agree with the whole."""
    for schema in schemas_of(_FORMAT):
        if schema.robot != store.embodiment:
            continue
        has_all = all(store.features.get(name) == schema.feature(name) for name in schema.features)
        if has_all and all(_agrees(store, schema, name) for name in schema.features):
            return schema
    return None


def _agrees(store: EpisodeStore, schema: EmbodimentSchema, name: str) -> bool:
    """Whether a feature equals those components of the whole array that the schema makes it from."""
    (part,) = schema.features[name].parts
    whole = _whole(schema, part.source)
    if whole == name or not part.columns:
        return True
    first, end = part.columns
    return np.array_equal(store.column(name), store.column(whole)[:, first:end])


def _whole(schema: EmbodimentSchema, source: str) -> str:
    """Return the feature with the most components of an array."""
    sizes = {n: f.size for n, f in schema.features.items() if f.parts[0].source == source}
    return max(sizes, key=lambda name: sizes[name])


def _schema_places(schema: EmbodimentSchema) -> dict[str, Placement]:
    places = {}
    for name, source in {**schema.features, ACTION: schema.action_source()}.items():
        (part,) = source.parts
        whole = name == ACTION or _whole(schema, part.source) == name
        places[name] = Placement((part.source,)) if whole else Placement((part.source,), *part.columns)
    return places | {IMAGE_PREFIX + n: Placement((c.source,)) for n, c in schema.cameras.items()}


def _key(name: str) -> str:
    """Return the array of a feature in a buffer of no known benchmark."""
    if name == STATE:
        return "state"
    if name.startswith(DEPTH_PREFIX):
        return _DEPTH + name.removeprefix(DEPTH_PREFIX)
    return name.removeprefix(IMAGE_PREFIX).removeprefix(_OBSERVATION)


def _shape(store: EpisodeStore, key: str, name: str) -> tuple[int, ...]:
    shape, original = store.features[name].shape, _SHAPES.get(key, ())
    return original if original and math.prod(original) == math.prod(shape) else shape


def _blocks(store: EpisodeStore, name: str, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first step, values) in pieces of `rows` steps."""
    for start in range(0, store.n_steps, rows):
        stop = min(store.n_steps, start + rows)
        if name in store.spec.image_features:
            yield start, store.images(name).decode(np.arange(start, stop))
        else:
            yield start, store.column(name)[start:stop]


def _create(group: Any, key: str, shape: tuple[int, ...], dtype: str) -> Any:
    """Make an array in chunks of time, about 2 MB each, compressed as the original does on disk."""
    from numcodecs import Blosc

    row = math.prod(shape[1:]) * np.dtype(dtype).itemsize
    rows = max(1, min(shape[0], math.ceil(_CHUNK_BYTES / max(1, row))))
    keep_zeros: Any = {"write_empty_chunks": True}
    compressor = Blosc(cname="zstd", clevel=5, shuffle=Blosc.BITSHUFFLE)
    return group.create_array(
        key,
        shape=shape,
        dtype=np.dtype(dtype).newbyteorder("<"),
        chunks=(rows, *shape[1:]),
        compressors=compressor,
        fill_value=False if dtype == "bool" else 0,
        config=keep_zeros,  # a chunk file that is missing means damage, never zeros
    )


def _write_ends(group: Any, ends: np.ndarray) -> None:
    array = group.create_array(
        "episode_ends", shape=ends.shape, dtype="<i8", chunks=ends.shape, compressors=None, fill_value=0
    )
    array[...] = ends
