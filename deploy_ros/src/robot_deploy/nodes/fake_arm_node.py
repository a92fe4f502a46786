"""The surrogate as a node: a simulated Panda behind the topics of ros2_control.

Publishes ``/joint_states`` (100 Hz), ``/cube_pose`` in the arm's base frame, ``/camera/NAME/image_raw`` and
``.../compressed`` while somebody listens, and ``~/success`` (latched). Listens to
``/arm_controller/joint_trajectory`` for arm and finger together; with ``controller:=split`` to
``/gripper_controller/joint_trajectory`` for the finger; with ``controller:=forward`` to ``/arm_controller/commands``.
``~/reset`` starts the episode of the parameter ``seed``; ``~/fault``
(String) switches one of `robot_deploy.surrogate.faults` on; ``~/audit`` says what was commanded (JSON).
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from robot_datasets.mapping import ConfigError
from robot_deploy.nodes.camera_topics import CameraTopics
from robot_deploy.nodes.clock_offset import ClockOffset
from robot_deploy.nodes.command_loop import CommandLoop
from robot_deploy.nodes.guarded import guarded
from robot_deploy.nodes.parameters import declare_parameters
from robot_deploy.nodes.process import run_node
from robot_deploy.nodes.qos import COMMAND, EVENTS, LATCHED
from robot_deploy.nodes.robot_messages import pose_message, take_trajectory
from robot_deploy.nodes.stamps import from_ns
from robot_deploy.robots import load_robot
from robot_deploy.surrogate.arm import JOINTS, SurrogateArm
from robot_deploy.surrogate.audit import CommandAudit
from robot_deploy.surrogate.controllers import ForwardController, JointTrajectoryController
from robot_deploy.surrogate.faults import SensorFaults

PARAMETERS: dict[str, Any] = {
    "seed": 0,
    "robot": "panda_hand",
    "controller": "trajectory",
    "state_rate": 100.0,
    "pose_rate": 50.0,
    "cameras": [""],
    "image_rate": 15.0,
    "image_size": 84,
    "image_format": "jpeg",
    "noise": 0.0,
    "latency_ms": 0.0,
    "realtime_priority": 0,
}
ABOUT = {
    "seed": "episode of the next reset",
    "robot": "preset whose limits the audit holds commands against",
    "controller": "trajectory, split or forward",
    "state_rate": "of joint states [Hz]",
    "pose_rate": "of the cube's pose [Hz]",
    "cameras": "agentview, frontview, sideview, wrist; empty for none",
    "image_rate": "[Hz]",
    "image_size": "side [px]",
    "image_format": "of compressed images: jpeg or png",
    "noise": "standard deviation of measured positions [rad or m]",
    "latency_ms": "between a measurement and its message [ms]",
    "realtime_priority": "SCHED_FIFO priority of the simulation; 0 for none",
}
RANGES = {
    "state_rate": (10.0, 1000.0),
    "pose_rate": (1.0, 500.0),
    "image_rate": (0.5, 60.0),
    "image_size": (16, 1024),
    "noise": (0.0, 0.1),
    "latency_ms": (0.0, 200.0),
    "realtime_priority": (0, 99),
}


_LATCHED_S = (
    0.015  # a position stands for a command period of 100 Hz, and half of one more where ticks are late
)


class FakeArmNode(Node):
    """See the module's docstring."""

    def __init__(self, name: str = "fake_arm", **options: Any) -> None:
        """Build the scene and begin."""
        super().__init__(name, **options)
        self.heartbeat_ns, self.finished = time.monotonic_ns(), threading.Event()
        p = self._values = declare_parameters(
            self, PARAMETERS, about=ABOUT, ranges=RANGES, writable=("seed",)
        )
        self._random = np.random.default_rng(0)
        cameras = tuple(camera for camera in p["cameras"] if camera)
        self._controllers = self._make_controllers(p["controller"])
        robot = load_robot(p["robot"])
        audit = CommandAudit(
            replace(robot, position_margin=0.0).limits(),
            hold_s=_LATCHED_S if p["controller"] == "forward" else 0.0,
        )
        self._arm = SurrogateArm(self._controllers, audit, cameras=cameras, size=p["image_size"])
        self._offset_ns = ClockOffset(self._clock_ns)
        self._lock, self._faults = threading.Lock(), SensorFaults()
        self._states = self.create_publisher(JointState, "/joint_states", EVENTS)
        self._poses = self.create_publisher(PoseStamped, "/cube_pose", EVENTS)
        self._success = self.create_publisher(Bool, "~/success", LATCHED)
        self._audit_out = self.create_publisher(String, "~/audit", EVENTS)
        self._cameras = CameraTopics(
            self, cameras, encoding=p["image_format"], size=p["image_size"], faults=self._faults
        )
        self._subscribe()
        self._pose_every = max(1, round(p["state_rate"] / p["pose_rate"]))
        self._ticks, self._told_success, self._pending = 0, False, []
        self.create_service(Trigger, "~/reset", guarded(self, self._reset, self._complain))
        self.create_subscription(String, "~/fault", guarded(self, self._choose, self._complain), EVENTS)
        self.create_timer(0.2, guarded(self, self._report, self._complain))
        if cameras:
            self.create_timer(1.0 / p["image_rate"], guarded(self, self._show, self._complain))
        self._loop = CommandLoop(
            round(1e9 / p["state_rate"]), self._tick, self._complain, priority=p["realtime_priority"]
        )

    def close(self) -> None:
        """End the simulation."""
        self._loop.stop()
        self._arm.close()

    def _make_controllers(self, kind: str) -> list[Any]:
        if kind == "trajectory":
            return [JointTrajectoryController(JOINTS)]
        if kind == "split":
            return [JointTrajectoryController(JOINTS[:7]), JointTrajectoryController(JOINTS[7:])]
        if kind == "forward":
            return [ForwardController(JOINTS)]
        raise ConfigError(f"controller: got '{kind}', expected trajectory, split or forward")

    def _subscribe(self) -> None:
        for controller, name in zip(self._controllers, ("arm", "gripper"), strict=False):
            if isinstance(controller, ForwardController):
                message, topic = Float64MultiArray, f"/{name}_controller/commands"
            else:
                message, topic = JointTrajectory, f"/{name}_controller/joint_trajectory"
            take = guarded(self, self._taker(controller), self._complain)
            self.create_subscription(message, topic, take, COMMAND)

    def _taker(self, controller: Any) -> Any:
        def take(message: Any) -> None:
            if isinstance(controller, ForwardController):
                with self._lock:
                    self._catch_up()
                    controller.take(np.array(message.data, dtype=np.float64))
                return
            with self._lock:
                self._catch_up()
                take_trajectory(controller, message, now_ns=self._clock_ns())

        return take

    def _catch_up(self) -> None:
        """Simulate up to now: what comes now changes nothing of what was before."""
        self._arm.advance(time.monotonic_ns(), self._offset_ns())

    def _clock_ns(self) -> int:
        return time.time_ns()

    def _tick(self, now_ns: int) -> None:
        with self._lock:
            self._catch_up()
            servo = self._arm.task.servo
            positions, velocities, cube = servo.positions, servo.velocities, self._arm.task.cube()
            lifted = self._arm.lifted
        stamp_ns = self._clock_ns()
        state = JointState(name=list(JOINTS))
        state.header.stamp = from_ns(stamp_ns)
        noise = self._random.normal(0.0, self._values["noise"], len(JOINTS)) if self._values["noise"] else 0.0
        state.position, state.velocity = (positions + noise).tolist(), velocities.tolist()
        self._later(self._states, self._faults.states(state), now_ns)
        if self._ticks % self._pose_every == 0 and self._faults.name != "pose_dropped":
            quaternion = cube[[6, 3, 4, 5]]  # wxyz
            self._poses.publish(pose_message(cube[:3], quaternion, "panda_link0", from_ns(stamp_ns)))
        self._ticks += 1
        if lifted != self._told_success:
            self._told_success = lifted
            self._success.publish(Bool(data=lifted))

    def _later(self, publisher: Any, messages: list[Any], now_ns: int) -> None:
        self._pending += [(now_ns + round(self._values["latency_ms"] * 1e6), m) for m in messages]
        while self._pending and self._pending[0][0] <= now_ns:
            publisher.publish(self._pending.pop(0)[1])

    def _show(self) -> None:
        for camera in self._cameras.names:
            if not self._cameras.watched(camera):
                continue
            with self._lock:
                pixels, stamp_ns = self._arm.image(camera), self._clock_ns()
            self._cameras.publish(camera, pixels, stamp_ns)

    def _reset(self, request: Any, response: Any) -> Any:
        del request
        seed = int(self.get_parameter("seed").value or 0)
        with self._lock:
            self._arm.reset(seed)
            self._told_success = False
        self._success.publish(Bool(data=False))
        response.success, response.message = True, f"episode {seed}"
        return response

    def _choose(self, message: String) -> None:
        self._faults.choose(message.data)

    def _report(self) -> None:
        with self._lock:
            audit, servo = self._arm.audit, self._arm.task.servo
            said = {
                "violations": audit.violations,
                "largest": audit.largest,
                "when": audit.when,
                "moving_ns": audit.moving_ns,
                "samples": audit.samples,
                "skipped_ms": self._arm.skipped_ns / 1e6,
                "seed": int(self.get_parameter("seed").value or 0),
                "lifted": self._arm.lifted,
                "fastest": float(np.abs(servo.velocities[:7]).max()),
                "rejected": [r for c in self._controllers for r in getattr(c, "rejected", [])],
                "now_ns": time.monotonic_ns(),
            }
        self._audit_out.publish(String(data=json.dumps(said)))

    def _complain(self, reason: str) -> None:
        self.get_logger().error(reason)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until a signal ends it."""
    return run_node(FakeArmNode, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
