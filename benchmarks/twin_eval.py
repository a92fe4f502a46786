r"""Does success in the twin predict success in the surrogate? A family of policies in three worlds (E4).

The surrogate, with what it hides from its twin and with its sensors; the calibrated twin (a cell file written by
`benchmarks/twin_identify.py`); and the simulator as it was before calibration, which knows of no latency or noise.
All from the same starts, of which the twins know what the surrogate's sensors saw of them. The policies are trained
ones, each checkpoint of the runs that are named (those of few steps are the bad ones), or, without any, scripted
pushers with handicaps of known size.

    robot-policies generate task=tabletop_push_t episodes=200 output=push.zarr
    robot-policies train dataset.path=push.zarr policy=behavior_cloning_mlp trainer.steps=4000 \
        trainer.checkpoint_every=400 trainer.keep_top_k=20 output_dir=runs/cloning
    python benchmarks/twin_eval.py runs/cloning --starts 50 --steps 300 --cell results/calibrated.yaml \
        --out results/twin_eval.jsonl
    python benchmarks/twin_eval.py --out results/twin_eval.jsonl --table docs/benchmarks/twin.md \
        --plot docs/benchmarks/twin_eval.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from twin_page import replace_part
from twin_run import sensed_cell

from robot_policies.evaluation.agreement import Agreement, agreement
from robot_policies.evaluation.agreement_plot import plot_agreement
from robot_policies.evaluation.futures import BatchPolicy, EachByItself, play_futures
from robot_policies.evaluation.twin_policy import load_twin_policy
from robot_sim.twin.cell import Cell, load_cell
from robot_sim.twin.geometry import turned
from robot_sim.twin.parallel import ParallelCell
from robot_sim.twin.scripted_policy import Handicap, ScriptedPusher
from robot_sim.twin.surrogate import SurrogateConfig

SEED = 8_000_000
POLICIES: dict[str, Handicap] = {
    "exact": Handicap(),
    "noise 3 mm": Handicap(noise=0.003),
    "noise 8 mm": Handicap(noise=0.008),
    "noise 16 mm": Handicap(noise=0.016),
    "one step late": Handicap(late=1),
    "three steps late": Handicap(late=3),
    "sees it 2 mm aside": Handicap(offset=0.002),
    "sees it 5 mm aside": Handicap(offset=0.005),
    "sees it turned 4 deg": Handicap(turn=0.07),
    "half the steps idle": Handicap(idle=0.5),
}
WORLDS = ("surrogate", "calibrated twin", "uncalibrated")


def worlds(calibrated: Path) -> dict[str, tuple[Cell, bool]]:
    """Return the cell of each world, and whether its sensors are simulated."""
    nominal, config = load_cell("tabletop_push_t"), SurrogateConfig()
    bare = replace(nominal, latency=replace(nominal.latency, objects=0.0, command=0.0))
    return {
        "surrogate": (sensed_cell(nominal, config), True),
        "calibrated twin": (load_cell(calibrated), True),
        "uncalibrated": (bare, False),
    }


def starts(cell: Cell, count: int, *, seen: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return start states (S, nq) and inputs (S, nu); `seen`: the block where 15 noisy poses put it on average."""
    copies = ParallelCell([cell] * count, threads=0)
    copies.reset(range(count), range(SEED, SEED + count))
    qpos = copies.physics.qpos.copy()
    if seen:
        config, random = SurrogateConfig(), np.random.default_rng(SEED)
        address = copies.objects["block"]
        for row in range(count):
            shift, turn = random.standard_normal((2, 3)) / np.sqrt(15.0) * [1.0, 1.0, 0.0]
            qpos[row, address[:3]] += config.position_noise * shift
            qpos[row, address[3:]] = turned(
                qpos[row, address[3:]], config.angle_noise * np.array([0, 0, turn[0]])
            )
    return qpos, copies.physics.ctrl.copy()


def family(runs: list[Path], cell: Cell) -> dict[str, Callable[[], BatchPolicy]]:
    """Return what builds each policy: every checkpoint of the runs once, or the scripted pushers."""
    if not runs:
        return {
            name: partial(EachByItself, lambda row, h=handicap: ScriptedPusher(h, seed=row))
            for name, handicap in POLICIES.items()
        }
    found = {}
    for folder in runs:
        for path in sorted((folder / "checkpoints").iterdir()):
            if path.name.startswith("step_") and not path.is_symlink():
                steps = int(path.name.removeprefix("step_"))
                found[f"{folder.name}, {steps} steps"] = partial(load_twin_policy, str(path), cell)
    return found


