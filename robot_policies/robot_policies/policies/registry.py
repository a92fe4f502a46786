"""The registry of policies; a new one registers its config dataclass and builder here."""

from __future__ import annotations

from robot_policies.configuration import Registry
from robot_policies.policy import Policy

policies: Registry[Policy] = Registry("policy")
