"""How well the twin stays in step with a surrogate cell: corrections side by side on the same recordings (E1, E2).

The surrogate is a second simulation with friction 1.8 times and mass 1.4 times what the twin believes, watched at
30 Hz with 3 mm and 1.7 degrees of noise, 80 ms late. Every correction is given the same recorded messages. Errors are
of the block's centre of mass and angle, against the surrogate's true pose at the same time.

    python benchmarks/twin_sync.py --episodes 100 --out results/twin_sync.jsonl
    python benchmarks/twin_sync.py --out results/twin_sync.jsonl --table docs/benchmarks/twin.md
    python benchmarks/twin_sync.py --realtime 60

Interrupted, the first command continues. The table replaces the part of the page between its two marks.
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

from robot_sim.twin.cell import Cell, load_cell
from robot_sim.twin.cell_log import CellLog, play
from robot_sim.twin.correction import build_correction
from robot_sim.twin.geometry import rotation_between
from robot_sim.twin.loop import run_loop
from robot_sim.twin.recording import record_pushes
from robot_sim.twin.surrogate import SurrogateConfig
from robot_sim.twin.twin import Twin

METHODS: dict[str, dict[str, Any]] = {
    "none": {"type": "none"},
    "reset, as observed": {"type": "reset", "filtered": False},
    "reset, filtered": {"type": "reset"},
    "force": {"type": "force"},
}
SCENES: dict[str, dict[str, Any]] = {
    "pushing": {},
    "moved by hand": {"hand": (4.0, 0.03, -0.02, 0.5)},
    "hidden for 1 s": {"hidden": (4.0, 1.0)},
}
SETTLE = 0.5  # the first observations are on their way [s]
RECOVERED = 0.005, np.radians(4.0)  # within both of the true pose [m, rad]
SEED = 5_000_000


def measured(cell: Cell, log: CellLog, method: dict[str, Any], event: float | None) -> dict[str, float]:
    """Play a log to a twin and return what it comes to."""
    twin = Twin(cell, corrections=[build_correction(method)])
    truth = np.array(log.truth["block"])
    place, turn, deep, jump, in_touch, times = [], [], [], [], [], []
    before: np.ndarray | None = None
    started = time.process_time()
    for report in play(twin, log):
        if report.time_ns < SETTLE * 1e9:
            continue
        row = truth[min(int(np.searchsorted(truth[:, 0], report.time_ns)), len(truth) - 1)]
        position, quaternion = twin.world.pose("block")
        place.append(float(np.linalg.norm(row[1:3] - position[:2])))
        turn.append(abs(float(rotation_between(quaternion, row[4:8])[2])))
        depths = twin.world.depths("block")
        deep.append(max([0.0, *depths]))
        jump.append(0.0 if before is None else float(np.linalg.norm(position - before)))
        in_touch.append(bool(depths))
        times.append(report.time_ns * 1e-9)
        before = position
    e, a = np.array(place), np.array(turn)
    touched = np.array(in_touch)
    figures = {
        "ticks": len(e),
        "place_mean": e.mean(),
        "place_p95": np.quantile(e, 0.95),
        "turn_mean": a.mean(),
        "turn_p95": np.quantile(a, 0.95),
        "touch_share": touched.mean(),
        "touch_place_mean": e[touched].mean() if touched.any() else np.nan,
        "penetration": max(deep),
        "jump": max(jump),
        "cpu_ms_per_tick": 1e3 * (time.process_time() - started) / max(1, len(e)),
    }
    if event is not None:
        figures["recovery"] = recovery(np.array(times), e, a, event)
    return {name: float(value) for name, value in figures.items()}


def recovery(times: np.ndarray, place: np.ndarray, turn: np.ndarray, event: float) -> float:
    """Return how long after an event the twin is within `RECOVERED` for good (0.5 s) [s]; NaN if never."""
    good = (place < RECOVERED[0]) & (turn < RECOVERED[1])
    for index in np.flatnonzero(times >= event):
        if good[index : index + 30].all():
            return float(times[index] - event)
    return float("nan")


def run(episodes: int, seconds: float, out: Path) -> None:
    """Measure what is missing and append it, one line per episode and scene."""
    cell = load_cell("tabletop_push_t")
    done = {(row["scene"], row["seed"]) for row in read(out)}
    out.parent.mkdir(parents=True, exist_ok=True)
    for index in range(episodes):
        for scene, options in SCENES.items():
            if (scene, SEED + index) in done or (scene != "pushing" and index % 4):
                continue  # the two events: on every fourth seed
            log = record_pushes(cell, SurrogateConfig(), seed=SEED + index, seconds=seconds, **options)
            event = None
            if "hand" in options:
                event = options["hand"][0]
            if "hidden" in options:
                event = sum(options["hidden"])
            row: dict[str, Any] = {"scene": scene, "seed": SEED + index}
            row["methods"] = {name: measured(cell, log, method, event) for name, method in METHODS.items()}
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(
                scene, SEED + index, {k: round(1e3 * v["place_mean"], 2) for k, v in row["methods"].items()}
            )


def read(out: Path) -> list[dict[str, Any]]:
    """Return the rows so far."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def line_of(chosen: list[dict[str, Any]], method: str, scene: str) -> str:
    """Return one line of the table."""

    def get(name: str) -> np.ndarray:
        return np.array([row["methods"][method][name] for row in chosen])

    line = (
        f"| {method} | {1e3 * get('place_mean').mean():.1f} / {1e3 * get('place_p95').mean():.1f} | "
        f"{np.degrees(get('turn_mean').mean()):.1f} / {np.degrees(get('turn_p95').mean()):.1f} | "
        f"{1e3 * np.nanmean(get('touch_place_mean')):.1f} | {1e3 * get('penetration').max():.1f} | "
        f"{1e3 * get('jump').max():.1f} |"
    )
    if scene == "pushing":
        return line
    times = get("recovery")
    known, never = times[~np.isnan(times)], int(np.isnan(times).sum())
    if len(known):
        line += f" {np.median(known):.2f} ({np.quantile(known, 0.95):.2f})"
    return line + f"{f' never in {never}' if never else ''} |"


