"""The twin of a cell as a node (Real-is-Sim): kept in step with the cell, and, with a policy, what the arm follows.

Listens to ``/joint_states`` and to one PoseStamped per object, ``/objects/NAME/pose``, in the cell file's world frame.
Publishes each object's corrected pose as ``~/objects/NAME/pose``, and the twin's joints: as ``~/mirror`` while they
follow the measured ones, as ``~/joint_states`` while a policy leads. Only the second is for the tracker node: an arm
that follows a twin that follows the arm would drift. ``~/state`` (String: mirroring, leading, holding), ``~/in_step``
and ``~/success`` (Bool) are latched; ``/diagnostics`` has errors, their spread, rates and what was refused.

``~/start`` and ``~/stop`` (std_srvs/Trigger) let the policy of the parameter ``checkpoint`` lead, and end that. It is
held while the tracker's ``~/hold`` is true or the tracker is silent, while joint states are missing, and while a body
is not in step.
"""

from __future__ import annotations

import re
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64, String
from std_srvs.srv import Trigger

from robot_datasets.errors import UserError
from robot_datasets.mapping import ConfigError
from robot_deploy.nodes.guarded import guarded
from robot_deploy.nodes.parameters import declare_parameters
from robot_deploy.nodes.process import run_node
from robot_deploy.nodes.qos import EVENTS, LATCHED, SENSOR
from robot_deploy.nodes.robot_messages import joint_message, pose_message
from robot_deploy.nodes.stamp_clock import ClockWentBackError, StampClock
from robot_deploy.nodes.stamps import from_ns, to_ns
from robot_deploy.nodes.twin_status import session_state, twin_statuses
from robot_deploy.tracking.cell_listener import CellListener
from robot_deploy.tracking.policy_thread import PolicyThread
from robot_deploy.tracking.twin_session import SessionConfig, TwinSession
from robot_sim.twin.cell import Cell, load_cell
from robot_sim.twin.loop import LoopTiming, TwinLoop
from robot_sim.twin.twin import TwinReport

PARAMETERS: dict[str, Any] = {
    "cell": "",
    "checkpoint": "",
    "threads": 1,
    "joint_states": "/joint_states",
    "object_topic": "/objects/{object}/pose",
    "frame": "world",
    "tracker": "/tracker",
    "joint_age_ms": 100.0,
    "pose_age_ms": 1000.0,
    "tracker_age_ms": 500.0,
    "diagnostics_rate": 2.0,
}
ABOUT = {
    "cell": "a cell that comes along, or a YAML file; see robot_sim.twin.cell",
    "checkpoint": "checkpoint or run directory of a policy for the cell's task; empty for a twin that only mirrors",
    "threads": "of the policy's inference; 0 leaves it to torch",
    "joint_states": "topic of the measured JointState; without velocities they are made of the positions",
    "object_topic": "topics of the objects' PoseStamped; {object} stands for the name in the cell file",
    "frame": "frame_id of the objects' poses: the world frame of the cell file",
    "tracker": "name of the tracker node",
    "joint_age_ms": "older joint states are refused, and the policy is held without newer ones [ms]",
    "pose_age_ms": "older poses are refused [ms]",
    "tracker_age_ms": "the policy is held when the tracker says nothing for so long [ms]",
    "diagnostics_rate": "[Hz]",
}
RANGES = {
    "threads": (0, 64),
    "joint_age_ms": (10.0, 5000.0),
    "pose_age_ms": (10.0, 1200.0),
    "tracker_age_ms": (100.0, 5000.0),
    "diagnostics_rate": (0.1, 20.0),
}
_TOKEN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PATIENCE_S = 5.0
_REPORTED_S = 30.0  # what percentiles of the loop are of


