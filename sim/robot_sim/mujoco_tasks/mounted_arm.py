"""An arm in a scene, read and driven over a batch: what tasks are written with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from robot_datasets.errors import unknown_name
from robot_datasets.features import Feature
from robot_sim.controllers.controller import Controller, Controllers
from robot_sim.controllers.gripper import Gripper
from robot_sim.controllers.joint_position import JointPosition
from robot_sim.controllers.osc import OscPose
from robot_sim.mujoco_tasks.arms import Actuation, Mount
from robot_sim.registry import TaskError
from robot_sim.rotations import matrix_to_quaternion, wxyz_to_xyzw
from robot_sim.vector.mujoco_names import ModelNames
from robot_sim.vector.physics import BatchedPhysics


@dataclass(frozen=True)
class Control:
    """A way to command an arm.

    Attributes:
        actuation: What its joints are driven by.
        mode: Whether actions are targets or changes.
        meaning: Of the action feature.
    """

    actuation: Actuation
    mode: Literal["absolute", "delta"]
    meaning: str


CONTROLS: dict[str, Control] = {
    "osc_delta": Control("torque", "delta", "delta pose"),
    "osc_absolute": Control("torque", "absolute", "absolute pose"),
    "joint_delta": Control("position", "delta", "delta joint position"),
    "joint_absolute": Control("position", "absolute", "absolute joint position"),
}


class MountedArm:
    """One arm of a scene.

    Args:
        mount: The arm and where it stands.
        control: Name out of `CONTROLS`.
        hold: Physics steps an operational-space torque is held for.
    """

    def __init__(self, mount: Mount, *, control: str = "osc_delta", hold: int = 5) -> None:
        if control not in CONTROLS:
            raise TaskError(unknown_name("control", control, CONTROLS))
        self.mount, self.control, self._hold = mount, CONTROLS[control], hold
        self._by_model: tuple[Any, dict[str, Any]] | None = None

    @property
    def actuation(self) -> Actuation:
        """What its joints are driven by in the scene."""
        return self.control.actuation

    def initial(
        self, names: ModelNames, random: np.random.Generator, *, noise: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return ``qpos`` (nq,) and ``ctrl`` (nu,) with this arm at rest, gripper open, all else as in the model.

        Args:
            names: Of the model.
            random: Where the noise comes from.
            noise: Standard deviation of the joint positions [rad].
        """
        qpos, ctrl = names.model.qpos0.copy(), np.zeros(names.model.nu)
        self.set_initial(names, random, qpos, ctrl, noise=noise)
        return qpos, ctrl

    def set_initial(
        self,
        names: ModelNames,
        random: np.random.Generator,
        qpos: np.ndarray,
        ctrl: np.ndarray,
        *,
        noise: float = 0.0,
    ) -> None:
        """Write this arm's part of an initial state into `qpos` and `ctrl`; for scenes with several arms."""
        mount = self.mount
        home = np.array(mount.arm_model.home)
        qpos[names.qpos(*mount.joints)] = home + noise * random.standard_normal(len(home))
        qpos[names.qpos(*mount.gripper_joints)] = mount.gripper_model.start
        ctrl[names.actuators(*mount.gripper_actuators)] = mount.gripper_model.opened

    def controller(self, names: ModelNames, n_envs: int) -> Controller:
        """Return the controller of arm and gripper."""
        mount, model = self.mount, names.model
        actuators = names.actuators(*mount.actuators)
        prefix = "" if mount.prefix == "robot_" else mount.prefix
        if self.control.actuation == "torque":
            arm: Controller = OscPose(
                n_envs,
                site=names.site(mount.prefix + "tcp"),
                qpos=names.qpos(*mount.joints),
                qvel=names.qvel(*mount.joints),
                actuators=actuators,
                limits=model.actuator_ctrlrange[actuators],
                rest=np.array(mount.arm_model.home),
                mode=self.control.mode,
                hold=self._hold,
                decoupled=mount.arm_model.decoupled,
                prefix=prefix,
            )
        else:
            arm = JointPosition(
                n_envs,
                qpos=names.qpos(*mount.joints),
                actuators=actuators,
                limits=model.actuator_ctrlrange[actuators],
                joints=tuple(prefix + joint for joint in mount.arm_model.joints),
                mode=self.control.mode,
            )
        gripper = Gripper(
            n_envs,
            actuators=names.actuators(*mount.gripper_actuators),
            opened=np.array(mount.gripper_model.opened),
            closed=np.array(mount.gripper_model.closed),
            name=prefix + "gripper",
        )
        return Controllers([arm, gripper])

    # --- reading ----------------------------------------------------------------------------------------------

    def position(self, physics: BatchedPhysics) -> np.ndarray:
        """Return the tool centre point, world frame [m], (N, 3)."""
        return physics.site_xpos[:, self._ids(physics)["tcp"]]

    def rotation(self, physics: BatchedPhysics) -> np.ndarray:
        """Return the tool's orientation, world frame, (N, 3, 3): z along the fingers, x from finger to finger."""
        return physics.site_xmat[:, self._ids(physics)["tcp"]]

    def opening(self, physics: BatchedPhysics) -> np.ndarray:
        """Return how far the gripper is open, 0 closed to 1 open, (N,)."""
        ids, gripper = self._ids(physics), self.mount.gripper_model
        share = (physics.qpos[:, ids["driver"]] - gripper.closed[0]) / (gripper.opened[0] - gripper.closed[0])
        return np.clip(share, 0.0, 1.0)

    def joint_positions(self, physics: BatchedPhysics) -> np.ndarray:
        """Return the arm's joint positions [rad], (N, J)."""
        return physics.qpos[:, self._ids(physics)["qpos"]]

    def grasps(self, physics: BatchedPhysics, geoms: np.ndarray) -> np.ndarray:
        """Return whether both fingers touch one of these geoms, (N,) bool."""
        first, second = self._ids(physics)["pads"]
        return physics.touching(first, geoms) & physics.touching(second, geoms)

    def state(self, physics: BatchedPhysics) -> np.ndarray:
        """Return what `state_feature` describes for one arm: position, quaternion xyzw, opening, (N, 8)."""
        turn = wxyz_to_xyzw(matrix_to_quaternion(self.rotation(physics)))
        return np.concatenate([self.position(physics), turn, self.opening(physics)[:, None]], axis=1)

    def action_feature(self) -> Feature:
        """Return the description of this arm's actions."""
        return action_feature([self])

    def _ids(self, physics: BatchedPhysics) -> dict[str, Any]:
        model = physics.model
        if self._by_model is None or self._by_model[0] is not model:
            names, mount = ModelNames(model), self.mount
            pads = [
                np.array([names.geom(mount.prefix + geom) for geom in side])
                for side in mount.gripper_model.finger_geoms
            ]
            ids = {
                "tcp": names.site(mount.prefix + "tcp"),
                "qpos": names.qpos(*mount.joints),
                "driver": int(names.qpos(mount.gripper_joints[0])[0]),
                "pads": pads,
            }
            self._by_model = (model, ids)
        return self._by_model[1]


