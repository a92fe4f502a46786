"""``twin eval`` and ``twin run``: trained policies in a twin."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from robot_datasets.errors import UserError
from robot_policies.evaluation.futures import Futures, play_futures, ranked
from robot_policies.evaluation.statistics import wilson_interval
from robot_policies.evaluation.twin_policy import OneOf, load_twin_policy
from robot_sim.twin.cell import Cell, load_cell
from robot_sim.twin.cell_log import play, read_log
from robot_sim.twin.parallel import ParallelCell
from robot_sim.twin.scene import cell_task
from robot_sim.twin.twin import Twin
from robot_sim.twin.view import fork


def starts_of(arguments: argparse.Namespace, cell: Cell) -> ParallelCell:
    """Return the futures that a policy is to be played in."""
    if arguments.starts < 1:
        raise UserError(f"--starts is {arguments.starts}, expected at least 1")
    if arguments.log is not None:
        twin = Twin(cell)
        for report in play(twin, read_log(arguments.log, cell=cell.name)):
            if report.time_ns >= 1e9 * arguments.at:
                if report.lost:
                    raise UserError(f"at {arguments.at:g} s the twin does not know where {report.lost[0]} is")
                return fork(twin, arguments.starts)
        raise UserError(f"--at {arguments.at:g}: the recording is over before that")
    copies = ParallelCell([cell] * arguments.starts, sensed=True)
    first = copies.task.spec.seed_start
    copies.reset(range(arguments.starts), range(first, first + arguments.starts))
    return copies


def evaluate_in_twin(arguments: argparse.Namespace) -> int:
    """Rank checkpoints in parallel futures."""
    cell = load_cell(arguments.cell)
    policies = {path: load_twin_policy(path, cell) for path in arguments.checkpoints}
    steps = arguments.steps or cell_task(cell).spec.max_steps
    results: dict[str, Futures] = {}
    for path, policy in policies.items():
        futures = starts_of(arguments, cell)
        results[path] = play_futures(futures, policy, steps=steps)
        futures.close()
    rows: list[dict[str, Any]] = []
    for path, found in ranked(results):
        interval = wilson_interval(int(found.success.sum()), len(found.success))
        rows.append(
            {
                "checkpoint": path,
                "success": interval.value,
                "low": interval.low,
                "high": interval.high,
                "reward": float(found.best_reward.mean()),
            }
        )
    if arguments.json:
        print(json.dumps(rows))
        return 0
    print(
        f"{arguments.starts} futures of {steps} steps in the twin of {cell.name}; success [95 %], best reward"
    )
    for place, row in enumerate(rows, start=1):
        print(
            f"{place}. {row['checkpoint']}: {row['success']:.2f} [{row['low']:.2f}, {row['high']:.2f}], "
            f"{row['reward']:.3f}"
        )
    return 0


def run_in_twin(arguments: argparse.Namespace) -> int:
    """Let a policy act in the twin while a surrogate's arm follows."""
    from robot_deploy.tracking.twin_run import TwinRun
    from robot_sim.twin.surrogate import SurrogateCell

    if arguments.episodes < 1:
        raise UserError(f"--episodes is {arguments.episodes}, expected at least 1")
    cell = load_cell(arguments.cell)
    policy = OneOf(load_twin_policy(arguments.checkpoints[0], cell))
    spec = cell_task(cell).spec
    first = spec.seed_start if arguments.seed is None else arguments.seed
    good = 0
    for seed in range(first, first + arguments.episodes):
        result = TwinRun(cell, SurrogateCell(cell)).run(
            policy, seed=seed, max_steps=arguments.steps or spec.max_steps
        )
        good += result.success
        said = {
            "seed": seed,
            "success": result.success,
            "steps": result.steps,
            "waited": round(result.held, 4),
            "gap_p95": float(np.quantile(result.gaps, 0.95)),
            "fault": result.fault,
            "beyond_limits": sum(result.violations.values()),
        }
        if arguments.json:
            print(json.dumps(said), flush=True)
            continue
        print(
            f"seed {seed}: {'reached' if result.success else 'not reached'} in {result.steps} steps, waited "
            f"{100 * result.held:.1f} %, commanded to measured joints p95 {1e3 * said['gap_p95']:.1f} mrad, "
            f"{said['beyond_limits']} commands beyond a limit{'; ' + result.fault if result.fault else ''}",
            flush=True,
        )
    if not arguments.json:
        print(f"reached {good} of {arguments.episodes}, on a surrogate")
    return 0