def run(arguments: argparse.Namespace) -> None:
    """Play what is missing, a line per policy and world."""
    done = {(row["policy"], row["world"]) for row in read(arguments.out)}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    for policy, build in family(arguments.runs, load_cell("tabletop_push_t")).items():
        for world, (cell, sensed) in worlds(arguments.cell).items():
            if (policy, world) in done:
                continue
            qpos, ctrl = starts(cell, arguments.starts, seen=world != "surrogate")
            copies = ParallelCell([cell] * arguments.starts, sensed=sensed, threads=1, noise_seed=SEED)
            copies.put(qpos, np.zeros(copies.physics.model.nv), ctrl=ctrl)
            played = play_futures(copies, build(), steps=arguments.steps)
            row = {"policy": policy, "world": world, "success": played.success.tolist()}
            row |= {"steps": arguments.steps, "reward": played.best_reward.round(4).tolist()}
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(policy, world, f"{played.success.mean():.2f} {played.best_reward.mean():.3f}", flush=True)


def read(out: Path) -> list[dict[str, Any]]:
    """Return the rows so far."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def _policies(rows: list[dict[str, Any]]) -> list[str]:
    """Names in the order in which they were played."""
    return list(dict.fromkeys(row["policy"] for row in rows))


def compared(rows: list[dict[str, Any]], world: str, what: str) -> Agreement:
    """Return how well a world predicts the surrogate, in success or in best reward."""
    found = {(row["policy"], row["world"]): row[what] for row in rows}
    both = [name for name in _policies(rows) if (name, world) in found and (name, "surrogate") in found]
    return agreement(
        {name: np.array(found[name, world]) for name in both},
        {name: np.array(found[name, "surrogate"]) for name in both},
    )


def table(rows: list[dict[str, Any]]) -> str:
    """Return the tables as Markdown."""
    found = {(row["policy"], row["world"]): row for row in rows}
    complete = [name for name in _policies(rows) if all((name, world) in found for world in WORLDS)]
    starts_, steps = len(rows[0]["success"]), rows[0]["steps"]
    lines = [
        f"\n{len(complete)} policies from {starts_} starts of {steps} steps: success, and mean best coverage reward\n",
        "| policy | " + " | ".join(WORLDS) + " |",
        "|---|" + "---|" * len(WORLDS),
    ]
    for name in complete:
        cells = [found[name, world] for world in WORLDS]
        lines.append(
            f"| {name} | "
            + " | ".join(f"{np.mean(c['success']):.2f}, {np.mean(c['reward']):.3f}" for c in cells)
            + " |"
        )
    lines += ["\n| against the surrogate | Pearson r [95 %] | Spearman | MMRV | bias | what is compared |"]
    lines += ["|---|---|---|---|---|---|"]
    chosen = [row for row in rows if row["policy"] in complete]
    for what in ("success", "reward"):
        for world in WORLDS[1:]:
            a = compared(chosen, world, what)
            r = (
                "-"
                if a.pearson is None
                else f"{a.pearson.value:.2f} [{a.pearson.low:.2f}, {a.pearson.high:.2f}]"
            )
            s = "-" if a.spearman is None else f"{a.spearman.value:.2f}"
            lines.append(f"| {world} | {r} | {s} | {a.mmrv.value:.3f} | {a.bias:+.3f} | {what} |")
    return "\n".join(lines)


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", type=Path, help="run directories; none takes scripted policies")
    parser.add_argument("--starts", type=int, default=0)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--cell", type=Path, default=Path("results/calibrated.yaml"))
    parser.add_argument("--out", type=Path, default=Path("results/twin_eval.jsonl"))
    parser.add_argument("--table", type=Path, help="write the tables into this page")
    parser.add_argument("--plot", type=Path, help="write the plot of rewards here")
    arguments = parser.parse_args()
    if arguments.starts:
        run(arguments)
    rows = read(arguments.out)
    if arguments.table:
        replace_part(arguments.table, "eval", table(rows))
    if arguments.plot:
        plot_agreement(
            arguments.plot,
            {world: compared(rows, world, "reward") for world in WORLDS[1:]},
            reference="surrogate",
            what="best coverage reward",
        )


if __name__ == "__main__":
    main()
