"""The scripted demonstrator of Lift in joint space: the way of `robot_sim.experts.lift`, by inverse kinematics.

A function of the observation alone, so that a policy with the same observations can learn it exactly. The hand
keeps pointing down; what is left of the arm's freedom goes to its rest posture.
"""

from __future__ import annotations

import numpy as np

from robot_datasets.features import ENVIRONMENT_STATE, STATE
from robot_datasets.kinematics import PANDA
from robot_sim.experts.hand import OPEN_WIDTH, approach_height
from robot_sim.experts.lift import GRASP_OFFSET, GRIPPED_WIDTH, HELD, REACHED, RISE
from robot_sim.task import Observation, TaskEnv

TOOL_OFFSET = 0.097
"""Distance of the point between the finger tips from the flange, along its z axis [m]."""

REST = np.array([0.0, 0.19634954, 0.0, -2.61799388, 0.0, 2.94159265, 0.78539816])
"""Rest posture (7,) [rad]: that of robosuite's Panda."""

OPEN, CLOSED = 0.04, 0.0  # finger targets [m]
GAIN = 0.22  # share of the remaining way to go in one step [1]
TOP_STEP = 0.009  # largest part of the way in one step and axis [m]
TOP_RISE = 0.005  # the same while holding the cube [m]
UPRIGHT_GAIN = 0.3  # share of the hand's tilt to take away in one step [1]
POSTURE_GAIN = 0.05  # share of the way to the rest posture, within the arm's freedom, in one step [1]
DEFAULT_NOISE = 0.005  # see `JointLiftExpert` [rad]
_DAMPED = 1e-3  # of the pseudo-inverse [m]
_DOWN = PANDA.flange_poses(REST[None])[0][:3, :3]


def tool_positions(joints: np.ndarray) -> np.ndarray:
    """Return where the point between the finger tips is, (T, 3) in the base frame [m], for joints (T, 7) [rad]."""
    poses = PANDA.flange_poses(joints)
    return poses[:, :3, 3] + TOOL_OFFSET * poses[:, :3, 2]


def joint_step(joints: np.ndarray, way: np.ndarray) -> np.ndarray:
    """Return the change of joints (7,) [rad] that moves the tool by `way` (3,) [m] and turns it back upright."""
    small = 1e-6
    probes = np.concatenate([joints[None], joints + small * np.eye(7)])
    poses = PANDA.flange_poses(probes)
    places = poses[:, :3, 3] + TOOL_OFFSET * poses[:, :3, 2]
    turns = poses[:, :3, :3]
    spins = np.stack([_vector(turn @ turns[0].T) for turn in turns[1:]])
    jacobian = np.concatenate([(places[1:] - places[0]).T, spins.T]) / small
    error = np.concatenate([way, UPRIGHT_GAIN * _vector(_DOWN @ turns[0].T)])
    inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + _DAMPED**2 * np.eye(6))
    free = np.eye(7) - inverse @ jacobian
    return inverse @ error + POSTURE_GAIN * free @ (REST - joints)


def _vector(turn: np.ndarray) -> np.ndarray:
    """Rotation vector (3,) of a small turn (3, 3)."""
    return 0.5 * np.array([turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]])


class JointLiftExpert:
    """Lifts the cube; see the module's docstring.

    Args:
        noise: Standard deviation of the disturbance of the seven joint targets [rad].
    """

    def __init__(self, noise: float = DEFAULT_NOISE) -> None:
        self._noise = noise
        self._random = np.random.default_rng(0)

    def reset(self, env: TaskEnv, seed: int) -> None:
        """Start the noise of the episode `seed`."""
        del env
        self._random = np.random.default_rng([seed, 2])

    def act(self, observation: Observation) -> np.ndarray:
        """Return the action (8,) for this observation: joint targets [rad] and the finger target [m]."""
        state = observation[STATE].astype(np.float64)
        joints, width = state[:7], 2.0 * state[7]
        way = observation[ENVIRONMENT_STATE][:3].astype(np.float64) - state[8:11]
        way[2] += GRASP_OFFSET
        distance = float(np.linalg.norm(way))
        closing = distance < (REACHED if width > OPEN_WIDTH else HELD)
        top = TOP_STEP
        if closing and width < GRIPPED_WIDTH:
            way[2], top = RISE, TOP_RISE
        elif not closing:
            way[2] += approach_height(float(np.linalg.norm(way[:2])), ready=width >= OPEN_WIDTH)
        step = joint_step(joints, np.clip(GAIN * way, -top, top))
        return np.append(joints + step, CLOSED if closing else OPEN).astype(np.float32)

    def perturb(self, action: np.ndarray) -> np.ndarray:
        """Return the action to execute where `action` is recorded."""
        disturbed = action.copy()
        disturbed[:7] += self._random.normal(0.0, self._noise, 7).astype(np.float32)
        return disturbed
