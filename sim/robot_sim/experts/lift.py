"""A scripted demonstrator for Lift that needs no memory.

Where the hand is relative to the cube, and how far the fingers are apart, decide the next motion::

    far          move over the cube, HOVER above it
    over it      come down, staying over it
    around it    stay and close the gripper
    holding it   go up

Because every decision is a function of the observation, a policy with the same observations can learn it
exactly; because `perturb` disturbs the motion while the *undisturbed* decision is recorded (DART, Laskey et
al. 2017), the demonstrations also show how to come back from beside the path.
"""

from __future__ import annotations

import numpy as np

from robot_datasets.features import ENVIRONMENT_STATE, STATE
from robot_sim.task import Observation, TaskEnv

HOVER = 0.07  # height of the hand over the grasp point while approaching [m]
FUNNEL_RADIUS = 0.012  # beside the grasp point by less than this, the hand may come all the way down [m]
FUNNEL_SLOPE = 4.0  # height it keeps for every metre further out [1]
GRASP_OFFSET = -0.005  # height of the grasp point over the cube's centre [m]
REACHED = 0.008  # the gripper starts to close within this distance of the grasp point [m]
HELD = 0.02  # and stays closed within this one [m]
OPEN_WIDTH = 0.07  # fingers at least this far apart are open [m]
GRIPPED_WIDTH = 0.061  # fingers closer than this have met the cube, whose diagonal is 0.06 m [m]
RISE = 0.05  # how far up to aim while holding the cube [m]
METRES_PER_UNIT = 0.05  # hand motion that an action component of 1 asks for [m]
GAIN = 1.2  # share of the remaining way to ask for in one step [1]
DEFAULT_NOISE = 0.3  # see `LiftExpert` [action units]
TOP_SPEED = 0.8  # largest action component used; the rest is room for `perturb`


class LiftExpert:
    """Lifts the cube; see the module's docstring.

    Args:
        noise: Standard deviation of the disturbance of the three translation components, in action units.
    """

    def __init__(self, noise: float = DEFAULT_NOISE) -> None:
        self._noise = noise
        self._random = np.random.default_rng(0)

    def reset(self, env: TaskEnv, seed: int) -> None:
        """Start the noise of the episode `seed`."""
        del env
        self._random = np.random.default_rng([seed, 1])

    def act(self, observation: Observation) -> np.ndarray:
        """Return the action (7,) for this observation."""
        left, right = observation[STATE][7:9].astype(np.float64)
        width = left - right
        to_grasp = observation[ENVIRONMENT_STATE][7:10].astype(np.float64)
        to_grasp[2] += GRASP_OFFSET
        distance = float(np.linalg.norm(to_grasp))
        closing = distance < (REACHED if width > OPEN_WIDTH else HELD)
        way = to_grasp.copy()
        if closing and width < GRIPPED_WIDTH:
            way[2] = RISE
        elif not closing:
            way[2] += self._clearance(float(np.linalg.norm(to_grasp[:2])), width)
        motion = np.clip(GAIN * way / METRES_PER_UNIT, -TOP_SPEED, TOP_SPEED)
        return np.array([*motion, 0.0, 0.0, 0.0, 1.0 if closing else -1.0], dtype=np.float32)

    @staticmethod
    def _clearance(beside: float, width: float) -> float:
        """Height to keep over the grasp point [m], `beside` it by so much [m]: a funnel, shut until open."""
        if width < OPEN_WIDTH:
            return HOVER
        return min(max((beside - FUNNEL_RADIUS) * FUNNEL_SLOPE, 0.0), HOVER)

    def perturb(self, action: np.ndarray) -> np.ndarray:
        """Return the action to execute where `action` is recorded."""
        disturbed = action.copy()
        disturbed[:3] += self._random.normal(0.0, self._noise, 3).astype(np.float32)
        return disturbed.clip(-1.0, 1.0)
