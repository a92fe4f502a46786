"""What a demonstration of robomimic or robosuite holds, and what its arrays mean."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.episode import EpisodeError
from robot_datasets.errors import DatasetError
from robot_datasets.features import ACTION, ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, Feature
from robot_datasets.importers.hdf5_reading import DAMAGE, find_dataset, open_hdf5
from robot_datasets.isolation import IsolationError, call_isolated_within
from robot_datasets.schemas import EmbodimentSchema, load_schema

V0_ACTION = ("joint_velocities", "gripper_actuations")
"""What robosuite 0.x recorded instead of actions."""

SIMULATOR_STATE = "observation.simulator_state"
"""MuJoCo's flattened state (time, positions, velocities), from which a simulation can be set."""

_STORED = {"f": ("float32", "float64"), "b": ("bool",), "i": ("int32", "int64"), "u": ("uint8", "uint16")}
_ATTRIBUTES = ("env_args", "env_info", "env", "repository_version")
_ATTRIBUTE_SECONDS = 30.0
_ANY_ARM = "observation.robot0"


@dataclass
class Contents:
    """Feature -> the datasets of a demonstration that make it up, side by side; camera -> its dataset."""

    numbers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    features: dict[str, Feature] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def contents_of(demo: Any, environment: Mapping[str, Any], *, states: str) -> Contents:
    """Describe a demonstration by its keys.

    Args:
        demo: h5py group.
        environment: Arguments of the environment it was recorded in.
        states: Whether to keep the simulator's state: ``"auto"`` (if there are no observations), ``"keep"``,
            ``"drop"``.

    Raises:
        DatasetError: It has no actions, or they are no numbers.
    """
    found = Contents(left_out=["next_obs"] if "next_obs" in demo else [])
    numbers, images, features = found.numbers, found.images, found.features
    action = ("actions",) if "actions" in demo else tuple(key for key in V0_ACTION if key in demo)
    if not action:
        raise DatasetError(f"{demo.name} has {', '.join(demo)}, expected actions")
    width = sum(int(np.prod(demo[key].shape[1:])) for key in action)
    schema = load_schema("robosuite")
    dtype = storage_dtype(demo[action[0]])
    if dtype is None:
        raise DatasetError(
            f"{demo.name}/{action[0]} is of type {demo[action[0]].dtype}, expected numbers; copy the file again"
        )
    feature = _action_feature(schema, dtype, (width,), environment)
    numbers[ACTION] = action
    features[ACTION] = feature if action == ("actions",) else replace(feature, meaning="joint velocity")
    keys = sorted(demo["obs"]) if "obs" in demo else []
    parts = schema.features[STATE].parts
    if all(part.source in keys and demo["obs"][part.source].shape[1:] == (part.size,) for part in parts):
        numbers[STATE] = tuple(f"obs/{part.source}" for part in parts)
        features[STATE] = replace(schema.feature(STATE), dtype=storage_dtype(demo[numbers[STATE][0]]) or "")
        keys = [key for key in keys if f"obs/{key}" not in numbers[STATE]]
    names = {part.source: name for name in (ENVIRONMENT_STATE,) for part in schema.features[name].parts}
    for key in keys:
        dataset = demo["obs"][key]
        if len(dataset.shape) == 4 and dataset.shape[3] == 3 and dataset.dtype == np.uint8:
            name = IMAGE_PREFIX + key.removesuffix("_image")
            images[name], features[name] = f"obs/{key}", Feature(dtype="uint8", shape=dataset.shape[1:])
        elif len(dataset.shape) == 4 or storage_dtype(dataset) is None:
            found.left_out.append(
                f"obs/{key}"
            )  # depth of the renderer, in its own non-metric unit, and the like
        else:
            name = names.get(key, f"observation.{key}")
            shape = tuple(dataset.shape[1:]) or (1,)
            numbers[name] = (f"obs/{key}",)
            features[name] = _observation_feature(schema, key, storage_dtype(dataset) or "", shape)
    _add_records(demo, found, states)
    return found


