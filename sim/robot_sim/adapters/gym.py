"""Any registered Gymnasium environment: ``gym/<id>``, e.g. ``gym/CartPole-v1`` or ``gym/my_package:MyEnv-v0``.

Gymnasium says nothing of units, frames or success, so features carry what there is: shapes, and names made of
the observation's key and a number. What an adapter cannot know is an option:

* **Success** is ``info["is_success"]`` or ``info["success"]``; where an environment reports neither, the options
  `success_return` (the episode's return reaches it) or nothing at all: then only the return counts.
* **Score** is the success where there is one, else the return.
* **Control rate** is ``metadata["render_fps"]``, **step limit** the registered one, unless `fps` and
  `max_steps` say otherwise.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs import registration

from robot_datasets.features import IMAGE_PREFIX, STATE, Feature
from robot_sim.actions import checked_action
from robot_sim.registry import TaskError
from robot_sim.rendering import choose_backend
from robot_sim.spaces import observation_space
from robot_sim.task import Observation, TaskEnv, TaskSpec

choose_backend()  # many environments draw with MuJoCo

_DTYPES = ("float32", "float64", "int64", "int32", "uint8", "uint16", "bool")
_UNKNOWN = "unknown"
_SUCCESS_KEYS = ("is_success", "success")


def task_ids() -> list[str]:
    """Ids in Gymnasium's registry, sorted; importing a package may add more."""
    return sorted(gymnasium.registry)


def knows(task: str) -> bool:
    """Whether the id is registered, or names the package that registers it (``package:Id-v0``)."""
    return ":" in task or task in gymnasium.registry


def make_env(
    task: str,
    *,
    kwargs: Mapping[str, Any] | None = None,
    fps: float | None = None,
    max_steps: int | None = None,
    success_return: float | None = None,
    instruction: str = "",
) -> GymTask:
    """Build a Gymnasium environment.

    Args:
        task: Registered id, with ``package:`` before it if importing a package registers it.
        kwargs: Arguments of the environment.
        fps: Control rate [Hz]; None is ``metadata["render_fps"]``.
        max_steps: Steps after which an episode is cut; None is the registered limit.
        success_return: Of an environment that reports no success: the return that counts as one.
        instruction: The task in words; empty is the id.

    Raises:
        TaskError: The environment cannot be made, or has an observation or action no feature can hold.
    """
    try:
        render = {"render_mode": "rgb_array"} if _renders(task) else {}
        env = gymnasium.make(task, disable_env_checker=True, **{**render, **(kwargs or {})})
    except (gymnasium.error.Error, ModuleNotFoundError, TypeError, ValueError) as error:
        raise TaskError(f"gymnasium cannot make '{task}': {' '.join(str(error).split())}") from error
    return GymTask(
        task,
        env,
        fps=fps,
        max_steps=max_steps,
        success_return=success_return,
        instruction=instruction or task,
    )


def _renders(task: str) -> bool:
    """Whether the environment offers pictures; ids of packages not imported yet are believed to."""
    spec = gymnasium.registry.get(task)
    if spec is None or not isinstance(spec.entry_point, str):
        metadata = getattr(None if spec is None else spec.entry_point, "metadata", {})
        return spec is None or "rgb_array" in metadata.get("render_modes", ())
    creator: Any = registration.load_env_creator(spec.entry_point)
    metadata = getattr(creator, "metadata", {}) if inspect.isclass(creator) else {}
    return "rgb_array" in metadata.get("render_modes", ("rgb_array",))


def _box_feature(where: str, key: str, space: gymnasium.Space[Any]) -> tuple[str, Feature]:
    """Return name and feature of one part of an observation."""
    if not isinstance(space, gymnasium.spaces.Box) or space.dtype is None:
        raise TaskError(
            f"task '{where}': the observation '{key or 'observation'}' is {space}; expected boxes, "
            "or a dictionary of them"
        )
    dtype = space.dtype.name if space.dtype.name in _DTYPES else "float32"
    if len(space.shape) == 3 and dtype == "uint8" and space.shape[2] in (1, 3):
        return IMAGE_PREFIX + (key or "render"), Feature(dtype="uint8", shape=space.shape)
    size = int(np.prod(space.shape))
    label = key or "observation"
    return (
        f"observation.{key}" if key not in ("", "observation", "state") else STATE,
        Feature(
            dtype="float32",
            shape=(size,),
            names=tuple(f"{label}_{i}" for i in range(size)),
            units=(_UNKNOWN,),
        ),
    )


def _action_feature(where: str, space: gymnasium.Space[Any]) -> Feature:
    if isinstance(space, gymnasium.spaces.Box):
        size = int(np.prod(space.shape))
        meaning, names = "the environment's action", tuple(f"action_{i}" for i in range(size))
    elif isinstance(space, gymnasium.spaces.Discrete):
        size = int(space.n)
        meaning, names = "scores of the choices", tuple(f"choice_{i}" for i in range(size))
    else:
        raise TaskError(f"task '{where}': its action is {space}; expected a box or a choice (Discrete)")
    return Feature(dtype="float32", shape=(size,), names=names, units=(_UNKNOWN,), meaning=meaning)


