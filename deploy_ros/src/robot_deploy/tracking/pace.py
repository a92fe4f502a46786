"""Keeps a twin and the arm that follows it together: the twin waits when the arm lags.

In Real-is-Sim (arXiv 2504.03597) the policy acts on a simulation, and the real arm only follows the simulated joints.
The filter follows no faster than the arm may move, so a twin that moves faster runs away from it, and with it the
observations on which the policy decides. `TwinPace` says when the twin should hold: above `hold_above`, until the arm
is within `go_below` again. It also judges the twin's messages: NaN, a missing joint or an old message is refused; after
a jump, such as the reset of a simulation, nothing is followed until a person agrees; nor is a silent twin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from robot_datasets.mapping import ConfigError

_RESTART_NS = 1_000_000_000  # a stamp that goes back by more is a clock that began anew


@dataclass(frozen=True, kw_only=True)
class PaceConfig:
    """Bounds of a twin.

    Attributes:
        hold_above: Distance between twin and arm at which the twin shall wait [rad or m].
        go_below: Distance at which it may go on [rad or m].
        max_jump: Largest step between two messages of the twin [rad or m]; a larger one is a reset of the simulation,
            and nothing is followed until `accept_jump`.
        max_age_ms: Twin and arm are not compared, and the twin not followed, with older messages [ms].
    """

    hold_above: float = 0.1
    go_below: float = 0.03
    max_jump: float = 0.2
    max_age_ms: float = 100.0

    def __post_init__(self) -> None:
        if not 0 < self.go_below < self.hold_above or not self.max_jump > 0 or not self.max_age_ms > 0:
            raise ConfigError(
                f"tracking: go_below {self.go_below:g}, hold_above {self.hold_above:g}, max_jump {self.max_jump:g}, "
                f"max_age_ms {self.max_age_ms:g}; expected 0 < go_below < hold_above, and the others above 0"
            )


class TwinPace:
    """Compares twin and arm; joints are brought to one order by name.

    Attributes:
        hold: Whether the twin should wait. True until both are known: a twin shall not run ahead of a silent arm.
        jumped: Whether the twin jumped, so that nothing is followed.
        refused: Messages of the twin that were refused, by reason.
    """

    def __init__(self, names: tuple[str, ...], config: PaceConfig | None = None) -> None:
        """Know nothing yet.

        Args:
            names: The arm's joints.
            config: Bounds.
        """
        self.names, self._config = names, config or PaceConfig()
        self.hold, self.jumped = True, False
        self.refused: Counter[str] = Counter()
        self._twin: tuple[int, int, np.ndarray] | None = None  # arrival, stamp [ns], positions
        self._arm: tuple[int, np.ndarray] | None = None

    def twin(self, names: Sequence[str], positions: Sequence[float], *, stamp_ns: int, now_ns: int) -> bool:
        """Take the twin's joints; return whether they may be followed.

        Args:
            names: Joint names, in any order; more than the arm's may be there.
            positions: One number each [rad or m].
            stamp_ns: Stamp of the message [ns].
            now_ns: Monotonic time [ns].
        """
        values = self._ordered(names, positions)
        if values is None:
            self.refused["missing joint or not finite"] += 1
            return False
        if self._twin is not None:
            back_ns = self._twin[1] - stamp_ns
            far = bool(np.max(np.abs(values - self._twin[2])) > self._config.max_jump)
            if 0 <= back_ns < _RESTART_NS and not far:
                self.refused["stamp not after the last one"] += 1
                return False
            if far or back_ns >= 0:
                self.refused["jump"] += 1
                self.jumped = True
        self._twin = (now_ns, stamp_ns, values)
        self._compare(now_ns)
        return not self.jumped

    def arm(self, names: Sequence[str], positions: Sequence[float], *, now_ns: int) -> None:
        """Take the arm's measured joints."""
        values = self._ordered(names, positions)
        if values is not None:
            self._arm = (now_ns, values)
            self._compare(now_ns)

    def accept_jump(self) -> None:
        """A person says that the twin may be where it jumped to; the filter moves the arm there at its own speed."""
        self.jumped = False

    def target(self, now_ns: int) -> np.ndarray | None:
        """Where the arm should be, (n,) in the order of `names`; None if the twin is silent or jumped."""
        if self._twin is None or self.jumped or self._old(self._twin[0], now_ns):
            return None
        return self._twin[2].copy()

    def check(self, now_ns: int) -> None:
        """Let time pass: silence of either side makes the twin hold."""
        self._compare(now_ns)

    @property
    def lag(self) -> float:
        """Largest distance between twin and arm [rad or m]; NaN if one is not known."""
        if self._twin is None or self._arm is None:
            return float("nan")
        return float(np.max(np.abs(self._twin[2] - self._arm[1])))

    def _compare(self, now_ns: int) -> None:
        unknown = self._twin is None or self._arm is None
        if unknown or self._old(self._twin[0], now_ns) or self._old(self._arm[0], now_ns):  # type: ignore[index]
            self.hold = True
        elif self.hold:
            self.hold = not self.lag <= self._config.go_below
        else:
            self.hold = not self.lag <= self._config.hold_above

    def _old(self, since_ns: int, now_ns: int) -> bool:
        return now_ns - since_ns > self._config.max_age_ms * 1e6

    def _ordered(self, names: Sequence[str], positions: Sequence[float]) -> np.ndarray | None:
        place = {name: index for index, name in enumerate(names)}
        if len(place) != len(positions) or any(name not in place for name in self.names):
            return None
        values = np.array([positions[place[name]] for name in self.names], dtype=np.float64)
        return values if np.isfinite(values).all() else None
