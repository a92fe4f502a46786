"""One policy for twelve tasks and two arms, told by the instruction what to do; the control is told nothing.

    robot-policies generate 'tasks=[compose/lift_red_cube,compose/lift_can,compose/place_cube_in_tray,\
compose/place_can_on_mark,compose/open_drawer,compose/close_drawer,compose/push_cube_left,compose/push_cube_right,\
compose/push_cube_to_mark,compose/press_button,compose/slide_bar,compose/tip_block]' 'arms=[panda,ur5e]' \
        episodes=504 output=many.zarr
    python benchmarks/multi_task.py many.zarr

The tasks are compositions, which share their features: state of the arm, three slots of objects. Both policies are
the MLP of `diffusion_mlp_ddpm` (DDIM with 10 calls), trained for the same CPU time with the same seed; the one with
language gets the sentence embedding (all-MiniLM-L6-v2) of the episode's instruction. Every task with every arm is
judged on the same held-out initial states (from seed 100000), with a paraphrase that the seed chooses. Intervals are
Wilson's, 95 %; those over all tasks are bootstraps over cells, each a task with an arm. Rerun to resume.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np

FIRST_SEED = 100_000
SAMPLER = {"type": "ddim", "steps": 10}
POLICIES = {
    "language": (
        "told the instruction",
        ("dataset.instruction=true", "+policy.goal_encoder={type:tokens,text:{type:minilm}}"),
    ),
    "silent": ("control: told nothing", ()),
}


def train_policy(name: str, store: Path, minutes: float, output: Path) -> Path:
    """Train one policy, or go on with it; returns the run directory."""
    from robot_policies.cli.hydra_app import compose_config
    from robot_policies.training.train import train

    run = output / name
    if not (run / "finished").exists():
        overrides = [
            "+experiment=lift_demo",
            "policy=diffusion_mlp_ddpm",
            "trainer=cpu_budget",
            "trainer.batch_size=256",
            "trainer.lr=1.0e-3",
            "trainer.keep_top_k=0",
            "trainer.val_every=0",
            f"trainer.time_budget_cpu_minutes={minutes}",
            f"dataset.path={store}",
            f"output_dir={run}",
            *POLICIES[name][1],
        ]
        train(compose_config("train", overrides))
        (run / "finished").touch()
    return run


def judge(run: Path, task: str, arm: str, episodes: int, workers: int) -> list[float]:
    """Return the success of each episode; what was judged before is read."""
    from robot_policies.checkpoint import load_policy
    from robot_policies.evaluation.evaluate import evaluate_policy

    path = run / "judged" / f"{task.replace('/', '_')}_{arm}_{episodes}.json"
    if path.exists():
        return json.loads(path.read_text())
    policy = load_policy(run / "checkpoints" / "last").policy
    results = evaluate_policy(
        policy,
        task,
        range(FIRST_SEED, FIRST_SEED + episodes),
        task_options={"arm": arm},
        workers=workers,
        n_envs=episodes,
        sampler=SAMPLER,
    )
    broken = [result.failure for result in results if result.failure]
    if broken:
        raise SystemExit(f"{task} with {arm}: {len(broken)} episodes broke off: {broken[0]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_suffix(".tmp")
    staging.write_text(json.dumps([float(result.success) for result in results]))
    os.replace(staging, path)
    return json.loads(path.read_text())


def _share(success: list[float]) -> str:
    from robot_policies.evaluation.statistics import wilson_interval

    interval = wilson_interval(int(sum(success)), len(success))
    return f"{np.mean(success):.0%} [{interval.low:.0%}, {interval.high:.0%}]"


def table(found: dict[str, dict[tuple[str, str], list[float]]]) -> list[str]:
    """Return the lines of the table: a row per task and arm, a column per policy."""
    from robot_policies.evaluation.statistics import bootstrap_mean

    titles = [POLICIES[name][0] for name in found]
    lines = [f"| task | arm | {' | '.join(titles)} |", f"|---|---|{'---|' * len(found)}"]
    for task, arm in next(iter(found.values())):
        cells = " | ".join(_share(results[task, arm]) for results in found.values())
        lines.append(f"| {task.removeprefix('compose/')} | {arm} | {cells} |")
    overall = []
    for results in found.values():
        means = np.array([np.mean(success) for success in results.values()])
        interval = bootstrap_mean(means)
        overall.append(f"**{means.mean():.0%}** [{interval.low:.0%}, {interval.high:.0%}]")
    return [*lines, f"| all | both | {' | '.join(overall)} |"]


def main(argv: list[str] | None = None) -> int:
    """Train, judge and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("--minutes", type=float, default=20.0, help="CPU minutes of each training")
    parser.add_argument("--episodes", type=int, default=20, help="episodes per task and arm")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=list(POLICIES))
    parser.add_argument("--workers", type=int, default=0, help="processes for the environments")
    parser.add_argument("--output", type=Path, default=Path("outputs/multi_task"))
    args: Any = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    from robot_datasets.store import EpisodeStore

    options = EpisodeStore.open(args.store).attributes["conversion"]["options"]
    cells = [(task, arm) for task in options["tasks"] for arm in options["arms"]]
    found: dict[str, dict[tuple[str, str], list[float]]] = {}
    for name in args.policies:
        run = train_policy(name, args.store, args.minutes, args.output)
        found[name] = {}
        for task, arm in cells:
            found[name][task, arm] = judge(run, task, arm, args.episodes, args.workers)
            logging.info(f"{name}: {task} with {arm}: {_share(found[name][task, arm])}")
    text = "\n".join([*table(found), "", f"Python {platform.python_version()}, one thread."])
    (args.output / "table.md").write_text(text + "\n")
    logging.info(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
