"""Receivers that get one point at a time: what is sent when ticks jitter, come late, or the motion ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from robot_deploy.drill import MS, DrillRun, start_drill
from robot_deploy.motion.limits import MotionLimits
from robot_deploy.supervision.states import Event, State

PERIOD_S = 0.01


class Stream:
    """A runtime in motion whose positions go to a receiver that keeps the last one, as `Outputs` sends them."""

    def __init__(self, panda: MotionLimits, home: np.ndarray, *, waits: bool = True) -> None:
        patient: dict[str, Any] = {"feedback_age_ms": 500.0, "period_factor": 50.0}
        self.run: DrillRun = start_drill(panda, home, waits=waits, watchdogs=_dogs(patient))
        self.sent: list[np.ndarray] = []
        self.random = np.random.default_rng(0)

    def tick(self, count: int, *, late_ns: int = 0, jitter: bool = True) -> None:
        """Ticks 10 ms apart, each up to 0.4 ms early or late; `late_ns` passes before the first."""
        run = self.run
        for number in range(count):
            run.now_ns += late_ns if number == 0 else 0
            grid_ns = run.now_ns
            run.now_ns += int(self.random.integers(-400_000, 400_000)) if jitter else 0
            clock = run.now_ns + run.clock_offset_ns
            run.runtime.sample(
                "joints", run.arm.position, stamp_ns=clock, clock_ns=clock, names=run.limits.names
            )
            while run._pending and run._pending[0][0] <= run._count:
                request = run._pending.pop(0)[1]
                run.runtime.chunk(run.predict(request.window, run.home), ticket=request.ticket)
            tick = run.runtime.tick(run.now_ns, clock_ns=clock)
            run._count += 1
            if tick.request is not None:
                run._pending.append((run._count + run.latency, tick.request))
            if tick.send and tick.trajectory is not None:
                position, _, _ = tick.trajectory.at(run.now_ns + tick.trajectory.period_ns)
                self.sent.append(position)
                run.arm.position = position.copy()  # the receiver is there and stays there
            run.now_ns = grid_ns + 10 * MS

    def largest_step(self) -> float:
        """Largest share of what the velocity limits allow in a period, from one message to the next."""
        steps = np.abs(np.diff(np.stack(self.sent), axis=0))
        return float((steps / (self.run.limits.velocity * PERIOD_S)).max())

    def roughness(self) -> float:
        """Largest change of the step from one message to the next, as a share of the acceleration limits."""
        bends = np.abs(np.diff(np.stack(self.sent), n=2, axis=0))
        return float((bends / (self.run.limits.acceleration * PERIOD_S**2)).max())


def _dogs(values: dict[str, Any]) -> Any:
    from robot_deploy.supervision.watchdogs import WatchdogConfig

    return WatchdogConfig(**values)


def test_jitter_sends_no_point_twice(panda: MotionLimits, home: np.ndarray):
    """Ticks some tenths of a millisecond early or late: every message goes on, and none catches up."""
    stream = Stream(panda, home)
    stream.tick(300)
    assert len(stream.sent) == 300
    moved = np.abs(np.diff(np.stack(stream.sent), axis=0)).max(axis=1)
    assert moved.min() > 0.0
    # A period of motion and 8 % of it, by which two ticks may lie farther apart.
    assert stream.largest_step() < 1.08
    assert stream.roughness() < 3.0, "whole knots instead, some of them twice, make it 35"


@pytest.mark.parametrize(("waits", "bound"), [(True, 1.6), (False, 10.0)])
def test_after_a_gap_the_motion_goes_on_where_the_receiver_stands(
    panda: MotionLimits, home: np.ndarray, waits: bool, bound: float
):
    """A tick 80 ms late: no jump for a receiver that waited; for one that executes trajectories, time went on."""
    stream = Stream(panda, home, waits=waits)
    stream.tick(60, jitter=False)
    usual = stream.largest_step()
    stream.tick(60, late_ns=80 * MS, jitter=False)
    assert stream.run.runtime.machine.state is State.AUTONOMOUS
    assert stream.largest_step() < bound * usual
    if not waits:
        assert stream.largest_step() > 3.0 * usual


@pytest.mark.parametrize(("late_ns", "waits"), [(13 * MS, True), (120 * MS, True), (120 * MS, False)])
@pytest.mark.parametrize("event", [Event.STOP, Event.FAULT])
def test_the_last_point_is_where_the_motion_rests(
    panda: MotionLimits, home: np.ndarray, event: Event, late_ns: int, waits: bool
):
    """Also if a tick is so late that the motion has ended meanwhile; and then nothing more is sent."""
    stream = Stream(panda, home, waits=waits)
    stream.tick(50)
    stream.run.runtime.command(event)
    stream.tick(4)
    stream.tick(80, late_ns=late_ns)
    runtime = stream.run.runtime
    assert runtime.at_rest
    assert runtime.machine.state is (State.IDLE if event is Event.STOP else State.FAULT)
    np.testing.assert_array_equal(stream.sent[-1], runtime._plan.commanded)
    if waits:
        assert np.abs(stream.sent[-1] - stream.sent[-2]).max() < 1e-3
    count = len(stream.sent)
    stream.tick(20)
    assert len(stream.sent) == count
