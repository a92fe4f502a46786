"""Time an evaluation on PushT with one policy call per environment and with calls batched over environments.

    robot-policies train +experiment=pusht trainer.time_budget_cpu_minutes=1 \
        dataset.path=pusht.zarr output_dir=runs/pusht_speed
    python benchmarks/eval_batching.py --checkpoint runs/pusht_speed --episodes 50

The same trained policy plays the same episodes of at most 300 steps, one after the other (batches of one), then all
side by side in this process, then all side by side with the environments in worker processes; in one run. Scores must
agree: batches of different sizes round differently, and the largest difference is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import Any

import torch

from robot_policies.checkpoint import load_policy
from robot_policies.evaluation.evaluate import evaluate_policy

FIRST_SEED = 100_000


def main() -> int:
    """Run and print a table and JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="run or checkpoint directory of a PushT policy")
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="torch threads, the same for all")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    loaded = load_policy(args.checkpoint)
    policy, n = loaded.policy, args.episodes
    ways = {
        "one by one": {"n_envs": 1, "workers": 0},
        f"batches of {n}, one process": {"n_envs": n, "workers": 0},
        f"batches of {n}, {args.workers} processes": {"n_envs": n, "workers": args.workers},
    }
    seeds = range(FIRST_SEED, FIRST_SEED + n)
    evaluate_policy(policy, "pusht", [FIRST_SEED - 1], workers=0, n_envs=1)  # first calls are slow
    rows: dict[str, dict[str, Any]] = {}
    scores: dict[str, list[float]] = {}
    for name, settings in ways.items():
        wall, cpu = time.perf_counter(), time.process_time()
        results = evaluate_policy(policy, "pusht", seeds, **settings)
        spent = time.perf_counter() - wall
        scores[name] = [result.score for result in results]
        first = next(iter(rows.values()), {"wall [s]": spent})
        rows[name] = {
            "wall [s]": round(spent, 2),
            "cpu of this process [s]": round(time.process_time() - cpu, 2),
            "steps": sum(result.steps for result in results),
            "policy calls": sum(len(result.batch_sizes) for result in results),
            "mean score": round(sum(scores[name]) / n, 4),
            "x": round(first["wall [s]"] / spent, 2),
        }
        print(f"{name:28}", rows[name], flush=True)
    reference = scores["one by one"]
    differs = max(abs(a - b) for other in scores.values() for a, b in zip(other, reference, strict=True))
    print(f"largest difference of an episode's score: {differs:.3g}")
    print(json.dumps({"rows": rows, "largest difference": differs, "load": os.getloadavg()[0]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
