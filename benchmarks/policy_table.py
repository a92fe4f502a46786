"""Every policy on the same data with the same CPU budget, judged on the same held-out seeds.

    robot-policies convert pusht_cchi_v7_replay.zarr.zip pusht.zarr
    robot-policies generate task=lift episodes=100 output=lift.zarr
    python benchmarks/policy_table.py pusht=pusht.zarr lift=lift.zarr

Protocol: low-dimensional observations, T_o 2, T_p 16, T_a 8 (implicit BC: T_p 2, T_a 1, as published), min-max
normalisation, one thread. A training ends after its CPU time, validation excluded; its last averaged weights are
judged, without a choice among checkpoints. Every policy but implicit BC has the residual MLP of `diffusion_mlp` in
it, three blocks of 256, so that objectives are compared and not networks; rows of other networks say so. The
consistency student's time comes on top of its teacher's. Samplers were chosen on other initial states (from 200000).
Latencies are measured at the end, in rounds through all rows, one environment each.

Rerun to resume: finished trainings, evaluations and latencies are kept in the output folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from policy_controls import CONTROLS, control_policy


@dataclass(frozen=True)
class Task:
    """A task, the CPU minutes of each training on it, and its first held-out seed."""

    title: str
    experiment: str
    minutes: float
    first_seed: int = 100_000


@dataclass(frozen=True)
class Judged:
    """One row of the table: a name, and the sampler (None: the policy's own or none)."""

    title: str
    sampler: Mapping[str, Any] | None = None

    @property
    def key(self) -> str:
        """A file name."""
        return "-".join(str(v) for v in (self.sampler or {"type": "own"}).values())


@dataclass(frozen=True)
class Training:
    """A preset, the rows that its checkpoint fills, and which training teaches it, if any."""

    overrides: tuple[str, ...]
    judged: tuple[Judged, ...]
    teacher: str | None = None


TASKS = {
    "pusht": Task("PushT, 202 human demonstrations, keypoints", "pusht", 5.0),
    "lift": Task("robosuite Lift, 98 scripted demonstrations, states", "lift_demo", 1.0),
}
SIZE = ("policy.network.width=256", "trainer.batch_size=256")


def _ddim(steps: int) -> dict[str, Any]:
    return {"type": "ddim", "steps": steps}


def _descent(steps: int) -> dict[str, Any]:
    return {"type": "gradient", "steps": steps}


TRAININGS = {
    "dp": Training(
        ("policy=diffusion_mlp_ddpm", *SIZE),
        (
            Judged("Diffusion Policy, DDPM-100", {"type": "ddpm", "steps": 100}),
            Judged("Diffusion Policy, DDIM-10", _ddim(10)),
            Judged("Diffusion Policy, DPM-Solver++(2M)-5", {"type": "dpmpp_2m", "steps": 5}),
            Judged("Diffusion Policy forced to 3 calls, DDIM-3", _ddim(3)),
            Judged("Diffusion Policy forced to 2 calls, DDIM-2", _ddim(2)),
        ),
    ),
    "beso": Training(
        ("policy=beso_small", *SIZE),
        (
            Judged("BESO, DDIM-3", _ddim(3)),
            Judged("BESO, DPM-Solver++(2M)-3", {"type": "dpmpp_2m", "steps": 3}),
        ),
    ),
    "ebt": Training(
        ("policy=energy_small", *SIZE),
        (Judged("EBT-Policy, 2 steps", _descent(2)), Judged("EBT-Policy, 6 steps", _descent(6))),
    ),
    "flow": Training(
        ("policy=flow_mlp", *SIZE),
        (Judged("rectified flow, Euler-4", {"type": "euler", "steps": 4}),),
    ),
    "flow_sample": Training(
        ("policy=flow_mlp", "policy.process.prediction=sample", *SIZE),
        (Judged("rectified flow that predicts the chunk, Euler-4", {"type": "euler", "steps": 4}),),
    ),
    "mip": Training(("policy=mip_mlp", *SIZE), (Judged("MIP, 2 steps"),)),
    "bc": Training(("policy=behavior_cloning_mlp", *SIZE), (Judged("behavior cloning"),)),
    "ibc": Training(
        (
            "policy=implicit_dfo",
            *SIZE[:1],
            # Every row of a batch is compared with all negatives: a batch of 256 with 256 of them takes eight seconds.
            "trainer.batch_size=32",
            "policy.n_negatives=128",
            # One action, as an energy over chunks is told from uniform negatives by how smooth a chunk is; and one
            # observation, as two tell where the arm is going and make the action a copy of that.
            "window.n_obs_steps=1",
            "window.horizon=1",
            "window.n_action_steps=1",
        ),
        (Judged("implicit BC, DFO", {"type": "dfo", "n_samples": 256, "iterations": 5}),),
    ),
    "consistency": Training(
        ("policy=consistency", *SIZE[1:]),
        tuple(
            Judged(f"consistency, {calls}", {"type": "consistency", "steps": steps})
            for steps, calls in ((1, "1 call"), (3, "3 calls"))
        ),
        teacher="dp",
    ),
    "beso_transformer": Training(
        ("policy=beso_transformer_small", "trainer.batch_size=128"),
        (Judged("BESO, DDIM-3, its own transformer", _ddim(3)),),
    ),
    "ebt_transformer": Training(
        ("policy=energy_transformer_small", "trainer.batch_size=64"),
        (Judged("EBT-Policy, 2 steps, its own transformer", _descent(2)),),
    ),
}


SAME_NETWORK = [name for name in TRAININGS if not name.endswith("_transformer")]


def train_row(name: str, task: str, store: Path, seed: int, output: Path) -> Path:
    """Train one preset with one seed, or continue it; returns the run directory."""
    from robot_policies.cli.hydra_app import compose_config
    from robot_policies.training.train import train

    run = output / task / f"{name}-seed{seed}"
    if (run / "finished").exists():
        return run
    chosen, training = TASKS[task], TRAININGS[name]
    overrides = list(training.overrides)
    if training.teacher:
        overrides.append(f"policy.teacher={train_row(training.teacher, task, store, seed, output)}")
    config = compose_config(
        "train",
        [
            f"+experiment={chosen.experiment}",
            "trainer=cpu_budget",
            *overrides,
            "trainer.keep_top_k=0",
            "trainer.val_every=0",
            f"dataset.path={store}",
            f"trainer.time_budget_cpu_minutes={chosen.minutes}",
            f"seed={seed}",
            f"output_dir={run}",
        ],
    )
    train(config)
    (run / "finished").touch()
    return run


def _evaluate(path: Path, policy: Any, task: str, seeds: range, sampler: Any) -> dict[str, Any]:
    """Judge a policy; a result that is there already is read."""
    from robot_policies.evaluation.evaluate import evaluate_policy

    if path.exists():
        return json.loads(path.read_text())
    results = evaluate_policy(
        policy, task, seeds, workers=0, n_envs=len(seeds), sampler=None if sampler is None else dict(sampler)
    )
    record = {
        "parameters": policy.n_parameters(),
        "network_calls": float(np.mean([r.n_network_calls / r.n_chunks for r in results])),
        "score": [r.score for r in results],
        "success": [float(r.success) for r in results],
        "failures": [r.failure for r in results if r.failure],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(".tmp")
    staging.write_text(json.dumps(record))
    os.replace(staging, path)
    return record


def evaluate_run(run: Path, judged: Judged, task: str, episodes: int) -> dict[str, Any]:
    """Judge a training in one way; the result is kept beside the run."""
    from robot_policies.checkpoint import load_policy

    first = TASKS[task].first_seed
    path = run / f"{judged.key}_{first}_{episodes}.json"
    policy = None if path.exists() else load_policy(run / "checkpoints" / "last").policy
    record = _evaluate(path, policy, task, range(first, first + episodes), judged.sampler)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [row for row in rows if row["kind"] == "train"][-1]
    return {**record, "steps": last["step"], "minutes": last["cpu_seconds"] / 60}


def evaluate_control(name: str, task: str, store: Path, output: Path, episodes: int) -> dict[str, Any]:
    """Judge a control that learns nothing, or only a mean."""
    first = TASKS[task].first_seed
    path = output / task / f"control_{name}_{first}_{episodes}.json"
    policy = None if path.exists() else control_policy(name, task, store)
    return _evaluate(path, policy, task, range(first, first + episodes), None)


def measure_latencies(
    rows: Mapping[str, tuple[Path, Judged]], task: str, path: Path, calls: int
) -> dict[str, Any]:
    """Wall times of one-environment calls [ms], in rounds through all rows so that a busy moment hits all alike."""
    import torch

    from robot_policies.checkpoint import load_policy
    from robot_policies.evaluation.episode import ChunkRequest
    from robot_policies.evaluation.inference import measure_latency
    from robot_policies.evaluation.observation_history import ObservationHistory
    from robot_sim.registry import make_task

    if path.exists():
        return json.loads(path.read_text())
    torch.set_num_threads(1)
    observation, _ = make_task(task).reset(seed=TASKS[task].first_seed)
    ready = {}
    for name, (run, judged) in rows.items():
        policy = load_policy(run / "checkpoints" / "last").policy.eval()
        history = ObservationHistory(policy.spec)
        history.reset(observation)
        ready[name] = (policy, ChunkRequest(step=0, observation=history.window()), judged.sampler)
    times: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(calls):
        for name, (policy, request, sampler) in ready.items():
            times[name] += measure_latency(
                policy, request, sampler=sampler, device=torch.device("cpu"), calls=1
            )
    path.write_text(json.dumps(times))
    return times


def _score(records: list[dict[str, Any]], key: str) -> str:
    from robot_policies.evaluation.statistics import bootstrap_mean

    values = np.array([record[key] for record in records])
    interval = bootstrap_mean(values.mean(axis=0))
    each = f" ({', '.join(f'{v:.2f}' for v in values.mean(axis=1))})" if len(records) > 1 else ""
    return f"**{values.mean():.3f}** [{interval.low:.3f}, {interval.high:.3f}]{each}"


def _line(title: str, records: list[dict[str, Any]], times: list[float] | None) -> str:
    latency = "–"
    if times:
        latency = " / ".join(f"{p:.1f}" for p in np.percentile(times, (50, 99)))
    trained = "minutes" in records[0]
    return (
        f"| {title} | {_score(records, 'score')} | {_score(records, 'success')} "
        f"| {records[0]['network_calls'] if trained else 0:.0f} | {latency} "
        f"| {records[0]['parameters'] / 1e6:.1f} M "
        f"| {np.mean([r['minutes'] for r in records]) if trained else 0:.1f} "
        f"| {', '.join(str(r['steps']) for r in records) if trained else '–'} |"
    )


def task_table(task: str, store: Path, args: argparse.Namespace) -> list[str]:
    """Train and judge all rows on one task; the lines of its table."""
    lines = [
        f"### {TASKS[task].title}",
        "",
        "| policy | score [95 %] | success [95 %] | network calls | latency p50 / p99 [ms] | parameters "
        "| train CPU min | steps |",
        "|---|---|---|---|---|---|---|---|",
    ]
    judged_rows: dict[str, tuple[Path, Judged]] = {}
    records: dict[str, list[dict[str, Any]]] = {}
    for name in args.rows:
        runs = [train_row(name, task, store, seed, args.output) for seed in args.training_seeds]
        if args.train_only:
            continue
        for judged in TRAININGS[name].judged:
            records[judged.title] = [evaluate_run(run, judged, task, args.episodes) for run in runs]
            judged_rows[judged.title] = (runs[0], judged)
            logging.info(_line(judged.title, records[judged.title], None))
    if args.train_only or args.no_table:
        return []
    latency_file = args.output / task / f"latency_{'_'.join(args.rows)}_{args.latency_calls}.json"
    times = measure_latencies(judged_rows, task, latency_file, args.latency_calls)
    lines += [_line(title, records[title], times[title]) for title in records]
    for name, title in CONTROLS.items():
        lines.append(_line(title, [evaluate_control(name, task, store, args.output, args.episodes)], None))
    return [*lines, ""]


def main(argv: list[str] | None = None) -> int:
    """Train, judge and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", nargs="+", metavar="TASK=STORE", help=f"tasks: {', '.join(TASKS)}")
    parser.add_argument(
        "--rows", nargs="+", choices=TRAININGS, default=SAME_NETWORK, help="default: all of one network"
    )
    parser.add_argument("--training-seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--episodes", type=int, default=50, help="evaluation episodes per training")
    parser.add_argument("--latency-calls", type=int, default=100)
    parser.add_argument("--output", type=Path, default=Path("outputs/policy_table"))
    parser.add_argument("--train-only", action="store_true", help="train, judge nothing")
    parser.add_argument("--no-table", action="store_true", help="train and judge, write no table")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    lines: list[str] = []
    for given in args.stores:
        task, _, store = given.partition("=")
        if task not in TASKS or not store:
            parser.error(f"expected TASK=STORE with a task of {', '.join(TASKS)}, got {given!r}")
        lines += task_table(task, Path(store), args)
    if lines:
        text = "\n".join([*lines, f"Python {platform.python_version()}, one thread."])
        (args.output / "table.md").write_text(text + "\n")
        logging.info(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
