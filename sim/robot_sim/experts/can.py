"""A scripted demonstrator of ``robosuite/PickPlaceCan`` that needs no memory.

Where the hand is relative to the can, how far the fingers are apart and where the can is decide the next motion::

    far                        move over the can, HOVER above it, fingers open
    over it                    come down, staying over it
    around it                  stay and close the gripper
    holding it, low            go straight up until the can passes over the walls
    holding it, high           move over its place
    holding it over its place  come down, staying over it
    can on its place           open the fingers
    can on its place, let go   go up

The hand points down and keeps its yaw at zero, but while carrying it keeps whatever orientation it has: a hand held
upright does not reach the compartment's middle from every posture of the arm. That middle is a constant of the scene,
which the observation does not hold. As in `robot_sim.experts.lift`, the recorded action is the undisturbed one. A can
that lies on its side is not provided for.
"""

from __future__ import annotations

import numpy as np

from robot_sim.experts.hand import (
    OPEN_WIDTH,
    HandAndObject,
    HandExpert,
    approach_height,
    hand_action,
    scene_of,
    turn_down,
)
from robot_sim.task import Observation, TaskEnv

GRASP_OFFSET = 0.015  # height of the grasp point over the can's centre, which is 0.04 below its top [m]
REACHED = 0.01  # the gripper starts to close within this distance of the grasp point [m]
HELD = 0.03  # and stays closed within this one: a can slips a little [m]
GRIPPED_WIDTH = 0.056  # fingers closer than this have met the can, whose diameter is 0.05 m [m]
LET_GO_WIDTH = 0.065  # fingers further apart than this no longer touch it [m]
CLEAR = 0.09  # height over its place at which the can passes over the walls, with 0.01 to spare [m]
CARRY = 0.12  # height over its place at which it is carried [m]
OVER = 0.03  # beside its place by less than this, the can may come down [m]
DESCENT_SLOPE = 2.0  # height it keeps for every metre further out [1]
WITHIN = 0.06  # beside its place by less than this, it stands in its compartment [m]
PLACED = 0.015  # and over its place by less than this, it may be let go [m]
RISE = 0.08  # how far up to aim after letting go [m]
MARK = "VisualCan_main"  # the ghost can that marks the place


class CanExpert(HandExpert):
    """Puts the can into its compartment; see the module's docstring."""

    def reset(self, env: TaskEnv, seed: int) -> None:
        """Start the noise of the episode `seed` and look up where the can belongs.

        Raises:
            TypeError: `env` is no task of robosuite.
        """
        super().reset(env, seed)
        self._place = scene_of(env).body_position(MARK)

    def act(self, observation: Observation) -> np.ndarray:
        """Return the action (7,) for this observation; `reset` comes first."""
        seen = HandAndObject.read(observation)
        turn = turn_down(seen.turn, 0.0)
        to_place = self._place - seen.thing
        beside_place = float(np.linalg.norm(to_place[:2]))
        if beside_place < WITHIN and -to_place[2] < PLACED:
            up = RISE if seen.width > LET_GO_WIDTH else 0.0
            return hand_action(np.array([0.0, 0.0, up]), closed=False, turn=turn)
        way = seen.thing - seen.hand
        way[2] += GRASP_OFFSET
        distance = float(np.linalg.norm(way))
        closing = distance < (REACHED if seen.width > OPEN_WIDTH else HELD)
        if closing and seen.width < GRIPPED_WIDTH:
            way, turn = _carry(to_place, beside_place), None
        elif not closing:
            way[2] += approach_height(float(np.linalg.norm(way[:2])), ready=seen.width >= OPEN_WIDTH)
        return hand_action(way, closed=closing, turn=turn)


def _carry(to_place: np.ndarray, beside: float) -> np.ndarray:
    """Return the way (3,) of the held can [m]: up, across, down."""
    way = to_place.copy()
    way[2] += min(max((beside - OVER) * DESCENT_SLOPE, 0.0), CARRY)
    if -to_place[2] < CLEAR and beside > WITHIN:
        way[:2] = 0.0
    return way
