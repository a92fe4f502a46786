"""The fault drill against real processes: a policy node, its inference and a simulated arm on real middleware.

What is measured is what the arm's controllers were told, every millisecond, by a judge in the arm's process; and
when the policy node noticed, by its own trace. Both use the machine's monotonic clock.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from robot_datasets.errors import UserError
from robot_deploy.graph import Graph

_STILL_S = 0.2
_ARM, _POLICY = "/fake_arm", "/policy"


@dataclass(frozen=True)
class DrillFault:
    """One thing that goes wrong.

    Attributes:
        name: What a person calls it.
        kind: ``inject`` (into the node), ``sensor`` (the arm's messages), ``signal`` (to the node),
            ``inference`` (signal to its process), ``publisher``, ``emergency``, ``deadman``, ``service``.
        value: Which one.
    """

    name: str
    kind: str
    value: Any = None


FAULTS: tuple[DrillFault, ...] = (
    DrillFault("chunk with NaN", "inject", "chunk_nan"),
    DrillFault("chunk with infinity", "inject", "chunk_inf"),
    DrillFault("chunk far outside the limits", "inject", "chunk_far"),
    DrillFault("chunk much too fast", "inject", "chunk_fast"),
    DrillFault("chunk of the wrong shape", "inject", "chunk_shape"),
    DrillFault("joint states dropped", "sensor", "states_dropped"),
    DrillFault("joint states NaN", "sensor", "states_nan"),
    DrillFault("joint states frozen", "sensor", "states_frozen"),
    DrillFault("joint states 400 ms late", "sensor", "states_late"),
    DrillFault("joint states reordered", "sensor", "states_reordered"),
    DrillFault("a joint is missing", "sensor", "states_missing_joint"),
    DrillFault("joint states without stamps", "sensor", "states_zero_stamp"),
    DrillFault("object pose dropped", "sensor", "pose_dropped"),
    DrillFault("clock 1 h forwards", "inject", "clock_forwards"),
    DrillFault("clock 1 s back", "inject", "clock_back"),
    DrillFault("callback stuck for 1 s", "inject", "callback_stuck"),
    DrillFault("callback raises", "inject", "callback_raises"),
    DrillFault("inference raises", "inject", "inference_raises"),
    DrillFault("inference hangs (SIGSTOP)", "inference", signal.SIGSTOP),
    DrillFault("second publisher", "publisher"),
    DrillFault("emergency stop", "emergency"),
    DrillFault("stop service", "service", "stop"),
    DrillFault("pause service", "service", "pause"),
    DrillFault("inference killed (SIGKILL)", "inference", signal.SIGKILL),
    DrillFault("node SIGTERM", "signal", signal.SIGTERM),
    DrillFault("node SIGINT", "signal", signal.SIGINT),
    DrillFault("node SIGKILL", "signal", signal.SIGKILL),
    DrillFault("node hangs (SIGSTOP)", "signal", signal.SIGSTOP),
)


@dataclass(frozen=True)
class DrillRow:
    """One repetition; times in ms after the injection.

    Attributes:
        fault: Name of the fault.
        noticed_ms: When the node was no longer autonomous; NaN if it could not say.
        rest_ms: When the last commanded motion was.
        violations: Samples of the commanded motion beyond a limit, this repetition's.
        largest: Largest shares of the limits so far.
        reason: What the node said.
    """

    fault: str
    noticed_ms: float
    rest_ms: float
    violations: int
    largest: dict[str, float]
    reason: str


class ProcessDrill:
    """A graph that is kept running from one fault to the next, as far as it survives them."""

    def __init__(
        self, graph: Graph, client: Any, checkpoint: str, logs: Path, *, priority: int = 0, seed: int = 0
    ) -> None:
        """Start arm and node.

        Args:
            graph: Where to start them.
            client: A `robot_deploy.nodes.client.GraphClient` in the same domain.
            checkpoint: A policy for ``lift_joint``; its chunks are computed and then replaced.
            logs: Folder of the traces.
            priority: SCHED_FIFO priority of command thread and simulation; 0 for none.
            seed: Of the moments at which faults come.
        """
        from std_msgs.msg import Bool, String

        from robot_deploy.nodes.qos import COMMAND, EVENTS, LATCHED

        self._graph, self._client, self._checkpoint = graph, client, checkpoint
        self._logs, self._priority, self._random = logs, priority, random.Random(seed)
        client.follow(String, f"{_ARM}/audit", EVENTS)
        client.follow(String, f"{_POLICY}/state", LATCHED)
        self._inject = client.node.create_publisher(String, f"{_POLICY}/inject", COMMAND)
        self._sensor = client.node.create_publisher(String, f"{_ARM}/fault", EVENTS)
        self._emergency = client.node.create_publisher(Bool, "/emergency_stop", LATCHED)
        self._string, self._bool = String, Bool
        self._runs, self._trace_at = 0, 0
        graph.start("fake_arm", "robot_deploy.nodes.fake_arm_node", {"realtime_priority": priority})
        self._start_node()
        client.wait_for(
            lambda: self._alive() and f"{_ARM}/audit" in client.last, 120.0, what="the simulated arm"
        )

    def _alive(self) -> bool:
        self._graph.require_alive()
        return True

    def _start_node(self) -> None:
        self._runs += 1
        self._trace, self._trace_at = self._logs / f"trace_{self._runs}.jsonl", 0
        self._client.last.pop(f"{_POLICY}/state", None)
        self._graph.start(
            "policy",
            "robot_deploy.nodes.drill_node",
            {
                "deployment": "demo",
                "checkpoint": self._checkpoint,
                "realtime_priority": self._priority,
                "trace": str(self._trace),
            },
        )
        self._client.wait_for_node(_POLICY, 120.0)
        if not self._client.change(_POLICY, "configure", timeout=240.0):
            raise UserError(f"the policy node could not be configured: {self._graph.tail('policy')}")
        self._active = False

    def run(self, fault: DrillFault) -> DrillRow:
        """Bring the arm into motion, let the fault happen, and watch until rest."""
        client = self._client
        if self._suspect:  # the last repetition broke off, or hurt the inference: begin with a new node
            self._graph.stop("policy", signal.SIGKILL)
        self._suspect = True
        self._into_motion()
        before = self._audit()
        client.wait(0.3 + 0.4 * self._random.random())
        if self._state() != "autonomous":
            raise UserError(
                f"the arm did not stay in motion before '{fault.name}': {self._graph.tail('policy')}"
            )
        injected, undo = time.monotonic_ns(), self._happen(fault)
        self._until_still(injected)
        after = self._audit()
        noticed, reason = self._noticed(injected)
        undo()
        self._suspect = fault.kind == "inference"
        violations = sum(after["violations"].values()) - sum(before["violations"].values())
        return DrillRow(
            fault.name,
            noticed,
            max(0.0, (after["moving_ns"] - injected) / 1e6),
            violations,
            after["largest"],
            reason,
        )

    def _into_motion(self) -> None:
        client = self._client
        process = self._graph.processes.get("policy")
        if process is None or process.poll() is not None:
            self._graph.processes.pop("policy", None)
            self._start_node()
        state = client.last.get(f"{_POLICY}/state")
        if state is not None and state.data == "paused":
            client.trigger(f"{_POLICY}/stop")
            client.wait_for(lambda: self._state() == "idle", 5.0, what="idle")
        if state is not None and state.data == "fault":
            self._patiently(lambda: client.trigger(f"{_POLICY}/reset"))
        client.trigger(f"{_ARM}/reset")
        client.wait(0.35)
        self._patiently(self._let_start)
        self._active = True
        client.wait_for(lambda: self._state() == "autonomous", 10.0, what="the policy in charge")

    def _let_start(self) -> None:
        if self._active:
            self._client.trigger(f"{_POLICY}/start")
        elif not self._client.change(_POLICY, "activate"):
            raise UserError(f"not activated: {self._graph.tail('policy')}")

    def _patiently(self, ask: Callable[[], object]) -> None:
        """Ask again while the answer is no: the arm may still be braking, or its messages be old."""
        for _ in range(19):
            try:
                ask()
                return
            except UserError:
                self._client.wait(0.2)
        ask()

    _reason = ""
    _suspect = False

    def _state(self) -> str:
        state = self._client.last.get(f"{_POLICY}/state")
        return "" if state is None else str(state.data)

    def _audit(self) -> dict[str, Any]:
        """The judge's next word."""
        self._client.last.pop(f"{_ARM}/audit", None)
        self._client.wait_for(lambda: f"{_ARM}/audit" in self._client.last, 5.0, what="the judge")
        return json.loads(self._client.last[f"{_ARM}/audit"].data)

    def _until_still(self, injected: int) -> None:
        until = time.monotonic() + 6.0
        while time.monotonic() < until:
            audit = self._audit()
            still = audit["now_ns"] - max(audit["moving_ns"], injected)
            if still > _STILL_S * 1e9 and self._state() != "autonomous":
                return
            process = self._graph.processes.get("policy")
            if still > _STILL_S * 1e9 and (process is None or process.poll() is not None or self._frozen):
                return

    _frozen = False

    def _happen(self, fault: DrillFault) -> Callable[[], None]:
        """Let it happen; return what puts things right again."""
        client, kind = self._client, fault.kind
        self._frozen = False
        if kind == "inject":
            self._inject.publish(self._string(data=fault.value))
            return lambda: self._say(self._inject, "none")
        if kind == "sensor":
            self._sensor.publish(self._string(data=fault.value))
            return lambda: self._say(self._sensor, "none")
        if kind == "emergency":
            self._emergency.publish(self._bool(data=True))
            return lambda: self._emergency.publish(self._bool(data=False))
        if kind == "service":
            client.trigger(f"{_POLICY}/{fault.value}")
            return lambda: None
        if kind == "publisher":
            from trajectory_msgs.msg import JointTrajectory

            from robot_deploy.nodes.qos import COMMAND

            other = client.node.create_publisher(JointTrajectory, "/arm_controller/joint_trajectory", COMMAND)

            def leave() -> None:
                client.node.destroy_publisher(other)
                client.wait(0.3)

            return leave
        process = self._graph.processes["policy"]
        if kind == "inference":
            os.kill(_child_of(process.pid), fault.value)
            return lambda: None
        os.kill(process.pid, fault.value)
        self._frozen = fault.value == signal.SIGSTOP

        def end() -> None:
            self._graph.stop("policy", signal.SIGKILL)

        return end

    def _say(self, publisher: Any, what: str) -> None:
        publisher.publish(self._string(data=what))
        self._client.wait(0.1)

    def _noticed(self, injected: int) -> tuple[float, str]:
        """From the node's trace: when it was no longer autonomous, and why."""
        self._client.wait(0.15)  # the trace is written ten times per second
        noticed, self._reason = float("nan"), ""
        with self._trace.open(encoding="utf-8") as file:
            file.seek(self._trace_at)
            while line := file.readline():
                if not line.endswith("\n"):
                    break
                self._trace_at = file.tell()
                row = json.loads(line)
                if row["t"] < injected or row["state"] == "autonomous":
                    if row["t"] >= injected and row.get("problems") and noticed != noticed:
                        noticed, self._reason = (row["t"] - injected) / 1e6, row["problems"][0]
                    continue
                if noticed != noticed:
                    noticed = (row["t"] - injected) / 1e6
                self._reason = row.get("fault", self._reason)
        return noticed, self._reason


def _child_of(pid: int) -> int:
    """The inference process: the only child of a policy node."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    if len(children) != 1:
        raise UserError(f"process {pid} has {len(children)} children, expected its inference")
    return int(children[0])
