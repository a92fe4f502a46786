"""What a robot's joints may do, and the only way limits are combined: by intersection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robot_datasets.errors import UserError


class LimitsError(UserError):
    """Limits are missing, contradictory, or named after joints that do not exist."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MotionLimits:
    """Limits of n joints (or of the six components of a twist).

    Positions are in rad or m as the joint is revolute or prismatic, and absolute; the others are magnitudes,
    symmetric about 0, per second, second² and second³.

    Attributes:
        names: Joint names, in the order of every (n,) array here.
        lower: (n,) smallest position; -inf for none.
        upper: (n,) largest position; inf for none.
        velocity: (n,) largest speed.
        acceleration: (n,) largest acceleration.
        jerk: (n,) largest jerk.
    """

    names: tuple[str, ...]
    lower: np.ndarray
    upper: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    jerk: np.ndarray

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if not self.names or len(set(self.names)) != len(self.names):
            raise LimitsError(f"joint names {list(self.names)}; expected at least one, each once")
        for field in ("lower", "upper", "velocity", "acceleration", "jerk"):
            array = np.array(getattr(self, field), dtype=np.float64)
            if array.shape != (len(self.names),):
                raise LimitsError(f"limits.{field} has shape {array.shape}, expected ({len(self.names)},)")
            array.setflags(write=False)
            object.__setattr__(self, field, array)
        for field in ("velocity", "acceleration", "jerk"):
            self._require(field, np.isfinite(getattr(self, field)) & (getattr(self, field) > 0))
        self._require("upper", self.upper > self.lower)

    def _require(self, field: str, good: np.ndarray) -> None:
        if not good.all():
            first = int(np.flatnonzero(~good)[0])
            rule = (
                f"above the lower one ({self.lower[first]:g})" if field == "upper" else "positive and finite"
            )
            raise LimitsError(
                f"joint '{self.names[first]}': {field} limit {getattr(self, field)[first]:g}, expected {rule}"
            )

    def __len__(self) -> int:
        return len(self.names)

    def intersect(self, other: MotionLimits) -> MotionLimits:
        """Return the tighter of both for every joint; never looser than either.

        Raises:
            LimitsError: Other joints or another order, or no position is left.
        """
        if other.names != self.names:
            raise LimitsError(f"limits of joints {list(other.names)}, expected {list(self.names)}")
        return MotionLimits(
            names=self.names,
            lower=np.maximum(self.lower, other.lower),
            upper=np.minimum(self.upper, other.upper),
            velocity=np.minimum(self.velocity, other.velocity),
            acceleration=np.minimum(self.acceleration, other.acceleration),
            jerk=np.minimum(self.jerk, other.jerk),
        )

    def scaled(self, *, velocity: float = 1.0, acceleration: float = 1.0, jerk: float = 1.0) -> MotionLimits:
        """Return these limits with their derivatives times factors in (0, 1].

        Raises:
            LimitsError: A factor would loosen a limit.
        """
        for name, factor in (("velocity", velocity), ("acceleration", acceleration), ("jerk", jerk)):
            if not 0.0 < factor <= 1.0:
                raise LimitsError(f"{name} scale {factor:g}; expected more than 0 and at most 1")
        return MotionLimits(
            names=self.names,
            lower=self.lower,
            upper=self.upper,
            velocity=self.velocity * velocity,
            acceleration=self.acceleration * acceleration,
            jerk=self.jerk * jerk,
        )

    def shrunk(self, margin: float | Sequence[float]) -> MotionLimits:
        """Return these limits with the position range narrower by `margin` [rad or m] at both ends.

        Args:
            margin: For all joints, or one number per joint.

        Raises:
            LimitsError: A margin is negative, there is not one per joint, or one leaves no range.
        """
        margins = np.array(margin, dtype=np.float64)
        if margins.shape not in ((), self.lower.shape) or not np.all(np.isfinite(margins) & (margins >= 0.0)):
            raise LimitsError(f"position margin {margin}; expected 0 or more, for all joints or one for each")
        return MotionLimits(
            names=self.names,
            lower=self.lower + margins,
            upper=self.upper - margins,
            velocity=self.velocity,
            acceleration=self.acceleration,
            jerk=self.jerk,
        )


def in_order_of(names: Sequence[str], wanted: Sequence[str], *, what: str) -> np.ndarray:
    """Return the index of each wanted name in `names`, so that ``values[index]`` is in the wanted order.

    Raises:
        LimitsError: A wanted name is missing or occurs twice.
    """
    position = {name: index for index, name in enumerate(names)}
    missing = [name for name in wanted if name not in position]
    if missing or len(position) != len(names):
        raise LimitsError(
            f"{what} names {list(names)}; expected each once, and among them {missing or list(wanted)}"
        )
    return np.array([position[name] for name in wanted], dtype=np.intp)
