"""Whether a policy's actions are something these joints can be commanded with, and under which names.

What is no joint position (or, for MoveIt Servo, no velocity of the hand) is refused: a change of pose that is
relative to where a hand happened to be means something else on every controller, and guessing moves an arm.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from robot_datasets.errors import unknown_name
from robot_datasets.features import Feature
from robot_datasets.mapping import ConfigError
from robot_deploy.motion.limits import LimitsError, in_order_of
from robot_policies.spec import PolicySpec

_UNITS = {"position": ("rad", "m"), "velocity": ("rad/s", "m/s")}
_RELATIVE = ("delta", "relative")


def contracted(
    spec: PolicySpec, joints: tuple[str, ...], renamed: Mapping[str, str], *, command: str
) -> PolicySpec:
    """Return the spec with its action's components named after the robot's joints.

    Args:
        spec: The policy's.
        joints: The robot's joints.
        renamed: Joint -> component of the action, where the names differ.
        command: ``position`` or ``velocity``: what the targets want.

    Raises:
        ConfigError: The action is something else, a component is missing, or a name is unknown.
    """
    action = spec.action
    _require_meaning(action, command)
    names = list(action.names)
    if not names:
        if action.shape != (len(joints),) or renamed:
            raise ConfigError(
                f"the policy's action has {action.shape[0]} components without names, the robot {len(joints)} joints; "
                "train on data whose action names its joints"
            )
        names = list(joints)
    for joint, component in renamed.items():
        if joint not in joints:
            raise ConfigError(f"action_joints: {unknown_name('joint', joint, joints)}")
        if component not in action.names:
            raise ConfigError(
                f"action_joints.{joint}: {unknown_name('action component', component, action.names)}"
            )
        names[action.names.index(component)] = joint
    missing = [joint for joint in joints if joint not in names]
    if missing:
        raise ConfigError(
            f"the policy's action ({', '.join(action.names)}) says nothing about {', '.join(missing)}; name the "
            "components in action_joints, or use a policy trained for this robot"
        )
    units = action.units * action.shape[0] if len(action.units) == 1 else action.units
    for joint, unit in zip(names, units, strict=False):
        if joint in joints and unit not in _UNITS[command]:
            raise ConfigError(
                f"the policy's action for '{joint}' is in '{unit}', expected {' or '.join(_UNITS[command])}; "
                "train on actions in physical units"
            )
    return replace(spec, action=replace(action, names=tuple(names)))


def joint_orders(
    action: Sequence[str], feedback: Sequence[str], joints: Sequence[str], *, command: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return where each of the robot's joints (n,) is among the action's and the feedback's components.

    Args:
        action: Components of the policy's action; none are the joints themselves.
        feedback: Components of the measured positions.
        joints: The robot's joints.
        command: ``position`` or ``velocity``; velocities of a hand have no order in the feedback, which is None then.

    Raises:
        ConfigError: A joint is missing.
    """
    try:
        commanded = in_order_of(action or joints, joints, what="the policy's action")
        measured = None if command == "velocity" else in_order_of(feedback, joints, what="the feedback")
    except LimitsError as error:
        raise ConfigError(str(error)) from error
    return commanded, measured


def _require_meaning(action: Feature, command: str) -> None:
    meaning = action.meaning.lower()
    if any(word in meaning for word in _RELATIVE):
        raise ConfigError(
            f"the policy's actions are '{action.meaning}': relative to where the robot is when they are carried out, "
            "which a stream of joint targets cannot say; train on absolute joint positions (see docs/deploy.md)"
        )
    if ("velocit" in meaning) != (command == "velocity") and meaning:
        raise ConfigError(f"the policy's actions are '{action.meaning}', but the targets want a {command}")
