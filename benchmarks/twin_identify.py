"""Whether identification finds what a surrogate hides from its twin: friction, mass, stiffness, latency (E3).

python benchmarks/twin_identify.py --episodes 20 --out results/twin_identify.json --cell results/calibrated.yaml
python benchmarks/twin_identify.py --episodes 20 --others 8 --out results/twin_identify.json
python benchmarks/twin_identify.py --out results/twin_identify.json --table docs/benchmarks/twin.md

The first surrogate is the one of all twin benchmarks; `--others` are drawn (friction and mass 0.7 to 2.2 times what the
twin believes, stiffness 0.6 to 1.4 times, latency 0 to 80 ms in steps of the 20 ms at which its controller acts), and
say whether the stated uncertainty holds. Rerun to resume: surrogates that are in the file are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from twin_page import replace_part

from robot_sim.twin.cell import load_cell, write_cell
from robot_sim.twin.identify import NAMES, IdentificationConfig, identify
from robot_sim.twin.recording import record_pushes
from robot_sim.twin.surrogate import SurrogateConfig

SEED = 7_000_000
UNITS = {"command_latency": ("ms", 1e3)}


def surrogate(index: int) -> SurrogateConfig:
    """The surrogate of all twin benchmarks, or the one of that number."""
    if index == 0:
        return SurrogateConfig()
    random = np.random.default_rng([SEED, index])
    friction, mass = np.exp(random.uniform(np.log(0.7), np.log(2.2), size=2))
    return SurrogateConfig(
        friction=float(friction),
        mass=float(mass),
        stiffness=float(np.exp(random.uniform(np.log(0.6), np.log(1.4)))),
        command_latency=0.02 * int(random.integers(5)),
    )


def run(arguments: argparse.Namespace, index: int) -> dict[str, Any]:
    """Record, identify, and return what there is to say."""
    cell, hidden = load_cell("tabletop_push_t"), surrogate(index)
    logs = [
        record_pushes(cell, hidden, seed=SEED + 1000 * index + episode, seconds=arguments.seconds)
        for episode in range(arguments.episodes)
    ]
    config = IdentificationConfig(
        pieces=arguments.pieces, population=arguments.population, rounds=arguments.rounds
    )
    began = time.process_time()
    found = identify(cell, logs, "block", config, progress=lambda *a: print(*a, flush=True))
    if arguments.cell and index == 0:
        write_cell(
            found.cell, arguments.cell, comment="The example cell, calibrated on recordings of a surrogate."
        )
    return {
        "surrogate": index,
        "episodes": arguments.episodes,
        "seconds": arguments.seconds,
        "pieces": found.pieces,
        "rollouts": found.rollouts,
        "cpu_s": time.process_time() - began,
        "loss_before": found.loss_before,
        "loss": found.loss,
        "found": dict(found.parameters),
        "uncertainty": dict(found.uncertainty),
        "true": {name: float(getattr(hidden, name)) for name in NAMES},
    }


def table(results: list[dict[str, Any]]) -> str:
    """Return the tables as Markdown."""
    result = results[0]
    lines = [
        f"\n{result['episodes']} recorded episodes of {result['seconds']:g} s, {result['pieces']} pieces, "
        f"{result['rollouts']} rollouts, {result['cpu_s']:.0f} CPU-seconds on a busy machine. Residual over noise "
        f"{result['loss_before']:.2f} before, {result['loss']:.2f} after.\n",
        "| parameter | twin believed | found | uncertainty | surrogate's own | error |",
        "|---|---|---|---|---|---|",
    ]
    for name in NAMES:
        unit, factor = UNITS.get(name, ("times", 1.0))
        values = [factor * result[key][name] for key in ("found", "uncertainty", "true")]
        error = (
            f"{values[0] - values[2]:+.1f} ms"
            if unit == "ms"
            else f"{100 * (values[0] / values[2] - 1):+.0f} %"
        )
        digits = 1 if unit == "ms" else 2
        lines.append(
            f"| {name.replace('_', ' ')} | {0 if unit == 'ms' else 1} {unit} | {values[0]:.{digits}f} | "
            f"± {values[1]:.{digits}f} | {values[2]:.{digits}f} | {error} |"
        )
    return "\n".join([*lines, *(_coverage(results) if len(results) > 2 else [])])


def _coverage(results: list[dict[str, Any]]) -> list[str]:
    """Whether the stated uncertainty holds over surrogates."""
    lines = [
        f"\n{len(results)} surrogates, identified alike:\n",
        "| parameter | median error | largest error | stated uncertainty, median | within 1 / 2 standard deviations |",
        "|---|---|---|---|---|",
    ]
    for name in NAMES:
        found, spread, true = (
            np.array([r[key][name] for r in results]) for key in ("found", "uncertainty", "true")
        )
        if name in UNITS:
            unit, factor = UNITS[name]
            errors, stated = factor * np.abs(found - true), factor * spread
        else:
            unit, errors, stated = "%", 100 * np.abs(found / true - 1), 100 * spread / found
        apart = np.abs(found - true) / spread
        lines.append(
            f"| {name.replace('_', ' ')} | {np.median(errors):.1f} {unit} | {errors.max():.1f} {unit} "
            f"| {np.median(stated):.1f} {unit} | {np.sum(apart <= 1)} / {np.sum(apart <= 2)} of {len(results)} |"
        )
    return lines


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--pieces", type=int, default=40)
    parser.add_argument("--population", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("results/twin_identify.json"))
    parser.add_argument("--cell", type=Path, help="write the calibrated cell here")
    parser.add_argument("--table", type=Path, help="write the table into this page")
    parser.add_argument("--others", type=int, default=0, help="further surrogates, drawn")
    arguments = parser.parse_args()
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    if arguments.episodes:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        for index in range(len(results), 1 + arguments.others):
            results.append(run(arguments, index))
            staging = arguments.out.with_suffix(".tmp")
            staging.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            os.replace(staging, arguments.out)
            print(table(results), flush=True)
    if arguments.table:
        replace_part(arguments.table, "identify", table(results))


if __name__ == "__main__":
    main()
