"""robomimic's HDF5 and robosuite's raw recordings, from which robomimic's are made.

One file holds all demonstrations: ``data/demo_<i>`` with ``actions`` and ``obs/<key>``; raw recordings have
``states`` (MuJoCo's flattened state) instead of observations. Demonstrations are taken in the order of their
numbers, which is not the order in which HDF5 lists them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.episode import Episode, EpisodeError
from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import ACTION, ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, Feature
from robot_datasets.image_codec import ENCODINGS, encode_frame
from robot_datasets.importers.base import EpisodeRef, EpisodeResult, Importer, Option, Plan, Probe, Rejected
from robot_datasets.schemas import EmbodimentSchema, load_schema

_DEMO = re.compile(r"^demo_(\d+)$")
_SUFFIXES = (".hdf5", ".h5")
_SAMPLE_BYTES = 1 << 20
_FRAMES_AT_ONCE = 32
_LOOKED_AT = 100
_STORED = {"f": ("float32", "float64"), "b": ("bool",), "i": ("int32", "int64"), "u": ("uint8", "uint16")}
_V0_ACTION = ("joint_velocities", "gripper_actuations")
_SIMULATOR_STATE = "observation.simulator_state"
_ANY_ARM = "observation.robot0"


@dataclass(frozen=True)
class _Context:
    """Feature -> the datasets of a demonstration that make it up, side by side; camera -> its dataset."""

    numbers: Mapping[str, tuple[str, ...]]
    images: Mapping[str, str]
    splits: Mapping[str, str]
    task: str
    shaped_reward: bool


class RobomimicHdf5(Importer):
    """Importer of robomimic datasets and raw robosuite demonstrations."""

    name = "robomimic_hdf5"
    version = 1
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
            f"keep the simulator's state as {_SIMULATOR_STATE}; auto = if there are no observations",
            ("auto", "keep", "drop"),
        ),
    )

    def probe(self, path: Path) -> Probe | None:
        """Recognise an HDF5 file with demonstrations, or the folder of a ``demo.hdf5``."""
        file = _file_of(path)
        if file is None:
            return None
        import h5py

        try:
            with h5py.File(file, "r") as root:
                names = _demos(root)
        except OSError:
            return None
        return Probe(self.name, f"data/{names[0]}") if names else None

    def plan(self, path: Path, options: Mapping[str, str]) -> Plan:
        """List the demonstrations; features are those of the first that can be read."""
        with _open(path) as root:
            names = _demos(root)
            if not names:
                raise DatasetError(f"{path} has no data/demo_<i>; expected a robomimic or robosuite file")
            environment = _environment(root)
            masks = _masks(root)
            if options["filter"]:
                if options["filter"] not in masks:
                    raise DatasetError(f"option filter: {unknown_name('mask', options['filter'], masks)}")
                names = [name for name in names if name in masks[options["filter"]]]
            first = _first_readable(root, names, path)
            numbers, images, features, left_out = _features(first, environment, options)
            fps = _rate(first, environment, options["fps"], path)
        robots = environment.get("robots") or ""
        robots = "+".join(map(str, robots)) if isinstance(robots, list) else str(robots)
        task = options["task"] or str(environment.get("env_name") or "")
        splits = dict.fromkeys(masks.get("valid", ()), "val")
        splits |= {name: "train" for name in masks.get("train", ()) if name not in splits}
        embodiment = options["embodiment"] or robots.lower()
        return Plan(
            source=path,
            options={**options, "fps": f"{fps:g}", "embodiment": embodiment, "task": task},
            refs=[EpisodeRef(name) for name in names],
            features=features,
            fps=fps,
            embodiment=embodiment,
            checksum=_checksum(path),
            image_encodings=dict.fromkeys(images, options["image_encoding"]),
            notes={"environment": environment, "masks": sorted(masks), "left_out": left_out},
            context=_Context(numbers, images, splits, task, bool(environment.get("reward_shaping"))),
        )

    def episodes(self, plan: Plan, refs: Sequence[EpisodeRef]) -> Iterator[EpisodeResult]:
        """Read one demonstration after another; frames are read as they are consumed."""
        with _open(plan.source) as root:
            for ref in refs:
                try:
                    episode = _episode(root, ref.source_id, plan)
                except EpisodeError as error:
                    yield Rejected(ref.source_id, str(error))
                else:
                    yield episode


def _episode(root: Any, name: str, plan: Plan) -> Episode:
    context: _Context = plan.context
    demo = root[f"data/{name}"]
    data = {}
    for feature, keys in context.numbers.items():
        parts = [_read(demo, key) for key in keys]
        parts = [part[:, None] if part.ndim == 1 else part for part in parts]
        lengths = {len(part) for part in parts}
        if len(lengths) != 1:
            raise EpisodeError(
                f"{', '.join(keys)} differ in length: {sorted(lengths)}; expected one row per step"
            )
        values = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        data[feature] = values.astype(np.float32) if values.dtype == np.float16 else values
    reward = demo.get("rewards")
    success = None
    if reward is not None and not context.shaped_reward:  # sparse: 1 when the task is solved
        success = bool(np.max(_read(demo, "rewards"), initial=0) >= 1)
    images = {n: _frames(demo, key, plan.options["image_encoding"]) for n, key in context.images.items()}
    return Episode(
        name, data, dict(images), task=context.task, success=success, split=context.splits.get(name, "")
    )


def _features(
    demo: Any, environment: Mapping[str, Any], options: Mapping[str, str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, str], dict[str, Feature], list[str]]:
    """Return feature -> datasets, camera -> dataset, all features, and the keys that are left out."""
    numbers: dict[str, tuple[str, ...]] = {}
    images: dict[str, str] = {}
    features: dict[str, Feature] = {}
    left_out: list[str] = ["next_obs"] if "next_obs" in demo else []
    action = ("actions",) if "actions" in demo else tuple(key for key in _V0_ACTION if key in demo)
    if not action:
        raise DatasetError(f"{demo.name} has {', '.join(demo)}, expected actions")
    width = sum(int(np.prod(demo[key].shape[1:])) for key in action)
    schema = load_schema("robosuite")
    feature = _action_feature(schema, _dtype(demo[action[0]]) or "", (width,), environment)
    numbers[ACTION] = action
    features[ACTION] = feature if action == ("actions",) else replace(feature, meaning="joint velocity")
    keys = sorted(demo["obs"]) if "obs" in demo else []
    parts = schema.features[STATE].parts
    if all(part.source in keys and demo["obs"][part.source].shape[1:] == (part.size,) for part in parts):
        numbers[STATE] = tuple(f"obs/{part.source}" for part in parts)
        features[STATE] = replace(schema.feature(STATE), dtype=_dtype(demo[numbers[STATE][0]]) or "")
        keys = [key for key in keys if f"obs/{key}" not in numbers[STATE]]
    names = {part.source: name for name in (ENVIRONMENT_STATE,) for part in schema.features[name].parts}
    for key in keys:
        dataset = demo["obs"][key]
        if len(dataset.shape) == 4 and dataset.shape[3] == 3 and dataset.dtype == np.uint8:
            name = IMAGE_PREFIX + key.removesuffix("_image")
            images[name], features[name] = f"obs/{key}", Feature(dtype="uint8", shape=dataset.shape[1:])
        elif len(dataset.shape) == 4 or _dtype(dataset) is None:
            left_out.append(f"obs/{key}")  # depth of the renderer, in its own non-metric unit, and the like
        else:
            name = names.get(key, f"observation.{key}")
            shape = tuple(dataset.shape[1:]) or (1,)
            numbers[name] = (f"obs/{key}",)
            features[name] = _observation_feature(schema, key, _dtype(dataset) or "", shape)
    _add_records(demo, numbers, features, left_out, states=options["states"])
    return numbers, images, features, left_out


def _add_records(
    demo: Any,
    numbers: dict[str, tuple[str, ...]],
    features: dict[str, Feature],
    left_out: list[str],
    *,
    states: str,
) -> None:
    """Add what lies beside the observations: rewards, dones, the simulator's state, and what else is recorded."""
    import h5py

    renamed = {"rewards": "next.reward", "dones": "next.done", "states": _SIMULATOR_STATE}
    for key, dataset in demo.items():
        if not isinstance(dataset, h5py.Dataset) or key in numbers[ACTION]:
            continue
        dropped = states == "drop" or (states == "auto" and "obs" in demo)
        if (key == "states" and dropped) or _dtype(dataset) is None:
            left_out.append(key)
            continue
        name = renamed.get(key, f"observation.{key}")
        numbers[name] = (key,)
        features[name] = Feature(dtype=_dtype(dataset) or "", shape=tuple(dataset.shape[1:]) or (1,))


