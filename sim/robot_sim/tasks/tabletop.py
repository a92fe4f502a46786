"""What our table-top tasks with arms share: options, observations, starts, and a place to put objects."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.features import ENVIRONMENT_STATE, STATE, Feature
from robot_sim.controllers.controller import Controller, Controllers
from robot_sim.mujoco_tasks.arms import Mount, pair
from robot_sim.mujoco_tasks.joint_observation import joint_features, observe_joints
from robot_sim.mujoco_tasks.mounted_arm import MountedArm, action_feature, state_feature
from robot_sim.mujoco_tasks.scene import tabletop
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.mujoco_tasks.task import InitialState, MujocoTask
from robot_sim.rotations import wxyz_to_xyzw
from robot_sim.task import Observation, TaskSpec
from robot_sim.vector.mujoco_names import ModelNames

FPS = 20.0
JOINT_NOISE = 0.02  # standard deviation of the arm's start [rad]
_POSE = ("x", "y", "z", "qx", "qy", "qz", "qw")
_POSE_UNITS = ("m", "m", "m", "1", "1", "1", "1")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options that all table-top tasks have.

    Attributes:
        arm: Name out of `robot_sim.mujoco_tasks.arms.ARMS`.
        control: Name out of `robot_sim.mujoco_tasks.mounted_arm.CONTROLS`.
        cameras: Cameras to observe, see `robot_sim.mujoco_tasks.scene.tabletop`.
        image_size: Side of the images [px].
        joints: Observe joints, and the tool in the base's frame, too; see
            `robot_sim.mujoco_tasks.joint_observation`.
    """

    arm: str = "panda"
    control: str = "osc_delta"
    cameras: tuple[str, ...] = ()
    image_size: int = 84
    joints: bool = False

    @classmethod
    def of(
        cls,
        arm: str,
        control: str,
        images: bool,
        cameras: Sequence[str],
        image_size: int,
        joints: bool = False,
    ) -> Options:
        """Return the options as a task's ``make_env`` is given them."""
        chosen = tuple(cameras) if images else ()
        return cls(arm=arm, control=control, cameras=chosen, image_size=image_size, joints=joints)


