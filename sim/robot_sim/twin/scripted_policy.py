"""The scripted pusher as a policy: it reads the task's observation and can be made worse in known ways.

A family of these, from good to useless, is what agreement between a twin and a surrogate can be tried on without
training anything. It is no substitute for learned policies: their failures are of other kinds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robot_datasets.features import ENVIRONMENT_STATE, STATE
from robot_sim.experts.push_t import PushTExpert, Situation
from robot_sim.tasks.tabletop_push_t import HIGH, LOW, RADIUS, TARGET


@dataclass(frozen=True, kw_only=True)
class Handicap:
    """What makes it worse.

    Attributes:
        noise: Standard deviation of its actions [m].
        offset: By which it sees the block beside its place, along x and y [m].
        turn: By which it sees the block turned [rad].
        late: Steps that its observations are old.
        idle: Share of steps in which it repeats the last action.
    """

    noise: float = 0.0
    offset: float = 0.0
    turn: float = 0.0
    late: int = 0
    idle: float = 0.0


class ScriptedPusher:
    """See the module's docstring.

    Args:
        handicap: What makes it worse.
        seed: Of its noise.
    """

    def __init__(self, handicap: Handicap | None = None, *, seed: int = 0) -> None:
        self._handicap, self._seed, self._episode = handicap or Handicap(), seed, 0
        self.reset()

    def reset(self) -> None:
        """Begin an episode."""
        self._episode += 1
        self._random = np.random.default_rng([self._seed, self._episode])
        self._seen: list[Situation] = []
        self._last: np.ndarray | None = None
        self._expert = PushTExpert(self, noise=0.0)
        self._expert.reset(self, self._seed)  # type: ignore[arg-type]

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return where to pull the rod (2,) [m]."""
        handicap = self._handicap
        corners = np.asarray(observation[ENVIRONMENT_STATE], dtype=float).reshape(-1, 2)
        bar = corners[1] - corners[0]
        place, yaw = 0.5 * (corners[0] + corners[1]), np.arctan2(bar[1], bar[0])
        block = np.array([*(place + handicap.offset), yaw + handicap.turn])
        pusher = np.asarray(observation[STATE], dtype=float)
        self._seen = [*self._seen, Situation(pusher=pusher, block=block, target=TARGET)][-handicap.late - 1 :]
        if self._last is None or self._random.random() >= handicap.idle:
            self._last = self._expert.act({}) + handicap.noise * self._random.standard_normal(2)
        return self._last

    # --- what the planner looks at: the latest observation it has ---------------------------------------------

    pusher_radius = RADIUS
    low, high = LOW, HIGH

    def situation(self, env: Any) -> Situation:
        """Return what was seen."""
        del env
        return self._seen[0]
