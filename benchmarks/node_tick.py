"""CPU time of a command period of the policy node, by part; without ROS but for the message.

    python benchmarks/node_tick.py --ticks 2000

A runtime is driven as the node drives it: a Panda that swings, chunks from a scripted policy, joint states at every
tick, lead 6. Wall time says more about what else runs on a machine than about the code, so threads' CPU time is given.
Parts are measured by wrapping them, which itself takes about a microsecond each.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np

from robot_deploy.drill import DrillRun, start_drill
from robot_deploy.robots import load_robot

HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
PERIOD_NS = 10_000_000


class Clock:
    """CPU time [us] by part, one value per tick in which the part ran."""

    def __init__(self) -> None:
        self.spent: dict[str, list[float]] = defaultdict(list)

    def wrap(self, owner: Any, method: str, part: str) -> None:
        """Time a method of an object."""
        call = getattr(owner, method)

        def timed(*arguments: Any, **keywords: Any) -> Any:
            return self.time(part, lambda: call(*arguments, **keywords))

        setattr(owner, method, timed)

    def time(self, part: str, call: Callable[[], Any]) -> Any:
        """Make a call and keep what it took."""
        begun = time.thread_time()
        result = call()
        self.spent[part].append(1e6 * (time.thread_time() - begun))
        return result

    def print(self) -> None:
        """Print a table."""
        print("| CPU time [us] | n | p50 | p90 | p99 |\n|---|---|---|---|---|")
        for part, values in self.spent.items():
            p50, p90, p99 = np.percentile(values, [50, 90, 99])
            print(f"| {part} | {len(values)} | {p50:.0f} | {p90:.0f} | {p99:.0f} |")


def watched_run(clock: Clock) -> DrillRun:
    """A run in motion whose parts are timed."""
    run = start_drill(
        load_robot("panda").limits(), HOME, lead=6, cut_after=3, acceleration_share=0.9, jerk_share=0.5
    )
    runtime = run.runtime
    clock.wrap(runtime, "tick", "tick")
    clock.wrap(runtime, "sample", "sample, before the tick")
    clock.wrap(runtime.safety, "step", "- safety filter")
    clock.wrap(runtime._stream, "target", "- target of the policy")
    clock.wrap(runtime._plan, "trajectory", "- trajectory with its stop")
    clock.wrap(runtime._builder, "build", "- window, when a chunk is wanted")
    return run


def time_messages(clock: Clock, run: DrillRun) -> None:
    """Time making and serialising the messages of a run's trajectories."""
    from rclpy.serialization import serialize_message

    from robot_deploy.nodes.outputs import TrajectoryMessage

    message = TrajectoryMessage(run.limits.names, PERIOD_NS)
    serialize_message(message.example())
    for tick in run.ticks[-500:]:
        trajectory = tick.trajectory
        assert trajectory is not None
        filled = clock.time("message, filled", lambda t=trajectory: message.filled(t, 10**18))
        clock.time("message, serialised", lambda m=filled: serialize_message(m))


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ticks", type=int, default=2000)
    arguments = parser.parse_args()
    clock = Clock()
    run = watched_run(clock)
    run.run(arguments.ticks)
    try:
        time_messages(clock, run)
    except ImportError:
        print("rclpy is not installed: no messages")
    clock.print()


if __name__ == "__main__":
    main()
