"""The deployment demo and the fault drill, measured: closed-loop episodes over ROS, and stops of real processes.

    python benchmarks/deploy_demo.py episodes --checkpoint runs/deploy_demo/train --episodes 20 --realtime 20
    python benchmarks/deploy_demo.py drill --checkpoint runs/deploy_demo/train --times 20 --out drill.jsonl
    python benchmarks/deploy_demo.py table drill.jsonl

Repetitions that are in the output already are not made again. Everything runs in a ROS domain of its own; "the arm"
is a simulated one, a surrogate.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robot_datasets.errors import UserError
from robot_deploy.demo import DemoConfig, run_demo
from robot_deploy.graph import Graph
from robot_deploy.nodes.client import GraphClient
from robot_deploy.nodes.isolation import own_domain
from robot_deploy.process_drill import FAULTS, ProcessDrill
from robot_policies.evaluation.statistics import wilson_interval
from robot_sim.worker_environment import environment_variables

TIMES = (
    "period",
    "state_age",
    "tick",
    "publish",
    "predict",
    "handover",
    "overhead",
    "observation_to_command",
)


def _episodes(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        config = DemoConfig(
            checkpoint=arguments.checkpoint,
            episodes=arguments.episodes,
            seed_start=arguments.seed_start,
            realtime_priority=arguments.realtime,
            logs=Path(folder),
        )
        result = run_demo(config, progress=lambda *row: print(*row, flush=True))
    interval = wilson_interval(sum(result.lifted.values()), len(result.lifted))
    print(
        f"\nlifted {sum(result.lifted.values())} of {len(result.lifted)}, [{interval.low:.3f}, {interval.high:.3f}]"
    )
    print(f"faults: {result.faults or 'none'}\ncommands: {result.audit}\n")
    print("| | p50 | p99 | max |\n|---|---|---|---|")
    for name in TIMES:
        row = [result.times.get(f"{name} {q} [ms]", "–") for q in ("p50", "p99", "max")]
        print(f"| {name} [ms] | {' | '.join(row)} |")
    if arguments.out:
        Path(arguments.out).write_text(json.dumps(vars(result), indent=1) + "\n", encoding="utf-8")
    return 0


def _drill(arguments: argparse.Namespace) -> int:
    out = Path(arguments.out)
    done: dict[str, int] = defaultdict(int)
    if out.exists():
        for line in out.read_text(encoding="utf-8").splitlines():
            done[json.loads(line)["fault"]] += 1
    chosen = [f for f in FAULTS if not arguments.only or any(text in f.name for text in arguments.only)]
    until = time.monotonic() + 60.0 * arguments.minutes
    with tempfile.TemporaryDirectory() as folder, own_domain() as domain, environment_variables(domain):
        logs = Path(folder)
        with Graph(domain, logs, priority=arguments.realtime // 2) as graph, GraphClient("drill") as client:
            drill = ProcessDrill(
                graph,
                client,
                arguments.checkpoint,
                logs,
                priority=arguments.realtime,
                seed=sum(done.values()),
            )
            failures = 0
            todo = [
                f for turn in range(arguments.times) for f in chosen if done[f.name] <= turn
            ]  # fault after fault
            for fault in todo:
                if time.monotonic() > until:
                    break
                try:
                    row = drill.run(fault)
                except UserError as error:
                    failures += 1
                    print(f"{fault.name}: not measured: {error}", flush=True)
                    if failures > arguments.patience:
                        raise
                    continue
                with out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
                print(row, flush=True)
    return _table(argparse.Namespace(files=[out]))


def _table(arguments: argparse.Namespace) -> int:
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for path in arguments.files:
        for line in Path(path).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows[row["fault"]].append(row)
    print(
        "| fault | n | noticed, median (max) [ms] | at rest, median (max) [ms] | stop, median (max) [ms] "
        "| samples beyond a limit | reason |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in (f.name for f in FAULTS if f.name in rows):
        some = rows[name]
        noticed = [r["noticed_ms"] for r in some if r["noticed_ms"] == r["noticed_ms"]]
        stops = [
            max(0.0, r["rest_ms"] - (r["noticed_ms"] if r["noticed_ms"] == r["noticed_ms"] else 0.0))
            for r in some
        ]
        print(
            f"| {name} | {len(some)} | {_pair(noticed)} | {_pair([r['rest_ms'] for r in some])} | {_pair(stops)} | "
            f"{sum(r['violations'] for r in some)} | {some[-1]['reason'][:70]} |"
        )
    every = [r for some in rows.values() for r in some]
    if every:
        largest = {k: max(r["largest"][k] for r in every) for k in every[0]["largest"]}
        print(f"\n{len(every)} repetitions; largest shares of the limits commanded: {largest}")
    return 0


def _pair(values: list[float]) -> str:
    return f"{statistics.median(values):.0f} ({max(values):.0f})" if values else "–"


def main() -> int:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    episodes = commands.add_parser("episodes")
    episodes.add_argument("--episodes", type=int, default=20)
    episodes.add_argument("--seed-start", type=int, default=100_000)
    episodes.set_defaults(run=_episodes)
    drill = commands.add_parser("drill")
    drill.add_argument("--times", type=int, default=20)
    drill.add_argument("--only", nargs="*", default=[])
    drill.add_argument("--minutes", type=float, default=60.0)
    drill.add_argument("--patience", type=int, default=20, help="repetitions that may fail to be measured")
    drill.set_defaults(run=_drill)
    for command in (episodes, drill):
        command.add_argument("--checkpoint", required=True)
        command.add_argument("--realtime", type=int, default=0)
        command.add_argument("--out", default="" if command is episodes else "drill.jsonl")
    table = commands.add_parser("table")
    table.add_argument("files", nargs="+")
    table.set_defaults(run=_table)
    arguments = parser.parse_args()
    return int(arguments.run(arguments))


if __name__ == "__main__":
    sys.exit(main())