def _observation_feature(schema: EmbodimentSchema, key: str, dtype: str, shape: tuple[int, ...]) -> Feature:
    """Describe an observation as the schema describes robot0's; unknown ones get type and shape alone."""
    for name in schema.features:
        tail = name.removeprefix(_ANY_ARM)
        if tail != name and key.endswith(tail):
            known = schema.feature(name)
            if not known.names or shape == known.shape:
                return replace(known, dtype=dtype, shape=shape)
    return Feature(dtype=dtype, shape=shape)


def _action_feature(
    schema: EmbodimentSchema, dtype: str, shape: tuple[int, ...], environment: Mapping[str, Any]
) -> Feature:
    """Describe the action of a one-armed robot under OSC_POSE; others get type and shape alone.

    Args:
        schema: robosuite's.
        dtype: Storage type.
        shape: Shape of one action.
        environment: The arguments of the environment (robomimic's env_kwargs, robosuite's env_info).
    """
    controller = environment.get("controller_configs")
    if isinstance(controller, Sequence) and not isinstance(controller, str) and len(controller) == 1:
        controller = controller[0]
    if not isinstance(controller, Mapping) or controller.get("type") != "OSC_POSE":
        return Feature(dtype=dtype, shape=shape)
    if shape not in ((6,), (7,)):
        return Feature(dtype=dtype, shape=shape)
    choice = "osc_pose_delta" if controller.get("control_delta", True) else "osc_pose_absolute"
    return replace(schema.action(choice + ("" if shape == (7,) else "_without_gripper")), dtype=dtype)


