"""A twin in operation: it leads when it may, waits when it must, and forgets what cannot be right."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import pytest

from robot_datasets.errors import UserError
from robot_deploy.nodes.stamp_clock import ClockWentBackError, StampClock
from robot_deploy.surrogate.twin_cell import TwinCell
from robot_deploy.tracking.cell_listener import CellListener
from robot_deploy.tracking.leading import AtOnce, PolicyError
from robot_deploy.tracking.policy_thread import PolicyThread
from robot_deploy.tracking.twin_session import TwinSession
from robot_sim.twin.cell import Cell, load_cell
from robot_sim.twin.surrogate import SurrogateConfig

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND


class Still:
    """Pulls the rod to where it was at the first step, or says something worse."""

    says: float | None = None

    def reset(self) -> None:
        """Begin."""
        self.place: np.ndarray | None = None

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Where to be."""
        if self.place is None:
            self.place = np.asarray(observation["observation.state"], dtype=float)
        return self.place if self.says is None else np.full(2, self.says)


@pytest.fixture(scope="module")
def cell() -> Cell:
    """The cell that comes along."""
    return load_cell("tabletop_push_t")


class Together:
    """A session and a surrogate cell by a clock of their own; the arm follows the twin perfectly."""

    def __init__(self, cell: Cell, policy: Still | None) -> None:
        self.cell = TwinCell(cell, SurrogateConfig(object_latency=0.02), seed=3)
        self.listener = CellListener(cell, frame="world")
        self.policy, self.now_ns = policy, NOW
        self.session = TwinSession(cell, None if policy is None else AtOnce(policy), start_ns=NOW)
        self.poses, self.states, self.hold, self.tracker = True, True, False, True

    def run(self, ticks: int) -> None:
        """Let time pass."""
        names = self.session.cell.robot.joints
        for _ in range(ticks):
            self.now_ns += self.session.cell.tick_ns
            for stamp_ns, message in self.cell.advance(self.now_ns):
                if message.joints is not None and self.states:
                    q, v = message.joints.positions, message.joints.velocities
                    assert self.listener.joints(names, q, v, stamp_ns=stamp_ns, now_ns=self.now_ns) == ""  # type: ignore[arg-type]
                for body, seen in message.objects.items() if self.poses else ():
                    pose = [*seen.position, *seen.quaternion[[1, 2, 3, 0]]]
                    said = self.listener.pose(
                        body, pose, frame="world", stamp_ns=stamp_ns, now_ns=self.now_ns
                    )
                    assert said == ""
            if self.tracker:
                self.session.tracker(hold=self.hold, now_ns=self.now_ns)
            self.session.time_is(self.now_ns)
            self.session.tick(self.listener.fetch(self.now_ns))
            if self.session.leading.leads:
                self.cell.controller.hold(self.session.leading.joints[0])


@pytest.fixture
def together(cell: Cell) -> Together:
    """A session that has been in step for a moment."""
    both = Together(cell, Still())
    both.run(8)
    return both


def test_a_twin_mirrors_until_it_is_started(together: Together):
    """Without a start the measured joints drive it; with one the policy acts at its rate, and ends when told."""
    session, surrogate = together.session, together.cell.surrogate
    assert not session.leading.leads
    np.testing.assert_allclose(session.leading.joints[0], surrogate.scene.joints[0], atol=0.01)
    session.start()
    together.run(12)
    assert session.leading.leads
    assert session.leading.steps == 2
    with pytest.raises(UserError, match="already"):
        session.start()
    session.stop()
    together.run(1)
    assert (session.leading.leads, session.held, session.ended) == (False, "", "")
    together.run(10)
    np.testing.assert_allclose(session.leading.joints[0], surrogate.scene.joints[0], atol=0.01)


def test_a_start_is_refused_with_the_reason(cell: Cell):
    """No policy, nothing heard, no tracker: each is one line."""
    with pytest.raises(UserError, match="checkpoint"):
        Together(cell, None).session.start()
    both = Together(cell, Still())
    with pytest.raises(UserError, match="not begun"):
        both.session.start()
    both.poses, both.tracker = False, False
    both.run(8)
    with pytest.raises(UserError, match="block is waiting"):
        both.session.start()
    both.poses = True
    both.run(8)
    with pytest.raises(UserError, match="tracker"):
        both.session.start()


@pytest.mark.parametrize(
    ("name", "value", "ticks", "reason"),
    [
        ("poses", False, 34, "block is blind"),
        ("states", False, 8, "joint state is"),
        ("hold", True, 2, "arm lags"),
        ("tracker", False, 32, "tracker is silent"),
    ],
)
def test_the_policy_is_held_and_goes_on(together: Together, name: str, value: bool, ticks: int, reason: str):
    """While something is missing no step is made, and the reason is told; afterwards it goes on by itself."""
    session = together.session
    session.start()
    together.run(6)
    setattr(together, name, value)
    together.run(ticks)
    assert reason in session.held
    steps = session.leading.steps
    together.run(8)
    assert session.leading.steps == steps
    setattr(together, name, not value)
    together.run(16)
    assert session.held == ""
    assert session.leading.steps > steps


