"""The demo: a simulated arm, a policy and nothing else, in a ROS domain of their own; closed-loop episodes over ROS."""

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

EPISODE_S = 7.5
"""Length of an episode [s]: the task's 150 steps at 20 Hz."""

SETTLE_S = 0.4
"""Between a reset and the start: observations from before it must have left the windows [s]."""


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """What to run.

    Attributes:
        checkpoint: A policy for the task ``lift_joint``.
        deployment: Preset or YAML file.
        episodes: How many.
        seed_start: Seed of the first; those from 100000 on were never demonstrated.
        mode: ``live``, or ``dry_run``: everything is computed, nothing moves.
        realtime_priority: SCHED_FIFO priority of the command thread and the simulation, half of it for all other
            threads; 0 for none.
        cameras: Rendered and published as well.
        logs: Folder of the nodes' logs and the trace.
        recordings: A recorder puts a bag of all episodes into this folder; None for no recorder.
    """

    checkpoint: str
    deployment: str = "demo"
    episodes: int = 3
    seed_start: int = 100_000
    mode: str = "live"
    realtime_priority: int = 0
    cameras: tuple[str, ...] = ()
    logs: Path = Path("runs/deploy_demo/logs")
    recordings: Path | None = None


@dataclass
class DemoResult:
    """What happened.

    Attributes:
        lifted: Seed -> whether the cube was lifted.
        seconds: Seed -> time to success or to the end [s].
        faults: Seed -> why the policy node stopped, for those where it did.
        times: What the policy node measured: name -> quantiles [ms].
        audit: What the surrogate's judge says of all commands.
    """

    lifted: dict[int, bool] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    times: dict[str, str] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)


def run_demo(config: DemoConfig, *, progress: Callable[[int, bool, float], None] | None = None) -> DemoResult:
    """Run the episodes and return what happened.

    Args:
        config: What to run.
        progress: Called after every episode with its seed, success and time [s].

    Raises:
        UserError: A node did not come up, or died.
    """
    from robot_deploy.nodes.isolation import own_domain

    with (
        own_domain() as domain,
        environment_variables(domain),
        Graph(domain, config.logs, priority=config.realtime_priority // 2) as graph,
    ):
        graph.start(
            "fake_arm",
            "robot_deploy.nodes.fake_arm_node",
            {"cameras": list(config.cameras) or [""], "realtime_priority": config.realtime_priority},
        )
        graph.start(
            "policy",
            "robot_deploy.nodes.policy_node",
            {
                "deployment": config.deployment,
                "checkpoint": str(Path(config.checkpoint).absolute()),
                "mode": config.mode,
                "realtime_priority": config.realtime_priority,
                "trace": str((config.logs / "policy_trace.jsonl").absolute()),
            },
        )
        if config.recordings is not None:
            graph.start(
                "recorder",
                "robot_deploy.nodes.recorder_node",
                {
                    "deployment": config.deployment,
                    "checkpoint": str(Path(config.checkpoint).absolute()),
                    "folder": str(config.recordings.absolute()),
                },
            )
        return _episodes(config, graph, progress)


def _episodes(
    config: DemoConfig, graph: Graph, progress: Callable[[int, bool, float], None] | None
) -> DemoResult:
    from diagnostic_msgs.msg import DiagnosticArray
    from std_msgs.msg import Bool, String

    from robot_deploy.nodes.client import GraphClient
    from robot_deploy.nodes.qos import EVENTS, LATCHED

    result = DemoResult()
    with GraphClient("demo") as client:
        client.follow(Bool, "/fake_arm/success", LATCHED)
        client.follow(String, "/fake_arm/audit", EVENTS)
        client.follow(String, "/policy/state", LATCHED)
        client.follow(DiagnosticArray, "/diagnostics", EVENTS)
        if not client.change("/policy", "configure", timeout=240.0):
            raise UserError(f"the policy node could not be configured: {graph.tail('policy')}")
        client.wait_for(lambda: _arm_speaks(client, graph), 120.0, what="the simulated arm")
        active = False
        for seed in range(config.seed_start, config.seed_start + config.episodes):
            client.set_parameter("/fake_arm", "seed", seed)
            client.trigger("/fake_arm/reset")
            client.wait(SETTLE_S)
            _mark(client, config, "start")
            if active:
                client.trigger("/policy/start")
            elif not client.change("/policy", "activate"):
                raise UserError(f"the policy node could not be activated: {graph.tail('policy')}")
            active = True
            began = time.monotonic()
            while time.monotonic() < began + EPISODE_S and not _over(client):
                client.wait(0.02)
            result.seconds[seed] = time.monotonic() - began
            result.lifted[seed] = bool(client.last["/fake_arm/success"].data)
            _mark(client, config, "success" if result.lifted[seed] else "failure")
            _finish(client, result, seed)
            graph.require_alive()
            if progress is not None:
                progress(seed, result.lifted[seed], result.seconds[seed])
        client.wait(0.6)  # for the last reports
        result.audit = json.loads(client.last["/fake_arm/audit"].data)
        for status in client.last["/diagnostics"].status if "/diagnostics" in client.last else []:
            result.times |= {value.key: value.value for value in status.values}
    return result


def _mark(client: Any, config: DemoConfig, outcome: str) -> None:
    """Tell the recorder, if there is one, that an episode begins or how it ended."""
    if config.recordings is not None:
        client.trigger(f"/recorder/episode_{outcome}")


def _arm_speaks(client: Any, graph: Graph) -> bool:
    graph.require_alive()
    return "/fake_arm/audit" in client.last


def _over(client: Any) -> bool:
    success, state = client.last.get("/fake_arm/success"), client.last.get("/policy/state")
    return bool(success and success.data) or bool(state and state.data == "fault")


def _finish(client: Any, result: DemoResult, seed: int) -> None:
    if client.last["/policy/state"].data == "fault":
        client.wait(0.6)
        for status in client.last["/diagnostics"].status:
            result.faults[seed] = status.message
        client.trigger("/policy/reset")
    else:
        client.trigger("/policy/stop")
    client.wait_for(lambda: client.last["/policy/state"].data == "idle", 5.0, what="the arm at rest")
