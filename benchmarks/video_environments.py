"""The tasks of benchmarks/video_policies.py, which draw a frame only when the policy looks: every eighth step.

Drawing is most of what an evaluation with images costs here. A policy with T_o 1 and T_a 8 never sees the frames in
between, so nothing of the result changes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from robot_datasets.features import IMAGE_PREFIX
from robot_sim.task import Observation, TaskEnv

LOOKS_EVERY = 8


@dataclass(frozen=True)
class Task:
    """A task and how its demonstrations are divided."""

    name: str
    camera: str
    make_env: Callable[[], TaskEnv]
    held: int
    few: int
    side_by_side: int


def make_pusht() -> TaskEnv:
    """PushT with its 96 px camera."""
    from robot_sim.tasks.pusht import IMAGE, PushT

    class RareFrames(PushT):
        _frame: Any = None

        def _observe(self) -> Observation:
            self._images = self._steps % LOOKS_EVERY == 0
            observation = super()._observe()
            self._frame = observation.get(IMAGE, self._frame)
            return {**observation, IMAGE: self._frame}

    return RareFrames(images=True)


def make_lift() -> TaskEnv:
    """Lift with a 64 px camera opposite the robot."""
    from robot_sim.tasks.lift import LiftTask

    name = IMAGE_PREFIX + "agentview"

    class RareFrames(LiftTask):
        _frame: Any = None

        def _observe(self) -> Observation:
            self._cameras = ("agentview",) if self._steps % LOOKS_EVERY == 0 else ()
            observation = super()._observe()
            self._frame = observation.get(name, self._frame)
            return {**observation, name: self._frame}

    return RareFrames(cameras=("agentview",), image_size=64)


TASKS = {
    "pusht": Task("pusht", IMAGE_PREFIX + "top", make_pusht, held=12, few=20, side_by_side=50),
    "lift": Task("lift", IMAGE_PREFIX + "agentview", make_lift, held=6, few=10, side_by_side=4),
}
