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
from robot_sim.experts.hand import OPEN_WIDTH, HandExpert, approach_height, finger_width, hand_action
from robot_sim.task import Observation

GRASP_OFFSET = -0.005  # height of the grasp point over the cube's centre [m]
REACHED = 0.008  # the gripper starts to close within this distance of the grasp point [m]
HELD = 0.02  # and stays closed within this one [m]
GRIPPED_WIDTH = 0.061  # fingers closer than this have met the cube, whose diagonal is 0.06 m [m]
RISE = 0.05  # how far up to aim while holding the cube [m]


class LiftExpert(HandExpert):
    """Lifts the cube; see the module's docstring."""

    def act(self, observation: Observation) -> np.ndarray:
        """Return the action (7,) for this observation."""
        width = finger_width(observation[STATE])
        way = observation[ENVIRONMENT_STATE][7:10].astype(np.float64)
        way[2] += GRASP_OFFSET
        distance = float(np.linalg.norm(way))
        closing = distance < (REACHED if width > OPEN_WIDTH else HELD)
        if closing and width < GRIPPED_WIDTH:
            way[2] = RISE
        elif not closing:
            way[2] += approach_height(float(np.linalg.norm(way[:2])), ready=width >= OPEN_WIDTH)
        return hand_action(way, closed=closing)
