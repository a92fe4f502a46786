"""One node, one process: signals, spinning and an orderly end.

rclpy's own signal handler invalidates the context before anybody can publish a stop, so it is switched off; a
signal only sets a flag, which the loop sees within `WAIT_S`. ``spin`` without a timeout would never see it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import rclpy
from rclpy import utilities
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from robot_datasets.errors import UserError
from robot_deploy.nodes.environment import PARENT, prepare

WAIT_S = 0.05
SWITCH_INTERVAL_S = 0.0005
"""How long a thread may hold the interpreter while another waits; Python's 5 ms would be half a command period."""

USAGE_ERROR = 2
_PR_SET_PDEATHSIG = 1


class ManagedNode(Protocol):
    """What `run_node` needs of a node besides being one.

    Attributes:
        heartbeat_ns: Written by the loop: monotonic time of its last turn [ns]. A node's other threads watch it.
        finished: Set by the node to end the process.
    """

    heartbeat_ns: int
    finished: threading.Event

    def close(self) -> None:
        """Stop the robot, end threads and child processes; publishing still works. Called once."""
        ...


def run_node(build: Callable[[], ManagedNode], *, arguments: Sequence[str] | None = None) -> int:
    """Build a node, spin it until a signal comes or it is finished, close it, and return the exit status.

    Args:
        build: Makes the node; a `UserError` it raises becomes one line on stderr and status 2.
        arguments: Command line with ROS arguments; None takes the process's.
    """
    prepare()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    rclpy.init(
        args=None if arguments is None else list(arguments), signal_handler_options=SignalHandlerOptions.NO
    )
    stop = threading.Event()
    previous = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    _end_with_parent(stop)
    try:
        node = build()
        try:
            _spin(node, stop)
        finally:
            node.close()
            assert isinstance(node, Node)
            node.destroy_node()
    except UserError as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return USAGE_ERROR
    finally:
        utilities.try_shutdown()
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 0


def _end_with_parent(stop: threading.Event) -> None:
    """If somebody started this process who shall not be outlived: stop in an orderly way when it is gone."""
    parent = os.environ.pop(PARENT, "")
    if parent and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if str(os.getppid()) != parent:  # gone already
            stop.set()


def make_executor() -> Any:
    """Return the executor with the least overhead that there is; drive it by ``spin_once`` with a timeout.

    The events executor, where this version of rclpy has it, handles a message for half of the CPU time; its own
    ``spin`` freezes the process in the wheels. Never the multi-threaded one: it loses most messages of a stream.
    """
    try:
        from rclpy.experimental.events_executor import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor()
    return EventsExecutor()


def _spin(node: ManagedNode, stop: threading.Event) -> None:
    assert isinstance(node, Node)
    executor = make_executor()
    executor.add_node(node)
    try:
        while not stop.is_set() and not node.finished.is_set() and utilities.ok():
            node.heartbeat_ns = time.monotonic_ns()
            executor.spin_once(timeout_sec=WAIT_S)
    except ExternalShutdownException:
        pass
    finally:
        executor.remove_node(node)
        executor.shutdown()
