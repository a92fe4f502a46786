"""Meta-World v3, all fifty tasks: ``metaworld/<task>``, e.g. ``metaworld/drawer-open-v3``.

Physics, reward, success and the scripted experts are Meta-World's. A seed fixes the episode: Meta-World draws
the places of objects and goal from a generator that is set at every reset. The goal is observed, as in its MT
benchmarks, but the previous frame, which Meta-World stacks into its 39 numbers, is not: a policy's observation
horizon is the place for that.

Frame: Meta-World's world, x to the right, y away from the robot, z up [m].
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from robot_datasets.errors import unknown_name
from robot_datasets.features import ENVIRONMENT_STATE, IMAGE_PREFIX, STATE, Feature
from robot_sim.actions import checked_action
from robot_sim.registry import TaskError
from robot_sim.rendering import FrameRenderer, choose_backend
from robot_sim.spaces import observation_space
from robot_sim.task import Observation, TaskEnv, TaskSpec

choose_backend()  # before mujoco is imported

from metaworld.env_dict import ENV_CLS_MAP  # noqa: E402
from metaworld.policies import ENV_POLICY_MAP  # noqa: E402

FPS = 80.0
REWARD_SCALE = 10.0  # Meta-World's rewards lie in [0, 10]
_FRAME = 18  # numbers of one frame: hand (3), gripper (1), objects (14)

FEATURES = {
    STATE: Feature(
        dtype="float32",
        shape=(4,),
        names=("hand_x", "hand_y", "hand_z", "gripper"),
        units=("m", "m", "m", "1"),
        frame="world",
        gripper="0=closed,1=open",
    ),
    ENVIRONMENT_STATE: Feature(
        dtype="float32",
        shape=(17,),
        names=(
            *(f"{o}_{c}" for o in ("object1", "object2") for c in ("x", "y", "z", "qx", "qy", "qz", "qw")),
            *("goal_x", "goal_y", "goal_z"),
        ),
        units=(*("m", "m", "m", "1", "1", "1", "1") * 2, "m", "m", "m"),
        frame="world",
        rotation="quat_xyzw",
    ),
}
#: Translation of the hand in units of 1 cm per step, and the effort of the fingers.
ACTION_FEATURE = Feature(
    dtype="float32",
    shape=(4,),
    names=("dx", "dy", "dz", "gripper"),
    units=("1",),
    frame="world",
    gripper="-1=open,1=closed",
    meaning="delta position",
)


def task_ids() -> list[str]:
    """Names of the fifty tasks, sorted."""
    return sorted(ENV_CLS_MAP)


def knows(task: str) -> bool:
    """Whether there is a task of this name."""
    return task in ENV_CLS_MAP


def make_env(
    task: str,
    *,
    images: bool = False,
    cameras: Sequence[str] = ("corner2",),
    image_size: int = 84,
    render_size: int = 256,
    max_steps: int = 500,
) -> MetaWorldTask:
    """Build a task.

    Args:
        task: Name in Meta-World, e.g. ``"reach-v3"``.
        images: Add an image of every camera to the observations.
        cameras: Meta-World's camera names, e.g. ``"corner2"``, ``"topview"``, ``"gripperPOV"``.
        image_size: Side of the images [px].
        render_size: Side of the frames that `render` returns [px].
        max_steps: Steps after which an episode is cut, at most Meta-World's 500.
    """
    return MetaWorldTask(
        task, cameras=tuple(cameras) if images else (), image_size=image_size, render_size=render_size,
        max_steps=max_steps,
    )  # fmt: skip


def make_expert(task: str, *, noise: float = 0.0) -> MetaWorldExpert:
    """Build Meta-World's scripted policy of a task; see `MetaWorldExpert`."""
    return MetaWorldExpert(task, noise)


