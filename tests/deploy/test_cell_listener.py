"""What a cell says is judged before its twin hears it: refused with a reason and counted, or kept for its time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot_deploy.observation.rings import Reason
from robot_deploy.tracking.cell_listener import (
    FAR_OFF,
    JOINTS,
    NO_ROTATION,
    WRONG_FRAME,
    CellListener,
)
from robot_sim.twin.cell import Cell, load_cell

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
POSE = [0.05, 0.02, 0.02, 0.0, 0.0, 0.0, 1.0]


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
    """Other names, twice the same, too few numbers, NaN, nonsense, too old."""
    names, q, v = list(cell.robot.joints), [0.1] * 7, [0.0] * 7

    def say(names=names, q=q, v=v, stamp_ns=NOW) -> str:
        return listener.joints(names, q, v, stamp_ns=stamp_ns, now_ns=NOW)

    assert say(names=[f"other_{n}" for n in names]) == Reason.MISSING_JOINT.value
    assert say(names=[names[0]] * 7) == Reason.WRONG_SIZE.value
    assert say(q=q[:6]) == Reason.WRONG_SIZE.value
    assert say(names=[], q=[], v=[]) == Reason.MISSING_JOINT.value
    assert say(v=v[:6]) == Reason.WRONG_SIZE.value
    assert say(q=[np.nan, *q[1:]], v=[]) == Reason.NOT_FINITE.value
    assert say(q=[np.nan, *q[1:]]) == Reason.NOT_FINITE.value
    assert say(v=[*v[:6], np.inf]) == Reason.NOT_FINITE.value
    assert say(q=[1e300, *q[1:]]) == FAR_OFF
    assert say(stamp_ns=NOW - SECOND) == Reason.STALE.value
    assert sum(listener.refused.values()) == listener.received[JOINTS] == 10
    assert listener.fetch(NOW + SECOND) == []
    assert say(names=[*names, "wheel"], q=[*q, 1e4], v=[*v, np.nan]) == ""  # somebody else's


def test_velocities_that_a_driver_leaves_out_are_made_of_positions(listener: CellListener, cell: Cell):
    """A swing at 100 Hz, stamps that jitter, joints in another order: within 0.09 rad/s of the truth."""
    names, random = ["finger", *reversed(cell.robot.joints)], np.random.default_rng(1)
    times = np.cumsum(random.uniform(0.008, 0.012, 300))
    swing = np.sin(2.0 * np.pi * 0.5 * times[:, None] + np.arange(7)) * 0.3
    speeds = np.cos(2.0 * np.pi * 0.5 * times[:, None] + np.arange(7)) * 0.3 * np.pi
    for t, q in zip(times, swing, strict=True):
        stamp = NOW + round(t * SECOND)
        assert listener.joints(names, [9.0, *q[::-1]], [], stamp_ns=stamp, now_ns=stamp) == ""
    heard = [message.joints for message in listener.fetch(NOW + 10 * SECOND)]
    assert listener.derived == 300
    velocities = np.stack([joints.velocities for joints in heard if joints is not None])
    np.testing.assert_array_equal(velocities[0], 0.0)
    assert np.abs(velocities[20:] - speeds[20:]).max() < 0.09


def test_made_velocities_begin_anew_after_a_pause_a_jump_and_a_clock_set_back(
    listener: CellListener, cell: Cell
):
    """What is no motion gives no velocity; a message that is refused leaves no trace."""
    names = list(cell.robot.joints)

    def say(position: float, at_ms: float) -> str:
        stamp = NOW + round(at_ms * 1e6)
        return listener.joints(names, [position] * 7, [], stamp_ns=stamp, now_ns=stamp)

    def speed() -> float:
        newest = listener.fetch(NOW + 10 * SECOND)[-1].joints
        assert newest is not None
        return float(newest.velocities[0])

    def move() -> None:
        assert say(0.0, 0.0) == say(0.01, 10.0) == ""
        assert speed() == pytest.approx(1.0 - np.exp(-0.5))

    move()
    assert say(0.5, 10.0) == Reason.BACKWARDS.value
    assert say(0.02, 20.0) == ""
    assert speed() == pytest.approx(1.0 - np.exp(-1.0)), "the refused message was not taken into account"
    assert say(0.03, 200.0) == ""
    assert speed() == 0.0, "a pause of 180 ms"
    assert say(3.0, 210.0) == ""
    assert speed() == 0.0, "297 rad/s"
    listener.forget()
    move()


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
