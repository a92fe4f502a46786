"""A twin in operation: what it hears is judged, it leads when it may, and waits when it must."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_datasets.errors import UserError
from robot_deploy.nodes.stamp_clock import ClockWentBackError, StampClock
from robot_deploy.observation.rings import Reason
from robot_deploy.surrogate.twin_cell import TwinCell
from robot_deploy.tracking.cell_listener import (
    FAR_OFF,
    JOINTS,
    NO_ROTATION,
    NO_VELOCITY,
    WRONG_FRAME,
    CellListener,
)
from robot_deploy.tracking.leading import AtOnce, PolicyError
from robot_deploy.tracking.policy_thread import PolicyThread
from robot_deploy.tracking.twin_session import TwinSession
from robot_sim.twin.cell import Cell, load_cell
from robot_sim.twin.surrogate import SurrogateConfig

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
POSE = [0.05, 0.02, 0.02, 0.0, 0.0, 0.0, 1.0]


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


@pytest.fixture
def listener(cell: Cell) -> CellListener:
    """Ears that have heard nothing."""
    return CellListener(cell, frame="world")


def _say_pose(listener: CellListener, pose=POSE, frame="world", stamp_ns=NOW, now_ns=NOW) -> str:
    return listener.pose("block", pose, frame=frame, stamp_ns=stamp_ns, now_ns=now_ns)


def test_good_messages_wait_until_the_twins_time(listener: CellListener, cell: Cell):
    """Joints come back in the cell's order, poses as wxyz, and nothing before the twin has reached its stamp."""
    names = ["finger", *reversed(cell.robot.joints)]
    positions, velocities = [9.0, 7, 6, 5, 4, 3, 2, 1], [0.0, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert listener.joints(names, positions, velocities, stamp_ns=NOW, now_ns=NOW) == ""
    turned = [0.05, 0.02, 0.02, 0.0, 0.0, np.sin(0.2), np.cos(0.2)]
    assert _say_pose(listener, turned, stamp_ns=NOW + 1000) == ""
    (joints,) = listener.fetch(NOW)
    assert joints.joints is not None
    np.testing.assert_array_equal(joints.joints.positions, np.arange(1, 8))
    np.testing.assert_allclose(joints.joints.velocities, 0.1 * np.arange(1, 8))
    (pose,) = listener.fetch(NOW + 1000)
    np.testing.assert_allclose(pose.objects["block"].quaternion, [np.cos(0.2), 0, 0, np.sin(0.2)])
    assert listener.fetch(NOW + SECOND) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pose": [np.nan, *POSE[1:]]}, Reason.NOT_FINITE.value),
        ({"pose": [np.inf, *POSE[1:]]}, Reason.NOT_FINITE.value),
        ({"pose": [1e12, *POSE[1:]]}, FAR_OFF),
        ({"pose": [*POSE[:3], 0.0, 0.0, 0.0, 0.0]}, NO_ROTATION),
        ({"frame": "camera"}, WRONG_FRAME),
        ({"frame": ""}, WRONG_FRAME),
        ({"stamp_ns": 0}, Reason.ZERO_STAMP.value),
        ({"stamp_ns": NOW - 2 * SECOND}, Reason.STALE.value),
        ({"stamp_ns": NOW + SECOND}, Reason.FUTURE_STAMP.value),
    ],
)
def test_bad_poses_are_refused_and_counted(listener: CellListener, changes, reason):
    """Each is refused by its own reason, and nothing of it reaches the twin."""
    assert _say_pose(listener, **changes) == reason
    assert listener.refused == {("block", reason): 1}
    assert listener.fetch(NOW + 10 * SECOND) == []


def test_poses_out_of_order_are_refused(listener: CellListener):
    """The second message is not newer than the first; after `forget`, when the clock was set back, it is."""
    assert _say_pose(listener) == ""
    assert _say_pose(listener, stamp_ns=NOW - 1000) == Reason.BACKWARDS.value
    listener.forget()
    assert _say_pose(listener, stamp_ns=NOW - 1000) == ""


def test_bad_joint_states_are_refused_and_counted(listener: CellListener, cell: Cell):
    """Other names, twice the same, too few numbers, no velocities, NaN, nonsense, too old."""
    names, q, v = list(cell.robot.joints), [0.1] * 7, [0.0] * 7

    def say(names=names, q=q, v=v, stamp_ns=NOW) -> str:
        return listener.joints(names, q, v, stamp_ns=stamp_ns, now_ns=NOW)

    assert say(names=[f"other_{n}" for n in names]) == Reason.MISSING_JOINT.value
    assert say(names=[names[0]] * 7) == Reason.WRONG_SIZE.value
    assert say(q=q[:6]) == Reason.WRONG_SIZE.value
    assert say(names=[], q=[], v=[]) == NO_VELOCITY
    assert say(v=[]) == NO_VELOCITY
    assert say(q=[np.nan, *q[1:]]) == Reason.NOT_FINITE.value
    assert say(v=[*v[:6], np.inf]) == Reason.NOT_FINITE.value
    assert say(q=[1e300, *q[1:]]) == FAR_OFF
    assert say(stamp_ns=NOW - SECOND) == Reason.STALE.value
    assert sum(listener.refused.values()) == listener.received[JOINTS] == 9
    assert listener.fetch(NOW + SECOND) == []
    assert say(names=[*names, "wheel"], q=[*q, 1e4], v=[*v, np.nan]) == ""  # somebody else's


def test_what_nobody_fetches_does_not_pile_up(listener: CellListener):
    """A loop that is stuck finds the newest messages, not all of them."""
    for step in range(1500):
        assert _say_pose(listener, stamp_ns=NOW + step, now_ns=NOW + step) == ""
    kept = listener.fetch(NOW + SECOND)
    assert len(kept) <= 1000
    assert kept[-1].stamp_ns == NOW + 1499


NUMBERS = st.floats(width=64) | st.sampled_from([0.0, 1.0, -0.5, 1e308, -1e308, 5e-324])
STAMPS = st.integers(-(2**62), 2**62) | st.integers(NOW - SECOND, NOW + SECOND)


@settings(max_examples=150, deadline=None)
@given(
    pose=st.lists(NUMBERS, min_size=7, max_size=7),
    names=st.lists(st.sampled_from([f"panda_joint{i}" for i in range(1, 9)]), max_size=10),
    numbers=st.lists(NUMBERS, max_size=24),
    stamps=st.tuples(STAMPS, STAMPS),
)
def test_hostile_messages_never_reach_the_twin(cell: Cell, pose, names, numbers, stamps):
    """Whatever comes is refused with a reason or is whole, finite and plausible; nothing raises."""
    listener = CellListener(cell, frame="world")
    half = len(numbers) // 2
    said = [
        listener.joints(names, numbers[:half], numbers[half:], stamp_ns=stamps[0], now_ns=NOW),
        _say_pose(listener, pose, stamp_ns=stamps[1]),
    ]
    messages = listener.fetch(2**63)
    assert len(messages) == said.count("")
    for message in messages:
        assert abs(message.stamp_ns - NOW) <= SECOND
        if message.joints is not None:
            assert np.abs([message.joints.positions, message.joints.velocities]).max() <= 100.0
        for seen in message.objects.values():
            assert np.abs(seen.position).max() <= 10.0
            assert np.linalg.norm(seen.quaternion) == pytest.approx(1.0)


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
        self.asked, self.says = 0, None

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