def state_feature(arms: Sequence[MountedArm]) -> Feature:
    """Return the description of the arms' states, one after the other: tool pose and opening of each."""
    names = ("x", "y", "z", "qx", "qy", "qz", "qw", "opening")
    prefixes = [_prefix(arm) for arm in arms]
    return Feature(
        dtype="float32",
        shape=(len(names) * len(arms),),
        names=tuple(f"{prefix}{'' if n == 'opening' else 'tool_'}{n}" for prefix in prefixes for n in names),
        units=("m", "m", "m", "1", "1", "1", "1", "1") * len(arms),
        frame="world",
        rotation="quat_xyzw",
        gripper="0=closed,1=open",
    )


def action_feature(arms: Sequence[MountedArm]) -> Feature:
    """Return the description of the arms' actions, one after the other; all must have the same control."""
    control = arms[0].control
    names: list[str] = []
    units: list[str] = []
    for arm in arms:
        prefix = _prefix(arm)
        if control.actuation == "torque":
            short = ("x", "y", "z", "rx", "ry", "rz")
            names += [f"{prefix}{'d' if control.mode == 'delta' else ''}{name}" for name in short]
            units += ["1"] * 6 if control.mode == "delta" else ["m"] * 3 + ["rad"] * 3
        else:
            joints = arm.mount.arm_model.joints
            names += [f"{'d_' if control.mode == 'delta' else ''}{prefix}{joint}" for joint in joints]
            units += ["1" if control.mode == "delta" else "rad"] * len(joints)
        names.append(f"{prefix}gripper")
        units.append("1")
    return Feature(
        dtype="float32",
        shape=(len(names),),
        names=tuple(names),
        units=tuple(units),
        frame="world" if control.actuation == "torque" else "",
        rotation="axis_angle" if control.actuation == "torque" else "",
        gripper="-1=open,1=closed",
        meaning=control.meaning,
    )


def _prefix(arm: MountedArm) -> str:
    return "" if arm.mount.prefix == "robot_" else arm.mount.prefix
