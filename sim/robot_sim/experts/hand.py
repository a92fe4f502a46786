"""What the experts of robosuite's hand share: what is observed of it, and the actions of its OSC_POSE controller.

Frame: world, whose axes the controller's base frame shares. Yaw is the turn about the vertical of the hand's x axis;
the fingers open along its y axis. The hand points down at every yaw.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from robot_datasets.features import ENVIRONMENT_STATE, STATE
from robot_sim.rotations import (
    matrix_to_rotation_vector,
    quaternion_to_matrix,
    xyzw_to_wxyz,
    yaw_to_quaternion,
)
from robot_sim.task import Observation, TaskEnv

METRES_PER_UNIT = 0.05  # hand motion that an action component of 1 asks for [m]
RADIANS_PER_UNIT = 0.5  # hand turn that an action component of 1 asks for [rad]
GAIN = 1.2  # share of the remaining way, and of the remaining turn, to ask for in one step [1]
TOP_SPEED = 0.8  # largest action component used for the way; the rest is room for `perturb` [action units]
TOP_SPIN = 0.5  # largest action component used for the turn [action units]
DEFAULT_NOISE = 0.3  # see `HandExpert` [action units]
FUNNEL_RADIUS = 0.012  # beside the grasp point by less than this, the hand may come all the way down [m]
FUNNEL_SLOPE = 4.0  # height it keeps for every metre further out [1]
HOVER = 0.07  # height of the hand over the grasp point while approaching [m]
OPEN_WIDTH = 0.07  # fingers at least this far apart are open [m]

_TURNED_DOWN = np.diag([1.0, -1.0, -1.0])  # orientation of a hand that points down, at yaw 0
_OBJECT_POSITION = slice(7, 10)  # in robosuite's object-state, if there is one object
_OBJECT_QUATERNION = slice(10, 14)  # xyzw, as above


@runtime_checkable
class RobosuiteScene(Protocol):
    """What an expert asks a task of robosuite once per episode."""

    def body_position(self, name: str) -> np.ndarray:
        """Return where the body `name` is (3,), in the world [m]."""
        ...

    def arms(self) -> list[str]:
        """Robot, gripper and controller of every arm, in words."""
        ...


def scene_of(env: TaskEnv) -> RobosuiteScene:
    """Return `env` as a scene.

    Raises:
        TypeError: It is no task of robosuite.
    """
    if not isinstance(env, RobosuiteScene):
        raise TypeError(f"{type(env).__name__} does not say where its bodies are")
    return env


@dataclass(frozen=True)
class HandAndObject:
    """One observation of a task with one hand and one object, in the world.

    Attributes:
        hand: Point between the finger tips (3,) [m].
        turn: Orientation of the hand (3, 3).
        width: Distance of the fingers [m].
        thing: Position of the object (3,) [m].
        thing_turn: Orientation of the object (3, 3).
    """

    hand: np.ndarray
    turn: np.ndarray
    width: float
    thing: np.ndarray
    thing_turn: np.ndarray

    @classmethod
    def read(cls, observation: Observation) -> HandAndObject:
        """Take an observation of ``robosuite/PickPlaceCan``, or one of the same layout, apart.

        robosuite's pose of the object in the hand's frame is not used: after a reset it is zero for one step.
        """
        state = observation[STATE].astype(np.float64)
        environment = observation[ENVIRONMENT_STATE].astype(np.float64)
        return cls(
            hand=state[:3],
            turn=_matrix(state[3:7]),
            width=finger_width(state),
            thing=environment[_OBJECT_POSITION],
            thing_turn=_matrix(environment[_OBJECT_QUATERNION]),
        )


class HandExpert:
    """The disturbance (DART) that demonstrators with a robosuite hand share.

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

    def perturb(self, action: np.ndarray) -> np.ndarray:
        """Return the action to execute where `action` is recorded."""
        disturbed = action.copy()
        disturbed[:3] += self._random.normal(0.0, self._noise, 3).astype(np.float32)
        return disturbed.clip(-1.0, 1.0)


def finger_width(state: np.ndarray) -> float:
    """Return how far the fingers are apart [m] in ``observation.state`` (9,)."""
    left, right = state[7:9].astype(np.float64)
    return left - right


def hand_action(way: np.ndarray, *, closed: bool, turn: np.ndarray | None = None) -> np.ndarray:
    """Return the action (7,) that brings the hand nearer.

    Args:
        way: Remaining way (3,), in the world [m].
        closed: Close the fingers, else open them.
        turn: Remaining turn as a rotation vector (3,), in the world [rad]; None keeps the orientation.
    """
    motion = np.clip(GAIN * way / METRES_PER_UNIT, -TOP_SPEED, TOP_SPEED)
    spin = np.zeros(3) if turn is None else np.clip(GAIN * turn / RADIANS_PER_UNIT, -TOP_SPIN, TOP_SPIN)
    return np.array([*motion, *spin, 1.0 if closed else -1.0], dtype=np.float32)


def approach_height(beside: float, *, ready: bool) -> float:
    """Height to keep over the grasp point [m], `beside` it by so much [m]: a funnel, shut until `ready`."""
    return min(max((beside - FUNNEL_RADIUS) * FUNNEL_SLOPE, 0.0), HOVER) if ready else HOVER


def turn_down(turn: np.ndarray, yaw: float) -> np.ndarray:
    """Return the rotation vector (3,) [rad] from the orientation `turn` (3, 3) to pointing down at `yaw` [rad]."""
    wanted = quaternion_to_matrix(yaw_to_quaternion(yaw)) @ _TURNED_DOWN
    return matrix_to_rotation_vector(wanted @ turn.T)


def yaw_of(turn: np.ndarray) -> float:
    """Return the direction of the x axis of an orientation (3, 3), about the vertical [rad]."""
    return float(np.arctan2(turn[1, 0], turn[0, 0]))


def nearest_turn(angle: float, period: float) -> float:
    """Return `angle` [rad] without whole periods: the smallest turn with the same effect, where symmetry allows."""
    return angle - period * round(angle / period)


def _matrix(xyzw: np.ndarray) -> np.ndarray:
    return quaternion_to_matrix(xyzw_to_wxyz(xyzw))