class Thinking:
    """Is asked once, and answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.says: np.ndarray | None = None

    @property
    def ready(self) -> bool:
        """Not while it thinks."""
        return not self.asked or self.says is not None

    def reset(self) -> None:
        """Nothing to forget."""

    def ask(self, observation: Mapping[str, np.ndarray]) -> None:
        """Count."""
        del observation
        self.asked += 1

    def answer(self) -> np.ndarray | None:
        """What it was told."""
        return self.says


def test_the_twin_goes_on_while_the_policy_thinks(together: Together):
    """Late ticks are counted, the tool stays where it is; when the answer comes the tool goes there."""
    thinking = Thinking()
    together.session._policy = thinking
    together.session.start()
    before = together.session.leading.twin.world.tool
    together.run(20)
    leading = together.session.leading
    assert (leading.steps, thinking.asked) == (1, 1)
    assert leading.late > 5
    assert np.linalg.norm(leading.twin.world.tool - before) < 0.005
    thinking.says = np.array([-0.1, 0.1])
    distance = np.linalg.norm(before[:2] - thinking.says)
    together.run(30)
    assert leading.steps > 3
    assert np.linalg.norm(leading.twin.world.tool[:2] - thinking.says) < 0.5 * distance


def test_an_action_that_is_not_a_number_ends_the_lead(together: Together):
    """The twin mirrors again, says why, and its physics never saw the action."""
    together.session.start()
    together.run(6)
    assert together.policy is not None
    together.policy.says = float("nan")
    together.run(12)
    assert not together.session.leading.leads
    assert "not finite" in together.session.ended
    assert together.session.leading.twin.world.finite


def test_unstable_physics_is_forgotten(together: Together):
    """A twin whose state is no number any more is built anew, mirrors, and is in step again."""
    together.session.start()
    together.run(6)
    together.session.leading.twin.world.data.qvel[:] = np.nan
    together.run(1)
    assert not together.session.leading.leads
    assert "unstable" in together.session.ended
    together.run(8)
    assert together.session.report is not None
    assert together.session.report.lost == ()


def test_a_block_that_is_moved_is_found(together: Together):
    """Somebody moves the block by 4 cm: the twin's is there again within a second and a half."""
    assert together.cell.disturb("move block 0.04 0.0 0.2")
    together.run(90)
    twin, real = (
        together.session.leading.twin.world.pose("block"),
        together.cell.surrogate.truth("block"),
    )
    assert np.linalg.norm(twin[0][:2] - real[0][:2]) < 0.01


@pytest.mark.parametrize(
    "text", ["", "move", "move block 1", "move block a b c", "hide nan", "hide 1 2", "move x 0 0 0"]
)
def test_nonsense_disturbs_nothing(together: Together, text: str):
    """One line says what was expected."""
    with pytest.raises(UserError, match=r"expected|no number|could not"):
        together.cell.disturb(text)


def test_the_clock_of_the_stamps_ends_every_wait():
    """It waits until a time, but not for a time that came from before the clock was set back, nor after the end."""
    stop, now = threading.Event(), [NOW]

    def later() -> int:
        now[0] += 4_000_000
        return now[0]

    clock = StampClock(later, simulated=True, stop=stop)
    clock.sleep_until(NOW + SECOND // 10)
    assert now[0] >= NOW + SECOND // 10
    with pytest.raises(ClockWentBackError, match=r"3600\.\d s"):
        clock.sleep_until(now[0] + 3600 * SECOND)
    stop.set()
    clock.sleep_until(now[0] + 3600 * SECOND)


class Slow:
    """Answers when it is allowed to."""

    def __init__(self) -> None:
        self.allowed, self.resets = threading.Semaphore(0), 0

    def reset(self) -> None:
        """Count."""
        self.resets += 1

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Wait, then repeat what was asked; not a number raises."""
        assert self.allowed.acquire(timeout=60)
        value = observation["x"]
        if not np.isfinite(value).all():
            raise ValueError("no number")
        return value


def _until(condition) -> None:
    for _ in range(6000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("nothing happened")


def test_a_policy_thread_answers_when_it_is_done():
    """Nobody waits for it; what was asked before a reset is not answered; what it raises is told."""
    slow = Slow()
    thread = PolicyThread(slow)
    try:
        thread.reset()
        thread.ask({"x": np.ones(2)})
        assert not thread.ready
        assert thread.answer() is None
        slow.allowed.release()
        _until(lambda: thread.ready)
        np.testing.assert_array_equal(thread.answer(), np.ones(2))
        assert thread.answer() is None
        thread.ask({"x": np.ones(2)})
        _until(lambda: thread._busy)
        thread.reset()
        slow.allowed.release()
        _until(lambda: slow.resets == 2 and thread.ready)
        assert thread.answer() is None
        thread.ask({"x": np.array([np.nan])})
        slow.allowed.release()
        _until(lambda: thread.ready)
        with pytest.raises(PolicyError, match="ValueError: no number"):
            thread.answer()
    finally:
        thread.close()
    assert not thread._thread.is_alive()