def table(rows: list[dict[str, Any]]) -> str:
    """Return the tables as Markdown."""
    lines = []
    for scene in SCENES:
        chosen = [row for row in rows if row["scene"] == scene]
        if not chosen:
            continue
        last = "" if scene == "pushing" else " median (p95) recovery s |"
        lines += [
            f"\n**{scene}**, {len(chosen)} episodes\n",
            "| correction | position mean / p95 mm | angle mean / p95 deg | in touch: position mean mm | "
            f"deepest penetration mm | largest step in a tick mm |{last}",
            "|---|---|---|---|---|---|" + ("" if scene == "pushing" else "---|"),
        ]
        lines += [line_of(chosen, method, scene) for method in METHODS]
    return "\n".join(lines)


def realtime(seconds: float) -> None:
    """Run the loop on the machine's clock, fed by a recording, and print its period."""
    cell = load_cell("tabletop_push_t")
    log = record_pushes(cell, SurrogateConfig(), seed=SEED, seconds=seconds)
    timing = run_loop(Twin(cell), log.messages(), seconds=seconds)
    print(json.dumps({**timing.to_dict(), "load": os.getloadavg()[0], "cores": os.cpu_count()}))


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=8.0, help="length of an episode")
    parser.add_argument("--out", type=Path, default=Path("results/twin_sync.jsonl"))
    parser.add_argument("--table", type=Path, help="write the tables into this page")
    parser.add_argument("--realtime", type=float, default=0.0, help="seconds on the machine's clock")
    arguments = parser.parse_args()
    if arguments.realtime:
        realtime(arguments.realtime)
        return
    run(arguments.episodes, arguments.seconds, arguments.out)
    if arguments.table:
        replace_part(arguments.table, "sync", table(read(arguments.out)))


if __name__ == "__main__":
    main()
