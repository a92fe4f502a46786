"""RoboMIND 1.x embodiments: which HDF5 keys mean what. One `RoboMindSchema` per embodiment folder.

Sources: RoboMIND's HDF5 key tables and FAQ. What they leave open is left open here: the unit and polarity of
the gripper are undocumented (its unit is empty), and "30 Hz by default" is the only statement on the rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import STATE, Feature

END_EFFECTOR = "observation.end_effector"
FPS = 30.0

ACTION_SEMANTICS = ("puppet_next", "puppet_same", "master")
"""What an action is: the robot's measured state one step later, the state itself, or the teleoperator's."""


@dataclass(frozen=True, kw_only=True)
class RoboMindSchema:
    """How one embodiment folder is read.

    Attributes:
        folder: Folder name, e.g. ``"h5_franka_3rgb"``.
        embodiment: Robot name recorded in the store.
        cameras: Colour camera keys; a file that has others or fewer needs an explicit choice.
        observation: Stored feature -> (source key, description).
        puppet_action: Source key of the robot's measured state that an action refers to.
        master_action: Source key of the teleoperator's state.
        action: Description of the action; its ``meaning`` is filled in.
        action_default: One of `ACTION_SEMANTICS`.
        rgb_as_is: RoboMIND documents the order of ``cv2.imdecode``'s array, which is BGR of a true JPEG. So
            where it says "BGR", a standard decoder gives correct RGB, and where it says "RGB", red and blue
            come out swapped.
    """

    folder: str
    embodiment: str
    cameras: tuple[str, ...]
    observation: Mapping[str, tuple[str, Feature]]
    puppet_action: str
    master_action: str
    action: Feature
    action_default: str
    rgb_as_is: bool


_JOINTS = (*(f"joint{i}" for i in range(1, 8)), "gripper")
_JOINT_UNITS = (*["rad"] * 7, "")

_FRANKA_OBSERVATION = {
    STATE: (
        "puppet/joint_position",
        Feature(dtype="float32", shape=(8,), names=_JOINTS, units=_JOINT_UNITS),
    ),
    END_EFFECTOR: (
        "puppet/end_effector",
        Feature(
            dtype="float32",
            shape=(6,),
            names=("x", "y", "z", "roll", "pitch", "yaw"),
            units=("m", "m", "m", "rad", "rad", "rad"),
            frame="robot_base",
            rotation="rpy_extrinsic",  # documented as intrinsic, but forward kinematics says extrinsic xyz
        ),
    ),
}


def _franka(folder: str, cameras: tuple[str, ...]) -> RoboMindSchema:
    return RoboMindSchema(
        folder=folder,
        embodiment="franka",
        cameras=cameras,
        observation=_FRANKA_OBSERVATION,
        puppet_action="puppet/joint_position",
        master_action="master/joint_position",
        action=Feature(dtype="float32", shape=(8,), names=_JOINTS, units=_JOINT_UNITS),
        action_default="puppet_next",
        rgb_as_is=True,
    )


SCHEMAS: dict[str, RoboMindSchema] = {
    schema.folder: schema
    for schema in (
        _franka("h5_franka_1rgb", ("camera_top",)),
        _franka("h5_franka_3rgb", ("camera_top", "camera_left", "camera_right")),
    )
}


def schema(folder: str) -> RoboMindSchema:
    """Return the schema of an embodiment folder; unknown ones are an error with the nearest match."""
    found = SCHEMAS.get(folder)
    if found is None:
        raise DatasetError(unknown_name("RoboMIND embodiment", folder, SCHEMAS))
    return found
