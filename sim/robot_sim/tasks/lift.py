"""Lift: a Panda arm picks a cube up from a table; robosuite's task of that name.

Scene, controller (OSC_POSE at 20 Hz), initial distribution and success (the cube is more than 4 cm above
its resting place on the table) are robosuite's. Differences, none of which touch the physics:

* A seed fixes the episode: robosuite draws from NumPy's global generator, which is seeded for the length of
  a reset and put back afterwards. Every instance has the same cube.
* Observations are read from the synchronised state after a step; robosuite's own lag 2 ms behind.
* Rendering is cheap, and is set up only when a frame is asked for.

World frame: x away from the robot's base, y to its left, z up; origin on the floor under the table's
centre, whose top is at z = 0.8 m.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

from robot_datasets.errors import unknown_name
from robot_datasets.features import ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, Feature
from robot_sim.actions import checked_action
from robot_sim.adapters.seeding import seeded_globals
from robot_sim.experts.hand import DEFAULT_NOISE
from robot_sim.experts.lift import LiftExpert
from robot_sim.registry import TaskError
from robot_sim.rendering import FrameRenderer, cheap_rendering
from robot_sim.spaces import observation_space
from robot_sim.task import Observation, TaskEnv, TaskSpec

importlib.import_module("robot_sim.adapters.robosuite_import")  # first: see there
from robosuite.environments.manipulation.lift import Lift  # noqa: E402

mujoco = importlib.import_module("mujoco")  # a compiled module that type checkers know little of

#: Camera of the observation feature ``observation.images.<name>`` -> camera in robosuite's scene.
CAMERAS = {
    "agentview": "agentview",
    "frontview": "frontview",
    "sideview": "sideview",
    "wrist": "robot0_eye_in_hand",
}
COLLISION_GROUP = 0
GRASP_REWARD = 0.25
FULL_REWARD = 2.25

FEATURES: Mapping[str, Feature] = {
    STATE: Feature(
        dtype="float32",
        shape=(9,),
        names=(
            *("eef_x", "eef_y", "eef_z"),
            *("eef_qx", "eef_qy", "eef_qz", "eef_qw"),
            *("finger_left", "finger_right"),
        ),
        units=("m", "m", "m", "1", "1", "1", "1", "m", "m"),
        frame="world",
        rotation="quat_xyzw",
        gripper="0=closed,0.04=open",
    ),
    ENVIRONMENT_STATE: Feature(
        dtype="float32",
        shape=(10,),
        names=(
            *("cube_x", "cube_y", "cube_z"),
            *("cube_qx", "cube_qy", "cube_qz", "cube_qw"),
            *("gripper_to_cube_x", "gripper_to_cube_y", "gripper_to_cube_z"),
        ),
        units=("m", "m", "m", "1", "1", "1", "1", "m", "m", "m"),
        frame="world",
        rotation="quat_xyzw",
    ),
}
#: Translation of the hand in units of 5 cm, rotation vector in units of 0.5 rad, both relative to where the
#: hand is now; the sign of the last component opens or closes the gripper.
ACTION_FEATURE = Feature(
    dtype="float32",
    shape=(7,),
    names=("dx", "dy", "dz", "drx", "dry", "drz", "gripper"),
    units=("1",),
    frame="robot_base",
    rotation="axis_angle",
    gripper="-1=open,1=closed",
    meaning="delta pose",
)


def make_env(
    *,
    images: bool = False,
    cameras: Sequence[str] = ("agentview",),
    image_size: int = 84,
    render_size: int = 256,
) -> LiftTask:
    """Build the task; see `LiftTask`."""
    return LiftTask(cameras=tuple(cameras) if images else (), image_size=image_size, render_size=render_size)


def make_expert(*, noise: float = DEFAULT_NOISE) -> LiftExpert:
    """Build the scripted demonstrator; see `LiftExpert`."""
    return LiftExpert(noise)


class _Scene(Lift):
    """robosuite's environment, compiled once per instance and with cheap rendering."""

    sim: Any  # robosuite's classes are untyped
    robots: Any
    model_timestep: float
    control_timestep: float

    def __init__(self) -> None:
        with seeded_globals(0):  # the cube's exact size is drawn when the scene is built
            super().__init__(
                robots="Panda",
                control_freq=20,
                hard_reset=False,
                ignore_done=True,
                use_camera_obs=False,
                use_object_obs=False,
                has_renderer=False,
                has_offscreen_renderer=False,
                renderer="mujoco",
            )

    def edit_model_xml(self, xml_str: str) -> str:
        """Return robosuite's scene with cheap rendering; called once, before it is compiled."""
        return cheap_rendering(super().edit_model_xml(xml_str))

    def advance(self, action: np.ndarray) -> None:
        """Apply `action` for one control period: robosuite's step without its unused observables."""
        for substep in range(int(self.control_timestep / self.model_timestep)):
            self.sim.step1()
            self._pre_action(action, policy_step=substep == 0)
            self.sim.step2()
        self.synchronise()

    def synchronise(self) -> None:
        """Bring body and site poses up to the joint positions, without disturbing the solver's warm start."""
        mujoco.mj_kinematics(self.sim.model._model, self.sim.data._data)

    @property
    def grasped(self) -> bool:
        """Whether both finger pads touch the cube."""
        return self._check_grasp(gripper=self.robots[0].gripper, object_geoms=self.cube)

    @property
    def lifted(self) -> bool:
        """Whether the cube's centre is more than 4 cm above the table."""
        return bool(self._check_success())


