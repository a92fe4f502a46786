"""Our experts of robosuite's own tasks: which there are, and for which arm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from robot_sim.experts.can import CanExpert
from robot_sim.experts.hand import scene_of
from robot_sim.experts.lift import LiftExpert
from robot_sim.experts.square import SquareExpert
from robot_sim.registry import TaskError
from robot_sim.task import Expert, Observation, TaskEnv

#: By robosuite's name of the environment; the argument is the noise.
EXPERTS: dict[str, Callable[[float], Expert]] = {
    "Lift": LiftExpert,
    "PickPlaceCan": CanExpert,
    "NutAssemblySquare": SquareExpert,
}
ARM = "Panda with PandaGripper and delta OSC_POSE"  # as `RobosuiteTask.arms` says it
FPS = 20.0


class RobosuiteExpert:
    """An expert that refuses to play with another arm, gripper, controller or rate than it was written for.

    Args:
        expert: Plays.
    """

    def __init__(self, expert: Expert) -> None:
        self._expert = expert

    def reset(self, env: TaskEnv, seed: int) -> None:
        """Prepare for the episode `seed`.

        Raises:
            TaskError: `env` has another arm, gripper, controller or rate.
        """
        arms, fps = scene_of(env).arms(), env.task_spec.fps
        if arms != [ARM] or fps != FPS:
            raise TaskError(
                f"the expert of task '{env.task_spec.name}' plays {ARM} at {FPS:g} Hz, "
                f"not {', '.join(arms)} at {fps:g} Hz; leave robots, gripper_types, controller_configs and "
                "control_freq at their defaults"
            )
        self._expert.reset(env, seed)

    def act(self, observation: Observation) -> np.ndarray:
        """Return the action (7,)."""
        return self._expert.act(observation)

    def perturb(self, action: np.ndarray) -> np.ndarray:
        """Return the action to execute where `action` is recorded."""
        return self._expert.perturb(action)
