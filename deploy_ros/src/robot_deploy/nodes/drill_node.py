"""The policy node with a hand on it, for the fault drill: never for a robot.

It is the real node with the real inference process; only what comes back is replaced by a scripted swing, so that
the arm is always moving, and then spoilt on request. ``~/inject`` (String) chooses out of `INJECTIONS`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from std_msgs.msg import String

from robot_deploy.inference.client import Answer
from robot_deploy.nodes.guarded import guarded
from robot_deploy.nodes.policy_node import PolicyNode
from robot_deploy.nodes.process import run_node
from robot_deploy.nodes.qos import COMMAND

INJECTIONS = (
    "none",
    "chunk_nan",
    "chunk_inf",
    "chunk_far",
    "chunk_fast",
    "chunk_shape",
    "clock_forwards",
    "clock_back",
    "callback_stuck",
    "callback_raises",
    "inference_raises",
)
AMPLITUDE = np.array([0.3, 0.03, 0.2, 0.03, 0.3, 0.03, 0.3, 0.01])  # rad, m; the hand stays above the table
_RATE = 0.5  # swings per second
_FPS = 20.0
_CLOCK_NS = {"clock_forwards": 3_600_000_000_000, "clock_back": -1_000_000_000}


class DrillNode(PolicyNode):
    """See the module's docstring."""

    def __init__(self, name: str = "policy", **options: Any) -> None:
        """Also listen for what is to go wrong."""
        self._injected, self._home = "none", np.empty(0)
        super().__init__(name, **options)
        self.create_subscription(String, "~/inject", guarded(self, self._inject, self._fault), COMMAND)

    def clock_ns(self) -> int:
        """The clock of the stamps, or what a bad time server makes of it [ns]."""
        return super().clock_ns() + _CLOCK_NS.get(self._injected, 0)

    def answered(self, answer: Answer) -> None:
        """Replace the policy's chunk, and spoil it if that is wanted."""
        if answer.chunk is not None:
            if self._injected == "inference_raises":
                answer = replace(answer, chunk=None, failed="RuntimeError: injected")
            else:
                answer = replace(answer, chunk=self._spoilt(self._swing(answer)))
        super().answered(answer)

    def _swing(self, answer: Answer) -> np.ndarray:
        """The scripted motion, (T_p, 8): from where the arm is into a swing of all joints."""
        commander = self._commander
        assert answer.chunk is not None
        if commander is None:
            return answer.chunk
        with commander.lock:
            measured = commander.runtime.measured
        if measured is None:
            return answer.chunk
        if self._home.shape != measured.shape:
            self._home = np.append(measured[:7], 0.02)
        ahead = np.arange(len(answer.chunk))[:, None] - 1.0
        seconds = answer.asked_ns * 1e-9 + ahead / _FPS
        goal = self._home + AMPLITUDE * np.sin(2.0 * np.pi * _RATE * seconds)
        return (measured + (goal - measured) * np.clip(ahead / 4.0, 0.0, 1.0)).astype(np.float32)

    def _spoilt(self, chunk: np.ndarray) -> np.ndarray:
        kind = self._injected
        if kind == "chunk_nan":
            chunk[3, 2] = np.nan
        elif kind == "chunk_inf":
            chunk[:, 0] = np.inf
        elif kind == "chunk_far":
            chunk[:] = 50.0
        elif kind == "chunk_fast":
            chunk += 0.5 * (np.arange(len(chunk)) % 2)[:, None].astype(np.float32)
        elif kind == "chunk_shape":
            chunk = chunk[:, :-1]
        return chunk

    def _inject(self, message: String) -> None:
        if message.data not in INJECTIONS:
            self.get_logger().error(f"no injection '{message.data}'")
            return
        self._injected = message.data
        if self._injected == "callback_stuck":
            time.sleep(1.0)
        elif self._injected == "callback_raises":
            raise RuntimeError("injected")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the node until a signal ends it."""
    return run_node(DrillNode, arguments=arguments)


if __name__ == "__main__":
    sys.exit(main())
