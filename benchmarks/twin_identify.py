"""Whether identification finds what a surrogate hides from its twin: friction, mass, stiffness, latency (E3).

python benchmarks/twin_identify.py --episodes 20 --out results/twin_identify.json --cell results/calibrated.yaml
python benchmarks/twin_identify.py --out results/twin_identify.json --table docs/benchmarks/twin.md
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from twin_page import replace_part

from robot_sim.twin.cell import load_cell, write_cell
from robot_sim.twin.identify import NAMES, IdentificationConfig, identify
from robot_sim.twin.recording import record_pushes
from robot_sim.twin.surrogate import SurrogateConfig

SEED = 7_000_000
UNITS = {"command_latency": ("ms", 1e3)}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Record, identify, and return what there is to say."""
    cell, hidden = load_cell("tabletop_push_t"), SurrogateConfig()
    logs = [
        record_pushes(cell, hidden, seed=SEED + index, seconds=arguments.seconds)
        for index in range(arguments.episodes)
    ]
    config = IdentificationConfig(
        pieces=arguments.pieces, population=arguments.population, rounds=arguments.rounds
    )
    began = time.process_time()
    found = identify(cell, logs, "block", config, progress=lambda *a: print(*a, flush=True))
    if arguments.cell:
        write_cell(
            found.cell, arguments.cell, comment="The example cell, calibrated on recordings of a surrogate."
        )
    return {
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


def table(result: dict[str, Any]) -> str:
    """Return the table as Markdown."""
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
            f"{values[0] - values[2]:+.0f} ms"
            if unit == "ms"
            else f"{100 * (values[0] / values[2] - 1):+.0f} %"
        )
        digits = 0 if unit == "ms" else 2
        lines.append(
            f"| {name.replace('_', ' ')} | {0 if unit == 'ms' else 1} {unit} | {values[0]:.{digits}f} | "
            f"± {values[1]:.{digits}f} | {values[2]:.{digits}f} | {error} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--pieces", type=int, default=40)
    parser.add_argument("--population", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("results/twin_identify.json"))
    parser.add_argument("--cell", type=Path, help="write the calibrated cell here")
    parser.add_argument("--table", type=Path, help="write the table into this page")
    arguments = parser.parse_args()
    if arguments.episodes:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        result = run(arguments)
        arguments.out.write_text(json.dumps(result) + "\n", encoding="utf-8")
        print(table(result))
    if arguments.table:
        replace_part(arguments.table, "identify", table(json.loads(arguments.out.read_text())))


if __name__ == "__main__":
    main()