class TabletopTask(MujocoTask):
    """A table with one arm, or two, and movable bodies.

    ``observation.state`` holds the arms (see `robot_sim.mujoco_tasks.mounted_arm.state_feature`);
    ``observation.environment_state`` holds, for every body in `tracked`, position (3), orientation xyzw (4) and the
    vector from the (first) tool to it (3), and then the `extras`.

    Args:
        name: Registered name.
        instruction: The task in words.
        options: See `Options`.
        tracked: Bodies that are observed.
        extras: Name -> unit of further numbers that are observed; see `observe_extras`.
        arms: One or two.
        max_steps: Steps after which an episode is cut.
    """

    def __init__(
        self,
        *,
        name: str,
        instruction: str,
        options: Options,
        tracked: Sequence[str],
        extras: Mapping[str, str] | None = None,
        arms: int = 1,
        max_steps: int = 200,
    ) -> None:
        mounts = [Mount(arm=options.arm)] if arms == 1 else list(pair(options.arm))
        self.arms = [MountedArm(mount, control=options.control) for mount in mounts]
        self.arm = self.arms[0]
        self.cameras, self.image_size = options.cameras, options.image_size
        self._observes_joints = options.joints
        self.tracked = tuple(tracked)
        self.extras = dict(extras or {})
        names = [f"{body}_{part}" for body in tracked for part in (*_POSE, "dx", "dy", "dz")]
        units = [*_POSE_UNITS, "m", "m", "m"] * len(self.tracked)
        self.spec = TaskSpec(
            name=name,
            observation={
                STATE: state_feature(self.arms),
                ENVIRONMENT_STATE: Feature(
                    dtype="float32",
                    shape=(len(names) + len(self.extras),),
                    names=(*names, *self.extras),
                    units=(*units, *self.extras.values()),
                    frame="world",
                    rotation="quat_xyzw",
                ),
                **(joint_features(self.arms) if options.joints else {}),
            },
            action=action_feature(self.arms),
            fps=FPS,
            max_steps=max_steps,
            score="success",
            seed_start=100_000,
            embodiment=options.arm if arms == 1 else f"{options.arm}+{options.arm}",
            instruction=instruction,
        )

    @abstractmethod
    def add_objects(self, scene: Any, *, visual: bool) -> None:
        """Add the task's bodies, sites and joints to the scene; see `MujocoTask.build_scene`."""

    @abstractmethod
    def place(self, random: np.random.Generator, qpos: np.ndarray) -> dict[str, np.ndarray]:
        """Write a drawn start of the objects into `qpos` (nq,); return what the episode is to remember."""

    def observe_extras(self, sim: TaskSimulation) -> np.ndarray:
        """Return the numbers that `extras` names, (N, E)."""
        return np.empty((sim.n_envs, 0))

    def build_scene(self, *, visual: bool) -> Any:
        """Return table, arms and objects."""
        mounts = [arm.mount for arm in self.arms]
        scene = tabletop(mounts, actuation=self.arm.actuation, visual=visual)
        self.add_objects(scene, visual=visual)
        return scene

    def make_controller(self, names: ModelNames, n_envs: int) -> Controller:
        """Return the arms' controllers."""
        return Controllers([arm.controller(names, n_envs) for arm in self.arms])

    def sample(self, random: np.random.Generator) -> InitialState:
        """Draw the arms' joints and the objects' places."""
        qpos, ctrl = self.arm.initial(self.names, random, noise=JOINT_NOISE)
        for arm in self.arms[1:]:
            arm.set_initial(self.names, random, qpos, ctrl, noise=JOINT_NOISE)
        memory = self.place(random, qpos)
        return InitialState(qpos=qpos, ctrl=ctrl, memory=memory)

    def observe(self, sim: TaskSimulation) -> Observation:
        """Return the two features of the class's docstring, and the joints if they are wanted."""
        physics = sim.physics
        tool = self.arm.position(physics)
        parts: list[np.ndarray] = []
        for name in self.tracked:
            body = self.names.body(name)
            position = physics.xpos[:, body]
            parts += [position, wxyz_to_xyzw(physics.xquat[:, body]), position - tool]
        return {
            STATE: np.concatenate([arm.state(physics) for arm in self.arms], axis=1),
            ENVIRONMENT_STATE: np.concatenate([*parts, self.observe_extras(sim)], axis=1),
            **self.observe_joints(sim),
        }

    def observe_joints(self, sim: TaskSimulation) -> Observation:
        """Return what the option `joints` adds; nothing without it."""
        return observe_joints(self.arms, sim.physics) if self._observes_joints else {}

    # --- what tasks are written with --------------------------------------------------------------------------

    def body_position(self, sim: TaskSimulation, name: str) -> np.ndarray:
        """Return a body's position (N, 3) [m]."""
        return sim.physics.xpos[:, self.names.body(name)]

    def joint(self, sim: TaskSimulation, name: str) -> np.ndarray:
        """Return the position of a hinge or slide joint (N,) [rad or m]."""
        return sim.physics.qpos[:, self.names.qpos(name)[0]]

    def holds(self, sim: TaskSimulation, body: str, arm: int = 0) -> np.ndarray:
        """Return whether both fingers of an arm touch a body, (N,) bool."""
        return self.arms[arm].grasps(sim.physics, self.names.body_geoms(body))

    def reach_term(self, sim: TaskSimulation, body: str, arm: int = 0) -> np.ndarray:
        """Return how near a tool is to a body, (N,) in (0, 1]."""
        distance = self.body_position(sim, body) - self.arms[arm].position(sim.physics)
        return 1.0 - np.tanh(10.0 * np.linalg.norm(distance, axis=1))

    def put(self, qpos: np.ndarray, joint: str, position: Sequence[float], yaw: float) -> None:
        """Write the pose of a free joint into `qpos` (nq,): position (3,) [m], angle about z [rad]."""
        turn = (np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2))
        qpos[self.names.qpos(joint)] = [*position, *turn]


def spread(
    random: np.random.Generator,
    count: int,
    *,
    low: Sequence[float],
    high: Sequence[float],
    distance: float,
) -> np.ndarray:
    """Draw `count` places (count, 2) in a rectangle, at least `distance` apart [m].

    Raises:
        ValueError: The rectangle is too small.
    """
    places: list[np.ndarray] = []
    for _ in range(1000):
        place = random.uniform(low, high)
        if all(np.linalg.norm(place - other) >= distance for other in places):
            places.append(place)
            if len(places) == count:
                return np.array(places)
    raise ValueError(f"no room for {count} places {distance} m apart in {list(low)} to {list(high)}")
