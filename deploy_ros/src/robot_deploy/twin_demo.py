"""The twin's demo: a surrogate cell, its twin, a policy in the twin, and an arm that follows, as processes over ROS.

The graph of ``launch/twin.launch.py``, in a ROS domain of its own, for machines that have rclpy and no ``ros2 launch``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robot_datasets.errors import UserError
from robot_deploy.graph import Graph
from robot_sim.worker_environment import environment_variables

_PATIENCE_S = 120.0  # for a node to come up


@dataclass(frozen=True, kw_only=True)
class TwinDemoConfig:
    """What to run.

    Attributes:
        checkpoint: A policy for the cell's task.
        cell: A cell that comes along, or a YAML file.
        deployment: Preset or YAML file of the arm that follows.
        seed: Episode of the surrogate.
        seconds: How long, if the task is not solved before [s].
        logs: Folder of the nodes' logs.
    """

    checkpoint: str
    cell: str = "tabletop_push_t"
    deployment: str = "twin_demo"
    seed: int = 100_000
    seconds: float = 30.0
    logs: Path = Path("runs/deploy_twin/logs")


@dataclass
class TwinDemoResult:
    """What happened.

    Attributes:
        success: Whether the surrogate solved the task.
        twin_success: Whether the twin says so.
        seconds: From the start to the end [s].
        waited: Share of that time in which the twin held its policy.
        fault: Why the policy node stopped; "" if it did not.
        twin: What the twin's node last said on ``/diagnostics``: status -> message and values.
        audit: What the surrogate's judge says of all commands.
    """

    success: bool = False
    twin_success: bool = False
    seconds: float = 0.0
    waited: float = 0.0
    fault: str = ""
    twin: dict[str, dict[str, str]] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)


def run_twin_demo(
    config: TwinDemoConfig, *, progress: Callable[[float, str], None] | None = None
) -> TwinDemoResult:
    """Run an episode and return what happened.

    Args:
        config: What to run.
        progress: Called once a second with the time [s] and the twin's state.

    Raises:
        UserError: A node did not come up, or died.
    """
    from robot_deploy.nodes.client import GraphClient
    from robot_deploy.nodes.isolation import own_domain

    with (
        own_domain() as domain,
        environment_variables(domain),
        Graph(domain, config.logs) as graph,
        GraphClient("person") as client,
    ):
        system = TwinSystem(graph, client)
        system.start(config)
        return _episode(config, system, progress)


class TwinSystem:
    """The nodes of a graph with a twin, and who asks them.

    Args:
        graph: Where they run.
        client: Who asks.

    Attributes:
        graph: Where they run.
        client: Who asks.
        statuses: What was last said on ``/diagnostics``, by name.
    """

    def __init__(self, graph: Graph, client: Any) -> None:
        from diagnostic_msgs.msg import DiagnosticArray
        from sensor_msgs.msg import JointState
        from std_msgs.msg import Bool, String

        from robot_deploy.nodes.qos import EVENTS, LATCHED, SENSOR

        self.graph, self.client = graph, client
        self.statuses: dict[str, Any] = {}
        client.follow(JointState, "/joint_states", SENSOR)
        client.follow(String, "/surrogate/audit", EVENTS)
        client.follow(Bool, "/surrogate/success", LATCHED)
        client.follow(Bool, "/twin/success", LATCHED)
        client.follow(String, "/twin/state", LATCHED)
        client.follow(String, "/policy/state", LATCHED)
        client.node.create_subscription(DiagnosticArray, "/diagnostics", self._keep, EVENTS)

    def start(self, config: TwinDemoConfig, **changes: dict[str, Any]) -> None:
        """Bring everything up, to where the policy leads the twin and the arm follows.

        Args:
            config: What to run.
            changes: Node -> parameters on top.

        Raises:
            UserError: A node did not come up, or died.
        """
        follows = {"deployment": config.deployment}
        cell = {"cell": config.cell}
        parameters: dict[str, dict[str, Any]] = {
            "twin": {**cell, "checkpoint": str(Path(config.checkpoint).absolute())},
            "tracker": {**follows, "max_age_ms": 300.0},
            "policy": {**follows, "mode": "tracker"},
            "surrogate": {**cell, "seed": config.seed},
        }
        modules = {"surrogate": "surrogate_cell_node"}
        for name, values in parameters.items():
            module = f"robot_deploy.nodes.{modules.get(name, f'{name}_node')}"
            self.graph.start(name, module, {**values, **changes.get(name, {})})
            if name == "twin":  # it takes longest, and nothing else shall use the machine meanwhile
                self.until(lambda: self.said("/twin/state") == "mirroring", what="the twin")
        self.until(lambda: "/joint_states" in self.client.last, what="the surrogate")
        if not self.client.change("/policy", "configure", timeout=_PATIENCE_S):
            raise UserError(f"the policy node could not be configured: {self.graph.tail('policy')}")
        self.until(lambda: self.client.change("/policy", "activate"), what="the policy node's activation")
        self.until(self._started, what="the twin's start")

    def until(self, condition: Callable[[], Any], *, what: str, timeout: float = _PATIENCE_S) -> None:
        """Wait for something while all nodes live.

        Raises:
            UserError: It does not come, or a node died.
        """

        def holds() -> bool:
            self.graph.require_alive()
            return bool(condition())

        self.client.wait_for(holds, timeout, what=what)

    def said(self, topic: str) -> Any:
        """What was last said on a topic of one field; None for nothing."""
        return self.client.last[topic].data if topic in self.client.last else None

    def audit(self) -> dict[str, Any]:
        """What the surrogate's judge says now."""
        self.client.last.pop("/surrogate/audit", None)
        self.until(lambda: "/surrogate/audit" in self.client.last, what="the audit")
        return json.loads(self.said("/surrogate/audit"))

    def _started(self) -> bool:
        from std_srvs.srv import Trigger

        return self.client.call(Trigger, "/twin/start", Trigger.Request()).success

    def _keep(self, array: Any) -> None:
        self.statuses |= {status.name: status for status in array.status}


def _episode(
    config: TwinDemoConfig, system: TwinSystem, progress: Callable[[float, str], None] | None
) -> TwinDemoResult:
    result, began, told = TwinDemoResult(), time.monotonic(), 0.0
    turns = held = 0
    while result.seconds < config.seconds:
        system.client.wait(0.05)
        result.seconds = time.monotonic() - began
        system.graph.require_alive()
        turns += 1
        held += system.said("/twin/state") == "holding"
        if progress is not None and result.seconds >= told:
            progress(result.seconds, str(system.said("/twin/state")))
            told += 1.0
        if system.said("/surrogate/success") or system.said("/policy/state") == "fault":
            break
    result.waited = held / max(1, turns)
    system.client.wait(1.0)  # for the last reports
    result.success = bool(system.said("/surrogate/success"))
    result.twin_success = bool(system.said("/twin/success"))
    if system.said("/policy/state") == "fault":
        result.fault = system.statuses["policy"].message if "policy" in system.statuses else "not told"
    for name, status in system.statuses.items():
        if name.startswith("twin"):
            result.twin[name] = {"message": status.message} | {v.key: v.value for v in status.values}
    result.audit = system.audit()
    system.client.trigger("/twin/stop")
    return result
