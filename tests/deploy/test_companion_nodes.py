"""Recorder, intervention and tracker as real nodes over real DDS, each in a process of its own."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

DEPLOYMENT = """
robot: panda
streams:
  joints: {kind: state, topic: /joint_states, names: [panda_joint1, panda_joint2, panda_joint3, panda_joint4, panda_joint5, panda_joint6, panda_joint7]}
"""  # noqa: E501
NAMES = [f"panda_joint{i}" for i in range(1, 8)]
HOME = [0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785]
PATIENCE_S = 60.0  # an idle machine needs two; a busy one is no failure


@pytest.fixture
def world(ros_domain: dict[str, str]) -> Iterator[Any]:
    """A node of the test's own, and a way to wait for something while it is spun."""
    import rclpy
    from rclpy.context import Context
    from rclpy.executors import SingleThreadedExecutor
    from rclpy.node import Node

    context = Context()
    rclpy.init(context=context)
    node = Node("world", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    class World:
        def __init__(self) -> None:
            self.node, self.domain = node, ros_domain

        def until(self, condition: Callable[[], Any], each: Callable[[], None] = lambda: None) -> None:
            deadline = time.monotonic() + PATIENCE_S
            while not condition():
                assert time.monotonic() < deadline, "nothing happened"
                each()
                executor.spin_once(timeout_sec=0.02)

        def call(self, service: str) -> Any:
            from std_srvs.srv import Trigger

            client = node.create_client(Trigger, service)
            self.until(client.service_is_ready)
            future = client.call_async(Trigger.Request())
            self.until(future.done)
            return future.result()

    yield World()
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


@contextmanager
def running(module: str, domain: dict[str, str], *parameters: str) -> Iterator[subprocess.Popen[str]]:
    """A node in a process, ended by SIGINT; its status must be 0."""
    arguments = ["--ros-args", *(word for text in parameters for word in ("-p", text))]
    process = subprocess.Popen(
        [sys.executable, "-m", f"robot_deploy.nodes.{module}", *arguments],
        stderr=subprocess.PIPE, text=True, env={**os.environ, **domain},
    )  # fmt: skip
    try:
        yield process
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()


def joints(position: list[float], stamp_ns: int | None = None, prefix: str = "") -> Any:
    from sensor_msgs.msg import JointState

    from robot_deploy.nodes.stamps import from_ns

    message = JointState(name=[prefix + name for name in NAMES], position=[float(q) for q in position])
    message.header.stamp = from_ns(time.time_ns() if stamp_ns is None else stamp_ns)
    return message


@pytest.fixture
def deployment(tmp_path: Path) -> Path:
    file = tmp_path / "arm.yaml"
    file.write_text(DEPLOYMENT)
    return file


def test_the_recorder_keeps_every_message_and_event(world: Any, deployment: Path, tmp_path: Path):
    """Sixty joint states and two events, recorded raw, read back without ROS; the contract stands in the file."""
    from sensor_msgs.msg import JointState

    from robot_datasets.importers.rosbag2_bag import Bag, find_bags
    from robot_datasets.importers.rosbag2_messages import MessageTypes
    from robot_deploy.nodes.qos import EVENTS

    publisher = world.node.create_publisher(JointState, "/joint_states", EVENTS)
    with running("recorder_node", world.domain, f"deployment:={deployment}", f"folder:={tmp_path / 'bags'}"):
        assert world.call("/recorder/episode_start").success
        world.until(lambda: publisher.get_subscription_count() > 0)
        settled = time.monotonic() + 1.5  # the recorder looks for reliable publishers twice a second
        world.until(lambda: time.monotonic() > settled)
        for number in range(60):
            publisher.publish(joints([number] * 7))
            world.until(lambda: True)
            time.sleep(0.005)
        assert world.call("/recorder/episode_success").success
        gone = time.monotonic() + 0.5
        world.until(lambda: time.monotonic() > gone)
    with Bag(find_bags(tmp_path / "bags")[0]) as bag:
        assert bag.faults == []
        types = MessageTypes(bag.topics)
        messages = list(bag.messages(list(bag.topics), 0, 1 << 63))
        positions = [types.decode(m).position[0] for m in messages if m.topic == "/joint_states"]
        events = [types.decode(m).source for m in messages if m.topic == "/recording/episode"]
    assert positions == list(range(60))
    assert events == ["start", "success"]


def test_a_recording_without_marks_is_one_episode(world: Any, still_checkpoint: Path, tmp_path: Path):
    """The map beside the bag cuts by marks while it is recorded; at the end it does not, if there were none."""
    import yaml
    from rclpy.parameter import Parameter

    from robot_deploy.nodes.recorder_node import RecorderNode

    values = {"deployment": "demo", "checkpoint": str(still_checkpoint), "folder": str(tmp_path)}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    recorder = RecorderNode(context=world.node.context, parameter_overrides=overrides)
    (file,) = tmp_path.glob("*/map.yaml")
    assert yaml.safe_load(file.read_text())["episodes"]["per"] == "marker"
    recorder.close()
    recorder.destroy_node()
    assert "episodes" not in yaml.safe_load(file.read_text())


def test_a_recorder_without_anything_to_do_says_so(ros_domain: dict[str, str]):
    """One line and status 2, before any folder is made."""
    done = subprocess.run(
        [sys.executable, "-m", "robot_deploy.nodes.recorder_node"], capture_output=True, text=True,
        env={**os.environ, **ros_domain}, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "nothing to record" in done.stderr


def test_a_tracker_that_would_hear_itself_says_so(ros_domain: dict[str, str], deployment: Path):
    """One line and status 2: the policy node would follow the twin unchecked."""
    deployment.write_text(DEPLOYMENT + "track: /twin/joint_states\n")
    done = subprocess.run(
        [sys.executable, "-m", "robot_deploy.nodes.tracker_node", "--ros-args", "-p", f"deployment:={deployment}"],
        capture_output=True, text=True, env={**os.environ, **ros_domain}, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "track: ~/track" in done.stderr


def test_a_person_takes_over_through_the_node(world: Any, deployment: Path):
    """Buttons become the policy node's calls in order; targets begin at the arm and slide to the leader."""
    from sensor_msgs.msg import JointState
    from std_msgs.msg import String
    from std_srvs.srv import Trigger

    from robot_deploy.nodes.qos import LATCHED, SENSOR
    from robot_deploy.supervision.states import Event, State, StateMachine

    machine, calls, targets = StateMachine(), [], []
    machine.state = State.AUTONOMOUS
    state = world.node.create_publisher(String, "/policy/state", LATCHED)
    state.publish(String(data=machine.state.value))

    def serve(event: Event) -> Callable[[Any, Any], Any]:
        def handle(request: Any, response: Any) -> Any:
            calls.append(event.value)
            response.message = machine.send(event).value
            response.success = True
            state.publish(String(data=machine.state.value))
            return response

        return handle

    for event in (Event.PAUSE, Event.RECOVER, Event.CORRECT, Event.RESUME, Event.STOP):
        world.node.create_service(Trigger, f"/policy/{event.value}", serve(event))
    world.node.create_subscription(JointState, "/policy/track", targets.append, SENSOR)
    arm = world.node.create_publisher(JointState, "/joint_states", SENSOR)
    leader = world.node.create_publisher(JointState, "/leader/joint_states", SENSOR)
    there = [q + 0.2 for q in HOME]

    def live() -> None:
        arm.publish(joints(HOME))
        leader.publish(joints(there, prefix="lead_"))

    with running(
        "intervention_node", world.domain, f"deployment:={deployment}", "leader_prefix:=lead_", "speed:=0.5"
    ):
        refused = world.call("/intervention/hand_back")
        assert not refused.success
        world.until(lambda: leader.get_subscription_count() > 0 and arm.get_subscription_count() > 0)
        live()
        world.until(lambda: world.call("/intervention/take_over").success, each=live)
        world.until(lambda: targets and abs(targets[-1].position[0] - there[0]) < 1e-6, each=live)
        assert machine.state is State.RECOVERY
        assert calls == ["pause", "recover"]
        # Sensor messages may be lost on a busy machine, but a slide of 0.4 s is seen on its way.
        assert any(HOME[0] <= target.position[0] < there[0] - 1e-6 for target in targets)
        steps = [b.position[0] - a.position[0] for a, b in itertools.pairwise(targets)]
        assert min(steps) >= -1e-9
        # A press has to wait until the node has seen where the last one led: a person would press again.
        world.until(lambda: world.call("/intervention/correct").success, each=live)
        world.until(lambda: machine.state is State.CORRECTION, each=live)
        world.until(lambda: world.call("/intervention/hand_back").success, each=live)
        world.until(lambda: machine.state is State.STARTING, each=live)
        assert calls == ["pause", "recover", "correct", "pause", "resume"]


def test_the_tracker_tells_the_twin_to_wait(world: Any, deployment: Path):
    """The twin's joints reach the policy node; far ahead of the arm it is told to hold; a jump is not followed."""
    from sensor_msgs.msg import JointState
    from std_msgs.msg import Bool

    from robot_deploy.nodes.qos import LATCHED, SENSOR

    holds: list[bool] = []
    targets: list[Any] = []
    world.node.create_subscription(Bool, "/tracker/hold", lambda m: holds.append(m.data), LATCHED)
    world.node.create_subscription(JointState, "/policy/track", targets.append, SENSOR)
    arm = world.node.create_publisher(JointState, "/joint_states", SENSOR)
    twin = world.node.create_publisher(JointState, "/twin/joint_states", SENSOR)

    def live(ahead: float) -> Callable[[], None]:
        def publish() -> None:
            arm.publish(joints(HOME))
            twin.publish(joints([q + ahead for q in HOME]))

        return publish

    with running("tracker_node", world.domain, f"deployment:={deployment}", "max_age_ms:=1000.0"):
        world.until(lambda: holds and not holds[-1], each=live(0.01))
        world.until(lambda: bool(targets), each=live(0.01))
        assert targets[-1].position[1] == pytest.approx(HOME[1] + 0.01)
        world.until(lambda: holds[-1], each=live(0.15))
        world.until(lambda: not holds[-1], each=live(0.0))
        last = len(targets)
        for _ in range(20):
            live(0.9)()
            world.until(lambda: True)
        assert all(target.position[0] < 0.5 for target in targets[last:])
        assert world.call("/tracker/accept_jump").success
        world.until(lambda: targets[-1].position[0] > 0.5, each=live(0.9))
