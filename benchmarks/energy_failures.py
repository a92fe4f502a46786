"""Does the energy of EBT-Policy tell when it will fail, and what does trying again bring? On disturbed PushT.

    python benchmarks/policy_table.py pusht=pusht.zarr --rows ebt --no-table
    python benchmarks/energy_failures.py outputs/policy_table/pusht/ebt-seed0

Three disturbances, fixed by the episode's seed: somebody moves the block (twice, by up to 60 px and 0.6 rad), noise on
all observations (10 px), noise on the actions (20 px). A failure is an episode that never covers 95 % of the target.
AUROC is the share of pairs of a failed and a successful episode of which the failed one has the higher energy; its
interval is a bootstrap over episodes. Energies of the first ten chunks (80 steps) predict, those of all chunks may only
tell of what is happening. The control predicts failure from the first reward alone, the block's coverage at the start.

Retries draw again, at most three times, where the energy of a chunk is above the 90 % quantile of the energies on
undisturbed episodes of other seeds (from 200000), and keep the chunk of the lowest energy; compared on the same seeds.
Rerun to resume.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robot_sim.task import Observation
from robot_sim.tasks.pusht import PushT

DISTURBANCES = {
    "none": "undisturbed",
    "block": "block moved twice",
    "observation": "observations noisy (10 px)",
    "action": "actions noisy (20 px)",
}
MOVES = ((20, 60), (80, 160))
"""Steps between which somebody moves the block, the first and the second time."""
OBSERVATION_NOISE, ACTION_NOISE, MOVED, TURNED = 10.0, 20.0, 60.0, 0.6
CHUNKS_EARLY = 10
FIRST_SEED, OTHER_SEED = 100_000, 200_000


class DisturbedPushT(PushT):
    """PushT with one of `DISTURBANCES`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self._kind = kind
        self._random = np.random.default_rng(0)
        self._moves: set[int] = set()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode; its disturbances depend on the seed alone."""
        observation, info = super().reset(seed=seed, options=options)
        self._random = np.random.default_rng([0 if seed is None else seed, 7])
        self._moves = {int(self._random.integers(*bounds)) for bounds in MOVES}
        return self._disturb(observation), info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One control step."""
        if self._kind == "action":
            action = np.clip(action + ACTION_NOISE * self._random.standard_normal(2), 0, 512)
        if self._kind == "block" and self._steps in self._moves:
            self._move_block()
        observation, *rest = super().step(np.asarray(action, dtype=np.float32))
        return self._disturb(observation), *rest

    def _disturb(self, observation: Observation) -> Observation:
        if self._kind != "observation":
            return observation
        return {
            name: (value + OBSERVATION_NOISE * self._random.standard_normal(value.shape)).astype(np.float32)
            for name, value in observation.items()
        }

    def _move_block(self) -> None:
        benchmark = self._benchmark
        x, y = (np.asarray(benchmark.block.position) + self._random.uniform(-MOVED, MOVED, 2)).clip(100, 412)
        benchmark.block.angle += float(self._random.uniform(-TURNED, TURNED))
        benchmark.block.position = (float(x), float(y))
        benchmark.space.reindex_shapes_for_body(benchmark.block)


def run_episodes(
    run: Path, kind: str, first: int, episodes: int, steps: int, retry: float | None
) -> list[dict[str, Any]]:
    """Roll out with one disturbance; the result is kept beside the run."""
    from robot_policies.checkpoint import load_policy
    from robot_policies.evaluation.evaluate import evaluate_policy
    from robot_policies.policies.retrying import RetryConfig, RetryingPolicy

    how = "plain" if retry is None else f"retry{retry:.6g}"
    path = run / f"failures_{kind}_{steps}_{how}_{first}_{episodes}.json"
    if path.exists():
        return json.loads(path.read_text())
    policy = load_policy(run / "checkpoints" / "last").policy
    if retry is not None:
        policy = RetryingPolicy(policy, RetryConfig(energy_above=retry, attempts=3))
    results = evaluate_policy(
        policy,
        partial(DisturbedPushT, kind),
        range(first, first + episodes),
        workers=0,
        n_envs=episodes,
        sampler={"type": "gradient", "steps": steps},
    )
    rows = [
        {
            "score": r.score,
            "success": r.success,
            "energies": r.energies.tolist(),
            "calls": r.n_network_calls / r.n_chunks,
            "first_reward": float(r.rewards[0]),
            "failure": r.failure,
        }
        for r in results
    ]
    staging = path.with_suffix(".tmp")
    staging.write_text(json.dumps(rows))
    os.replace(staging, path)
    return rows