def kind_of(root: Any, name: str) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    """Return key, kind of numbers and shape of a step of all arrays of a demonstration; others differ from it.

    Args:
        root: The file.
        name: Path of the demonstration.

    Raises:
        EpisodeError: An array lies in another file, or the file is damaged there.
    """
    demo = root[name]
    keys = [
        *(key for key in demo if key not in ("obs", "next_obs")),
        *(f"obs/{key}" for key in demo.get("obs", ())),
    ]
    kinds = []
    for key in sorted(map(str, keys)):
        dataset = find_dataset(root, f"{name}/{key}")
        if dataset is None:
            kinds.append((key, "group", ()))
        else:
            kinds.append((key, dataset.dtype.kind, tuple(dataset.shape[1:]) if dataset.shape else (-1,)))
    return tuple(kinds)


def _add_records(demo: Any, found: Contents, states: str) -> None:
    """Add what lies beside the observations: rewards, dones, the simulator's state, and what else is recorded."""
    import h5py

    renamed = {"rewards": "next.reward", "dones": "next.done", "states": SIMULATOR_STATE}
    for key, dataset in demo.items():
        if not isinstance(dataset, h5py.Dataset) or key in found.numbers[ACTION]:
            continue
        dropped = states == "drop" or (states == "auto" and "obs" in demo)
        if (key == "states" and dropped) or storage_dtype(dataset) is None:
            found.left_out.append(key)
            continue
        name = renamed.get(key, f"observation.{key}")
        found.numbers[name] = (key,)
        found.features[name] = Feature(
            dtype=storage_dtype(dataset) or "", shape=tuple(dataset.shape[1:]) or (1,)
        )


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


def recorded_attributes(file: Path) -> dict[str, str]:
    """Return the attributes of ``data`` that say how a file was recorded, those of `_ATTRIBUTES` that are there.

    They are texts of varying length, on which HDF5 can hang for ever if the file is damaged; so another process reads
    them.

    Raises:
        DatasetError: They are damaged.
    """
    try:
        return call_isolated_within(_ATTRIBUTE_SECONDS, _read_attributes, file)
    except IsolationError as error:
        raise DatasetError(f"{file}: reading the attributes of data {error}, copy it again") from error


def _read_attributes(file: Path) -> dict[str, str]:
    try:
        with open_hdf5(file) as root:
            attributes = root["data"].attrs
            found = {key: attributes[key] for key in _ATTRIBUTES if key in attributes}
    except EpisodeError as error:
        raise DatasetError(f"{file}: {error}; copy it again") from error
    except DAMAGE as error:
        raise DatasetError(f"{file}: attributes of data cannot be read ({error}); copy it again") from error
    return {key: v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for key, v in found.items()}


def convention_warnings(attributes: Mapping[str, str], environment: Mapping[str, Any]) -> list[str]:
    """Say what an action of robosuite 1.0 means today: its controllers turned the hand the other way.

    Found by replaying a public Wipe recording of 1.0.0 (docs/datasets/robomimic.md).
    """
    release = attributes.get("repository_version", "")
    controller = environment.get("controller_configs")
    kind = str(controller.get("type", "")) if isinstance(controller, Mapping) else ""
    if not release.startswith("1.0") or not kind.startswith("OSC_POSE"):
        return []
    return [
        f"recorded with robosuite {release}, whose {kind} turned the hand by the negative of an action's rotation; "
        "negate components 3 to 5 before training beside recordings of later versions"
    ]


def environment_of(attributes: Mapping[str, str]) -> dict[str, Any]:
    """Return the environment's arguments, from robomimic's env_args or robosuite's env_info."""
    for key in ("env_args", "env_info"):
        try:
            values = json.loads(attributes[key]) if key in attributes else None
        except ValueError:
            continue
        if isinstance(values, dict):
            arguments = values.get("env_kwargs")
            name = {"env_name": values.get("env_name") or attributes.get("env", "")}
            return {**(arguments if isinstance(arguments, dict) else values), **name}
    return {"env_name": attributes["env"]} if "env" in attributes else {}


def storage_dtype(dataset: Any) -> str | None:
    """Return the storage type of a dataset of numbers, or None."""
    kind, size = dataset.dtype.kind, dataset.dtype.itemsize
    known = _STORED.get(kind, ())
    return next((name for name in known if np.dtype(name).itemsize >= size), None)
