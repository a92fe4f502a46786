"""The contract of a trained policy: which features it reads and writes, over which horizons, how fast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from robot_datasets.errors import UserError
from robot_datasets.features import ACTION, Feature, compare_features


class SpecError(UserError):
    """Data, task or robot do not offer what a policy was trained on."""


@dataclass(frozen=True, kw_only=True)
class PolicySpec:
    """Features, horizons and rate of a policy; stored as ``spec.json`` in its checkpoint.

    The time window, with T_o = `n_obs_steps`, T_p = `horizon`, T_a = `n_action_steps`; "now" is the last
    observation, index T_o - 1 of the window (here T_o = 2, T_p = 8, T_a = 4)::

        step         -1    0=now  1     2     3     4     5     6
        observation  o     o
        prediction   a     a      a     a     a     a     a     a      T_p steps, starts with the observation
        execution          a      a     a     a                        T_a steps, starts now

    Attributes:
        observation: Features the policy reads, by name; image features have shape (height, width, channels).
        action: The action feature, shape (A,), in physical units.
        n_obs_steps: Observation horizon T_o [steps].
        horizon: Prediction horizon T_p [steps].
        n_action_steps: Execution horizon T_a [steps].
        fps: Control rate of observations and actions [Hz].
        goal: Features of the goal the policy is given, by name; empty if there is none.
        n_goal_steps: Consecutive frames G of the goal.
        instructed: Whether the policy is told its task in words.
        either_goal: Whether goal features and words are alternatives, so that one of them is enough.
        future: Cameras whose frames the policy predicts, and how many steps after now.
    """

    observation: Mapping[str, Feature]
    action: Feature
    n_obs_steps: int
    horizon: int
    n_action_steps: int
    fps: float
    goal: Mapping[str, Feature] = field(default_factory=dict)
    n_goal_steps: int = 1
    instructed: bool = False
    either_goal: bool = False
    future: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if min(self.n_obs_steps, self.horizon, self.n_action_steps, self.n_goal_steps) < 1:
            raise SpecError(
                f"horizons must be >= 1, got n_obs_steps={self.n_obs_steps}, horizon={self.horizon}, "
                f"n_action_steps={self.n_action_steps}, n_goal_steps={self.n_goal_steps}"
            )
        room = self.horizon - self.n_obs_steps + 1
        if self.n_action_steps > room:
            raise SpecError(
                f"n_action_steps={self.n_action_steps} exceeds the {room} predicted steps from now on "
                f"(horizon={self.horizon}, n_obs_steps={self.n_obs_steps}); lower it or raise the horizon"
            )
        if len(self.action.shape) != 1:
            raise SpecError(f"the action must be a vector, got shape {self.action.shape}")

    @property
    def action_dim(self) -> int:
        """Number of action components A."""
        return self.action.shape[0]

    @property
    def has_goal(self) -> bool:
        """Whether the policy is given a goal, as features or in words."""
        return bool(self.goal) or self.instructed

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; what a policy without goals lacks is left out."""
        goal = {
            "goal": {name: f.to_dict() for name, f in self.goal.items()},
            "n_goal_steps": self.n_goal_steps,
            "instructed": self.instructed,
            "either_goal": self.either_goal,
        }
        return {
            "observation": {name: f.to_dict() for name, f in self.observation.items()},
            "action": self.action.to_dict(),
            "n_obs_steps": self.n_obs_steps,
            "horizon": self.horizon,
            "n_action_steps": self.n_action_steps,
            "fps": self.fps,
            **(goal if self.has_goal else {}),
            **({"future": {name: list(steps) for name, steps in self.future.items()}} if self.future else {}),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PolicySpec:
        """Build from `to_dict`'s mapping."""
        return cls(
            observation={name: Feature.from_dict(f, where=name) for name, f in values["observation"].items()},
            action=Feature.from_dict(values["action"], where=ACTION),
            n_obs_steps=values["n_obs_steps"],
            horizon=values["horizon"],
            n_action_steps=values["n_action_steps"],
            fps=values["fps"],
            goal={name: Feature.from_dict(f, where=name) for name, f in values.get("goal", {}).items()},
            n_goal_steps=values.get("n_goal_steps", 1),
            instructed=values.get("instructed", False),
            either_goal=values.get("either_goal", False),
            future={name: tuple(steps) for name, steps in values.get("future", {}).items()},
        )

    def require(self, available: Mapping[str, Feature], *, fps: float, who: str) -> None:
        """Raise `SpecError` unless `available` offers every feature of this spec at this rate.

        Args:
            available: Features offered, the action included under ``"action"``.
            fps: Rate at which they are offered [Hz].
            who: Who offers them, for the message (``"task 'lift'"``, ``"store demos.zarr"``).
        """
        problems = compare_features({**self.goal, **self.observation, ACTION: self.action}, available)
        lines = [f"{p.name} {p.problem}" for p in problems]
        if abs(fps - self.fps) > 1e-6 * self.fps:
            lines.append(f"the rate is {fps:g} Hz, expected {self.fps:g} Hz")
        if lines:
            more = f"; and {len(lines) - 3} more differences" if len(lines) > 3 else ""
            raise SpecError(
                f"{who} does not fit the policy: {'; '.join(lines[:3])}{more}. "
                f"It offers {', '.join(sorted(available)) or 'nothing'}; "
                "use data, task and checkpoint of one embodiment"
            )
