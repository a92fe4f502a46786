"""The columns of an InternData-A1 set, made as InternDataEngine's converters make them.

The states are measured: joints and gripper. All poses follow from the joints by forward kinematics: the flange
(``gripper.pose``), the end effector, which is the flange turned about its z axis, and the tool centre point,
which lies ahead of it. A single arm's base is the robot's. The actions are the states one step later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np

from robot_datasets.exporters.arm_columns import GripperColumn
from robot_datasets.exporters.interndata_plan import OPENNESS, ArmPlan, InternDataPlan
from robot_datasets.exporters.interndata_robots import Layout
from robot_datasets.exporters.store_view import Computed, StoreView
from robot_datasets.features import Feature
from robot_datasets.schemas import EmbodimentSchema, Part
from robot_datasets.store import EpisodeStore

_POSITION = ("position.x", "position.y", "position.z")
_QUATERNION = ("quaternion.w", "quaternion.x", "quaternion.y", "quaternion.z")
_NEXT = "the state of the next recorded step"
_NO_ACTIONS = ("states.robot_to_env_pose",)
_SIDES = ("left_", "right_")

_Values = Callable[[], np.ndarray]


def view_of(store: EpisodeStore, plan: InternDataPlan) -> StoreView:
    """Return the store under the names of an InternData-A1 set."""
    described = _described(plan.schema)
    states: dict[str, _Values] = {}
    commands: dict[str, _Values] = {}
    for arm_plan in plan.arms:
        arm = _Arm(store, plan.layout, arm_plan)
        states |= arm.states()
        commands |= arm.commands()
    states |= {
        column: lambda name=name, part=part: _float32(store.column(name)[:, part])
        for column, (name, part) in plan.recorded.items()
    }
    columns = {name: Computed(described[name], values) for name, values in states.items()}
    for name, values in states.items():
        if name.startswith("states.") and name not in _NO_ACTIONS:
            feature = replace(described[name], meaning=_NEXT)
            columns[name.replace("states.", "actions.", 1)] = Computed(
                feature, lambda v=values: _next(store, v())
            )
    columns |= {
        name: Computed(described[name], values) for name, values in commands.items() if name in described
    }
    return StoreView(
        store,
        columns=columns,
        cameras={plan.schema.cameras[name].source: camera for name, camera in plan.cameras.items()},
        embodiment=plan.schema.labels[0],
    )


class _Arm:
    """What was measured and commanded, (T, ...) float32 over all steps of the store."""

    def __init__(self, store: EpisodeStore, layout: Layout, plan: ArmPlan) -> None:
        self._store = store
        self._layout = layout
        self._plan = plan

    def states(self) -> dict[str, _Values]:
        """Return column -> what was measured, or follows from it."""
        prefix = self._plan.prefix
        made: dict[str, _Values] = {
            "flange": self.flange,
            "ee": lambda: self.tool(0.0),
            "tcp": lambda: self.tool(self._layout.tcp),
        }
        return {
            f"states.{prefix}joint.position": self.joints,
            f"states.{prefix}gripper.position": self.gripper,
            **{column: made[what] for column, what in self._layout.poses(prefix).items()},
        }

    def commands(self) -> dict[str, _Values]:
        """Return column -> what was commanded."""
        prefix, found = self._plan.prefix, dict[str, _Values]()
        if self._plan.commanded is not None:
            found[f"master_actions.{prefix}joint.position"] = self.commanded_joints
        if self._plan.openness is not None:
            found |= {f"{kind}.{prefix}gripper.openness": self.openness for kind in OPENNESS}
        return found

    def joints(self) -> np.ndarray:
        """Return (T, n) joints [rad]."""
        measured = self._plan.measured
        return _float32(self._store.column(measured.feature)[:, measured.joints])

    def gripper(self) -> np.ndarray:
        """Return (T, 1): the opening of the hand [m], or 1 for an open Robotiq and 0 for a closed one."""
        layout, share = self._layout, self._share_open(self._plan.gripper)
        return _float32((share >= 0.5) if layout.binary else share * layout.width)[:, None]

    def flange(self) -> np.ndarray:
        """Return (T, 6): position [m] and roll, pitch, yaw [rad] about fixed axes of the flange in the base."""
        from scipy.spatial.transform import Rotation

        turns = Rotation.from_matrix(self._flange[:, :3, :3]).as_euler("xyz")
        return _float32(np.concatenate([self._flange[:, :3, 3], turns], axis=1))

    def tool(self, ahead: float) -> np.ndarray:
        """Return (T, 7): position [m] and quaternion wxyz in the base, `ahead` [m] of the end effector."""
        from scipy.spatial.transform import Rotation

        position = self._flange[:, :3, 3] + ahead * self._flange[:, :3, 2]
        turn = Rotation.from_matrix(self._flange[:, :3, :3]) * Rotation.from_euler("z", self._layout.turn)
        return _float32(np.concatenate([position, np.roll(turn.as_quat(), 1, axis=1)], axis=1))

    def commanded_joints(self) -> np.ndarray:
        """Return (T, n) joints [rad] that were commanded."""
        commanded = self._plan.commanded
        assert commanded is not None
        return _float32(self._store.column(commanded.feature)[:, commanded.joints])

    def openness(self) -> np.ndarray:
        """Return (T, 1): 1 where the gripper was told to open, 0 where to close."""
        assert self._plan.openness is not None
        return _float32(self._share_open(self._plan.openness) >= 0.5)[:, None]

    def _share_open(self, gripper: GripperColumn) -> np.ndarray:
        return gripper.openness({gripper.feature: self._store.column(gripper.feature)})

    @cached_property
    def _flange(self) -> np.ndarray:
        measured = self._plan.measured
        return self._layout.arm.flange_poses(self._store.column(measured.feature)[:, measured.joints])


def _next(store: EpisodeStore, values: np.ndarray) -> np.ndarray:
    """Return the values one step later, the last of each episode repeated."""
    ends = np.repeat(store.episode_ends, np.diff(store.episode_ends, prepend=0))
    return values[np.minimum(np.arange(1, len(values) + 1), ends - 1)]


def _float32(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float32)


def _described(schema: EmbodimentSchema) -> dict[str, Feature]:
    """Return what each column of the schema is, with the names that published sets give its components."""
    found: dict[str, Feature] = {}
    for source in (*schema.features.values(), *schema.actions.values()):
        for part in source.parts:
            is_pose = len(part.names) > 1 and part.units[:1] == ("m",)
            found[part.source] = Feature(
                dtype="float32",
                shape=(len(part.names),),
                names=_names(part),
                units=part.units,
                gripper=part.gripper,
                frame=source.frame if is_pose else "",
                rotation=source.rotation if is_pose else "",
            )
    return found


def _names(part: Part) -> tuple[str, ...]:
    if part.names[-1:] and part.names[-1].endswith("qz"):
        return (*_POSITION, *_QUATERNION)
    side = next((side for side in _SIDES if part.names[0].startswith(side)), "")
    if part.source.endswith("joint.position"):
        return tuple(f"{side}joint_{i}" for i in range(len(part.names)))
    return (f"{side}gripper_0",) if len(part.names) == 1 else part.names
