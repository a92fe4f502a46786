"""What robosuite's observables and controllers mean, as features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from robot_datasets.features import Feature

_POSE = ("eef_x", "eef_y", "eef_z", "eef_qx", "eef_qy", "eef_qz", "eef_qw")
_POSE_UNITS = ("m", "m", "m", "1", "1", "1", "1")
_DELTA_POSE = ("dx", "dy", "dz", "drx", "dry", "drz")
_PANDA_HAND = "0=closed,0.04=open"


def _hands(env: Any, observation: Mapping[str, np.ndarray]) -> list[str]:
    """Prefixes of the hands' observables, e.g. ``robot0_`` or, with two arms on one robot, ``robot0_right_``."""
    hands: list[str] = []
    for index, robot in enumerate(env.robots):
        for arm in robot.arms:
            long, short = f"robot{index}_{arm}_", f"robot{index}_"
            hands.append(long if f"{long}eef_pos" in observation else short)
    return hands


def state_feature(env: Any, observation: Mapping[str, np.ndarray]) -> Feature:
    """Return what `read_state` holds: per hand position, orientation and gripper joints."""
    hands = _hands(env, observation)
    names: list[str] = []
    units: list[str] = []
    for hand in hands:
        fingers = len(np.atleast_1d(observation.get(f"{hand}gripper_qpos", np.empty(0))))
        joints = ("finger_left", "finger_right") if fingers == 2 else [f"finger_{i}" for i in range(fingers)]
        prefix = hand if len(hands) > 1 else ""
        names += [f"{prefix}{name}" for name in (*_POSE, *joints)]
        units += [*_POSE_UNITS, *(["m"] if fingers == 2 else ["1"]) * fingers]
    models = {type(robot.robot_model).__name__ for robot in env.robots}
    return Feature(
        dtype="float32",
        shape=(len(names),),
        names=tuple(names),
        units=tuple(units),
        frame="world",
        rotation="quat_xyzw",
        gripper=_PANDA_HAND if models == {"Panda"} else "",
    )


def read_state(env: Any, observation: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return hand position (3), quaternion xyzw (4) and gripper joints of every hand, float32."""
    parts: list[np.ndarray] = []
    for hand in _hands(env, observation):
        parts += [observation[f"{hand}eef_pos"], observation[f"{hand}eef_quat"]]
        parts.append(np.atleast_1d(observation.get(f"{hand}gripper_qpos", np.empty(0))))
    return np.concatenate(parts).astype(np.float32)


def environment_features(env: Any, observation: Mapping[str, np.ndarray]) -> Feature:
    """Return what robosuite's ``object-state`` holds, component by component."""
    names: list[str] = []
    units: list[str] = []
    for name, observable in env._observables.items():
        if observable.modality != "object" or name not in observation:
            continue
        size = len(np.atleast_1d(observation[name]))
        names += [name] if size == 1 else [f"{name}_{i}" for i in range(size)]
        units += ["m" if "pos" in name.rsplit("_", 1)[-1] and "qpos" not in name else "1"] * size
    return Feature(
        dtype="float32",
        shape=(len(names),),
        names=tuple(names),
        units=tuple(units),
        frame="world",
        rotation="quat_xyzw",
    )


def read_environment(observation: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return robosuite's ``object-state`` as float32, empty if the task has no observed object."""
    return np.asarray(observation.get("object-state", np.empty(0)), dtype=np.float32)


def action_feature(env: Any) -> Feature:
    """Return what the controllers of an environment take, in the order of the action vector."""
    names: list[str] = []
    meanings: list[str] = []
    several = len(env.robots) > 1
    for index, robot in enumerate(env.robots):
        controllers = robot.composite_controller.part_controllers
        arms = len(robot.arms) > 1
        for part, (start, end) in robot._action_split_indexes.items():
            prefix = (f"robot{index}_" if several else "") + (f"{part}_" if arms else "")
            if part.endswith("gripper"):
                names += _numbered(f"{prefix}gripper", end - start)
                continue
            controller = controllers[part]
            kind = f"{getattr(controller, 'input_type', 'absolute')} {controller.name}"
            meanings.append("delta pose" if kind in ("delta OSC_POSE", "delta IK_POSE") else kind)
            if end - start == 6 and "POSE" in controller.name:
                names += [f"{prefix}{name}" for name in _DELTA_POSE]
            else:
                names += _numbered(f"{prefix}{controller.name.lower()}", end - start)
    pose = all("pose" in meaning.lower() for meaning in meanings)
    return Feature(
        dtype="float32",
        shape=(len(names),),
        names=tuple(names),
        units=("1",),
        frame="robot_base" if pose else "",
        rotation="axis_angle" if pose else "",
        gripper="-1=open,1=closed",
        meaning=" + ".join(dict.fromkeys(meanings)),
    )


def describe_arms(env: Any) -> list[str]:
    """Return robot, gripper and controller of every arm, e.g. ``"Panda with PandaGripper and delta OSC_POSE"``."""
    arms: list[str] = []
    for robot in env.robots:
        for arm in robot.arms:
            controller = robot.composite_controller.part_controllers[arm]
            kind = f"{getattr(controller, 'input_type', 'absolute')} {controller.name}"
            arms.append(
                f"{type(robot.robot_model).__name__} with {type(robot.gripper[arm]).__name__} and {kind}"
            )
    return arms


def _numbered(name: str, size: int) -> list[str]:
    return [name] if size == 1 else [f"{name}_{i}" for i in range(size)]
