"""From a leader arm to targets for the follower, without a jump when the person takes over.

At the moment of taking over leader and arm are hardly ever in the same pose. Two ways to bridge the difference:

* ``slide``: the target begins at the arm's own position and slides to the leader's at a bounded speed;
* ``relative``: the difference is kept, so that the arm makes the leader's movements from where it is (a clutch).

The policy node's filter limits what comes out in any case; this makes sure that it has nothing to limit when the
person keeps still. Handing back needs no counterpart: the policy node brakes, observes, and starts from rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from robot_datasets.errors import UserError
from robot_datasets.mapping import ConfigError

Alignment = Literal["slide", "relative"]


@dataclass(frozen=True, kw_only=True)
class HandoverConfig:
    """How a leader arm takes over.

    Attributes:
        alignment: ``slide`` or ``relative``.
        speed: Of sliding [rad/s or m/s].
        max_offset: Largest difference between leader and arm at which one may take over [rad or m].
        max_age_ms: Leader positions older than this are none [ms].
    """

    alignment: Alignment = "slide"
    speed: float = 0.3
    max_offset: float = 1.5
    max_age_ms: float = 100.0

    def __post_init__(self) -> None:
        if not (self.speed > 0 and self.max_offset > 0 and self.max_age_ms > 0):
            raise ConfigError(
                f"handover: speed {self.speed:g}, max_offset {self.max_offset:g} and max_age_ms {self.max_age_ms:g}; "
                "expected more than 0"
            )


class LeaderHandover:
    """Targets (n,) from leader positions (n,), in the same order of joints; times are monotonic [ns].

    Attributes:
        engaged: Whether a person has taken over.
    """

    def __init__(self, names: tuple[str, ...], config: HandoverConfig | None = None) -> None:
        """Be not engaged.

        Args:
            names: Joint names, for messages.
            config: How.
        """
        self._names, self._config = names, config or HandoverConfig()
        self.engaged = False
        self._leader: tuple[int, np.ndarray] | None = None
        self._offset = np.zeros(len(names))
        self._last_ns = 0

    @property
    def offset(self) -> np.ndarray:
        """(n,) how far the target is from the leader [rad or m]."""
        return self._offset.copy()

    def lead(self, positions: np.ndarray, now_ns: int) -> bool:
        """Take the leader's positions; those of the wrong shape, or not finite, are none. Return whether they were."""
        values = np.array(positions, dtype=np.float64)
        good = values.shape == (len(self._names),) and bool(np.isfinite(values).all())
        if good:
            self._leader = (now_ns, values)
        return good

    def engage(self, arm: np.ndarray, now_ns: int) -> None:
        """Take over from where the arm is.

        Args:
            arm: (n,) measured positions of the arm.
            now_ns: Monotonic time.

        Raises:
            UserError: The leader is silent, or too far from the arm.
        """
        leader = self._fresh(now_ns)
        if leader is None:
            raise UserError("the leader arm is silent; is its driver running?")
        offset = np.asarray(arm, dtype=np.float64) - leader
        worst = int(np.argmax(np.abs(offset)))
        if not np.abs(offset[worst]) <= self._config.max_offset:  # also for NaN
            raise UserError(
                f"leader and arm differ by {abs(offset[worst]):.2f} at '{self._names[worst]}', at most "
                f"{self._config.max_offset:g}; bring the leader closer first"
            )
        self._offset, self._last_ns, self.engaged = offset, now_ns, True

    def release(self) -> None:
        """Let go: there are no targets until the next `engage`."""
        self.engaged = False

    def target(self, now_ns: int) -> np.ndarray | None:
        """Where the arm should be now, (n,); None if nobody leads or the leader is silent."""
        leader = self._fresh(now_ns)
        if not self.engaged or leader is None:
            return None
        if self._config.alignment == "slide":
            step = self._config.speed * max(0, now_ns - self._last_ns) * 1e-9
            self._offset -= np.clip(self._offset, -step, step)
        self._last_ns = now_ns
        return leader + self._offset

    def _fresh(self, now_ns: int) -> np.ndarray | None:
        if self._leader is None or now_ns - self._leader[0] > self._config.max_age_ms * 1e6:
            return None
        return self._leader[1]
