"""Policies that learn from another policy's checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robot_policies.checkpoint import load_policy, policy_config
from robot_policies.configuration import ConfigError
from robot_policies.policies.consistency import ConsistencyPolicy
from robot_policies.policy import Policy


def complete_policy(values: Mapping[str, Any]) -> dict[str, Any]:
    """The ``policy`` section with what it takes from its teacher's checkpoint filled in; others as they are.

    The run's configuration, and with it every checkpoint, then holds all that is needed to build the student.

    Raises:
        CheckpointError: The teacher's checkpoint is missing or damaged.
    """
    if values.get("type") != "consistency" or values.get("student") is not None:
        return dict(values)
    if not isinstance(values.get("teacher"), str):
        raise ConfigError(
            f"policy.teacher is {values.get('teacher')!r}; expected a run or checkpoint directory"
        )
    return {**values, "student": policy_config(load_policy(values["teacher"]).config)}


def give_teacher(policy: Policy) -> None:
    """Hand a policy that is to be distilled its teacher, in evaluation mode.

    Raises:
        CheckpointError: The teacher's checkpoint is missing or damaged.
        ConfigError: The teacher does not fit the student.
    """
    if isinstance(policy, ConsistencyPolicy):
        policy.set_teacher(load_policy(policy.config.teacher).policy)