class TwinNode(Node):
    """See the module's docstring."""

    def __init__(self, name: str = "twin", **options: Any) -> None:
        """Build the twin, load the policy, and begin to mirror."""
        super().__init__(name, **options)
        self.heartbeat_ns, self.finished = time.monotonic_ns(), threading.Event()
        p = declare_parameters(self, PARAMETERS, about=ABOUT, ranges=RANGES)
        self._cell = _cell(p)
        self._frame, self._ending = p["frame"], threading.Event()
        self._policy = _policy(p["checkpoint"], self._cell, threads=p["threads"])
        simulated = bool(self.get_parameter("use_sim_time").value)
        self._clock_ns: Callable[[], int] = (
            (lambda: self.get_clock().now().nanoseconds) if simulated else time.time_ns
        )
        self._stamp_clock = StampClock(self._clock_ns, simulated=simulated, stop=self._ending)
        self._listener = CellListener(
            self._cell, frame=p["frame"], joint_age_ms=p["joint_age_ms"], pose_age_ms=p["pose_age_ms"]
        )
        bounds = SessionConfig(joint_age_ms=p["joint_age_ms"], tracker_age_ms=p["tracker_age_ms"])
        self._session = TwinSession(self._cell, self._policy, bounds, start_ns=self._stamp_clock.now_ns())
        timing = LoopTiming.of_the_last(round(_REPORTED_S * self._cell.rates.twin))
        self._twin_loop = TwinLoop(
            self._session, self._arrived, clock=self._stamp_clock, on_report=self._publish, timing=timing
        )
        self._told: dict[Any, Any] = {}
        self._counted, self._since_ns = 0, time.monotonic_ns()
        self._advertise()
        self._subscribe(p)
        self.create_service(Trigger, "~/start", guarded(self, self._start, self._failed))
        self.create_service(Trigger, "~/stop", guarded(self, self._stop, self._failed))
        self.create_timer(1.0 / p["diagnostics_rate"], guarded(self, self._report, self._failed))
        self._thread = threading.Thread(target=self._run, name="twin", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the twin; a tracker that hears nothing lets the arm brake."""
        self._ending.set()
        self._thread.join(timeout=_PATIENCE_S)
        if self._policy is not None:
            self._policy.close()

    # --- in the executor's thread -----------------------------------------------------------------------------

    def _advertise(self) -> None:
        self._joints = self.create_publisher(JointState, "~/joint_states", EVENTS)
        self._mirror = self.create_publisher(JointState, "~/mirror", EVENTS)
        self._objects = {
            body: self.create_publisher(PoseStamped, f"~/objects/{body}/pose", EVENTS)
            for body in self._cell.objects
        }
        self._state = self.create_publisher(String, "~/state", LATCHED)
        self._in_step = self.create_publisher(Bool, "~/in_step", LATCHED)
        self._success = self.create_publisher(Bool, "~/success", LATCHED)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", EVENTS)

    def _subscribe(self, p: dict[str, Any]) -> None:
        def listen(kind: Any, topic: str, take: Callable[[Any], None], qos: Any = SENSOR) -> None:
            self.create_subscription(kind, topic, guarded(self, take, self._failed), qos)

        listen(JointState, p["joint_states"], self._hear_joints)
        for body in self._cell.objects:
            listen(PoseStamped, p["object_topic"].replace("{object}", body), self._hearer(body))
        if self._policy is not None:
            listen(Bool, f"{p['tracker']}/hold", lambda m: self._hear_tracker(hold=m.data), LATCHED)
            listen(Float64, f"{p['tracker']}/lag", lambda m: self._hear_tracker(hold=None))

    def _hear_joints(self, message: JointState) -> None:
        stamp_ns = to_ns(message.header.stamp)
        reason = self._listener.joints(
            list(message.name), message.position, message.velocity, stamp_ns=stamp_ns, now_ns=self._clock_ns()
        )
        self._complain("joint states", reason)

    def _hearer(self, body: str) -> Callable[[PoseStamped], None]:
        def hear(message: PoseStamped) -> None:
            p, q = message.pose.position, message.pose.orientation
            reason = self._listener.pose(
                body, [p.x, p.y, p.z, q.x, q.y, q.z, q.w], frame=message.header.frame_id,
                stamp_ns=to_ns(message.header.stamp), now_ns=self._clock_ns(),
            )  # fmt: skip
            self._complain(f"poses of '{body}'", reason)

        return hear

    def _hear_tracker(self, *, hold: bool | None) -> None:
        self._session.tracker(hold=hold, now_ns=time.monotonic_ns())

    def _complain(self, what: str, reason: str) -> None:
        if (
            reason and self._told.get(what) != reason
        ):  # once, until it is another one; the counts are diagnostics
            self.get_logger().warning(f"{what} are refused: {reason}")
        if reason:
            self._told[what] = reason

    def _start(self, request: Any, response: Any) -> Any:
        del request
        try:
            self._session.start()
        except UserError as error:
            response.success, response.message = False, str(error)
            return response
        response.success, response.message = True, "the policy leads as soon as the tracker lets it"
        self.get_logger().info("a policy leads the twin")
        return response

    def _stop(self, request: Any, response: Any) -> Any:
        del request
        self._session.stop()
        response.success, response.message = True, "the twin mirrors the cell"
        self.get_logger().info(response.message)
        return response

    def _report(self) -> None:
        if self._session.ended != self._told.get("ended", ""):
            self._told["ended"] = self._session.ended
            if self._session.ended:
                self.get_logger().error(f"the twin mirrors: {self._session.ended}")
        timing, now_ns = self._twin_loop.timing, time.monotonic_ns()
        rate = 1e9 * (timing.ticks - self._counted) / max(now_ns - self._since_ns, 1)
        self._counted, self._since_ns = timing.ticks, now_ns
        array = DiagnosticArray()
        array.header.stamp = from_ns(max(0, self._clock_ns()))
        array.status = twin_statuses(self.get_name(), self._session, self._listener, timing, rate=rate)
        self._diagnostics.publish(array)

    def _failed(self, reason: str) -> None:
        self.get_logger().error(f"{reason}; the policy does not lead any more")
        self._session.stop(reason.splitlines()[0])

    # --- in the loop's thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        """Tick until the node ends; a bug ends the node, and with it what the arm follows."""
        try:
            while not self._ending.is_set():
                try:
                    begin_ns = self._session.time_ns + self._cell.tick_ns
                    self._twin_loop.run(begin_ns=begin_ns, stop=self._ending.is_set)
                except ClockWentBackError as error:
                    self._listener.forget()
                    self._session.restart(self._stamp_clock.now_ns(), str(error))
        except Exception:  # noqa: BLE001  (whatever it is, it must not end the thread alone)
            self.get_logger().fatal(traceback.format_exc())
            self.finished.set()

    def _arrived(self, time_ns: int) -> Sequence[Any]:
        self._session.time_is(time.monotonic_ns())
        return self._listener.fetch(time_ns + self._cell.tick_ns)

    def _publish(self, report: TwinReport) -> None:
        leading, stamp = self._session.leading, from_ns(max(0, report.time_ns))
        positions, velocities = leading.joints
        out = self._joints if leading.leads else self._mirror
        if leading.leads or report.joint_age * 1e3 <= self._session.config.joint_age_ms:
            out.publish(joint_message(self._cell.robot.joints, positions, velocities, stamp))
        for body, said in report.bodies.items():
            if said.status != "waiting":  # before that it is the scene's default, not the cell's
                position, quaternion = leading.twin.world.pose(body)
                self._objects[body].publish(pose_message(position, quaternion, self._frame, stamp))
        in_step = not self._session.why_apart(report)
        for publisher, value in (
            (self._state, String(data=session_state(self._session))),
            (self._in_step, Bool(data=in_step)),
            (self._success, Bool(data=self._session.success)),
        ):
            if self._told.get(publisher) != value.data:
                self._told[publisher] = value.data
                publisher.publish(value)


def _cell(p: dict[str, Any]) -> Cell:
    if not p["cell"]:
        raise ConfigError("parameter 'cell' is empty; give a cell that comes along, or a YAML file")
    if not p["frame"]:
        raise ConfigError("parameter 'frame' is empty; give the frame_id of the objects' poses")
    cell = load_cell(p["cell"])
    for body in cell.objects:
        if not _TOKEN.fullmatch(body):
            raise ConfigError(f"objects: '{body}' cannot be part of a topic; use letters, digits and '_'")
    if len(cell.objects) > 1 and "{object}" not in p["object_topic"]:
        raise ConfigError(
            f"parameter 'object_topic': '{p['object_topic']}' is one topic for all; add {{object}}"
        )
    return cell


def _policy(checkpoint: str, cell: Cell, *, threads: int) -> PolicyThread | None:
    if not checkpoint:
        return None
    import torch

    from robot_policies.evaluation.twin_policy import OneOf, load_twin_policy

    if threads:
        torch.set_num_threads(threads)
    return PolicyThread(OneOf(load_twin_policy(checkpoint, cell)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until a signal ends it."""
    return run_node(TwinNode, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
