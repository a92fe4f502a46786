"""MoveIt Servo's side of the policy node, over real DDS: stamps, frame, limits, and what a stop looks like."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from robot_datasets.features import STATE, Feature
from robot_datasets.mapping import ConfigError
from robot_deploy.deployment import load_deployment
from robot_deploy.graph import Graph

PATIENCE_S = 60.0
TOPIC = "/servo_node/delta_twist_cmds"
JOINTS = [f"panda_joint{i}" for i in range(1, 8)]
HAND = ("vx", "vy", "vz", "wx", "wy", "wz")
UNITS = (*["m/s"] * 3, *["rad/s"] * 3)
WANTED = np.array([0.05, -0.04, 0.03, 0.2, -0.1, 0.3])  # m/s, rad/s: the policy's, give or take 0.01
SPEED = [0.1] * 3 + [0.25] * 3  # wz wants more than that
ACCELERATION = [0.5] * 3 + [2.0] * 3
MLP = {
    "policy": {
        "type": "regression",
        "network": {"type": "mlp", "width": 16, "n_blocks": 1, "expansion": 1, "step_embed_dim": 8},
    }
}


@pytest.fixture
def cell(tmp_path: Path, make_still: Callable[..., Path]) -> Path:
    """A policy that pushes steadily, and limits of the hand."""
    state = Feature(dtype="float32", shape=(7,), names=tuple(JOINTS), units=("rad",))
    action = Feature(
        dtype="float32",
        shape=(6,),
        names=HAND,
        units=UNITS,
        frame="panda_link0",
        meaning="velocity of the hand",
    )
    make_still(tmp_path / "checkpoint", MLP, {STATE: state}, action, WANTED)
    robot = {
        "robot": "hand", "source": "this test", "joints": list(HAND), "lower": [-1e6] * 6, "upper": [1e6] * 6,
        "velocity": SPEED, "acceleration": ACCELERATION, "jerk": [20.0] * 3 + [80.0] * 3, "position_margin": 0.0,
    }  # fmt: skip
    (tmp_path / "hand.yaml").write_text(yaml.safe_dump(robot))
    config = {
        "robot": "hand.yaml",
        "checkpoint": "checkpoint",
        "mode": "live",
        "streams": {
            "joints": {
                "kind": "state", "topic": "/joint_states", "names": JOINTS, "max_age_ms": 5000.0, "max_gap_ms": 5000.0
            }
        },
        "features": {STATE: [{"source": "joints"}]},
        "targets": [{"target": "servo_twist", "frame": "panda_link0"}],
        "runtime": {
            "watchdogs": {
                "feedback_age_ms": 5000.0, "observation_patience_ms": 20_000.0, "inference_deadline_ms": 20_000.0,
                "stall_ms": 20_000.0, "period_factor": 500.0,
            }
        },
    }  # fmt: skip
    file = tmp_path / "cell.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def test_a_twist_without_a_frame_is_refused(cell: Path):
    """Velocities of a hand mean nothing without the frame they are in."""
    config = yaml.safe_load(cell.read_text())
    config["targets"] = [{"target": "servo_twist"}]
    cell.write_text(yaml.safe_dump(config))
    with pytest.raises(ConfigError, match="needs 'frame'"):
        load_deployment(cell).runtime_config()


def test_a_hand_is_pushed_within_limits_and_let_go_by_zero(
    ros_domain: dict[str, str], tmp_path: Path, cell: Path
):
    """Speeds rise no faster than they may, and no higher; a stop ramps down to exactly zero, then silence."""
    heard = _push(ros_domain, tmp_path / "logs", cell)
    stamps = np.array([stamp for stamp, _, _ in heard])
    ages_ms = np.array([arrived - stamp for stamp, arrived, _ in heard]) * 1e-6
    twists = np.stack([twist for _, _, twist in heard])
    assert np.all(np.diff(stamps) > 0)
    assert ages_ms.min() >= 0.0
    assert np.median(ages_ms) < 50.0, "Servo refuses old commands"
    assert np.isfinite(twists).all()
    assert np.all(np.abs(twists) <= np.array(SPEED) + 1e-9)
    np.testing.assert_allclose(np.abs(twists).max(axis=0)[:5], np.abs(WANTED[:5]), atol=0.02)
    assert np.abs(twists[:, 5]).max() == pytest.approx(SPEED[5], rel=0.02), "the limit, not the policy's 0.3"
    # A point half a period later than usual is as much farther along the ramp.
    assert np.all(np.abs(np.diff(twists, axis=0)) <= 1.6 * 0.01 * np.array(ACCELERATION))
    assert np.abs(twists[0]).max() < 0.02, "from rest"
    assert np.all(twists[-1] == 0.0), "the last word is zero, not Servo's timeout"
    assert np.abs(twists[-20:]).max() > 0.05, "it was in motion when it was stopped"


def _push(domain: dict[str, str], logs: Path, cell: Path) -> list[tuple[int, int, np.ndarray]]:
    """Drive, stop; stamps, arrivals [ns] and twists of all messages."""
    from geometry_msgs.msg import TwistStamped
    from sensor_msgs.msg import JointState
    from std_msgs.msg import String

    from robot_deploy.nodes.client import GraphClient
    from robot_deploy.nodes.qos import EVENTS, LATCHED
    from robot_deploy.nodes.stamps import from_ns, to_ns

    heard: list[tuple[int, int, np.ndarray]] = []
    frames: set[str] = set()

    def take(message: Any) -> None:
        v, w = message.twist.linear, message.twist.angular
        frames.add(message.header.frame_id)
        heard.append((to_ns(message.header.stamp), time.time_ns(), np.array([v.x, v.y, v.z, w.x, w.y, w.z])))

    with Graph(domain, logs) as graph, GraphClient("servo") as client:
        graph.start(
            "policy",
            "robot_deploy.nodes.policy_node",
            {"deployment": str(cell), "executor_timeout_ms": 5000.0},
        )
        states = client.node.create_publisher(JointState, "/joint_states", EVENTS)

        def sense() -> None:
            message = JointState(name=JOINTS, position=[0.1] * 7)
            message.header.stamp = from_ns(time.time_ns())
            states.publish(message)

        client.node.create_timer(0.01, sense)
        client.node.create_subscription(TwistStamped, TOPIC, take, EVENTS)
        client.follow(String, "/policy/state", LATCHED)
        assert client.change("/policy", "configure", timeout=2 * PATIENCE_S), graph.tail("policy")
        client.wait_for(lambda: client.change("/policy", "activate"), PATIENCE_S, what="fresh observations")
        client.wait_for(
            lambda: bool(heard) and abs(heard[-1][2][5]) > 0.99 * SPEED[5],
            PATIENCE_S,
            what="a hand in motion",
        )
        client.wait(0.3)
        assert client.change("/policy", "deactivate")
        client.wait(0.3)
        count = len(heard)
        client.wait(0.5)
        assert len(heard) == count, "after the stop nothing is commanded"
        assert client.last["/policy/state"].data == "idle", graph.tail("policy")
    assert frames == {"panda_link0"}
    return heard
