"""A scripted demonstrator of ``robosuite/NutAssemblySquare`` that needs no memory.

Where the hand is relative to the nut's handle, how far the fingers are apart and where the nut is decide the next
motion. The hand grasps across the handle at that of the two equal angles which is nearer to its own, so it turns by 90
degrees at most; the nut fits the peg at four angles, of which it takes the nearest but never the one that has
the handle, and the hand, beyond the peg: that is out of reach::

    far                        move over the handle, HOVER above it, turn, fingers open
    over it, turned            come down, staying over it
    around it                  stay and close the gripper
    holding it, low            go straight up until the nut passes over the peg
    holding it, high           turn the nut, and move its middle over the peg
    nut over the peg, turned   come down, staying over it
    nut around the peg         go on down, whatever the angle
    nut down                   open the fingers
    nut down, let go           go up

The peg is a constant of the scene, which the observation does not hold. As in `robot_sim.experts.lift`, the recorded
action is the undisturbed one.
"""

from __future__ import annotations

import numpy as np

from robot_sim.experts.hand import (
    OPEN_WIDTH,
    HandAndObject,
    HandExpert,
    approach_height,
    hand_action,
    nearest_turn,
    scene_of,
    turn_down,
    yaw_of,
)
from robot_sim.task import Observation, TaskEnv

HANDLE = np.array([0.060, 0.0, 0.0])  # the grasp point, on the handle, from the nut's middle (3,) [m]
REACHED = 0.008  # the gripper starts to close within this distance of the grasp point [m]
HELD = 0.025  # and stays closed within this one: a handle slips a little [m]
TURNED = 0.15  # the hand comes down when it is turned to within this of the handle [rad]
GRIPPED_WIDTH = 0.038  # fingers closer than this have met the handle, which is 0.032 m wide [m]
LET_GO_WIDTH = 0.045  # fingers further apart than this no longer touch it [m]
PEG_TOP = 0.1  # height of the peg's top over its body's position [m]
CARRY = 0.035  # height of the nut's middle over the peg's top at which it is carried; its bottom is 0.01 lower [m]
CLEAR = 0.02  # and at which it passes over the peg [m]
ALIGNED = 0.005  # beside the peg by less than this, the nut may come down; it has 0.0067 m of play [m]
ALIGNED_ANGLE = 0.08  # and when it is turned to within this [rad]
AROUND = 0.012  # beside the peg by less than this and below its top, the nut is around it [m]
DOWN = 0.002  # height over the peg's body at which the nut may be let go; success asks for 0.02 [m]
DESCENT = 0.05  # how far down to aim at a time [m]
RISE = 0.08  # how far up to aim after letting go [m]
PEG = "peg1"


class SquareExpert(HandExpert):
    """Fits the square nut onto its peg; see the module's docstring."""

    def reset(self, env: TaskEnv, seed: int) -> None:
        """Start the noise of the episode `seed` and look up where the peg is.

        Raises:
            TypeError: `env` is no task of robosuite.
        """
        super().reset(env, seed)
        self._peg = scene_of(env).body_position(PEG)

    def act(self, observation: Observation) -> np.ndarray:
        """Return the action (7,) for this observation; `reset` comes first."""
        seen = HandAndObject.read(observation)
        hand_yaw, nut_yaw = yaw_of(seen.turn), yaw_of(seen.thing_turn)
        to_peg = self._peg - seen.thing
        if np.linalg.norm(to_peg[:2]) < AROUND and -to_peg[2] < DOWN:
            up = RISE if seen.width > LET_GO_WIDTH else 0.0
            return hand_action(np.array([0.0, 0.0, up]), closed=False)
        way = seen.thing + seen.thing_turn @ HANDLE - seen.hand
        distance = float(np.linalg.norm(way))
        closing = distance < (REACHED if seen.width > OPEN_WIDTH else HELD)
        beside_handle = nearest_turn(nut_yaw - hand_yaw, np.pi)
        if closing and seen.width < GRIPPED_WIDTH:
            beside_peg = _turn_to_fit(nut_yaw)
            way = _carry(to_peg, abs(beside_peg))
            return hand_action(way, closed=True, turn=turn_down(seen.turn, hand_yaw + beside_peg))
        if not closing:
            ready = seen.width >= OPEN_WIDTH and abs(beside_handle) < TURNED
            way[2] += approach_height(float(np.linalg.norm(way[:2])), ready=ready)
        return hand_action(way, closed=closing, turn=turn_down(seen.turn, hand_yaw + beside_handle))


def _turn_to_fit(nut_yaw: float) -> float:
    """Return the turn [rad] after which a nut at `nut_yaw` fits, its handle to the left, to the right or nearer."""
    if abs(nut_yaw) < np.pi / 4:
        return float(np.copysign(np.pi / 2, nut_yaw)) - nut_yaw
    return nearest_turn(-nut_yaw, np.pi / 2)


def _carry(to_peg: np.ndarray, angle: float) -> np.ndarray:
    """Return the way (3,) [m] of the held nut, turned away from fitting by `angle` [rad]: up, across, down."""
    way = to_peg.copy()
    way[2] += PEG_TOP
    beside, over_top = float(np.linalg.norm(way[:2])), -way[2]
    if (beside < AROUND and over_top < 0.0) or (beside < ALIGNED and angle < ALIGNED_ANGLE):
        way[2] = -DESCENT
        return way
    way[2] += CARRY
    if over_top < CLEAR:
        way[:2] = 0.0
    return way