class LiftTask(TaskEnv):
    """Pick up the cube.

    Observations: ``observation.state`` = hand position (3), hand orientation quaternion xyzw (4), finger
    positions (2); ``observation.environment_state`` = cube position (3), quaternion xyzw (4), vector from
    hand to cube (3); one image per camera. As in robosuite, position is that of the grip site between the
    finger tips and orientation that of the hand's body. The episode ends when the cube is lifted.

    Args:
        cameras: Names out of `CAMERAS` to add as images (image_size, image_size, 3).
        image_size: Side of the images [px].
        render_size: Side of the frames that `render` returns [px].
    """

    def __init__(
        self, *, cameras: tuple[str, ...] = (), image_size: int = 84, render_size: int = 256
    ) -> None:
        for camera in cameras:
            if camera not in CAMERAS:
                raise TaskError(f"task 'lift': {unknown_name('camera', camera, CAMERAS)}")
        image = Feature(dtype="uint8", shape=(image_size, image_size, 3))
        features = {**FEATURES, **{IMAGE_PREFIX + camera: image for camera in cameras}}
        self.task_spec = TaskSpec(
            name="lift",
            observation=features,
            action=ACTION_FEATURE,
            fps=20.0,
            max_steps=150,
            score="success",
            seed_start=100_000,
            embodiment="panda",
            instruction="lift the cube",
        )
        self.observation_space = observation_space(features)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (7,), np.float32)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": 20}
        self.render_mode = "rgb_array"
        self._scene = _Scene()
        self._cameras = cameras
        self._image_size = image_size
        self._render_size = render_size
        self._renderer: FrameRenderer | None = None
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode: the arm near its rest pose, the cube at a random place and angle.

        Args:
            seed: Names the episode, in [0, 2**32); None draws one.
            options: Unused.
        """
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**32)) if seed is None else seed
        with seeded_globals(episode):
            self._scene.reset()
        self._scene.synchronise()
        self._steps = 0
        return self._observe(), self._info()

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply a pose change (7,) for 0.05 s; components beyond [-1, 1] are clipped."""
        self._scene.advance(checked_action(action, ACTION_FEATURE, task="lift"))
        self._steps += 1
        info = self._info()
        success = info["is_success"]
        truncated = self._steps >= self.task_spec.max_steps
        terms = info["reward_terms"]
        shaped = (terms["reach"] + GRASP_REWARD * terms["grasp"]) / FULL_REWARD
        return self._observe(), 1.0 if success else shaped, success, truncated, info

    def render(self) -> np.ndarray:
        """Return the scene, seen from opposite the robot, (render_size, render_size, 3) uint8."""
        return self._draw("agentview", self._render_size)

    def close(self) -> None:
        """Free the renderer and the simulation."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _observe(self) -> Observation:
        scene = self._scene
        data, robot = scene.sim.data, scene.robots[0]
        hand = data.site_xpos[robot.eef_site_id["right"]]
        hand_quaternion = data.get_body_xquat(robot.robot_model.eef_name["right"])
        fingers = data.qpos[robot._ref_gripper_joint_pos_indexes["right"]]
        cube = data.body_xpos[scene.cube_body_id]
        cube_quaternion = data.body_xquat[scene.cube_body_id]
        state = np.concatenate([hand, _xyzw(hand_quaternion), fingers])
        environment = np.concatenate([cube, _xyzw(cube_quaternion), cube - hand])
        observation = {
            STATE: state.astype(np.float32),
            ENVIRONMENT_STATE: environment.astype(np.float32),
        }
        for camera in self._cameras:
            observation[IMAGE_PREFIX + camera] = self._draw(camera, self._image_size)
        return observation

    def _info(self) -> dict[str, Any]:
        scene = self._scene
        hand = scene.sim.data.site_xpos[scene.robots[0].eef_site_id["right"]]
        distance = float(np.linalg.norm(scene.sim.data.body_xpos[scene.cube_body_id] - hand))
        lifted = scene.lifted
        terms = {
            "reach": 1.0 - float(np.tanh(10.0 * distance)),
            "grasp": float(scene.grasped),
            "lift": float(lifted),
        }
        return {"is_success": lifted, "reward_terms": terms}

    def _draw(self, camera: str, size: int) -> np.ndarray:
        sim = self._scene.sim
        if self._renderer is None:
            self._renderer = FrameRenderer(sim.model._model, hidden_groups=(COLLISION_GROUP,))
        return self._renderer.render(sim.data._data, CAMERAS[camera], width=size, height=size)


def _xyzw(wxyz: np.ndarray) -> np.ndarray:
    return wxyz[[1, 2, 3, 0]]
