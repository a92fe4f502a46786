"""A fault drill without ROS: a runtime drives a simulated arm, something goes wrong, and the stop is measured.

The arm receives only what the runtime sends, and goes on with the last trajectory when nothing comes. What is
measured is what the arm was told to do, every millisecond, whatever the runtime believes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from robot_datasets.features import STATE, Feature
from robot_deploy.motion.limits import MotionLimits
from robot_deploy.motion.trajectory import Trajectory
from robot_deploy.observation.rings import SourceConfig
from robot_deploy.observation.window import FeatureSource, Window
from robot_deploy.runtime import Runtime
from robot_deploy.runtime_config import ChunkRequest, RuntimeConfig, Tick
from robot_deploy.supervision.states import Event
from robot_policies.spec import PolicySpec

MS = 1_000_000  # ns
FPS = 20.0  # of the scripted policy [Hz]


@dataclass
class SimulatedArm:
    """Double integrators with feed-forward and a stiff controller, which follow the last trajectory received.

    Attributes:
        position: (n,) [rad].
        velocity: (n,) [rad/s].
        trajectory: The last trajectory received.
    """

    position: np.ndarray
    velocity: np.ndarray = field(init=False)
    trajectory: Trajectory | None = None

    def __post_init__(self) -> None:
        self.velocity = np.zeros_like(self.position)

    def advance(self, now_ns: int, span_ns: int) -> None:
        """Move for `span_ns` [ns] from `now_ns` on."""
        if self.trajectory is None:
            return
        q, v, a = self.trajectory.at(now_ns)
        t = span_ns * 1e-9
        push = a + 400.0 * (q - self.position) + 40.0 * (v - self.velocity)
        self.position = self.position + t * (self.velocity + 0.5 * t * push)
        self.velocity = self.velocity + t * push


def drill_spec(names: tuple[str, ...]) -> PolicySpec:
    """A policy that reads joint positions and commands them: T_o 2, T_p 16, T_a 8 at 20 Hz."""
    joints = Feature(dtype="float32", shape=(len(names),), names=names, units=("rad",))
    return PolicySpec(
        observation={STATE: joints}, action=joints, n_obs_steps=2, horizon=16, n_action_steps=8, fps=FPS
    )


def drill_config(names: tuple[str, ...], **changes: object) -> RuntimeConfig:
    """The runtime of the drill: 100 Hz, real-time chunking, mode live."""
    values: dict[str, object] = {
        "sources": {"joints": SourceConfig(kind="state", names=names)},
        "features": {STATE: (FeatureSource(source="joints"),)},
        "mode": "live",
        "executor": {"type": "real_time"},
    }
    return RuntimeConfig(**{**values, **changes})  # type: ignore[arg-type]


def swing(window: Window, home: np.ndarray) -> np.ndarray:
    """A chunk (16, n) of the scripted policy: towards a swing of 0.3 rad, 0.4 times per second, of all joints."""
    ahead = np.arange(-1, 15)[:, None]
    steps = ahead / FPS + window.time_ns % (10**15) * 1e-9
    now = window.arrays[STATE][-1]
    goal = home + 0.3 * np.sin(2.0 * np.pi * 0.4 * steps)
    return (now + (goal - now) * np.clip(ahead / 6.0, 0.0, 1.0)).astype(np.float32)


@dataclass
class DrillRun:
    """One run: a runtime, an arm, and their common time.

    Attributes:
        runtime: Under test.
        arm: What it drives.
        home: (n,) the middle of the swing [rad].
        now_ns: Monotonic time [ns]; the clock of the stamps is `clock_offset_ns` ahead.
        alive: Whether the runtime's process is.
        latency: Ticks from a request to its chunk.
        predict: The scripted policy.
        sense: From the arm's position to what is published, or None for no message.
    """

    runtime: Runtime
    arm: SimulatedArm
    home: np.ndarray
    limits: MotionLimits
    now_ns: int = 1_000 * MS
    clock_offset_ns: int = 10**15
    alive: bool = True
    latency: int = 4
    predict: Callable[[Window, np.ndarray], np.ndarray] = swing
    sense: Callable[[np.ndarray], np.ndarray | None] = lambda position: position
    stamp_lag_ns: int = 0
    tick_stride: int = 1

    def __post_init__(self) -> None:
        self.ticks: list[Tick] = []
        self.times: list[int] = []  # of the ticks [ns]
        self.path: list[tuple[int, np.ndarray, np.ndarray, np.ndarray]] = []
        self._pending: list[tuple[int, ChunkRequest]] = []
        self._count = 0

    def step(self) -> None:
        """One command period: sense, infer, tick, and let the arm move for 10 ms."""
        self._count += 1
        clock = self.now_ns + self.clock_offset_ns
        sensed = self.sense(self.arm.position)
        if self.alive and sensed is not None:
            stamp = clock - self.stamp_lag_ns
            self.runtime.sample("joints", sensed, stamp_ns=stamp, clock_ns=clock, names=self.limits.names)
        if self.alive and self._count % self.tick_stride == 0:
            while self._pending and self._pending[0][0] <= self._count:
                request = self._pending.pop(0)[1]
                self.runtime.chunk(self.predict(request.window, self.home), ticket=request.ticket)
            tick = self.runtime.tick(self.now_ns, clock_ns=clock)
            self.ticks.append(tick)
            self.times.append(self.now_ns)
            if tick.request is not None:
                self._pending.append((self._count + self.latency, tick.request))
            if tick.send and tick.trajectory is not None:
                self.arm.trajectory = tick.trajectory
        for _ in range(10):
            if self.arm.trajectory is not None:
                self.path.append((self.now_ns, *self.arm.trajectory.at(self.now_ns)))
            self.arm.advance(self.now_ns, MS)
            self.now_ns += MS

    def run(self, ticks: int) -> None:
        """Make several steps."""
        for _ in range(ticks):
            self.step()

    def violations(self) -> dict[str, int]:
        """Samples of the commanded motion beyond a limit, by kind; jerk by differences within a period."""
        q, v, a = (np.stack([row[i] for row in self.path]) for i in (1, 2, 3))
        time = np.array([row[0] for row in self.path])
        jerk = np.abs(np.diff(a, axis=0)) / (np.diff(time)[:, None] * 1e-9)
        slack = 1.0 + 1e-6
        return {
            "position": int(np.sum((q < self.limits.lower) | (q > self.limits.upper))),
            "velocity": int(np.sum(np.abs(v) > self.limits.velocity * slack)),
            "acceleration": int(np.sum(np.abs(a) > self.limits.acceleration * slack)),
            "jerk": int(np.sum(jerk > self.limits.jerk * slack)),
            "step": int(np.sum(np.abs(np.diff(q, axis=0)) > self.limits.velocity * 1e-3 * 1.01)),
        }

    def rest_after(self, since_ns: int) -> float:
        """Time from `since_ns` to the last sample that moves [ms]; 0 if none does, infinity if the last one does."""
        moving = [row[0] for row in self.path if row[0] >= since_ns and np.abs(row[2]).max() > 1e-9]
        if not moving:
            return 0.0
        return float("inf") if moving[-1] == self.path[-1][0] else (moving[-1] - since_ns) / MS


def start_drill(limits: MotionLimits, home: np.ndarray, **changes: object) -> DrillRun:
    """A run whose arm moves already: one second after the start."""
    runtime = Runtime(drill_config(limits.names, **changes), drill_spec(limits.names), limits)
    run = DrillRun(runtime, SimulatedArm(home.copy()), home, limits)
    run.run(30)
    runtime.command(Event.START)
    run.run(100)
    return run


Fault = Callable[[DrillRun], None]


def _nan_chunk(run: DrillRun) -> None:
    run.predict = lambda window, home: np.full((16, len(home)), np.nan, dtype=np.float32)


def _far_chunk(run: DrillRun) -> None:
    run.predict = lambda window, home: np.full((16, len(home)), 50.0, dtype=np.float32)


def _wrong_shape(run: DrillRun) -> None:
    run.predict = lambda window, home: np.zeros((16, len(home) + 1), dtype=np.float32)


def _no_states(run: DrillRun) -> None:
    run.sense = lambda position: None


def _nan_states(run: DrillRun) -> None:
    run.sense = lambda position: np.full_like(position, np.nan)


def _frozen_states(run: DrillRun) -> None:
    stuck = run.arm.position.copy()
    run.sense = lambda position: stuck


def _late_states(run: DrillRun) -> None:
    run.stamp_lag_ns = 400 * MS


def _slow_inference(run: DrillRun) -> None:
    run.latency = 1000


def _inference_dies(run: DrillRun) -> None:
    run.runtime.infer_failed("the process ended with status 9")


def _clock_jump(run: DrillRun) -> None:
    run.clock_offset_ns += 3600 * 1000 * MS


def _clock_back(run: DrillRun) -> None:
    run.clock_offset_ns -= 1000 * MS


def _slow_ticks(run: DrillRun) -> None:
    run.tick_stride = 20


def _second_publisher(run: DrillRun) -> None:
    run.runtime.publishers(2)


def _emergency_stop(run: DrillRun) -> None:
    run.runtime.command(Event.FAULT, "emergency stop")


def _killed(run: DrillRun) -> None:
    run.alive = False


def _stop(run: DrillRun) -> None:
    run.runtime.command(Event.STOP)


def _pause(run: DrillRun) -> None:
    run.runtime.command(Event.PAUSE)


FAULTS: dict[str, Fault] = {
    "NaN chunk": _nan_chunk,
    "chunk far outside the limits": _far_chunk,
    "chunk of the wrong shape": _wrong_shape,
    "no joint states": _no_states,
    "joint states NaN": _nan_states,
    "joint states frozen": _frozen_states,
    "joint states 400 ms late": _late_states,
    "inference too slow": _slow_inference,
    "inference died": _inference_dies,
    "clock forwards 1 h": _clock_jump,
    "clock back 1 s": _clock_back,
    "ticks every 200 ms": _slow_ticks,
    "second publisher": _second_publisher,
    "emergency stop": _emergency_stop,
    "runtime killed": _killed,
    "stop": _stop,
    "pause": _pause,
}
"""What the drill injects, by name."""


@dataclass(frozen=True)
class DrillResult:
    """One row of the table; times in ms.

    Attributes:
        fault: What was injected.
        reason: What the runtime said; "" if it could not.
        detected_ms: From the injection until it was noticed; NaN if nobody could notice.
        rest_ms: From the injection until nothing moved.
        braking_ms: From noticing (or injection) until nothing moved.
        violations: Samples of the commanded motion beyond a limit.
    """

    fault: str
    reason: str
    detected_ms: float
    rest_ms: float
    braking_ms: float
    violations: int


def run_drill(
    name: str, limits: MotionLimits, home: np.ndarray, *, after: int = 0, ticks: int = 200
) -> DrillResult:
    """Inject one fault into a running motion and measure the stop.

    Args:
        name: A key of `FAULTS`.
        limits: Limits of the arm.
        home: (n,) middle of the swing [rad].
        after: Ticks that pass before the injection, beyond the first second.
        ticks: Ticks that are watched after it.
    """
    run = start_drill(limits, home)
    run.run(after)
    injected, begun = run.now_ns, len(run.ticks)
    FAULTS[name](run)
    run.run(ticks)
    noticed = next((i for i, tick in enumerate(run.ticks[begun:]) if tick.fault or not tick.segment), None)
    detected = float("nan") if noticed is None else (run.times[begun + noticed] - injected) / MS
    rest = run.rest_after(injected)
    reason = run.ticks[-1].fault if run.alive else ""
    return DrillResult(
        name,
        reason,
        detected,
        rest,
        max(0.0, rest - (0.0 if noticed is None else detected)),
        sum(run.violations().values()),
    )


def drill_table(results: list[DrillResult]) -> str:
    """The results as a Markdown table."""
    rows = [
        "| fault | noticed [ms] | at rest [ms] | braking [ms] | violations | reason |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        detected = "–" if np.isnan(r.detected_ms) else f"{r.detected_ms:.0f}"
        rows.append(
            f"| {r.fault} | {detected} | {r.rest_ms:.0f} | {r.braking_ms:.0f} | {r.violations} | {r.reason} |"
        )
    return "\n".join(rows)
