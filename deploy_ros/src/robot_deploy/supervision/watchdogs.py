"""Watchdogs: conditions that must hold while the policy has the robot, checked at every command period.

They see times and counts only, and return what is wrong; the runtime decides what follows. Command timing is
monotonic time in integer nanoseconds, so that no step of the wall clock (NTP, a person) can move a command; the
wall or ROS clock is compared with it, to notice such steps.
"""

from __future__ import annotations

from dataclasses import dataclass

from robot_datasets.mapping import ConfigError

MS = 1_000_000  # ns


@dataclass(frozen=True, kw_only=True)
class WatchdogConfig:
    """Bounds; all times in ms.

    Attributes:
        inference_deadline_ms: A chunk has to be there so long after it was asked for.
        stall_ms: The plan may be used up for so long, until the next chunk comes.
        period_factor: Two ticks may be so many command periods apart.
        clock_jump_ms: Clock of the stamps against monotonic time, change from one tick to the next.
        feedback_age_ms: Age of the newest measured joint state, in any state that moves the robot.
        publishers: Publishers allowed on the command topic, this one included.
        observation_patience_ms: A window may be missing for so long before that is a fault; the robot brakes
            at once in any case.
    """

    inference_deadline_ms: float = 500.0
    stall_ms: float = 1000.0
    period_factor: float = 5.0
    clock_jump_ms: float = 20.0
    feedback_age_ms: float = 50.0
    publishers: int = 1
    observation_patience_ms: float = 500.0

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) > 0:
                raise ConfigError(f"watchdogs.{name}: {getattr(self, name):g}; expected more than 0")


class Watchdogs:
    """Keeps what has to be compared from tick to tick."""

    def __init__(self, config: WatchdogConfig, *, period_ns: int) -> None:
        """Start without a past.

        Args:
            config: Bounds.
            period_ns: Command period [ns].
        """
        self._config, self._period_ns = config, period_ns
        self.publishers = 1
        self.forget()

    def forget(self) -> None:
        """Start again: the next tick is compared with nothing."""
        self._last: tuple[int, int] | None = None

    def clocks(self, now_ns: int, stamp_clock_ns: int) -> str:
        """Check the tick's own time and the two clocks against each other; return what is wrong, or ""."""
        last, self._last = self._last, (now_ns, stamp_clock_ns)
        if last is None:
            return ""
        gap = now_ns - last[0]
        if gap < 0:
            return f"clock jump: monotonic time went back by {-gap / MS:.1f} ms"
        drift = (stamp_clock_ns - last[1]) - gap
        if abs(drift) > self._config.clock_jump_ms * MS:
            return f"clock jump: the clock of the stamps moved by {drift / MS:+.1f} ms against monotonic time"
        if gap > self._config.period_factor * self._period_ns:
            return (
                f"command rate: {gap / MS:.1f} ms between two ticks, expected {self._period_ns / MS:g}, "
                f"at most {self._config.period_factor * self._period_ns / MS:g}"
            )
        return ""

    def traffic(self) -> str:
        """Check who else commands the robot."""
        if self.publishers > self._config.publishers:
            return f"publishers: {self.publishers} on the command topic, expected {self._config.publishers}"
        return ""

    def inference(self, now_ns: int, asked_ns: int | None) -> str:
        """Check a request for a chunk that was made at `asked_ns`; None if none is open."""
        if asked_ns is not None and now_ns - asked_ns > self._config.inference_deadline_ms * MS:
            return (
                f"inference deadline: no chunk for {(now_ns - asked_ns) / MS:.0f} ms, "
                f"allowed {self._config.inference_deadline_ms:g}"
            )
        return ""

    def stall(self, now_ns: int, since_ns: int | None) -> str:
        """Check for how long the plan has been used up; None if it is not."""
        if since_ns is not None and now_ns - since_ns > self._config.stall_ms * MS:
            return (
                f"stall: no action for {(now_ns - since_ns) / MS:.0f} ms, allowed {self._config.stall_ms:g}"
            )
        return ""

    def observation(self, now_ns: int, since_ns: int | None, problem: str) -> str:
        """Check for how long there has been no window; None if there is one."""
        if since_ns is not None and now_ns - since_ns > self._config.observation_patience_ms * MS:
            return f"observation: {problem}"
        return ""

    def feedback(self, age_ns: int | None) -> str:
        """Check the age of the measured joint state; None if there never was one."""
        if age_ns is None:
            return "feedback: no joint state"
        if age_ns > self._config.feedback_age_ms * MS:
            return (
                f"feedback: joint state is {age_ns / MS:.0f} ms old, at most {self._config.feedback_age_ms:g}"
            )
        return ""
