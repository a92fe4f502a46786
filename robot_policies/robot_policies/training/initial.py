"""The weights that training begins with: random ones, or those of another checkpoint."""

from __future__ import annotations

from robot_policies.checkpoint import load_policy
from robot_policies.configuration import ConfigError
from robot_policies.policy import Policy


def start_from(policy: Policy, path: str) -> None:
    """Give a new policy the averaged weights of a checkpoint, and with them its normaliser.

    The normaliser is not fitted to the new data: what the weights learned holds for the old one only.

    Raises:
        CheckpointError: The checkpoint is missing or damaged.
        ConfigError: It is of another policy, or of other features or horizons.
    """
    before = load_policy(path).policy
    theirs, ours = before.spec.to_dict(), policy.spec.to_dict()
    different = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
    if different:
        raise ConfigError(
            f"init_from: {path} was trained with another {', '.join(different)}; use its dataset and window"
        )
    weights = before.state_dict()
    if {name: w.shape for name, w in weights.items()} != {n: w.shape for n, w in policy.state_dict().items()}:
        raise ConfigError(
            f"init_from: {path} holds another network; use the policy section it was trained with"
        )
    policy.load_state_dict(weights)
