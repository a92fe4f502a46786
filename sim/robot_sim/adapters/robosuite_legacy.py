"""How robosuite up to 1.4 turned an action into motion, for recordings of that time replayed in 1.5.

Two things were different, as its sources show and a recording of 1.4 confirms (docs/datasets/tools.md):

* An operational space controller kept its orientation goal while an action did not turn the hand; since 1.5 the goal
  is where the hand is now, so the hand gives way a little in every step.
* A gripper's command went a hundredth of its range further in every physics step; since 1.5 it goes a fifth further
  in every control step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

GRIPPER_SPEED = 0.01
"""Part of half the command range [-1, 1] per physics step."""


def is_legacy(controller_configs: Any) -> bool:
    """Whether this describes an arm's controller alone, as robosuite up to 1.4 did."""
    return isinstance(controller_configs, Mapping) and "body_parts" not in controller_configs


def slow_grippers(env: Any) -> None:
    """Give the grippers of an environment their former speed; once, they survive resets."""
    for robot in env.robots:
        for gripper in robot.gripper.values():
            kind = type(gripper)
            if hasattr(kind, "speed"):
                gripper.__class__ = type(kind.__name__, (kind,), {"speed": GRIPPER_SPEED})


def restore_control_law(env: Any) -> None:
    """Make the controllers of an environment act as before 1.5; after every reset, which builds them anew."""
    for robot in env.robots:
        controller = robot.composite_controller
        for name, part in controller.part_controllers.items():
            if name in robot.arms and hasattr(part, "compute_goal_ori"):
                _keep_orientation(part)
            elif hasattr(type(controller.grippers.get(name)), "speed"):
                _advance_in_every_physics_step(part, controller.grippers[name])


def _keep_orientation(part: Any) -> None:
    compute = part.compute_goal_ori
    if part.input_ref_frame == "base":
        part.goal_ori = part.goal_origin_to_eef_pose()[:3, :3]

    def compute_goal_ori(delta: np.ndarray, goal_update_mode: str | None = None) -> np.ndarray:
        return part.goal_ori if np.allclose(delta, 0) else compute(delta, goal_update_mode)

    part.compute_goal_ori = compute_goal_ori


def _advance_in_every_physics_step(part: Any, gripper: Any) -> None:
    run, step = part.run_controller, type(gripper).format_action
    asked: list[np.ndarray] = []
    is_first = False

    def format_action(action: np.ndarray) -> np.ndarray:
        nonlocal is_first
        asked[:], is_first = [np.array(action)], True
        return step(gripper, action)

    def run_controller() -> np.ndarray:
        nonlocal is_first
        if asked and not is_first:
            part.set_goal(step(gripper, asked[0]))
        is_first = False
        return run()

    gripper.format_action, part.run_controller = format_action, run_controller
