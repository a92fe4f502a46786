"""Motions as messages: the same, whether the message is new or used again."""

import numpy as np
import pytest

from robot_deploy.motion.trajectory import Trajectory

pytest.importorskip("rclpy", reason="rclpy is not installed", exc_type=ImportError)

NAMES = ("a", "b", "c")
PERIOD_NS = 300_000_000  # several knots beyond a second


def _motion(seed: int, moving: int, resting: int) -> Trajectory:
    random = np.random.default_rng(seed)
    q, v = random.normal(size=(2, moving + resting, len(NAMES)))
    v[moving:], q[moving:] = 0.0, q[-1]
    return Trajectory(NAMES, 0, PERIOD_NS, q, v, np.zeros_like(q))


def test_a_message_that_is_used_again_holds_the_motion_and_nothing_else():
    """Every moving knot, the one where rest begins and the last one are there, whatever the message held before."""
    from robot_deploy.nodes.outputs import TrajectoryMessage

    message = TrajectoryMessage(NAMES, PERIOD_NS)
    for seed, (moving, resting) in enumerate([(3, 1), (9, 4), (0, 5), (2, 2), (0, 1), (12, 1), (1, 3)]):
        motion, begin_ns = _motion(seed, moving, resting), 17 * 10**9 + seed
        got = message.filled(motion, begin_ns)
        kept = [*range(moving + 1), len(motion) - 1] if resting > 1 else list(range(len(motion)))
        assert got.joint_names == list(NAMES)
        assert (got.header.stamp.sec, got.header.stamp.nanosec) == (17, seed)
        assert [list(point.positions) for point in got.points] == motion.positions[kept].tolist()
        assert [list(point.velocities) for point in got.points] == motion.velocities[kept].tolist()
        times = [point.time_from_start.sec * 10**9 + point.time_from_start.nanosec for point in got.points]
        assert times == [k * PERIOD_NS for k in kept]
        assert not any(len(point.accelerations) for point in got.points)
