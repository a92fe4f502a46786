"""Nodes as processes: signals, parameters, callbacks that raise, domains of their own."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robot_deploy.graph import Graph

PROGRAM = """
import sys, threading
import rclpy
from rclpy.node import Node
from std_msgs.msg import String
from robot_deploy.nodes.guarded import guarded
from robot_deploy.nodes.parameters import declare_parameters
from robot_deploy.nodes.process import run_node
from robot_deploy.nodes.qos import LATCHED

class Probe(Node):
    def __init__(self):
        super().__init__("probe")
        self.heartbeat_ns, self.finished = 0, threading.Event()
        values = declare_parameters(
            self, {"rate": 100.0, "raises": False}, ranges={"rate": (1, 1000)}, about={"rate": "[Hz]"})
        self.out = self.create_publisher(String, "out", LATCHED)
        self.said = []
        if values["raises"]:
            self.create_timer(0.02, guarded(self, self.bad, self.said.append))
        print("up", values, flush=True)
    def bad(self):
        raise RuntimeError("boom")
    def close(self):
        self.out.publish(String(data="stopped"))
        print("closed", self.said[:1], flush=True)

sys.exit(run_node(Probe))
"""


STARTER = """
import os, subprocess, sys
subprocess.Popen(
    [sys.executable, "-c", sys.argv[1]], env={**os.environ, "ROBOT_DEPLOY_PARENT": str(os.getpid())}).wait()
"""


def _start(variables: dict[str, str], *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **variables},
    )  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_node_publishes_after_a_signal(ros_domain, number: signal.Signals):
    """SIGINT and SIGTERM lead to `close`, in which a publisher still works, and to status 0."""
    with _start(ros_domain) as process:
        assert process.stdout is not None
        assert "up" in process.stdout.readline()
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert "closed" in out


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rate:=0.5", "expected 1 to 1000"),
        ("rate:=100", "expected float"),
        ("rote:=10.0", "did you mean 'rate'"),
    ],
)
def test_a_wrong_parameter_is_one_line(ros_domain, override: str, said: str):
    """Out of range, of another type or unknown: the node does not start and says why."""
    with _start(ros_domain, "--ros-args", "-p", override) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 2
    assert said in err
    assert err.count("\n") == 1


def test_a_callback_that_raises_does_not_end_the_node(ros_domain):
    """The error is logged and told; the node goes on until it is asked to end."""
    with _start(ros_domain, "--ros-args", "-p", "raises:=true") as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.3)
        assert process.poll() is None
        process.terminate()
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "RuntimeError in Probe.bad: boom" in out
    assert "Traceback" in err


def test_domains_are_not_shared(ros_domain):
    """Two holders get different domains."""
    from robot_deploy.nodes.isolation import own_domain

    with own_domain() as other:
        assert other["ROS_DOMAIN_ID"] != ros_domain["ROS_DOMAIN_ID"]


def test_shared_memory_of_the_dead_is_removed(tmp_path: Path):
    """Files whose lock nobody holds go, those of a living process stay."""
    import fcntl

    from robot_deploy.nodes.isolation import clean_shared_memory

    for name in ("fastrtps_0123456789abcdef", "fastrtps_fedcba9876543210"):
        (tmp_path / name).touch()
        (tmp_path / f"{name}_el").touch()
    (tmp_path / "fastrtps_something_else").touch()
    with (tmp_path / "fastrtps_fedcba9876543210_el").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert clean_shared_memory(tmp_path) == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "fastrtps_fedcba9876543210", "fastrtps_fedcba9876543210_el", "fastrtps_something_else",
    ]  # fmt: skip


def test_children_set_their_own_libraries(ros_domain, monkeypatch: pytest.MonkeyPatch):
    """What the wheels of rclpy put into the environment is not handed on; without them nothing is taken."""
    from robot_deploy.nodes.environment import child_environment

    monkeypatch.setenv("LD_LIBRARY_PATH", "/somewhere")
    monkeypatch.setenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "1")
    assert "LD_LIBRARY_PATH" not in child_environment()
    monkeypatch.delenv("_ROS_WHEELS_BOOTSTRAP_COMPLETE")
    assert child_environment({"A": "1"})["LD_LIBRARY_PATH"] == "/somewhere"


def test_a_node_ends_in_order_when_who_started_it_is_killed(ros_domain):
    """Even by SIGKILL: the node stops what it commands, and is not left behind."""
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, PROGRAM],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **ros_domain},
    ) as starter:
        assert starter.stdout is not None
        assert "up" in starter.stdout.readline()
        starter.kill()
        out, _ = starter.communicate(timeout=60)  # until the node has closed its end of the pipe, too
    assert "closed" in out


def test_the_log_of_a_node_is_of_this_graph(tmp_path: Path):
    """A node that is started again adds to its log; another graph in the same folder begins a new one."""
    for modules in (["missing_one", "missing_two"], ["missing_three"]):
        with Graph({}, tmp_path) as graph:
            for module in modules:
                graph.start("node", module)
                graph.processes["node"].wait(timeout=60)
            told = graph.tail("node", 20)
            assert [name in told for name in ("missing_one", "missing_two", "missing_three")] == [
                name in modules for name in ("missing_one", "missing_two", "missing_three")
            ]
