"""PushT from human demonstrations on one CPU core: train small presets, judge them on held-out seeds.

    robot-policies convert pusht_cchi_v7_replay.zarr.zip pusht.zarr
    python benchmarks/pusht.py pusht.zarr --rows mlp-5 unet-25 --training-seeds 0 1 2

Protocol: keypoint observations, T_o 2, T_p 16, T_a 8, 202 of the 206 demonstrations; training stops after the
stated CPU time of the training process (validation excluded) and its EMA weights are judged once, with no choice
among checkpoints. Score = mean over episodes of the largest coverage reward within 300 steps, initial states of
the Diffusion Policy paper from seed 100000 on. Strict success = coverage above 95 % at any step.

The interval is a 95 % bootstrap over evaluation seeds of the average over training seeds; it does not cover
the spread between trainings, which is why every training's own score is printed. Rerun to resume: finished
trainings and evaluations are kept in the output folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

PAPER_ROW = (
    "| *Diffusion Policy paper, DP-C on state (other protocol: 65.8 M parameters, at most 90 demonstrations, "
    "inpainting, 3 x 50 episodes)* | | *0.95 best checkpoint / 0.91 mean of the last 10* | | | GPU | 65.8 M | 100 |"
)


@dataclass(frozen=True)
class Row:
    """Lines of the table: a preset, its CPU budget [minutes] and the samplers it is judged with (None: it has none)."""

    title: str
    minutes: float
    overrides: tuple[str, ...]
    samplers: tuple[dict[str, Any] | None, ...]


MLP = ("policy=diffusion_mlp", "trainer.batch_size=256")
CLONING = ("policy=behavior_cloning_mlp", "trainer.batch_size=256")
UNET = ("policy=diffusion_unet_small", "trainer.batch_size=128")
DDIM_10 = {"type": "ddim", "steps": 10}
ROWS = {
    "cloning-5": Row("control: MLP, regression of the chunk", 5, CLONING, (None,)),
    "mlp-5": Row(
        "MLP, EDM", 5, MLP, (DDIM_10, {"type": "ddim", "steps": 3}, {"type": "dpmpp_2m", "steps": 6})
    ),
    "unet-10": Row("UNet 64-128-256, EDM", 10, UNET, (DDIM_10,)),
    "unet-25": Row("UNet 64-128-256, EDM", 25, UNET, (DDIM_10, {"type": "dpmpp_2m", "steps": 6})),
}


def train_row(name: str, row: Row, store: Path, seed: int, output: Path) -> Path:
    """Train one preset with one seed, or continue it; returns the run directory."""
    from robot_policies.cli.hydra_app import compose_config
    from robot_policies.training.train import train

    config = compose_config(
        "train",
        [
            "+experiment=pusht",
            *row.overrides,
            f"dataset.path={store}",
            f"trainer.time_budget_cpu_minutes={row.minutes}",
            f"seed={seed}",
            f"output_dir={output / f'{name}-seed{seed}'}",
        ],
    )
    return train(config)


def sampler_name(sampler: dict[str, Any] | None) -> str:
    """``ddim-10``, or ``regression``."""
    return f"{sampler['type']}-{sampler['steps']}" if sampler else "regression"


def evaluate_run(run: Path, sampler: dict[str, Any] | None, episodes: int) -> dict[str, Any]:
    """Judge a run with one sampler; results are kept beside the run."""
    from robot_policies.checkpoint import load_policy
    from robot_policies.evaluation.evaluate import evaluate_policy

    path = run / f"pusht_{sampler_name(sampler)}_{episodes}.json"
    if path.exists():
        return json.loads(path.read_text())
    loaded = load_policy(run / "checkpoints" / "last")
    seeds = range(100_000, 100_000 + episodes)
    results = evaluate_policy(loaded.policy, "pusht", seeds, workers=0, n_envs=episodes, sampler=sampler)
    records = [
        {"seed": r.seed, "score": r.score, "success": r.success, "calls": r.n_network_calls / r.n_chunks}
        for r in results
    ]
    judged = {"sampler": sampler, "parameters": loaded.policy.n_parameters(), "episodes": records}
    path.write_text(json.dumps(judged))
    return judged


def table_line(row: Row, sampler: dict[str, Any] | None, runs: list[Path], episodes: int) -> str:
    """Summarise the trainings of one row."""
    from robot_policies.evaluation.statistics import bootstrap_mean

    judged = [evaluate_run(run, sampler, episodes) for run in runs]
    scores = np.array([[e["score"] for e in result["episodes"]] for result in judged])
    strict = np.array([[float(e["success"]) for e in result["episodes"]] for result in judged])
    cells = []
    for values in (scores, strict):
        interval = bootstrap_mean(values.mean(axis=0))
        each = ", ".join(f"{v:.3f}" for v in values.mean(axis=1))
        cells += [f"**{values.mean():.3f}** [{interval.low:.3f}, {interval.high:.3f}]", each]
    calls = np.mean([e["calls"] for result in judged for e in result["episodes"]])
    return (
        f"| {row.title}; {sampler_name(sampler)} | {len(runs)} x {episodes} | {cells[0]} | {cells[1]} "
        f"| {cells[2]} ({cells[3]}) | {row.minutes:g} | {judged[0]['parameters'] / 1e6:.1f} M | {calls:.0f} |"
    )


def main(argv: list[str] | None = None) -> int:
    """Train, judge and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path, help="the converted demonstrations")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--training-seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--episodes", type=int, default=100, help="evaluation episodes per training")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark_pusht"))
    parser.add_argument("--train-only", action="store_true", help="train and judge, write no table")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    lines = [
        "| preset; sampler | trainings x episodes | score [95 %] | each training | strict success [95 %] (each) "
        "| CPU minutes | parameters | network calls |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in args.rows:
        row = ROWS[name]
        runs = [train_row(name, row, args.store, seed, args.output) for seed in args.training_seeds]
        for sampler in row.samplers:
            lines.append(table_line(row, sampler, runs, args.episodes))
            logging.info(lines[-1])
    if args.train_only:
        return 0
    command = "python benchmarks/pusht.py pusht.zarr " + " ".join((argv or sys.argv[1:])[1:])
    text = "\n".join(
        [*lines, PAPER_ROW, "", f"`{command}`", "", f"Python {platform.python_version()}, one thread."]
    )
    (args.output / "table.md").write_text(text + "\n")
    logging.info(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