class GymTask(TaskEnv):
    """A Gymnasium environment as a task; see the module's docstring.

    A flat observation becomes ``observation.state``, a dictionary one feature per key, an image
    ``observation.images.<key>``. A discrete action is asked for as one score per choice; the largest is taken.
    """

    def __init__(
        self,
        task: str,
        env: gymnasium.Env[Any, Any],
        *,
        fps: float | None,
        max_steps: int | None,
        success_return: float | None,
        instruction: str,
    ) -> None:
        where = f"gym/{task}"
        self._env = env
        space = env.observation_space
        parts = dict(space.spaces) if isinstance(space, gymnasium.spaces.Dict) else {"": space}
        self._sources = {key: _box_feature(where, key, part) for key, part in parts.items()}
        features = dict(self._sources.values())
        self._choices = isinstance(env.action_space, gymnasium.spaces.Discrete)
        self._discrete_start = int(getattr(env.action_space, "start", 0))
        rate = fps or env.metadata.get("render_fps")
        limit = max_steps or (env.spec.max_episode_steps if env.spec is not None else None)
        for option, value in (("fps", rate), ("max_steps", limit)):
            if not value:
                raise TaskError(f"task '{where}' does not state its {option}; give it: task.{option}=...")
        self._success_return = success_return
        self._reports_success: bool = self._probe_success()
        self.task_spec = TaskSpec(
            name=where,
            observation=features,
            action=_action_feature(where, env.action_space),
            fps=float(rate or 0),
            max_steps=int(limit or 0),
            score="success" if self._reports_success or success_return is not None else "return",
            seed_start=100_000,
            embodiment=task,
            instruction=instruction,
        )
        self.observation_space = observation_space(features)
        low, high = (
            (env.action_space.low.ravel(), env.action_space.high.ravel())
            if isinstance(env.action_space, gymnasium.spaces.Box)
            else (np.zeros(self.task_spec.action.shape), np.ones(self.task_spec.action.shape))
        )
        self.action_space = gymnasium.spaces.Box(low.astype(np.float32), high.astype(np.float32))
        self.metadata = {"render_modes": ["rgb_array"], "render_fps": self.task_spec.fps}
        self.render_mode = "rgb_array"
        self._steps, self._return = 0, 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start the episode `seed`; `options` are the environment's own."""
        super().reset(seed=seed)
        episode = int(self.np_random.integers(2**31)) if seed is None else seed
        raw, info = self._env.reset(seed=episode, options=options)
        self._steps, self._return = 0, 0.0
        return self._observe(raw), {"is_success": self._succeeded(info), "reward_terms": {}}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply an action (A,), clipped to the environment's bounds, or one score per choice."""
        values = checked_action(action, self.task_spec.action, task=self.task_spec.name)
        if self._choices:
            chosen: Any = self._discrete_start + int(np.argmax(values))
        else:
            box = self._env.action_space
            assert isinstance(box, gymnasium.spaces.Box)
            chosen = np.clip(values.reshape(box.shape), box.low, box.high).astype(box.dtype)
        raw, reward, terminated, truncated, raw_info = self._env.step(chosen)
        self._steps += 1
        self._return += float(reward)
        info = {"is_success": self._succeeded(raw_info), "reward_terms": {"reward": float(reward)}}
        cut = bool(truncated) or self._steps >= self.task_spec.max_steps
        return self._observe(raw), float(reward), bool(terminated), cut, info

    def render(self) -> np.ndarray:
        """Return the environment's picture (H, W, 3) uint8.

        Raises:
            TaskError: It draws none.
        """
        frame: Any = self._env.render() if self._env.render_mode == "rgb_array" else None
        if frame is None:
            raise TaskError(f"task '{self.task_spec.name}' draws no pictures")
        return np.asarray(frame)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    def _observe(self, raw: Any) -> Observation:
        result: Observation = {}
        for key, (name, feature) in self._sources.items():
            value = np.asarray(raw if key == "" else raw[key])
            result[name] = value.reshape(feature.shape).astype(feature.dtype)
        return result

    def _probe_success(self) -> bool:
        """Whether the environment reports success, as one reset and step show."""
        _, info = self._env.reset(seed=0)
        self._env.action_space.seed(0)
        step = self._env.step(self._env.action_space.sample())
        return any(key in known for key in _SUCCESS_KEYS for known in (info, step[4]))

    def _succeeded(self, info: Mapping[str, Any]) -> bool:
        reported = [bool(info[key]) for key in _SUCCESS_KEYS if key in info]
        reached = self._success_return is not None and self._return >= self._success_return
        return any(reported) or reached
