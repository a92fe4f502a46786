"""The whole way, by command line alone, on tasks of every library: demonstrations, a small policy, a judgement.

    robot-policies convert pusht_cchi_v7_replay.zarr.zip pusht.zarr
    python benchmarks/task_suite.py pusht=pusht.zarr robosuite/Lift robosuite/Can robosuite/Square \
        metaworld/reach-v3 metaworld/button-press-topdown-v3 metaworld/drawer-open-v3 metaworld/door-open-v3 \
        metaworld/window-close-v3 tabletop_pick_place

Each task goes through three commands that a user would type: `robot-policies generate` (its scripted expert; left out
where a store is given as TASK=STORE), `train` and `eval`. One training each: the residual MLP of `diffusion_mlp`,
states as observations, T_o 2, T_p 16, T_a 8; held-out initial states from seed 100000, Wilson intervals. It says that
the way leads through every library from one installation, not how good a policy can be. Rerun to resume.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

TRAIN = (
    "+experiment=lift_demo",
    "trainer=cpu_budget",
    "trainer.batch_size=128",
    "trainer.lr=1.0e-3",
    "trainer.keep_top_k=0",
    "trainer.val_every=0",
)


def robot_policies(*arguments: str) -> None:
    """Run the command line; its output is shown."""
    logging.info("$ robot-policies %s", " ".join(arguments))
    subprocess.run([sys.executable, "-m", "robot_policies.cli.main", *arguments], check=True)


def task_summary(task: str, store: str, args: argparse.Namespace) -> dict[str, Any]:
    """Take one task all the way, or go on with it; returns the evaluation's summary and what it was trained on."""
    from robot_datasets.store import EpisodeStore

    folder = args.output / task.replace("/", "_")
    if not store:
        store = str(folder / "demos.zarr")
        robot_policies("generate", f"task={task}", f"episodes={args.demonstrations}", f"output={store}")
    demonstrations = EpisodeStore.open(store)
    run, results = folder / "run", folder / "eval"
    if not (folder / "trained").exists():
        budget = f"trainer.time_budget_cpu_minutes={args.minutes}"
        robot_policies("train", *TRAIN, f"task={task}", f"dataset.path={store}", budget, f"output_dir={run}")
        (folder / "trained").touch()
    robot_policies(
        "eval", f"checkpoint={run}", f"episodes={args.episodes}", f"output_dir={results}",
        f"workers={args.workers}", "threads=1", "video.keep=none", "latency_calls=0",
    )  # fmt: skip
    summary: dict[str, Any] = json.loads((results / "summary.json").read_text())
    return summary | {"demonstrations": demonstrations.n_episodes}


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """Return the lines of the table."""
    lines = [
        "| task | demonstrations | success [95 %] | mean score | broken off |",
        "|---|---|---|---|---|",
    ]
    for task, summary in found.items():
        success = summary["success"]
        interval = f"**{success['value']:.0%}** [{success['low']:.0%}, {success['high']:.0%}]"
        score = f"{summary['score']['value']:.2f}" if summary["score_rule"] != "success" else ""
        lines.append(
            f"| `{task}` | {summary['demonstrations']} | {interval} | {score} | {summary['n_failures']} |"
        )
    return lines


def main(argv: list[str] | None = None) -> int:
    """Take every task all the way and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tasks", nargs="+", metavar="TASK[=STORE]")
    parser.add_argument("--demonstrations", type=int, default=50, help="per task that has an expert")
    parser.add_argument("--minutes", type=float, default=1.0, help="CPU minutes of each training")
    parser.add_argument("--episodes", type=int, default=50, help="held-out initial states per task")
    parser.add_argument("--workers", type=int, default=1, help="processes for the environments")
    parser.add_argument("--output", type=Path, default=Path("outputs/task_suite"))
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    found = {}
    for given in args.tasks:
        task, _, store = given.partition("=")
        found[task] = task_summary(task, store, args)
    text = "\n".join([*table(found), "", f"Python {platform.python_version()}, one thread."])
    (args.output / "table.md").write_text(text + "\n")
    logging.info(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
