"""A policy in the twin with the surrogate's arm following it, against the same policy on the surrogate itself (E5).

Both start where the same seeds say, on the same surrogate. "Direct" is the policy reading the surrogate's late and
noisy poses and commanding its tool; "through the twin" is `robot_deploy.tracking.twin_run`. Then the twin is run
through three faults: the arm stands still for a second, joint states are lost for half a second, and a joint limit of
the cell is in the way.

    python benchmarks/twin_run.py --episodes 20 --out results/twin_run.jsonl           # the scripted pusher
    python benchmarks/twin_run.py --policy runs/push --episodes 20 --out results/twin_run_push.jsonl
    python benchmarks/twin_run.py --out results/twin_run.jsonl --table docs/benchmarks/twin.md
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from twin_page import replace_part

from robot_deploy.tracking.twin_run import TwinRun, TwinRunConfig, TwinRunResult
from robot_policies.evaluation.statistics import wilson_interval
from robot_policies.evaluation.twin_policy import OneOf, load_twin_policy
from robot_sim.twin.cell import Cell, load_cell
from robot_sim.twin.parallel import ParallelCell
from robot_sim.twin.scripted_policy import ScriptedPusher
from robot_sim.twin.surrogate import SurrogateCell, SurrogateConfig, hidden_cell

SEED, MOST = 6_000_000, 250
FAULTS: dict[str, dict[str, Any]] = {
    "arm stands still for 1 s": {"freeze": (3.0, 1.0)},
    "joint states lost for 0.5 s": {"drop_joints": (3.0, 0.5)},
    "a joint limit in the way": {},
}


def sensed_cell(cell: Cell, config: SurrogateConfig) -> Cell:
    """Return the surrogate with its latencies and noise, for runs without a twin."""
    cell = hidden_cell(cell, config)
    return replace(
        cell,
        latency=replace(cell.latency, objects=config.object_latency, command=config.command_latency),
        noise=replace(cell.noise, position=config.position_noise, angle=config.angle_noise),
    )


def policy_of(run: str | None, cell: Cell, seed: int) -> Any:
    """Return a trained policy, or the scripted pusher."""
    return ScriptedPusher(seed=seed) if run is None else OneOf(load_twin_policy(run, cell))


def direct(cell: Cell, policy: Any, seed: int) -> dict[str, Any]:
    """Run the policy on the surrogate itself."""
    world = ParallelCell([sensed_cell(cell, SurrogateConfig())], sensed=True, threads=0, noise_seed=seed)
    world.reset([0], [seed])
    policy.reset()
    for step in range(MOST):
        observation = {name: value[0] for name, value in world.observe().items()}
        world.step(policy.act(observation)[None])
        if bool(world.outcome().success[0]):
            return {"success": True, "steps": step + 1}
    return {"success": False, "steps": MOST}


def through_twin(cell: Cell, policy: Any, seed: int, config: TwinRunConfig, most: int) -> TwinRunResult:
    """Run the policy in the twin."""
    return TwinRun(cell, SurrogateCell(cell, SurrogateConfig()), config).run(
        policy, seed=seed, max_steps=most
    )


def told(result: TwinRunResult) -> dict[str, Any]:
    """Return what is kept of a run."""
    q = lambda values, share: float(np.quantile(values, share)) if values else None  # noqa: E731
    return {
        "success": result.success,
        "twin_success": result.twin_success,
        "steps": result.steps,
        "held": result.held,
        "holds": result.holds,
        "fault": result.fault,
        "gap_p95": q(result.gaps, 0.95),
        "lag_ms": q(result.lags_ms, 0.5),
        "error_mean": float(np.mean(result.errors)),
        "error_p95": q(result.errors, 0.95),
        "violations": sum(result.violations.values()),
    }


def limited(cell: Cell, seed: int) -> Cell:
    """Return the cell with an upper limit of the first joint just above where the episode starts."""
    surrogate = SurrogateCell(cell, SurrogateConfig())
    surrogate.start(seed)
    upper = [2.8] * len(cell.robot.joints)
    joints = surrogate.scene.joints[0]
    return replace(
        cell,
        robot=replace(
            cell.robot,
            lower=(float(joints[0] - 0.1), *([-3.0] * (len(upper) - 1))),
            upper=(float(joints[0] + 0.1), *([3.8] * (len(upper) - 1))),
        ),
    )


def run(episodes: int, out: Path, trained: str | None) -> None:
    """Measure what is missing, a line per run."""
    cell, rows = load_cell("tabletop_push_t"), read(out)
    done = {(row["what"], row["seed"]) for row in rows}
    out.parent.mkdir(parents=True, exist_ok=True)
    plan = [(what, SEED + i) for what in FAULTS for i in range(min(3, episodes))]
    plan = (
        [(what, SEED + i) for i in range(episodes) for what in ("direct", "twin")][:4]
        + plan
        + [(what, SEED + i) for i in range(2, episodes) for what in ("direct", "twin")]
    )
    for what, seed in plan:
        if (what, seed) in done:
            continue
        policy = policy_of(trained, cell, seed)
        if what == "direct":
            row = direct(cell, policy, seed)
        elif what == "twin":
            row = told(through_twin(cell, policy, seed, TwinRunConfig(), MOST))
        else:
            here = limited(cell, seed) if "limit" in what else cell
            row = told(through_twin(here, policy, seed, TwinRunConfig(**FAULTS[what]), 60))
        with out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"what": what, "seed": seed, **row}) + "\n")
        print(what, seed, row, flush=True)


def read(out: Path) -> list[dict[str, Any]]:
    """Return the rows so far."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """Return the tables as Markdown."""
    lines = ["\n| run | success [95 %] | steps, mean |", "|---|---|---|"]
    for what, name in (("direct", "direct"), ("twin", "through the twin")):
        chosen = [row for row in rows if row["what"] == what]
        if chosen:
            good = sum(row["success"] for row in chosen)
            interval = wilson_interval(good, len(chosen))
            lines.append(
                f"| {name} | {good} of {len(chosen)} [{100 * interval.low:.0f} %, {100 * interval.high:.0f} %] | "
                f"{np.mean([row['steps'] for row in chosen]):.0f} |"
            )
    lines += [
        "\n| through the twin | runs | waited, share of ticks | commanded to measured joints p95 mrad | delay of the "
        "arm ms | block, twin against surrogate: mean / p95 mm | commands beyond a limit | ended in a fault |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for what in ("twin", *FAULTS):
        chosen = [row for row in rows if row["what"] == what]
        if chosen:
            mean = lambda key, c=chosen: float(np.mean([row[key] for row in c]))  # noqa: E731
            lines.append(
                f"| {'no fault' if what == 'twin' else what} | {len(chosen)} | {mean('held'):.3f} | "
                f"{1e3 * mean('gap_p95'):.1f} | {mean('lag_ms'):.0f} | "
                f"{1e3 * mean('error_mean'):.1f} / {1e3 * mean('error_p95'):.1f} | "
                f"{sum(row['violations'] for row in chosen)} | {sum(bool(row['fault']) for row in chosen)} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=0)
    parser.add_argument("--policy", help="run directory of a trained policy; none takes the scripted pusher")
    parser.add_argument("--out", type=Path, default=Path("results/twin_run.jsonl"))
    parser.add_argument("--table", type=Path, help="write the tables into this page")
    arguments = parser.parse_args()
    run(arguments.episodes, arguments.out, arguments.policy)
    if arguments.table:
        replace_part(arguments.table, "run", table(read(arguments.out)))


if __name__ == "__main__":
    main()
