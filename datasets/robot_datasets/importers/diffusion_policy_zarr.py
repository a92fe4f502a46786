"""diffusion_policy's replay buffer: a zarr v2 group ``data/*`` + ``meta/episode_ends``, directory or zip.

PushT buffers (state, keypoint, action of the published shapes) get full feature descriptions; of any other
buffer, ``state`` becomes observation.state, images become observation.images.<key>, and the rest
observation.<key>, all without units, because the format does not tell them.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.features import ACTION, IMAGE_PREFIX, STATE, Feature
from robot_datasets.image_codec import ENCODINGS, encode_frame
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Option, Plan, Probe, Rejected
from robot_datasets.importers.episode_ends import read_episode_ends
from robot_datasets.schemas import EmbodimentSchema, load_schema
from robot_datasets.store.arrays import require_zarr

if TYPE_CHECKING:
    import zarr

_PUSHT_SHAPES = {"state": (5,), "keypoint": (9, 2), "action": (2,)}
_FLOAT_IMAGES = ("exact", "round", "unit")
_SAMPLE_BYTES = 1 << 20


@dataclass(frozen=True)
class _Column:
    """A stored feature as a part of a source array: components `start`:`stop` of each flattened step."""

    feature: str
    key: str
    start: int = 0
    stop: int | None = None


class DiffusionPolicyZarr(Importer):
    """Importer of diffusion_policy replay buffers."""

    name = "diffusion_policy_zarr"
    version = 1
    summary = "diffusion_policy replay buffer, zarr v2 directory or .zip with data/ and meta/episode_ends"
    options = (
        Option("image_encoding", "png", "how frames are stored; jpeg loses detail", ENCODINGS),
        Option(
            "float_images",
            "exact",
            "float frames: exact = whole numbers 0..255 or refuse, round = round them, unit = 0..1 times 255",
            _FLOAT_IMAGES,
        ),
        Option("fps", "", "rate of the steps [Hz]; known for PushT, required otherwise"),
        Option("embodiment", "", "robot name; known for PushT"),
        Option("task", "", "instruction of all episodes; known for PushT"),
        Option(
            "episode_ends",
            "",
            "to use if meta/episode_ends is lacking: a .npy file of cumulative ends; PushT's are inferred (block_jump)",
        ),
    )

    def probe(self, path: Path) -> Probe | None:
        """Recognise ``.zgroup`` files of a buffer, in a directory or a zip."""
        if path.is_dir() and (path / "data" / ".zgroup").is_file():
            return Probe(self.name, "data/.zgroup")
        if path.is_file() and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if _buffer_root(archive.namelist()) is not None:
                    return Probe(self.name, "data/.zgroup in a zip")
        return None

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        """Read metadata and episode boundaries; the steps stay where they are."""
        group = open_buffer(path)
        arrays = _data_arrays(group)
        if "action" not in arrays:
            raise DatasetError(
                f"{path} has no data/action, found {', '.join(arrays) or 'nothing'}; expected a buffer"
            )
        is_pusht = all(k in arrays and arrays[k].shape[1:] == shape for k, shape in _PUSHT_SHAPES.items())
        schema = load_schema("pusht") if is_pusht else None
        columns, features = _schema_columns(schema, arrays) if schema else _generic_columns(arrays)
        ends, recorded = read_episode_ends(group, path, options["episode_ends"], arrays)
        lengths = {array.shape[0] for array in arrays.values()}
        if lengths != {int(ends[-1])}:
            raise DatasetError(
                f"{path}: arrays have {sorted(lengths)} steps but episodes end at {ends[-1]}; it is damaged"
            )
        images = {name: name.removeprefix(IMAGE_PREFIX) for name in features if name.startswith(IMAGE_PREFIX)}
        if schema:
            images |= {n: key for n, key in _schema_cameras(schema).items() if n in images}
        resolved = dict(options) | {
            "episode_ends": recorded,
            "fps": options["fps"] or (str(schema.fps) if schema else ""),
            "embodiment": options["embodiment"] or (schema.robot if schema else ""),
            "task": options["task"] or (schema.task if schema else ""),
        }
        starts = np.concatenate([[0], ends[:-1]])
        refs = [
            EpisodeRef(f"episode_{i:06d}", (int(a), int(b)))
            for i, (a, b) in enumerate(zip(starts, ends, strict=True))
        ]
        return Plan(
            source=path,
            options=resolved,
            refs=refs,
            features=features,
            fps=_rate(resolved["fps"], path),
            embodiment=resolved["embodiment"],
            checksum=_checksum(path),
            image_encodings=dict.fromkeys(images, options["image_encoding"]),
            context=(columns, images),
        )

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        """Yield episodes; every source chunk is decoded once when they are asked for in order."""
        group = open_buffer(plan.source)
        columns, images = plan.context
        keys = {c.key for c in columns} | set(images.values())
        readers = {key: _ChunkReader(group[f"data/{key}"], key) for key in keys}
        for ref in refs:
            start, stop = ref.locator
            try:
                data = {c.feature: _part(readers[c.key].read(start, stop), c) for c in columns}
            except EpisodeError as error:
                yield Rejected(ref.source_id, str(error))
                continue
            frames = {name: _frames(readers[key], start, stop, plan.options) for name, key in images.items()}
            yield Episode(ref.source_id, data, dict(frames), task=plan.options["task"])


class _ChunkReader:
    """Reads rows of a zarr array and keeps the last chunk, which the next episode usually shares."""

    def __init__(self, array: Any, key: str) -> None:
        self._array = array
        self._key = key
        self._chunk = -1
        self._rows = np.empty(0)

    def blocks(self, start: int, stop: int) -> Iterator[np.ndarray]:
        """Yield rows [start, stop) in blocks of at most one chunk."""
        size = self._array.chunks[0]
        while start < stop:
            chunk = start // size
            if chunk != self._chunk:
                self._rows = self._load(chunk * size, (chunk + 1) * size)
                self._chunk = chunk
            end = min(stop, (chunk + 1) * size)
            yield self._rows[start - chunk * size : end - chunk * size]
            start = end

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return rows [start, stop)."""
        return np.concatenate(list(self.blocks(start, stop)) or [self._array[:0]])

    def _load(self, start: int, stop: int) -> np.ndarray:
        try:
            return self._array[start:stop]
        except (OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
            raise EpisodeError(f"data/{self._key} steps {start}..{stop} cannot be read: {error}") from error


def _frames(reader: _ChunkReader, start: int, stop: int, options: Mapping[str, str]) -> Iterator[bytes]:
    for block in reader.blocks(start, stop):
        for image in _as_uint8(block, options["float_images"]):
            yield encode_frame(image, options["image_encoding"])


def _as_uint8(block: np.ndarray, policy: str) -> np.ndarray:
    if block.dtype == np.uint8:
        return block
    values = block * 255.0 if policy == "unit" else block
    whole = np.rint(values)
    if policy == "exact" and not np.array_equal(whole, values):
        raise EpisodeError(
            f"float frames hold fractions (range {block.min():g}..{block.max():g}), expected whole numbers 0..255; "
            "choose --option float_images=round or =unit"
        )
    if whole.min() < 0 or whole.max() > 255:
        raise EpisodeError(
            f"float frames range over {block.min():g}..{block.max():g}, expected 0..255; "
            "choose --option float_images=unit if they are 0..1"
        )
    return whole.astype(np.uint8)


def _part(rows: np.ndarray, column: _Column) -> np.ndarray:
    if column.stop is None:
        return rows
    return rows.reshape(len(rows), -1)[:, column.start : column.stop]


def _schema_columns(
    schema: EmbodimentSchema, arrays: Mapping[str, Any]
) -> tuple[list[_Column], dict[str, Feature]]:
    """Return the columns and features of a known buffer, and whatever else is in it by its own name."""
    features = {name: schema.feature(name) for name in schema.features} | {ACTION: schema.action()}
    sources = {**schema.features, ACTION: schema.action_source()}
    columns = []
    for name, source in sources.items():
        (part,) = source.parts
        columns.append(_Column(name, part.source, *part.columns))
    used = {column.key for column in columns}
    for name, key in _schema_cameras(schema).items():
        if key in arrays and _is_image(arrays[key]):
            features[name] = Feature(dtype="uint8", shape=arrays[key].shape[1:])
            used.add(key)
    more_columns, more_features = _generic_columns({k: a for k, a in arrays.items() if k not in used})
    return columns + more_columns, features | more_features


def _schema_cameras(schema: EmbodimentSchema) -> dict[str, str]:
    return {IMAGE_PREFIX + name: camera.source for name, camera in schema.cameras.items()}


def _generic_columns(arrays: Mapping[str, Any]) -> tuple[list[_Column], dict[str, Feature]]:
    columns, features = [], {}
    for key, array in arrays.items():
        if _is_image(array):
            features[IMAGE_PREFIX + key] = Feature(dtype="uint8", shape=array.shape[1:])
            continue
        name = {"action": ACTION, "state": STATE}.get(key, f"observation.{key}")
        columns.append(_Column(name, key))
        features[name] = Feature(dtype=_storage_dtype(key, array.dtype), shape=array.shape[1:])
    return columns, features


def _is_image(array: Any) -> bool:
    return len(array.shape) == 4 and array.shape[3] == 3 and array.dtype.kind in "fu"


def _storage_dtype(key: str, dtype: np.dtype) -> str:
    if dtype.kind == "f":
        return "float32"
    if dtype.kind in "iub":
        return "bool" if dtype.kind == "b" else "int64"
    raise DatasetError(f"data/{key} is {dtype}; expected numbers")


def _rate(text: str, path: Path) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not rate > 0:
        raise DatasetError(
            f"{path} does not tell its rate, got fps='{text}'; give it in Hz with --option fps=10"
        )
    return rate


def open_buffer(path: Path) -> zarr.Group:
    """Open a replay buffer, directory or zip, for reading; `DatasetError` if it is not one or damaged."""
    require_zarr()
    import zarr
    from zarr.storage import LocalStore, ZipStore

    try:
        if path.is_dir():
            return zarr.open_group(LocalStore(path, read_only=True), mode="r", zarr_format=2)
        with zipfile.ZipFile(path) as archive:
            root = _buffer_root(archive.namelist())
        if root is None:
            raise DatasetError(f"{path} holds no data/.zgroup; expected a zipped replay buffer")
        return zarr.open_group(ZipStore(path, mode="r", read_only=True), mode="r", zarr_format=2, path=root)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path} cannot be opened as a replay buffer ({error}); copy it again") from error


def _data_arrays(group: zarr.Group) -> dict[str, Any]:
    import zarr

    data = group["data"]
    nodes = data.members() if isinstance(data, zarr.Group) else ()
    return {key: node for key, node in sorted(nodes, key=lambda n: n[0]) if isinstance(node, zarr.Array)}


def _buffer_root(names: Sequence[str]) -> str | None:
    roots = [name.removesuffix("data/.zgroup") for name in names if name.endswith("data/.zgroup")]
    roots = [root.rstrip("/") for root in roots if root == "" or root.endswith("/")]
    return min(roots, key=len, default=None)


def _checksum(path: Path) -> str:
    """Hash names, sizes and content: CRCs of a zip's directory; of a folder, all bytes of small files."""
    digest = hashlib.blake2b(digest_size=16)
    if path.is_file():
        with zipfile.ZipFile(path) as archive:
            for info in sorted(archive.infolist(), key=lambda i: i.filename):
                digest.update(f"{info.filename}\0{info.file_size}\0{info.CRC}\n".encode())
        return digest.hexdigest()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file.stat().st_size}\n".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_SAMPLE_BYTES))
    return digest.hexdigest()
