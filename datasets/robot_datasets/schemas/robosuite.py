"""What robosuite's observations and actions mean: names, units and conventions by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from robot_datasets.features import Feature

SIMULATOR_STATE = "observation.simulator_state"
"""MuJoCo's flattened state (time, positions, velocities), from which a simulation can be set."""

STATE_KEYS = ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")
"""Make up observation.state, in this order, if all are there."""
STATE_SHAPES = ((3,), (4,), (2,))
STATE_FEATURE = Feature(
    dtype="float32",
    shape=(9,),
    names=("eef_x", "eef_y", "eef_z", "eef_qx", "eef_qy", "eef_qz", "eef_qw", "finger_left", "finger_right"),
    units=("m", "m", "m", "1", "1", "1", "1", "m", "m"),
    frame="world",
    rotation="quat_xyzw",
)
OBJECT_KEY = "object"
"""Becomes observation.environment_state; its components depend on the task."""

_XYZ = ("x", "y", "z")
_BY_SUFFIX: dict[str, dict[str, Any]] = {
    "_eef_pos": {"names": _XYZ, "units": ("m",), "frame": "world"},
    "_eef_quat": {
        "names": ("qx", "qy", "qz", "qw"),
        "units": ("1",),
        "frame": "world",
        "rotation": "quat_xyzw",
    },
    "_eef_vel_lin": {"names": _XYZ, "units": ("m/s",), "frame": "world"},
    "_eef_vel_ang": {"names": _XYZ, "units": ("rad/s",), "frame": "world"},
    "_joint_pos": {"units": ("rad",)},
    "_joint_vel": {"units": ("rad/s",)},
}


def observation_feature(key: str, dtype: str, shape: tuple[int, ...]) -> Feature:
    """Describe an observation by the ending of its key; unknown keys get type and shape alone."""
    for suffix, details in _BY_SUFFIX.items():
        if key.endswith(suffix) and ("names" not in details or shape == (len(details["names"]),)):
            return Feature(dtype=dtype, shape=shape, **details)
    return Feature(dtype=dtype, shape=shape)


def action_feature(dtype: str, shape: tuple[int, ...], environment: Mapping[str, Any]) -> Feature:
    """Describe the action of a one-armed robot under OSC_POSE; others get type and shape alone.

    The frame is not told: it changed between versions of robosuite.

    Args:
        dtype: Storage type.
        shape: Shape of one action.
        environment: The arguments of the environment (robomimic's env_kwargs, robosuite's env_info).
    """
    controller = environment.get("controller_configs")
    if isinstance(controller, Sequence) and not isinstance(controller, str) and len(controller) == 1:
        controller = controller[0]
    if (
        not isinstance(controller, Mapping)
        or controller.get("type") != "OSC_POSE"
        or shape not in ((6,), (7,))
    ):
        return Feature(dtype=dtype, shape=shape)
    delta = bool(controller.get("control_delta", True))
    names = ("dx", "dy", "dz", "drx", "dry", "drz") if delta else ("x", "y", "z", "rx", "ry", "rz")
    has_gripper = shape == (7,)
    return Feature(
        dtype=dtype,
        shape=shape,
        names=(*names, "gripper") if has_gripper else names,
        units=("1",) if delta else (),
        rotation="axis_angle",
        gripper="-1=open,1=closed" if has_gripper else "",
        meaning="delta pose" if delta else "absolute pose",
    )
