"""What skills know of a running episode: poses and shapes from the simulation, more than a policy sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.mujoco_tasks.mounted_arm import MountedArm
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.skills.inverse_kinematics import InverseKinematics
from robot_sim.task import EpisodeSkippedError

REACHED = 0.02  # a pose that the arm comes as close to as this counts as within reach [m]
REACHED_ANGLE = 0.2  # [rad]
FINGERTIPS = {
    "panda_hand": 0.01,
    "robotiq_85": 0.021,
}  # how far fingers reach beyond the tool's centre point [m]
CLEAR = 0.25  # from its joints' limits, for an arm that has something ahead of it [rad]


class UnreachableError(EpisodeSkippedError):
    """A pose is out of an arm's reach."""


@dataclass(frozen=True)
class Shape:
    """The first colliding geom of a body.

    Attributes:
        kind: ``"box"``, ``"cylinder"``, ``"sphere"``, ``"capsule"``, ...
        half: Half sizes along the body's axes (3,) [m].
    """

    kind: str
    half: np.ndarray


class ArmView:
    """One arm in environment 0 of a simulation."""

    def __init__(self, simulation: TaskSimulation, arm: MountedArm, first: int) -> None:
        self.arm, self.first_action = arm, first
        self._sim = simulation
        names, mount = simulation.task.names, arm.mount
        model = names.model
        joints = [mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name) for name in mount.joints]
        self._limits = model.jnt_range[joints]
        self._ik = InverseKinematics(
            model,
            site=names.site(mount.prefix + "tcp"),
            qpos=names.qpos(*mount.joints),
            qvel=names.qvel(*mount.joints),
            limits=self._limits,
            rest=np.array(mount.arm_model.home),
        )

    @property
    def position(self) -> np.ndarray:
        """Tool centre point, world frame (3,) [m]."""
        return self.arm.position(self._sim.physics)[0].copy()

    @property
    def rotation(self) -> np.ndarray:
        """Tool orientation, world frame (3, 3)."""
        return self.arm.rotation(self._sim.physics)[0].copy()

    @property
    def opening(self) -> float:
        """Distance between the finger tips [m]."""
        return float(self.arm.opening(self._sim.physics)[0]) * self.arm.mount.gripper_model.width

    @property
    def width(self) -> float:
        """Largest distance between the finger tips [m]."""
        return self.arm.mount.gripper_model.width

    @property
    def fingertip(self) -> float:
        """How far the fingers reach beyond the tool centre point [m]."""
        mount = self.arm.mount
        return FINGERTIPS.get(mount.gripper or mount.arm_model.gripper, max(FINGERTIPS.values()))

    def holds(self, body: str) -> bool:
        """Whether both fingers touch a body."""
        geoms = self._sim.task.names.body_geoms(body)
        return bool(self.arm.grasps(self._sim.physics, geoms)[0])

    def reaches(self, position: np.ndarray, rotation: np.ndarray) -> bool:
        """Whether the arm can bring its tool to a pose."""
        found = self._ik.solve(position, rotation, self._sim.physics.qpos[0])
        return found.position_error < REACHED and found.rotation_error < REACHED_ANGLE

    def is_comfortable(self, position: np.ndarray, rotation: np.ndarray) -> bool:
        """Whether the arm reaches a pose, and a little further, with its joints clear of their limits."""
        found = self._ik.solve(position, rotation, self._sim.physics.qpos[0])
        clear = np.minimum(found.joints - self._limits[:, 0], self._limits[:, 1] - found.joints).min()
        return found.position_error < REACHED and found.rotation_error < REACHED_ANGLE and clear > CLEAR

    def require_reach(self, position: np.ndarray, rotation: np.ndarray) -> None:
        """Raise unless the arm can bring its tool to this pose.

        Raises:
            UnreachableError: It cannot, with how much is missing.
        """
        found = self._ik.solve(position, rotation, self._sim.physics.qpos[0])
        if found.position_error > REACHED or found.rotation_error > REACHED_ANGLE:
            x, y, z = position
            raise UnreachableError(
                f"unreachable: the {self.arm.mount.arm} comes no closer than {1000 * found.position_error:.0f} mm and "
                f"{np.degrees(found.rotation_error):.0f} deg to ({x:.3f}, {y:.3f}, {z:.3f})"
            )


class SceneView:
    """Environment 0 of a simulation.

    Attributes:
        arms: The arms, in the order of the action.
        memory: What the episode carries besides its physical state, by name.
    """

    def __init__(self, simulation: TaskSimulation, arms: list[MountedArm]) -> None:
        self._sim = simulation
        size = len(simulation.controller.low) // len(arms)
        self.arms = [ArmView(simulation, arm, size * i) for i, arm in enumerate(arms)]

    @property
    def memory(self) -> dict[str, np.ndarray]:
        """What the episode carries besides its physical state, by name."""
        return {name: value[0] for name, value in self._sim.memory.items()}

    def position(self, body: str) -> np.ndarray:
        """Position of a body (3,) [m]."""
        return self._sim.physics.xpos[0, self._sim.task.names.body(body)].copy()

    def rotation(self, body: str) -> np.ndarray:
        """Orientation of a body (3, 3)."""
        return self._sim.physics.xmat[0, self._sim.task.names.body(body)].copy()

    def site(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Position (3,) [m] and orientation (3, 3) of a site."""
        site = self._sim.task.names.site(name)
        return self._sim.physics.site_xpos[0, site].copy(), self._sim.physics.site_xmat[0, site].copy()

    def joint(self, name: str) -> float:
        """Position of a hinge or slide joint [rad or m]."""
        return float(self._sim.physics.qpos[0, self._sim.task.names.qpos(name)[0]])

    def shape(self, body: str) -> Shape:
        """Shape of a body's first colliding geom."""
        model: Any = self._sim.task.model
        geom = int(self._sim.task.names.body_geoms(body)[0])
        size = model.geom_size[geom]
        kind = mujoco.mjtGeom(int(model.geom_type[geom])).name.removeprefix("mjGEOM_").lower()
        half = {
            "box": size,
            "sphere": np.repeat(size[:1], 3),
            "cylinder": np.array([size[0], size[0], size[1]]),
            "capsule": np.array([size[0], size[0], size[0] + size[1]]),
        }.get(kind, size)
        return Shape(kind=kind, half=np.asarray(half, float).copy())