class MetaWorldTask(TaskEnv):
    """One of Meta-World's tasks; see the module's docstring and `make_env`.

    Observations: ``observation.state`` = hand position (3), opening of the gripper (1);
    ``observation.environment_state`` = positions and quaternions of up to two objects (14, zeros if there is
    none), goal (3). The action is Meta-World's. The episode ends with success.
    """

    def __init__(
        self, task: str, *, cameras: tuple[str, ...], image_size: int, render_size: int, max_steps: int
    ) -> None:
        self._env: Any = ENV_CLS_MAP[task]()
        self._env._partially_observable = False
        self._env.__dict__.pop("sawyer_observation_space", None)  # computed once, for the other observability
        self._env._freeze_rand_vec = False
        self._env.seeded_rand_vec = True
        self._env._set_task_called = True
        if not 1 <= max_steps <= self._env.max_path_length:
            raise TaskError(f"max_steps: {max_steps}, expected 1 to {self._env.max_path_length}")
        _draw_cheaply(self._env.model)
        known = [self._env.model.camera(i).name for i in range(self._env.model.ncam)]
        for camera in cameras:
            if camera not in known:
                raise TaskError(f"task 'metaworld/{task}': {unknown_name('camera', camera, known)}")
        image = Feature(dtype="uint8", shape=(image_size, image_size, 3))
        features = {**FEATURES, **{IMAGE_PREFIX + camera: image for camera in cameras}}
        self.task_spec = TaskSpec(
            name=f"metaworld/{task}",
            observation=features,
            action=ACTION_FEATURE,
            fps=FPS,
            max_steps=max_steps,
            score="success",
            seed_start=100_000,
            embodiment="sawyer",
            instruction=task.removesuffix("-v3").replace("-", " "),
        )
        self.observation_space = observation_space(features)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": int(FPS)}
        self.render_mode = "rgb_array"
        self._cameras, self._image_size, self._render_size = cameras, image_size, render_size
        self._renderer: FrameRenderer | None = None
        self._steps = 0
        self.raw_observation = np.zeros(2 * _FRAME + 3)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Names the places of objects and goal, in [0, 2**32); None draws one.
            options: Unused.
        """
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**32)) if seed is None else seed
        # Twice: the first reset leaves behind what Meta-World keeps of the episode before.
        self._env.seed(episode)
        self._env.reset()
        self._env.seed(episode)
        raw, _ = self._env.reset()
        self._steps = 0
        return self._observe(raw), {"is_success": False, "reward_terms": {}}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply a displacement and a finger effort (4,) for 1/80 s; reward in [0, 1], Meta-World's over 10."""
        action = checked_action(action, ACTION_FEATURE, task=self.task_spec.name)
        raw, reward, _, _, raw_info = self._env.step(action.astype(np.float32))
        self._steps += 1
        success = bool(raw_info["success"])
        terms = {
            name: float(raw_info[name])
            for name in ("near_object", "grasp_reward", "in_place_reward", "obj_to_target")
        }
        info = {"is_success": success, "reward_terms": terms}
        truncated = self._steps >= self.task_spec.max_steps
        return self._observe(raw), float(reward) / REWARD_SCALE, success, truncated, info

    def render(self) -> np.ndarray:
        """Return the scene from ``corner2`` (render_size, render_size, 3) uint8."""
        return self._draw("corner2", self._render_size)

    def close(self) -> None:
        """Free the renderer and the simulation."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._env.close()

    def _observe(self, raw: np.ndarray) -> Observation:
        self.raw_observation = np.asarray(raw, dtype=np.float64).copy()
        frame = self.raw_observation[:_FRAME]
        environment = np.concatenate([frame[4:], self.raw_observation[-3:]])
        result: Observation = {
            STATE: frame[:4].astype(np.float32),
            ENVIRONMENT_STATE: environment.astype(np.float32),
        }
        for camera in self._cameras:
            result[IMAGE_PREFIX + camera] = self._draw(camera, self._image_size)
        return result

    def _draw(self, camera: str, size: int) -> np.ndarray:
        if self._renderer is None:
            self._renderer = FrameRenderer(self._env.model)
        frame = self._renderer.render(self._env.data, camera, width=size, height=size)
        # Meta-World's corner cameras hang upside down.
        return np.ascontiguousarray(frame[::-1, ::-1]) if camera.startswith("corner") else frame


def _draw_cheaply(model: Any) -> None:
    """Switch shadows, multisampling and reflections of a compiled model off, before a renderer is made for it."""
    model.vis.quality.shadowsize = 0
    model.vis.quality.offsamples = 0
    model.light_castshadow[:] = 0
    model.mat_reflectance[:] = 0


class MetaWorldExpert:
    """Meta-World's scripted policy.

    Args:
        task: Name in Meta-World.
        noise: Standard deviation of the disturbance of the three translation components, in action units.
    """

    def __init__(self, task: str, noise: float) -> None:
        self._policy: Any = ENV_POLICY_MAP[task]()
        self._noise = noise
        self._random = np.random.default_rng(0)
        self._env: MetaWorldTask | None = None

    def reset(self, env: TaskEnv, seed: int) -> None:
        """Start the noise of the episode `seed`; the policy reads Meta-World's own observation of `env`."""
        assert isinstance(env, MetaWorldTask)
        self._env = env
        self._random = np.random.default_rng([seed, 1])

    def act(self, observation: Observation) -> np.ndarray:
        """Return the action (4,)."""
        del observation  # it lacks the previous frame, which some policies look at
        assert self._env is not None, "reset comes first"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a response is clipped
            action = self._policy.get_action(self._env.raw_observation)
        return np.clip(action, -1.0, 1.0).astype(np.float32)

    def perturb(self, action: np.ndarray) -> np.ndarray:
        """Return the action to execute where `action` is recorded."""
        if self._noise == 0:
            return action
        disturbed = action.copy()
        disturbed[:3] += self._random.normal(0.0, self._noise, 3).astype(np.float32)
        return disturbed.clip(-1.0, 1.0)
