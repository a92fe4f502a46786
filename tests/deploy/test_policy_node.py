"""The policy node with a simulated arm, as processes over real DDS: begin, stop, emergency stop, refusals, end."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from robot_datasets.errors import UserError
from robot_datasets.features import ENVIRONMENT_STATE, STATE
from robot_deploy.deployment import PRESETS
from robot_deploy.graph import Graph
from robot_deploy.recording.contract import WINDOW_TOPIC

PATIENCE_S = 60.0  # an idle machine needs a few; a busy one is no failure


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    """The demo's deployment with watchdogs that a busy machine does not set off; they are tested elsewhere."""
    config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
    for stream in config["streams"].values():
        stream |= {"max_age_ms": 5000.0, "max_gap_ms": 5000.0}
    config["runtime"]["watchdogs"] = {
        "feedback_age_ms": 5000.0, "observation_patience_ms": 20_000.0, "inference_deadline_ms": 20_000.0,
        "stall_ms": 20_000.0, "period_factor": 500.0,
    }  # fmt: skip
    file = tmp_path / "cell.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


class System:
    """A simulated arm and a policy node, and who asks them."""

    def __init__(self, graph: Graph, client: Any) -> None:
        self.graph, self.client = graph, client

    def until(self, state: str) -> None:
        """Wait for a state of the policy node; a fault on the way to work is shown with its reason."""

        def reached() -> bool:
            said = self.said("/policy/state")
            assert said != "fault" or state != "autonomous", self.graph.tail("policy")
            return said == state

        self.client.wait_for(reached, 2 * PATIENCE_S, what=f"state {state}")

    def said(self, topic: str) -> Any:
        """What was last said on a topic; None for nothing."""
        return self.client.last[topic].data if topic in self.client.last else None

    def audit(self) -> dict[str, Any]:
        """A judgement that was not yet there when this is called."""
        self.client.last.pop("/fake_arm/audit", None)
        self.client.wait_for(lambda: "/fake_arm/audit" in self.client.last, PATIENCE_S, what="the audit")
        return json.loads(self.said("/fake_arm/audit"))


@contextmanager
def running(
    domain: dict[str, str], logs: Path, cell: Path, checkpoint: Path, *, arm: bool = True, **parameters: Any
) -> Iterator[System]:
    """Arm and policy node, up but unconfigured."""
    from std_msgs.msg import String

    from robot_deploy.nodes.client import GraphClient
    from robot_deploy.nodes.qos import EVENTS, LATCHED

    with Graph(domain, logs) as graph, GraphClient("person") as client:
        if arm:
            graph.start("fake_arm", "robot_deploy.nodes.fake_arm_node")
        graph.start(
            "policy",
            "robot_deploy.nodes.policy_node",
            {
                "deployment": str(cell),
                "checkpoint": str(checkpoint),
                "executor_timeout_ms": 5000.0,
                **parameters,
            },
        )
        client.follow(String, "/policy/state", LATCHED)
        client.follow(String, "/fake_arm/audit", EVENTS)
        yield System(graph, client)


def test_a_policy_moves_the_arm_until_a_person_stops_it(
    ros_domain: dict[str, str], tmp_path: Path, cell: Path, still_checkpoint: Path
):
    """Configure, activate, drive; an emergency stop latches until reset; SIGINT ends everything; no limit broken."""
    from sensor_msgs.msg import TimeReference
    from std_msgs.msg import Bool

    from robot_deploy.nodes.qos import EVENTS, LATCHED

    with running(ros_domain, tmp_path / "logs", cell, still_checkpoint) as system:
        system.client.follow(TimeReference, WINDOW_TOPIC, EVENTS)
        client, button = system.client, system.client.node.create_publisher(Bool, "/emergency_stop", LATCHED)
        assert client.change("/policy", "configure", timeout=2 * PATIENCE_S), system.graph.tail("policy")
        assert system.audit()["moving_ns"] == 0, "nothing is commanded before the node is active"
        client.wait_for(lambda: client.change("/policy", "activate"), PATIENCE_S, what="fresh observations")
        system.until("autonomous")
        client.wait_for(lambda: system.audit()["moving_ns"] > 0, PATIENCE_S, what="a moving arm")
        client.wait_for(lambda: WINDOW_TOPIC in client.last, PATIENCE_S, what="what the policy was given")
        assert json.loads(client.last[WINDOW_TOPIC].source).keys() == {STATE, ENVIRONMENT_STATE}

        button.publish(Bool(data=True))
        system.until("fault")
        with pytest.raises(UserError, match="the emergency stop is pressed; release it first"):
            client.trigger("/policy/reset")
        client.wait(0.5)
        stood = system.audit()["moving_ns"]
        client.wait(0.5)
        assert system.audit()["moving_ns"] == stood, "an emergency stop that is pressed lets nothing move"

        button.publish(Bool(data=False))
        client.wait_for(lambda: _succeeds(client, "/policy/reset"), PATIENCE_S, what="a reset")
        system.until("idle")
        client.trigger("/policy/start")
        system.until("autonomous")
        assert client.change("/policy", "deactivate")
        # Jerk and steps are the drill's business: a message that a busy machine delivers late makes both.
        violations = system.audit()["violations"]
        assert [violations[name] for name in ("position", "velocity", "acceleration")] == [0, 0, 0]
        process = system.graph.processes["policy"]
        system.graph.stop("policy", signal.SIGINT)
        assert process.returncode == 0, system.graph.tail("policy", 20)


def test_a_dry_run_commands_nothing(
    ros_domain: dict[str, str], tmp_path: Path, cell: Path, still_checkpoint: Path
):
    """It starts by itself and says on another topic what it would command; the arm's own has no publisher."""
    from trajectory_msgs.msg import JointTrajectory

    from robot_deploy.nodes.qos import SENSOR

    with running(
        ros_domain, tmp_path / "logs", cell, still_checkpoint, mode="dry_run", autostart=True
    ) as system:
        client = system.client
        shadow = "/policy/shadow/arm_controller/joint_trajectory"
        client.follow(JointTrajectory, shadow, SENSOR)
        system.until("autonomous")
        client.wait_for(lambda: shadow in client.last, PATIENCE_S, what="what would be commanded")
        assert client.node.count_publishers("/arm_controller/joint_trajectory") == 0
        assert system.audit()["moving_ns"] == 0


def test_a_policy_for_something_else_is_not_configured(
    ros_domain: dict[str, str], tmp_path: Path, cell: Path
):
    """Without its checkpoint the node stays unconfigured, and says why in its log."""
    with running(ros_domain, tmp_path / "logs", cell, tmp_path / "nowhere", arm=False) as system:
        assert not system.client.change("/policy", "configure", timeout=2 * PATIENCE_S)
        assert system.client.lifecycle_state("/policy") == "unconfigured"
        assert "does not exist" in system.graph.tail("policy")


def _succeeds(client: Any, service: str) -> bool:
    try:
        client.trigger(service)
    except UserError:
        return False
    return True
