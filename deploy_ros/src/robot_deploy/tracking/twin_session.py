"""A twin in operation: it mirrors its cell, leads it when a person says so, and waits when it must.

The policy is held while a body is not in step, while joint states are missing, while the tracker says that the arm
lags, and while the tracker says nothing. A twin that became unstable, or a clock that went back, ends the lead: what
was known of the cell is forgotten, and the twin mirrors again.

Without ROS: times come with the calls or from the messages. One lock keeps it to one thread at a time.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from robot_datasets.errors import UserError
from robot_datasets.mapping import ConfigError
from robot_deploy.tracking.leading import AskedPolicy, LeadingTwin, PolicyError
from robot_sim.twin.cell import Cell
from robot_sim.twin.observed import ObservedState
from robot_sim.twin.twin import TwinReport


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """Bounds.

    Attributes:
        joint_age_ms: The policy is held while the newest joint state is older [ms].
        tracker_age_ms: The policy is held while the tracker has been silent for longer [ms].
    """

    joint_age_ms: float = 100.0
    tracker_age_ms: float = 500.0

    def __post_init__(self) -> None:
        for name in ("joint_age_ms", "tracker_age_ms"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name}: got {getattr(self, name):g}, expected above 0")


class TwinSession:
    """See the module's docstring.

    Args:
        cell: The cell file.
        policy: What leads; None for a twin that only mirrors.
        config: Bounds.
        start_ns: Time of the twin's first state, by the clock of the stamps [ns].

    Attributes:
        cell: The cell.
        config: Bounds.
        leading: The twin and who drives it; another one after `restart`.
        report: Of the last tick; None before.
        held: Why the policy waits; "" if it acts, or nothing leads.
        success: Whether the task is solved in the twin.
        ended: Why the last lead ended by itself; "" if it did not.
        losses: How often each body was lost.
    """

    def __init__(
        self, cell: Cell, policy: AskedPolicy | None, config: SessionConfig | None = None, *, start_ns: int
    ) -> None:
        self.cell, self._policy, self.config = cell, policy, config or SessionConfig()
        self._lock = threading.RLock()
        self._tracker: tuple[int, bool] | None = (
            None  # when it was heard [ns, monotonic], whether it says hold
        )
        self.ended, self.success = "", False
        self.losses: Counter[str] = Counter()
        self._ticks, self._now_ns = 0, 0
        self._success_every = max(1, round(cell.rates.twin / cell.rates.policy))
        self._build(start_ns)

    # --- what a loop needs ------------------------------------------------------------------------------------

    @property
    def time_ns(self) -> int:
        """Time of the twin's state [ns]."""
        return self.leading.time_ns

    def skip(self, ticks: int) -> None:
        """Let time pass without simulating it."""
        with self._lock:
            self.leading.skip(ticks)

    def tick(self, observed: Sequence[ObservedState]) -> TwinReport:
        """Make a tick, and let the policy act if it may."""
        with self._lock:
            report = self.leading.tick(observed)
            if not self.leading.twin.world.finite:
                self.restart(self.time_ns, "the twin's physics became unstable")
                report = self.leading.twin.report()
            self.report = report
            self.losses.update(name for name, body in report.bodies.items() if body.status == "lost")
            if self.leading.leads:
                self.held = self.why_not(report)
                try:
                    self.leading.act(held=bool(self.held))
                except PolicyError as error:
                    self.stop(str(error))
            if self._ticks % self._success_every == 0:
                self.success = not report.lost and self.leading.view.succeeds(self.leading.twin.world)
            self._ticks += 1
            return report

    # --- what others say --------------------------------------------------------------------------------------

    def time_is(self, now_ns: int) -> None:
        """Say what monotonic time it is [ns], before every tick: silence of the tracker is measured by it."""
        self._now_ns = now_ns

    def tracker(self, *, hold: bool | None = None, now_ns: int) -> None:
        """Take what the tracker said: that the twin shall hold, or not, or only that it lives (None)."""
        with self._lock:
            before = self._tracker
            if hold is None and before is None:
                return  # whether to hold is not known yet
            self._tracker = now_ns, bool(before and before[1]) if hold is None else hold

    def start(self) -> None:
        """Let the policy lead.

        Raises:
            UserError: There is no policy, or it leads already, or the twin is not in step.
        """
        with self._lock:
            if self._policy is None:
                raise UserError("start: no policy; give the parameter 'checkpoint'")
            if self.leading.leads:
                raise UserError("start: the twin leads already")
            report = self.report
            reason = "the twin has not begun" if report is None else self.why_apart(report)
            if not reason and self._silent():
                reason = "the tracker is not heard; start it first"
            if reason:
                raise UserError(f"start: {reason}")
            self.leading.lead(self._policy)
            self.held, self.ended = "just started", ""

    def stop(self, reason: str = "") -> None:
        """Mirror again.

        Args:
            reason: Why, if nobody asked for it.
        """
        with self._lock:
            if self.leading.leads:
                self.leading.mirror()
                self.ended = reason
            self.held = ""

    def restart(self, start_ns: int, reason: str) -> None:
        """Forget the cell and mirror it anew.

        Args:
            start_ns: Time of the first state [ns].
            reason: Why.
        """
        with self._lock:
            self._build(start_ns)
            self.ended = reason

    def why_not(self, report: TwinReport) -> str:
        """Return why the policy may not act now; "" if it may."""
        with self._lock:
            if self._silent():
                return "the tracker is silent"
            if self._tracker is None or self._tracker[1]:
                return "the tracker says hold: the arm lags"
            return self.why_apart(report)

    def why_apart(self, report: TwinReport) -> str:
        """Return why twin and cell are not in step; "" if they are."""
        if not report.joint_age * 1e3 <= self.config.joint_age_ms:
            return f"the newest joint state is {report.joint_age:.2f} s old"
        return ", ".join(f"{name} is {report.bodies[name].status}" for name in report.lost)

    def _silent(self) -> bool:
        return self._tracker is None or (self._now_ns - self._tracker[0]) * 1e-6 > self.config.tracker_age_ms

    def _build(self, start_ns: int) -> None:
        self.leading = LeadingTwin(self.cell, start_ns=start_ns)
        self.report: TwinReport | None = None
        self.held = ""
