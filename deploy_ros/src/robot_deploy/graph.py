"""Nodes as child processes, for machines that have rclpy but no ``ros2 launch``.

Each node is a process of its own, as under launch. Nothing is started again: a node that commands a robot must not
come back by itself.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from robot_datasets.errors import UserError

_PATIENCE_S = 8.0


class Graph:
    """Running nodes; use it as a context, which ends them all.

    Attributes:
        processes: Name -> process.
    """

    def __init__(self, environment: Mapping[str, str], logs: Path, *, priority: int = 0) -> None:
        """Start nothing yet.

        Args:
            environment: Variables on top of this process's environment, e.g. of `robot_deploy.nodes.isolation`.
            logs: Folder for what the nodes print; made if missing.
            priority: SCHED_FIFO priority of the nodes' threads, those of the middleware included; 0 for none.
                Without the right to it they run as any others.
        """
        self._environment, self._logs, self._priority = dict(environment), logs, priority
        logs.mkdir(parents=True, exist_ok=True)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._begun: set[str] = set()

    def start(self, name: str, module: str, parameters: Mapping[str, Any] | None = None) -> None:
        """Start a node.

        Args:
            name: Name of the node, and of its log.
            module: Module to run.
            parameters: ROS parameters.
        """
        from robot_deploy.nodes.environment import PARENT, child_environment

        arguments = ["--ros-args", "-r", f"__node:={name}"]
        for key, value in (parameters or {}).items():
            arguments += ["-p", f"{key}:={_text(value)}"]
        mode = "ab" if name in self._begun else "wb"  # what an earlier graph left would be told as this one's
        self._begun.add(name)
        with (self._logs / f"{name}.log").open(mode) as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env=child_environment({**self._environment, PARENT: str(os.getpid())}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C comes to this process, which ends the nodes in order
            )
        if self._priority > 0:  # now, before it has threads: they inherit it
            with contextlib.suppress(OSError):
                os.sched_setscheduler(self.processes[name].pid, os.SCHED_FIFO, os.sched_param(self._priority))

    def require_alive(self) -> None:
        """Raise `UserError` if a node has ended; with the end of its log."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise UserError(f"node '{name}' ended with status {process.returncode}: {self.tail(name)}")

    def tail(self, name: str, lines: int = 3) -> str:
        """The last lines of a node's log."""
        try:
            text = (self._logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return " | ".join(text.strip().splitlines()[-lines:])

    def stop(self, name: str, number: int = signal.SIGINT) -> None:
        """Send a signal to a node and wait until it has ended; after a while it is killed."""
        process = self.processes.pop(name, None)
        if process is None:
            return
        if process.poll() is None:
            os.kill(process.pid, number)
        try:
            process.wait(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def close(self) -> None:
        """End all nodes, the last one started first."""
        for name in reversed(list(self.processes)):
            self.stop(name)

    def __enter__(self) -> Graph:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _text(value: Any) -> str:
    """A parameter's value as YAML: Python's texts of floats, lists of numbers and quoted strings are."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
