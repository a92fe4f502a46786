"""Between runtime and world: commands are dated in a clock that does not jump while the arm moves."""

import time

import numpy as np
import pytest

from robot_deploy.drill import start_drill, swing
from robot_deploy.inference.client import Answer
from robot_deploy.motion.limits import MotionLimits
from robot_deploy.motion.trajectory import Trajectory
from robot_deploy.nodes.commander import Commander
from robot_deploy.nodes.measures import Trace
from robot_deploy.runtime_config import ChunkRequest
from robot_deploy.supervision.states import Event, State

PERIOD_NS = 10_000_000
HOUR_NS = 3_600_000_000_000


class ScriptedInference:
    """Answers at the next tick with the drill's swing, in this process."""

    def __init__(self, home: np.ndarray) -> None:
        self.home, self.asked = home, []

    def ask(self, request: ChunkRequest) -> None:
        self.asked.append(request)


class World:
    """A runtime in motion, driven by a commander, and a clock that somebody may set."""

    def __init__(self, limits: MotionLimits, home: np.ndarray) -> None:
        self.run = start_drill(limits, home)
        self.run.runtime.command(Event.STOP)
        self.run.run(60)
        self.offset_ns = self.run.clock_offset_ns
        self.published: list[tuple[int, int]] = []  # the tick's time, and what a stamp is ahead of it [ns]
        self.told: list[State] = []
        self.inference = ScriptedInference(home)
        self.commander = Commander(
            self.run.runtime, self._publish, lambda: time.monotonic_ns() + self.offset_ns,
            inference=self.inference,  # type: ignore[arg-type]
            trace=Trace(None), checks=lambda state: "", changed=lambda tick: self.told.append(tick.state),
            asked=lambda request: None,
        )  # fmt: skip

    def _publish(self, trajectory: Trajectory, *, now_ns: int, clock_ns: int) -> None:
        self.published.append((now_ns, clock_ns - now_ns))
        self.run.arm.trajectory = trajectory

    def tick(self, count: int) -> None:
        """Sense, answer, tick, and let the arm move."""
        run = self.run
        for _ in range(count):
            clock = run.now_ns + self.offset_ns
            self.commander.sample(
                "joints", run.arm.position, stamp_ns=clock, clock_ns=clock, names=run.limits.names
            )
            while self.inference.asked:
                request = self.inference.asked.pop(0)
                chunk = swing(request.window, run.home)
                self.commander.answered(
                    Answer(ticket=request.ticket, chunk=chunk, asked_ns=time.monotonic_ns(), predict_ms=0.0)
                )
            self.commander.tick(run.now_ns)
            run.arm.advance(run.now_ns, PERIOD_NS)
            run.now_ns += PERIOD_NS


@pytest.mark.parametrize("jump_ns", [HOUR_NS, -1_000_000_000])
def test_a_stop_is_dated_in_the_clock_that_the_motion_began_with(
    panda: MotionLimits, home: np.ndarray, jump_ns: int
):
    """The clock is set while the arm moves: the stop is commanded for now, and the next start is in the new clock."""
    world = World(panda, home)
    world.commander.command(Event.START)
    world.tick(60)
    assert world.told[-1] is State.AUTONOMOUS
    before = world.offset_ns
    world.offset_ns += jump_ns
    begun = len(world.published)
    world.tick(60)
    assert world.told[-1] is State.FAULT
    assert "clock jump" in world.commander.runtime.machine.fault
    assert len(world.published) > begun, "the stop is commanded"
    assert max(abs(ahead - before) for _, ahead in world.published) < 1_000_000
    assert world.commander.at_rest()

    world.commander.command(Event.RESET)
    world.tick(2)
    world.commander.command(Event.START)
    begun = len(world.published)
    world.tick(60)
    assert world.told[-1] is State.AUTONOMOUS
    assert max(abs(ahead - world.offset_ns) for _, ahead in world.published[begun:]) < 1_000_000
