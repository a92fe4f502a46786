"""The surrogate of a twin's cell as a node: a simulation with other parameters than the cell file's, behind topics.

It is no robot. It publishes ``/joint_states`` and ``/objects/NAME/pose``, noisy and late, and its arm follows
``/panda_arm_controller/joint_trajectory``. ``~/reset`` starts the episode of the parameter ``seed``; ``~/disturb``
(String) does what people do: ``move block 0.05 0.0 0.3``, ``hide 2.0``. ``~/truth/NAME`` (PoseStamped) is for scoring
only, ``~/audit`` (JSON) says what the arm was told, and ``~/success`` (latched) whether the task is solved.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from robot_datasets.errors import UserError
from robot_deploy.nodes.clock_offset import ClockOffset
from robot_deploy.nodes.command_loop import CommandLoop
from robot_deploy.nodes.guarded import guarded
from robot_deploy.nodes.parameters import declare_parameters
from robot_deploy.nodes.process import run_node
from robot_deploy.nodes.qos import COMMAND, EVENTS, LATCHED
from robot_deploy.nodes.robot_messages import joint_message, pose_message, take_trajectory
from robot_deploy.nodes.stamps import from_ns
from robot_deploy.surrogate.twin_cell import TwinCell
from robot_sim.twin.cell import load_cell
from robot_sim.twin.observed import ObservedState
from robot_sim.twin.surrogate import SurrogateConfig

PARAMETERS: dict[str, Any] = {
    "cell": "tabletop_push_t",
    "seed": 0,
    "command": "/panda_arm_controller/joint_trajectory",
    "frame": "world",
    "friction": 1.8,
    "mass": 1.4,
    "object_rate": 30.0,
    "object_latency_ms": 80.0,
    "dropout": 0.0,
}
ABOUT = {
    "cell": "the cell file of the twin",
    "seed": "episode of the next reset",
    "command": "topic of the arm's JointTrajectory",
    "frame": "frame_id of the objects' poses",
    "friction": "times the cell file's",
    "mass": "times the cell file's",
    "object_rate": "of poses [Hz]",
    "object_latency_ms": "between the moment a pose is true and its message [ms]",
    "dropout": "share of the poses that never arrive",
}
RANGES = {
    "friction": (0.1, 10.0),
    "mass": (0.1, 10.0),
    "object_rate": (1.0, 200.0),
    "object_latency_ms": (0.0, 500.0),
    "dropout": (0.0, 0.99),
}
_RATE = 125.0  # turns of the loop, and joint states [Hz]


class SurrogateCellNode(Node):
    """See the module's docstring."""

    def __init__(self, name: str = "surrogate", **options: Any) -> None:
        """Build the scene and begin."""
        super().__init__(name, **options)
        self.heartbeat_ns, self.finished = time.monotonic_ns(), threading.Event()
        p = declare_parameters(self, PARAMETERS, about=ABOUT, ranges=RANGES, writable=("seed",))
        config = SurrogateConfig(
            friction=p["friction"], mass=p["mass"], joint_rate=_RATE, object_rate=p["object_rate"],
            object_latency=1e-3 * p["object_latency_ms"], dropout=p["dropout"],
        )  # fmt: skip
        self._frame, self._lock = p["frame"], threading.Lock()
        self._cell = TwinCell(load_cell(p["cell"]), config, seed=p["seed"])
        self._offset_ns = ClockOffset(time.time_ns)
        self._arrived: list[tuple[int, ObservedState]] = []
        self._states = self.create_publisher(JointState, "/joint_states", EVENTS)
        bodies = list(self._cell.cell.objects)
        self._poses = {b: self.create_publisher(PoseStamped, f"/objects/{b}/pose", EVENTS) for b in bodies}
        self._truth = {b: self.create_publisher(PoseStamped, f"~/truth/{b}", EVENTS) for b in bodies}
        self._success = self.create_publisher(Bool, "~/success", LATCHED)
        self._audit = self.create_publisher(String, "~/audit", EVENTS)
        self._told: bool | None = None
        for kind, topic, take, qos in (
            (JointTrajectory, p["command"], self._take, COMMAND),
            (String, "~/disturb", self._disturb, EVENTS),
        ):
            self.create_subscription(kind, topic, guarded(self, take, self._complain), qos)
        self.create_service(Trigger, "~/reset", guarded(self, self._reset, self._complain))
        self.create_timer(0.2, guarded(self, self._report, self._complain))
        self._loop = CommandLoop(round(1e9 / _RATE), self._tick, self._complain)

    def close(self) -> None:
        """End the simulation."""
        self._loop.stop()

    def _take(self, message: JointTrajectory) -> None:
        with self._lock:
            now_ns = time.monotonic_ns() + self._offset_ns()
            self._arrived += self._cell.advance(now_ns)  # what comes now changes nothing of what was before
            take_trajectory(self._cell.controller, message, now_ns=now_ns)

    def _tick(self, now_ns: int) -> None:
        del now_ns  # somebody else may have had the lock since then
        with self._lock:
            now_ns = time.monotonic_ns() + self._offset_ns()
            arrived = [*self._arrived, *self._cell.advance(now_ns)]
            self._arrived = []
        for stamp_ns, message in arrived:
            stamp = from_ns(stamp_ns)
            if message.joints is not None:
                q, v = message.joints.positions, message.joints.velocities
                self._states.publish(joint_message(self._cell.cell.robot.joints, q, v, stamp))
            for body, pose in message.objects.items():
                self._poses[body].publish(pose_message(pose.position, pose.quaternion, self._frame, stamp))

    def _report(self) -> None:
        with self._lock:
            cell, stamp = self._cell, from_ns(time.time_ns())
            truth = {body: cell.surrogate.truth(body) for body in self._truth}
            said = {
                "violations": cell.audit.violations,
                "largest": cell.audit.largest,
                "samples": cell.audit.samples,
                "rejected": cell.controller.rejected,
                "skipped_ms": cell.skipped_ns / 1e6,
            }
            success = cell.succeeds()
        for body, (position, quaternion) in truth.items():
            self._truth[body].publish(pose_message(position, quaternion, self._frame, stamp))
        self._audit.publish(String(data=json.dumps(said)))
        if success != self._told:
            self._told = success
            self._success.publish(Bool(data=success))

    def _disturb(self, message: String) -> None:
        try:
            with self._lock:
                said = self._cell.disturb(message.data)
        except UserError as error:
            self._complain(str(error))
            return
        self.get_logger().info(said)

    def _reset(self, request: Any, response: Any) -> Any:
        del request
        seed = int(self.get_parameter("seed").value or 0)
        with self._lock:
            self._cell.start(seed)
            self._arrived = []
        response.success, response.message = True, f"episode {seed}"
        return response

    def _complain(self, reason: str) -> None:
        self.get_logger().error(reason)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until a signal ends it."""
    return run_node(SurrogateCellNode, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
