"""robomimic's HDF5 and robosuite's raw recordings, from which robomimic's are made.

One file holds all demonstrations: ``data/demo_<i>`` with ``actions`` and ``obs/<key>``; raw recordings have
``states`` (MuJoCo's flattened state) instead of observations. Demonstrations are taken in the order of their
numbers, which is not the order in which HDF5 lists them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import DEPTH_PREFIX, is_image
from robot_datasets.image_codec import ENCODINGS, encode_frame
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Option, Plan, Probe, Rejected
from robot_datasets.importers.hdf5_reading import DAMAGE, find_dataset, open_hdf5, read_array, read_text
from robot_datasets.importers.robomimic_contents import (
    SIMULATOR_STATE,
    V0_ACTION,
    Contents,
    contents_of,
    convention_warnings,
    environment_of,
    kind_of,
    recorded_attributes,
)
from robot_datasets.importers.settings import positive_rate
from robot_datasets.side_record import KEY, SideRecord

_LOG = logging.getLogger(__name__)
_DEMO = re.compile(r"^demo_(\d+)$")
_SUFFIXES = (".hdf5", ".h5")
_SAMPLE_BYTES = 1 << 20
_FRAMES_AT_ONCE = 32
_LOOKED_AT = 100


@dataclass(frozen=True)
class _Context:
    """How demonstrations become episodes; `record` is what our own exporter noted, if it was ours."""

    contents: Contents
    splits: Mapping[str, str]
    task: str
    shaped_reward: bool
    record: SideRecord | None


class RobomimicHdf5(Importer):
    """Importer of robomimic datasets and raw robosuite demonstrations."""

    name = "robomimic_hdf5"
    version = 2
    summary = "robomimic dataset or raw robosuite recording: an .hdf5 file with data/demo_<i>"
    options = (
        Option("image_encoding", "png", "how frames are stored; jpeg loses detail", ENCODINGS),
        Option(
            "fps", "", "rate of the steps [Hz]; empty = the environment's, or that of the simulator's clock"
        ),
        Option("embodiment", "", "robot name; empty = the environment's robots"),
        Option("task", "", "instruction of all episodes; empty = the environment's name"),
        Option("filter", "", "only the demonstrations listed in mask/<filter>, e.g. 20_percent"),
        Option(
            "states",
            "auto",
            f"keep the simulator's state as {SIMULATOR_STATE}; auto = if there are no observations",
            ("auto", "keep", "drop"),
        ),
    )

    def probe(self, path: Path) -> Probe | None:
        """Recognise an HDF5 file with demonstrations, or the folder of a ``demo.hdf5``."""
        file = _file_of(path)
        if file is None:
            return None
        try:
            with open_hdf5(file) as root:
                names = _demos(root)
        except EpisodeError:
            return None
        return Probe(self.name, f"data/{names[0]}") if names else None

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        """List the demonstrations; features are those of the first that can be read."""
        with _open(path) as root:
            every = _demos(root)
            if not every:
                raise DatasetError(f"{path} has no data/demo_<i>; expected a robomimic or robosuite file")
            attributes, masks = recorded_attributes(Path(root.filename)), _masks(root)
            environment = environment_of(attributes)
            names = _chosen(every, masks, options["filter"])
            first = _first_readable(root, names, path)
            try:
                contents = contents_of(first, environment, states=options["states"])
            except DAMAGE as error:
                raise DatasetError(f"{path}: {first.name} is damaged ({error}); copy it again") from error
            record, warnings = _side_record(root, first, len(every))
            warnings += convention_warnings(attributes, environment)
            fps = record.fps if record else _clock_rate(first, environment)
        for warning in warnings:
            _LOG.warning("%s: %s", path.name, warning)
        if record is not None:
            contents = _recorded_contents(record)
        fps = fps if fps and not options["fps"] else positive_rate(options["fps"], path)
        task = options["task"] or ("" if record else str(environment.get("env_name") or ""))
        embodiment = options["embodiment"] or (record.embodiment if record else _robots(environment))
        splits = dict.fromkeys(masks.get("valid", ()), "val")
        splits |= {name: "train" for name in masks.get("train", ()) if name not in splits}
        return Plan(
            source=path,
            options={**options, "fps": f"{fps:g}", "embodiment": embodiment, "task": task},
            refs=[_reference(name, every.index(name), record) for name in names],
            features=contents.features,
            fps=fps,
            embodiment=embodiment,
            checksum=_checksum(path),
            image_encodings={n: _encoding(n, options["image_encoding"]) for n in contents.images},
            notes={
                "environment": environment,
                "masks": sorted(masks),
                "left_out": contents.left_out,
                "warnings": warnings,
            },
            context=_Context(contents, splits, task, bool(environment.get("reward_shaping")), record),
        )

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        """Read one demonstration after another; frames are read as they are consumed."""
        with _open(plan.source) as root:
            for ref in refs:
                try:
                    episode = _episode(root, ref, plan)
                except EpisodeError as error:
                    yield Rejected(ref.source_id, str(error))
                else:
                    yield episode


def _episode(root: Any, ref: EpisodeRef, plan: Plan) -> Episode:
    context: _Context = plan.context
    name, number = ref.locator
    used = [key for keys in context.contents.numbers.values() for key in keys]
    arrays = _arrays(root, name, [*used, *context.contents.images.values()])
    data = {
        feature: _column(feature, [read_array(arrays[key]) for key in keys], plan)
        for feature, keys in context.contents.numbers.items()
    }
    images = {n: _frames(arrays[key], plan.image_encodings[n]) for n, key in context.contents.images.items()}
    episode = Episode(ref.source_id, data, dict(images), context.task, split=context.splits.get(name, ""))
    if context.record is not None:
        episode = context.record.label(episode, number)
        episode.task = context.task or episode.task
        return episode
    reward = find_dataset(root, f"data/{name}/rewards")
    if reward is not None and not context.shaped_reward:  # sparse: 1 when the task is solved
        episode.success = bool(np.max(read_array(reward), initial=0) >= 1)
    return episode


def _column(name: str, parts: Sequence[np.ndarray], plan: Plan) -> np.ndarray:
    """Put the parts of a feature side by side, in its shape; half precision becomes single."""
    parts = [part[:, None] if part.ndim == 1 else part for part in parts]
    if len({part.ndim for part in parts}) > 1:
        shapes = ", ".join(str(part.shape) for part in parts)
        raise EpisodeError(
            f"{name}: its parts have shapes {shapes}; expected one row of numbers per step of each"
        )
    values = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    feature, record = plan.features[name], plan.context.record
    if record is None:
        return values
    place = record.placements[name]
    values = values.reshape(len(values), -1)[:, place.start : place.stop]
    cast = values.reshape(len(values), *feature.shape).astype(feature.dtype)
    if not np.array_equal(cast.reshape(values.shape), values, equal_nan=values.dtype.kind == "f"):
        raise EpisodeError(
            f"{', '.join(place.arrays)} holds values that {feature.dtype} cannot; it was changed"
        )
    return cast


def _frames(dataset: Any, encoding: str) -> Iterator[bytes]:
    for start in range(0, len(dataset), _FRAMES_AT_ONCE):
        for frame in read_array(dataset, slice(start, start + _FRAMES_AT_ONCE)):
            yield encode_frame(frame, encoding)


def _arrays(root: Any, name: str, keys: Sequence[str]) -> dict[str, Any]:
    """Return the datasets of a demonstration by key; nothing is read before all have the same number of rows."""
    arrays = {}
    for key in dict.fromkeys(keys):
        arrays[key] = find_dataset(root, f"data/{name}/{key}")
        if arrays[key] is None:
            raise EpisodeError(f"{key} is missing, other demonstrations have it; copy the file again")
    lengths = {key: array.shape[0] if array.shape else "no" for key, array in arrays.items()}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{key}={n}" for key, n in lengths.items())
        raise EpisodeError(f"arrays differ in length: {listed}; expected one row per step")
    return arrays


def _side_record(root: Any, demo: Any, n_demos: int) -> tuple[SideRecord | None, list[str]]:
    """Return what our exporter noted, unless the file has been changed since."""
    try:
        text = read_text(root, KEY)
        record = SideRecord.from_dict(json.loads(text)) if text else None
    except (EpisodeError, ValueError):
        record = None
    if record is None:
        return None, []
    arrays = {array for place in record.placements.values() for array in place.arrays}
    found = {array: find_dataset(demo, array) for array in arrays}
    shapes = {array: dataset.shape[1:] for array, dataset in found.items() if dataset is not None}
    misfit = record.misfit(shapes, n_demos)
    if misfit:
        return None, [f"/{KEY} does not fit the demonstrations ({misfit}) and was not used"]
    return record, []


def _recorded_contents(record: SideRecord) -> Contents:
    contents = Contents(features=dict(record.features), left_out=list(record.made_up))
    for name, place in record.placements.items():
        if is_image(name):
            contents.images[name] = place.arrays[0]
        else:
            contents.numbers[name] = place.arrays
    return contents


def _reference(name: str, number: int, record: SideRecord | None) -> EpisodeRef:
    return EpisodeRef(record.labels[number]["source_id"] if record else name, (name, number))


def _first_readable(root: Any, names: Sequence[str], path: Path) -> Any:
    """Return the first demonstration with steps and of the commonest kind, for the features of all."""
    found: dict[Any, list[Any]] = {}
    for name in names[:_LOOKED_AT]:
        try:
            demo = root[f"data/{name}"]
            kind = kind_of(root, demo.name)
            lengths = [len(demo[key]) for key in ("actions", *V0_ACTION) if key in demo]
        except (EpisodeError, *DAMAGE):  # reading it will report why
            continue
        if lengths and lengths[0]:
            found.setdefault(kind, []).append(demo)
    if not found:
        raise DatasetError(
            f"{path} has {len(names)} demonstrations, none with actions; expected at least one"
        )
    return max(found.values(), key=len)[0]


def _clock_rate(demo: Any, environment: Mapping[str, Any]) -> float:
    """Return the rate [Hz]: the environment's, or that of the clock in the simulator's state; 0 if neither is."""
    try:
        rate = float(environment.get("control_freq") or 0)
    except (TypeError, ValueError):
        rate = 0.0
    states = find_dataset(demo, "states")
    if not rate and states is not None and len(states) > 1:
        gap = float(np.median(np.diff(read_array(states)[:, 0])))
        rate = round(1 / gap, 3) if gap > 0 else 0.0
    return rate


def _robots(environment: Mapping[str, Any]) -> str:
    robots = environment.get("robots") or ""
    return ("+".join(map(str, robots)) if isinstance(robots, list) else str(robots)).lower()


def _chosen(names: list[str], masks: Mapping[str, Sequence[str]], option: str) -> list[str]:
    if not option:
        return names
    if option not in masks:
        raise DatasetError(f"option filter: {unknown_name('mask', option, masks)}")
    return [name for name in names if name in masks[option]]


def _masks(root: Any) -> dict[str, list[str]]:
    try:
        masks = root.get("mask")
        return {key: [_text(name) for name in masks[key][...]] for key in masks} if masks is not None else {}
    except DAMAGE as error:
        raise DatasetError(f"mask cannot be read, the file is damaged: {error}; copy it again") from error


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _demos(root: Any) -> list[str]:
    """Return the names of the demonstrations by number."""
    import h5py

    try:
        data = root.get("data")
        names = list(map(str, data)) if isinstance(data, h5py.Group) else []
    except DAMAGE as error:
        raise EpisodeError(f"data cannot be listed, the file is damaged: {error}; copy it again") from error
    found = {int(match[1]): name for name in names if (match := _DEMO.match(name))}
    return [found[number] for number in sorted(found)]


def _encoding(name: str, option: str) -> str:
    """JPEG holds no depth."""
    return "png" if name.startswith(DEPTH_PREFIX) and option == "jpeg" else option


def _file_of(path: Path) -> Path | None:
    if path.is_file() and path.suffix in _SUFFIXES:
        return path
    file = path / "demo.hdf5"
    return file if file.is_file() else None


def _open(path: Path) -> Any:
    file = _file_of(path)
    if file is None:
        raise DatasetError(f"{path} is no .hdf5 file and no folder with a demo.hdf5; check the path")
    try:
        return open_hdf5(file)
    except EpisodeError as error:
        raise DatasetError(f"{path}: {error}; copy it again") from error


def _checksum(path: Path) -> str:
    """Hash the size, the beginning and the end of the file."""
    file = _file_of(path) or path
    size = file.stat().st_size
    digest = hashlib.blake2b(str(size).encode(), digest_size=16)
    with file.open("rb") as stream:
        digest.update(stream.read(_SAMPLE_BYTES))
        stream.seek(max(0, size - _SAMPLE_BYTES))
        digest.update(stream.read())
    return digest.hexdigest()
