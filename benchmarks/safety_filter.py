"""Attack the safety filter with a million hostile targets and check every period; time one call.

    python benchmarks/safety_filter.py --targets 1000000

Three parts: joint limits of a Panda, with targets of eight hostile kinds; the same with a workspace, for a tenth
of the targets; hostile chunks through executor, interpolation and filter of one runtime. Every executed period is
checked at eight points by code that shares nothing with the filter but the limits, and every 100 periods all
filters are stopped to the end and set back, which checks that the stop was reachable. Exit status 1 on a violation.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np

from robot_datasets.features import STATE
from robot_datasets.kinematics import get_arm
from robot_deploy.drill import DrillRun, SimulatedArm, drill_config, drill_spec
from robot_deploy.motion.limits import MotionLimits
from robot_deploy.motion.rules import RULE_NAMES, FilterRules, RuleSetting
from robot_deploy.motion.safety_filter import SafetyFilter
from robot_deploy.motion.tracking import Target
from robot_deploy.motion.workspace import SerialTool, Workspace
from robot_deploy.observation.window import Window
from robot_deploy.robots import load_robot
from robot_deploy.runtime import Runtime
from robot_deploy.supervision.states import Event, State
from robot_deploy.testing import HostileTargets, LimitAudit

HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
BOX = (np.array([-0.3, -0.6, 0.05]), np.array([0.75, 0.6, 1.0]))
CLAMP = FilterRules(rules={"position": RuleSetting(), "velocity": RuleSetting()})


def attack(
    limits: MotionLimits, *, targets: int, batch: int, period: float, box: bool, seed: int
) -> dict[str, Any]:
    """Run the filters until `targets` targets are used up; return counts and times."""
    tool = SerialTool(get_arm("panda"))
    workspace = Workspace(tool, joints=slice(0, 7), lower=tuple(BOX[0]), upper=tuple(BOX[1])) if box else None
    safety = SafetyFilter(limits, period=period, rules=CLAMP, workspace=workspace, batch=batch)
    safety.reset(HOME)
    audit = LimitAudit(limits, period, tool=tool if box else None, box=BOX if box else None)
    hostile = HostileTargets(limits, batch=batch, seed=seed)
    began, stopped, stops, longest = time.perf_counter(), 0, 0, 0
    for number in range(-(-targets // batch)):
        before = safety.state
        audit.check(before, safety.step(hostile.next(before)))
        if number % 100 == 99:  # is the stop reachable? and go on from where it began
            saved, counts = safety.snapshot(), int(safety.steps_to_rest.max())
            longest, stops = max(longest, counts), stops + batch
            for _ in range(counts):
                before = safety.state
                audit.check(before, safety.step(None))
            assert safety.at_rest.all()
            safety.restore(saved)
            stopped += int((safety.stopped_by >= 0).sum())
            if (safety.stopped_by >= 0).mean() > 0.2:  # NaN stops for good: start those again
                safety.reset(np.broadcast_to(HOME, safety.state[0].shape))
    return {
        "targets": targets,
        "period_s": period,
        "workspace": box,
        "violations": audit.violations,
        "largest share of limit": {k: round(v, 6) for k, v in audit.largest.items()},
        "stops tried": stops,
        "longest stop [s]": longest * period,
        "broken rules": dict(zip(RULE_NAMES, safety.counts.sum(axis=0).tolist(), strict=True)),
        "seconds": round(time.perf_counter() - began, 1),
    }


def attack_chunks(limits: MotionLimits, *, chunks: int, seed: int) -> dict[str, Any]:
    """Hostile chunks through a whole runtime, which is reset and started again after every fault."""
    random = np.random.default_rng(seed)
    runtime = Runtime(drill_config(limits.names), drill_spec(limits.names), limits)
    run = DrillRun(runtime, SimulatedArm(HOME.copy()), HOME, limits, latency=1)
    sent = 0

    def predict(window: Window, home: np.ndarray) -> np.ndarray:
        nonlocal sent
        sent += 1
        size = 10.0 ** random.uniform(-3, 1)
        chunk = window.arrays[STATE][-1] + random.normal(size=(16, 7)).cumsum(axis=0) * size * 0.1
        if random.random() < 0.05:
            chunk[random.integers(16), random.integers(7)] = random.choice([np.nan, np.inf, 1e30])
        return chunk.astype(np.float32)

    run.predict = predict
    began, faults, violations = time.perf_counter(), 0, {}
    while sent < chunks:
        run.run(20)
        if (
            runtime.machine.state is State.FAULT
            and run.ticks[-1].trajectory is not None
            and not run.ticks[-1].send
        ):
            faults += 1
            runtime.command(Event.RESET)
        if runtime.machine.state is State.IDLE:
            runtime.command(Event.START)
        if len(run.path) > 20000:
            violations = {k: violations.get(k, 0) + n for k, n in run.violations().items()}
            del run.path[:-1], run.ticks[:-1], run.times[:-1]
    violations = {k: violations.get(k, 0) + n for k, n in run.violations().items()}
    return {
        "chunks": sent,
        "faults": faults,
        "violations": violations,
        "seconds": round(time.perf_counter() - began, 1),
    }


def latency(limits: MotionLimits, *, calls: int, box: bool) -> dict[str, float]:
    """Time single calls of one filter on a moving target [us]."""
    workspace = Workspace(
        SerialTool(get_arm("panda")), joints=slice(0, 7), lower=tuple(BOX[0]), upper=tuple(BOX[1])
    )
    safety = SafetyFilter(limits, period=0.01, workspace=workspace if box else None)
    safety.reset(HOME)
    wall, cpu = np.empty(calls), np.empty(calls)
    for number in range(calls):
        phase = 0.03 * number
        target = Target(
            (HOME + 0.3 * np.sin(phase))[None],
            np.full((1, 7), 0.9 * np.cos(phase)),
            np.full((1, 7), -2.7 * np.sin(phase)),
        )
        measured = safety.state[0]
        begun, used = time.perf_counter(), time.thread_time()
        safety.step(target, measured)
        wall[number], cpu[number] = time.perf_counter() - begun, time.thread_time() - used
    p50, p99 = np.percentile(wall * 1e6, [50, 99])
    c50, c99 = np.percentile(cpu * 1e6, [50, 99])
    return {"p50": round(p50), "p99": round(p99), "cpu p50": round(c50), "cpu p99": round(c99)}


def main() -> int:
    """Run all parts and print them as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--targets", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--chunks", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    limits = load_robot("panda").limits()
    count, batch, seed = args.targets, args.batch, args.seed
    parts = [
        attack(limits, targets=count * 6 // 10, batch=batch, period=0.01, box=False, seed=seed),
        attack(limits, targets=count * 3 // 10, batch=batch, period=0.002, box=False, seed=seed + 1),
        attack(limits, targets=count // 10, batch=max(1, batch // 10), period=0.01, box=True, seed=seed + 2),
        attack_chunks(limits, chunks=args.chunks, seed=seed + 3),
    ]
    for part in parts:
        print(json.dumps(part))
    for box in (False, True):
        print(json.dumps({"one call [us]": latency(limits, calls=5000, box=box), "workspace": box}))
    return int(any(any(part["violations"].values()) for part in parts))


if __name__ == "__main__":
    sys.exit(main())
