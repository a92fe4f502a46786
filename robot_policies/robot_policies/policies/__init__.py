"""Policies; importing this package registers them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from robot_policies.normalizer import Stats
from robot_policies.policies import beso, consistency, diffusion, energy, implicit, pad, regression, uwm
from robot_policies.policies.registry import policies
from robot_policies.policy import Policy
from robot_policies.spec import PolicySpec

__all__ = [
    "beso",
    "build_policy",
    "consistency",
    "diffusion",
    "energy",
    "implicit",
    "pad",
    "policies",
    "regression",
    "uwm",
]


def build_policy(config: Mapping[str, Any], spec: PolicySpec, stats: Stats | None) -> Policy:
    """Build a policy.

    Args:
        config: ``{"type": name, ...}``, the ``policy`` section of a training configuration.
        spec: Features, horizons and rate.
        stats: Statistics of each low-dimensional feature and of the action, to fit the normaliser; None
            if weights, which hold the normaliser, are loaded afterwards.

    Raises:
        ConfigError: An unknown type or key, or parts that do not fit each other or the spec.
    """
    return policies.build(config, where="policy", spec=spec, stats=stats)
