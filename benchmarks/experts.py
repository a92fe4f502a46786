"""How often our scripted experts succeed: every task, every arm, the same seeds.

    python benchmarks/experts.py --episodes 100 --out results/experts.jsonl
    python benchmarks/experts.py --out results/experts.jsonl --table docs/benchmarks/experts.md
    python benchmarks/experts.py --robosuite --out results/robosuite_experts.jsonl

One line per episode is appended at once; run again, it goes on where it stopped. Seeds start at 0, which is where
`robot-policies generate` starts, too; the experts' own disturbance (noise) is on, as it is there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from robot_policies.evaluation.statistics import wilson_interval
from robot_sim.registry import family_task_names, make_expert, make_task
from robot_sim.task import EpisodeSkippedError, Expert, TaskEnv

ARMS = ("panda", "ur5e", "iiwa")
TASKS = (
    *("tabletop_pick_place", "tabletop_stack", "tabletop_drawer", "tabletop_peg_insert"),
    *("tabletop_push_t", "tabletop_handover"),
)
ROBOSUITE = ("robosuite/Lift", "robosuite/Can", "robosuite/Square")
HEAD = """# Scripted experts

Success of the scripted experts of our own tasks, each with its default disturbance, on seeds from 0 on. Success is the
task's own predicate at any step within its step limit; a pose out of reach counts as a failure. Intervals are Wilson's,
95 %. A row with fewer than 100 seeds is not finished: the first command continues it. CPU time is the process's, of
the whole episode: physics, control, expert.

```sh
python benchmarks/experts.py --episodes 100 --out results/experts.jsonl
python benchmarks/experts.py --out results/experts.jsonl --table docs/benchmarks/experts.md
```

"""


def main() -> None:
    """Run what is missing, or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="results, one JSON line per episode")
    parser.add_argument("--episodes", type=int, default=100)
    parser.add_argument("--only", nargs="*", help="names of tasks")
    parser.add_argument("--compositions", action="store_true", help="the compositions instead of the tasks")
    parser.add_argument("--robosuite", action="store_true", help="robosuite's tasks instead of ours")
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--table", type=Path, help="write this page and run nothing")
    arguments = parser.parse_args()
    done = _read(arguments.out)
    if arguments.table is not None:
        arguments.table.write_text(HEAD + _table(done), encoding="utf-8")
        return
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    names = family_task_names("compose") if arguments.compositions else ["planar_push_t", *TASKS]
    names = list(ROBOSUITE) if arguments.robosuite else names
    chosen = [name for name in names if not arguments.only or name in arguments.only]
    for task in chosen:
        for arm in ["-"] if task in ("planar_push_t", *ROBOSUITE) else arguments.arms:
            missing = [s for s in range(arguments.episodes) if (task, arm, s) not in done]
            if missing:
                with arguments.out.open("a", encoding="utf-8") as file:
                    for line in _run(task, arm, missing):
                        file.write(json.dumps(line) + "\n")
                        file.flush()
                _say(task, arm, _read(arguments.out))


def _run(task: str, arm: str, seeds: list[int]) -> Iterator[dict[str, Any]]:
    env = make_task(task, **({} if arm == "-" else {"arm": arm}))
    expert = make_expert(task)
    try:
        for seed in seeds:
            began = time.process_time()
            success, steps, reason = _play(env, expert, seed)
            yield {
                "task": task,
                "arm": arm,
                "seed": seed,
                "success": success,
                "steps": steps,
                "skipped": reason,
                "cpu_s": round(time.process_time() - began, 4),
            }
    finally:
        env.close()


def _play(env: TaskEnv, expert: Expert, seed: int) -> tuple[bool, int, str]:
    observation, _ = env.reset(seed=seed)
    steps = 0
    try:
        expert.reset(env, seed)
        while True:
            observation, _, terminated, truncated, info = env.step(expert.perturb(expert.act(observation)))
            steps += 1
            if info["is_success"] or terminated or truncated:
                return bool(info["is_success"]), steps, ""
    except EpisodeSkippedError as error:
        return False, steps, str(error)


def _read(path: Path) -> dict[tuple[str, str, int], dict[str, Any]]:
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
    return {(line["task"], line["arm"], line["seed"]): line for line in lines}


def _groups(done: dict[tuple[str, str, int], dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for (task, arm, _), line in done.items():
        groups[task, arm].append(line)
    return groups


def _say(task: str, arm: str, done: dict[tuple[str, str, int], dict[str, Any]]) -> None:
    lines = _groups(done)[task, arm]
    wins = sum(line["success"] for line in lines)
    print(f"{task} {arm}: {wins} of {len(lines)}, {_rate(wins, len(lines))}", flush=True)


def _rate(wins: int, n: int) -> str:
    interval = wilson_interval(wins, n)
    return f"{100 * interval.value:.0f} % [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def _table(done: dict[tuple[str, str, int], dict[str, Any]]) -> str:
    rows = [
        "| task | arm | success [95 %] | seeds | median steps | out of reach | CPU s per episode |",
        "|" + "---|" * 7,
    ]
    for (task, arm), lines in _groups(done).items():
        n, wins = len(lines), sum(line["success"] for line in lines)
        steps = sorted(line["steps"] for line in lines)[n // 2]
        cpu = sorted(line["cpu_s"] for line in lines)[n // 2]
        skipped = sum(bool(line["skipped"]) for line in lines)
        rows.append(f"| {task} | {arm} | {_rate(wins, n)} | {n} | {steps} | {skipped} | {cpu:.2f} |")
    return "\n".join(rows) + "\n"


if __name__ == "__main__":
    main()