def _frames(demo: Any, key: str, encoding: str) -> Iterator[bytes]:
    dataset = demo.get(key)
    if dataset is None:
        raise EpisodeError(f"{key} is missing; other demonstrations have it")
    for start in range(0, len(dataset), _FRAMES_AT_ONCE):
        try:
            block = dataset[start : start + _FRAMES_AT_ONCE]
        except (OSError, RuntimeError) as error:
            raise EpisodeError(f"{key} cannot be read, the file is damaged: {error}") from error
        for frame in block:
            yield encode_frame(frame, encoding)


def _read(demo: Any, key: str) -> np.ndarray:
    dataset = demo.get(key)
    if dataset is None:
        raise EpisodeError(f"{key} is missing; other demonstrations have it")
    try:
        return dataset[...]
    except (OSError, RuntimeError) as error:
        raise EpisodeError(f"{key} cannot be read, the file is damaged: {error}") from error


def _first_readable(root: Any, names: Sequence[str], path: Path) -> Any:
    """Return the first demonstration with steps and with the commonest keys, for the features of all."""
    found: dict[tuple[str, ...], list[Any]] = {}
    for name in names[:_LOOKED_AT]:
        demo = root[f"data/{name}"]
        lengths = [len(demo[key]) for key in ("actions", *_V0_ACTION) if key in demo]
        if lengths and lengths[0]:
            keys = (*sorted(demo), *(sorted(demo["obs"]) if "obs" in demo else ()))
            found.setdefault(keys, []).append(demo)
    if not found:
        raise DatasetError(
            f"{path} has {len(names)} demonstrations, none with actions; expected at least one"
        )
    return max(found.values(), key=len)[0]


def _rate(demo: Any, environment: Mapping[str, Any], option: str, path: Path) -> float:
    """Return the rate [Hz]: the option, the environment's, or that of the clock in the simulator's state."""
    try:
        rate = float(option or environment.get("control_freq") or 0)
    except ValueError:
        rate = 0.0
    if not option and not rate and "states" in demo and len(demo["states"]) > 1:
        gap = float(np.median(np.diff(demo["states"][:, 0])))
        rate = round(1 / gap, 3) if gap > 0 else 0.0
    if not rate > 0:
        raise DatasetError(f"{path} tells no rate, got fps='{option}'; give it in Hz with --option fps=20")
    return rate


def _environment(root: Any) -> dict[str, Any]:
    """Return the environment's arguments, from robomimic's env_args or robosuite's env_info."""
    attributes = root["data"].attrs
    for key in ("env_args", "env_info"):
        try:
            values = json.loads(attributes[key]) if key in attributes else None
        except ValueError:
            continue
        if isinstance(values, dict):
            arguments = values.get("env_kwargs")
            name = {"env_name": values.get("env_name") or attributes.get("env", "")}
            return {**(arguments if isinstance(arguments, dict) else values), **name}
    return {"env_name": str(attributes["env"])} if "env" in attributes else {}


def _masks(root: Any) -> dict[str, list[str]]:
    masks = root.get("mask")
    return {key: [_text(name) for name in masks[key][...]] for key in masks} if masks is not None else {}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _demos(root: Any) -> list[str]:
    """Return the names of the demonstrations by number."""
    import h5py

    data = root.get("data")
    if not isinstance(data, h5py.Group):
        return []
    found = {int(match[1]): name for name in map(str, data) if (match := _DEMO.match(name))}
    return [found[number] for number in sorted(found)]


def _dtype(dataset: Any) -> str | None:
    """Return the storage type of a dataset of numbers, or None."""
    kind, size = dataset.dtype.kind, dataset.dtype.itemsize
    known = _STORED.get(kind, ())
    return next((name for name in known if np.dtype(name).itemsize >= size), None)


def _file_of(path: Path) -> Path | None:
    if path.is_file() and path.suffix in _SUFFIXES:
        return path
    file = path / "demo.hdf5"
    return file if file.is_file() else None


def _open(path: Path) -> Any:
    import h5py

    file = _file_of(path)
    if file is None:
        raise DatasetError(f"{path} is no .hdf5 file and no folder with a demo.hdf5; check the path")
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise DatasetError(f"{file} is truncated or not HDF5 ({error}); copy it again") from error


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
