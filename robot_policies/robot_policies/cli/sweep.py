"""``robot-policies sweep``: many evaluations side by side."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robot_policies.cli.hydra_app import compose_config
from robot_policies.configuration import ConfigError

if TYPE_CHECKING:
    from robot_policies.evaluation.sweep import SweepRow

ABOUT = """usage: robot-policies sweep checkpoints=A,B,... output=FOLDER [tasks=...] [disturbances=...] [OVERRIDES]

Evaluate every checkpoint on every task under every disturbance, on the same seeds. Everything else is what
'robot-policies eval' takes (see its --help): episodes, sampler, executor, stop, ... Run again, it continues.

  checkpoints=runs/a,runs/b                    run or checkpoint directories
  output=results/sweep                         one results folder each, sweep.json, sweep.html
  tasks=tabletop_stack,compose/open_drawer     default: the task that each policy was trained for
  disturbances=none,push,occlusion,latency     default: none; also lighting

examples:
  robot-policies sweep checkpoints=runs/a,runs/b output=results/ab episodes=100
  robot-policies sweep checkpoints=runs/a disturbances=none,push,latency output=results/robust episodes=50
"""
_OWN = ("checkpoints", "output", "tasks", "disturbances")


def run(argv: Sequence[str]) -> int:
    """Run the sweep; returns the exit status."""
    if any(word in ("-h", "--help") for word in argv):
        print(ABOUT)
        return 0
    own: dict[str, list[str]] = {}
    rest: list[str] = []
    for word in argv:
        key, equals, value = word.partition("=")
        if equals and key in _OWN:
            own[key] = [part for part in value.strip("[]").split(",") if part]
        else:
            rest.append(word)
    for key in ("checkpoints", "output"):
        if not own.get(key):
            raise ConfigError(f"{key}: missing; see robot-policies sweep --help")
    checkpoints = own["checkpoints"]
    base = compose_config("eval", [*rest, f"checkpoint={checkpoints[0]}"])
    tasks: list[Any] = [
        compose_config("eval", [f"checkpoint={checkpoints[0]}", f"task={task}"])["task"]
        for task in own.get("tasks", [])
    ]
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    # Imported here so that --help does not wait for torch.
    from robot_policies.evaluation.config import EvaluationConfig
    from robot_policies.evaluation.sweep import UNDISTURBED, run_sweep

    run_sweep(
        EvaluationConfig.parse(base),
        own["output"][0],
        checkpoints=checkpoints,
        tasks=tasks or [None],
        disturbances=own.get("disturbances", [UNDISTURBED]),
        command=["robot-policies", "sweep", *argv],
        on_row=_show,
    )
    print(f"page: {own['output'][0]}/sweep.html")
    return 0


def _show(row: SweepRow) -> None:
    from robot_policies.evaluation.summary import headline

    against = "" if row.p_value is None else f"; p = {row.p_value:.3g} against the first"
    print(f"{row.label}: {headline(dict(row.summary))}{against}", flush=True)
