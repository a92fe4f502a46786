"""PushT from human demonstrations on one CPU core: train small presets, judge them on held-out seeds.

    robot-policies convert pusht_cchi_v7_replay.zarr.zip pusht.zarr
    python benchmarks/pusht.py pusht.zarr --rows mlp-5 unet-25 --training-seeds 0 1 2

Protocol: keypoint observations, T_o 2, T_p 16, T_a 8 or 12, 202 of the 206 demonstrations. Training stops after the
stated CPU time of the training process (validation excluded), and its last EMA weights are judged: no choice among
checkpoints. T_a 12 was compared with 8 on other seeds (from 200000). Score = mean over episodes of the largest
coverage reward within 300 steps, initial states of the Diffusion Policy paper from seed 100000 on. Strict success =
coverage above 95 % at any step.

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
    "| *Diffusion Policy paper, DP-C on state: another protocol (at most 90 demonstrations, inpainting, 3 trainings x "
    "50 episodes)* | *GPU* | *65.8 M* | *100* | *0.95 best checkpoint / 0.91 mean of the last 10* | *not reported* |"
)


@dataclass(frozen=True)
class Judged:
    """How a training is judged: its sampler (None: it has none) and the executed steps of each chunk."""

    sampler: dict[str, Any] | None
    n_action_steps: int = 8

    @property
    def name(self) -> str:
        """For example ``ddim-10, T_a 8``."""
        sampler = f"{self.sampler['type']}-{self.sampler['steps']}" if self.sampler else "regression"
        return f"{sampler}, T_a {self.n_action_steps}"


@dataclass(frozen=True)
class Row:
    """A preset with its CPU budget [minutes], and one line of the table for each way it is judged.

    With `mirrored`, it is also trained on the mirror images of the demonstrations.
    """

    title: str
    minutes: float
    overrides: tuple[str, ...]
    judged: tuple[Judged, ...]
    mirrored: bool = False


MLP = ("policy=diffusion_mlp", "trainer.batch_size=256")
CLONING = ("policy=behavior_cloning_mlp", "trainer.batch_size=256")
UNET = ("policy=diffusion_unet_small", "trainer.batch_size=128")
DDIM_10 = {"type": "ddim", "steps": 10}
DDIM_3 = {"type": "ddim", "steps": 3}
DPM_6 = {"type": "dpmpp_2m", "steps": 6}
ROWS = {
    "cloning-5": Row(
        "control: MLP, regression of the chunk", 5, CLONING, (Judged(None), Judged(None, n_action_steps=12))
    ),
    "mlp-5": Row("MLP, EDM", 5, MLP, (Judged(DDIM_10), Judged(DDIM_10, n_action_steps=12), Judged(DDIM_3))),
    "unet-25-noise": Row(
        "UNet, EDM, trained on observations with noise of 2 px",
        25,
        (*UNET, "+policy.observation_noise=0.008"),
        (Judged(DDIM_10), Judged(DDIM_10, n_action_steps=12), Judged(DPM_6, n_action_steps=12)),
    ),
    "unet-25-mirror": Row(
        "smaller UNet, EDM, batch 64, also trained on mirrored demonstrations",
        25,
        ("policy=diffusion_unet_small", "policy.network.down_dims=[48,96,192]", "trainer.batch_size=64"),
        (Judged(DDIM_10), Judged(DDIM_10, n_action_steps=12)),
        mirrored=True,
    ),
    "unet-10": Row("UNet, EDM", 10, UNET, (Judged(DDIM_10), Judged(DDIM_10, n_action_steps=12))),
    "unet-25": Row(
        "UNet, EDM",
        25,
        UNET,
        (Judged(DDIM_10), Judged(DDIM_10, n_action_steps=12), Judged(DPM_6, n_action_steps=12)),
    ),
}


def train_row(name: str, row: Row, store: Path, seed: int, output: Path) -> Path:
    """Train one preset with one seed, or continue it; returns the run directory."""
    from robot_policies.cli.hydra_app import compose_config
    from robot_policies.training.train import train

    run = output / f"{name}-seed{seed}"
    finished = run / "finished"
    if finished.exists():
        return run
    config = compose_config(
        "train",
        [
            "+experiment=pusht",
            *row.overrides,
            *(mixed_with_mirror(store, output) if row.mirrored else [f"dataset.path={store}"]),
            f"trainer.time_budget_cpu_minutes={row.minutes}",
            f"seed={seed}",
            f"output_dir={run}",
        ],
    )
    train(config)
    finished.touch()
    return run


def mixed_with_mirror(store: Path, output: Path) -> list[str]:
    """Write the mirror images, unless they are there, and return what trains on both."""
    from robot_datasets.edit import apply
    from robot_datasets.store import EpisodeStore
    from robot_sim.mirror import mirror

    mirrored = output / "mirrored.zarr"
    apply(mirror(EpisodeStore.open(store)), mirrored)
    mixture = f"dataset.mixture=[{{path: {store}}},{{path: {mirrored}}}]"
    return [mixture, "dataset.path=", "dataset.statistics=pooled"]


def evaluate_run(run: Path, judged: Judged, first_seed: int, episodes: int) -> dict[str, Any]:
    """Judge a training in one way; results are kept beside the run."""
    from robot_policies.checkpoint import load_policy
    from robot_policies.evaluation.evaluate import evaluate_policy

    name = judged.name.replace(", T_a ", "_")
    path = run / f"pusht_{name}_{first_seed}_{episodes}.json"
    if path.exists():
        return json.loads(path.read_text())
    policy = load_policy(run / "checkpoints" / "last").policy
    results = evaluate_policy(
        policy,
        "pusht",
        range(first_seed, first_seed + episodes),
        workers=0,
        n_envs=episodes,
        sampler=judged.sampler,
        executor={"type": "receding_horizon", "n_action_steps": judged.n_action_steps},
    )
    record = {
        "parameters": policy.n_parameters(),
        "network_calls": float(np.mean([r.n_network_calls / r.n_chunks for r in results])),
        "score": [r.score for r in results],
        "success": [float(r.success) for r in results],
    }
    path.write_text(json.dumps(record))
    return record


def table_line(row: Row, judged: Judged, runs: list[Path], first_seed: int, episodes: int) -> str:
    """Summarise the trainings of one row, judged in one way."""
    from robot_policies.evaluation.statistics import bootstrap_mean

    records = [evaluate_run(run, judged, first_seed, episodes) for run in runs]
    cells = []
    for key in ("score", "success"):
        values = np.array([record[key] for record in records])  # (trainings, episodes)
        interval = bootstrap_mean(values.mean(axis=0))
        each = ", ".join(f"{v:.2f}" for v in values.mean(axis=1))
        cells.append(f"**{values.mean():.3f}** [{interval.low:.3f}, {interval.high:.3f}] ({each})")
    return (
        f"| {row.title}; {judged.name} | {row.minutes:g} | {records[0]['parameters'] / 1e6:.1f} M "
        f"| {records[0]['network_calls']:.0f} | {cells[0]} | {cells[1]} |"
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
    parser.add_argument("--first-seed", type=int, default=100_000, help="first evaluation seed")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark_pusht"))
    parser.add_argument("--train-only", action="store_true", help="train and judge, write no table")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    lines = [
        "| preset; sampler, executed steps | CPU minutes | parameters | network calls "
        "| score [95 %] (each training) | strict success [95 %] (each training) |",
        "|---|---|---|---|---|---|",
    ]
    for name in args.rows:
        row = ROWS[name]
        runs = [train_row(name, row, args.store, seed, args.output) for seed in args.training_seeds]
        for judged in row.judged:
            lines.append(table_line(row, judged, runs, args.first_seed, args.episodes))
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