def auroc_cell(signal: np.ndarray, failed: np.ndarray) -> str:
    """AUROC with its interval; a dash if all episodes ended alike."""
    from robot_policies.evaluation.statistics import auroc

    if failed.all() or not failed.any():
        return "–"
    found = auroc(signal, failed)
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def prediction_line(title: str, rows: list[dict[str, Any]]) -> str:
    """One line of the table of AUROCs."""
    failed = np.array([not row["success"] for row in rows])
    energies = [np.array(row["energies"]) for row in rows]
    signals = {
        "early": np.array([e[:CHUNKS_EARLY].mean() for e in energies]),
        "mean": np.array([e.mean() for e in energies]),
        "start": -np.array([row["first_reward"] for row in rows]),
    }
    cells = " | ".join(auroc_cell(signal, failed) for signal in signals.values())
    return f"| {title} | {failed.sum()} of {len(rows)} | {cells} |"


def retry_line(title: str, plain: list[dict[str, Any]], again: list[dict[str, Any]]) -> str:
    """One line of the table of retries."""
    from robot_policies.evaluation.statistics import bootstrap_mean, paired_difference

    scores = [[row["score"] for row in rows] for rows in (plain, again)]
    difference = paired_difference(*scores)
    successes = [np.mean([row["success"] for row in rows]) for rows in (plain, again)]
    calls = [np.mean([row["calls"] for row in rows]) for rows in (plain, again)]
    return (
        f"| {title} | {bootstrap_mean(scores[0]).value:.3f} | {bootstrap_mean(scores[1]).value:.3f} "
        f"| {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] "
        f"| {successes[0]:.2f} -> {successes[1]:.2f} | {calls[0]:.1f} -> {calls[1]:.1f} |"
    )


def main(argv: list[str] | None = None) -> int:
    """Roll out and write both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="a trained EBT-Policy on PushT")
    parser.add_argument("--episodes", type=int, default=100, help="per disturbance")
    parser.add_argument("--steps", type=int, default=2, help="descent steps")
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    rolled = partial(run_episodes, args.run, steps=args.steps, episodes=args.episodes)
    others = rolled("none", OTHER_SEED, retry=None)
    threshold = float(np.quantile(np.concatenate([row["energies"] for row in others]), 0.9))
    plain = {kind: rolled(kind, FIRST_SEED, retry=None) for kind in DISTURBANCES}
    again = {kind: rolled(kind, FIRST_SEED, retry=threshold) for kind in DISTURBANCES}
    lines = [
        f"| disturbance | failures | AUROC: mean energy of the first {CHUNKS_EARLY} chunks | of all chunks "
        "| control: coverage at the start |",
        "|---|---|---|---|---|",
        *(prediction_line(title, plain[kind]) for kind, title in DISTURBANCES.items()),
        prediction_line("all four together", [row for rows in plain.values() for row in rows]),
        "",
        f"Threshold of the retries: {threshold:.3g}.",
        "",
        "| disturbance | score | with retries | difference [95 %], same seeds | success | calls, slowest row |",
        "|---|---|---|---|---|---|",
        *(retry_line(title, plain[kind], again[kind]) for kind, title in DISTURBANCES.items()),
    ]
    text = "\n".join(lines)
    (args.run / f"energy_failures_{args.steps}.md").write_text(text + "\n")
    logging.info(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
