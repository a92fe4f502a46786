"""Many evaluations side by side: checkpoints, tasks and disturbances, each with each, on the same seeds.

Every evaluation is a results folder of its own and can be continued, shown and compared like any other. The sweep's
page puts their rates next to each other, and says against the first one of the same task what a paired test says.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from robot_datasets.errors import unknown_name
from robot_policies.configuration import ConfigError
from robot_policies.evaluation.comparison import compare_folders
from robot_policies.evaluation.config import EvaluationConfig
from robot_policies.evaluation.results import ResultsFolder, write_json
from robot_policies.evaluation.run import run_evaluation
from robot_policies.pages.drawing import SENTINELS, STYLE, new_figure, to_svg
from robot_policies.pages.page import command_card, section, write_page
from robot_policies.pages.parts import table
from robot_sim.disturbances import KINDS

UNDISTURBED = "none"


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One evaluation of a sweep.

    Attributes:
        checkpoint: Run or checkpoint directory.
        task: Task name as given; empty is the one the policy was trained for.
        disturbance: Its type, or ``"none"``.
        folder: Results folder.
        summary: Its ``summary.json``.
        p_value: McNemar's exact test against the first row of the same task; None for that row itself.
    """

    checkpoint: str
    task: str
    disturbance: str
    folder: str
    summary: Mapping[str, Any]
    p_value: float | None

    @property
    def label(self) -> str:
        """What tells it from the other rows."""
        return " · ".join(part for part in (self.checkpoint, self.task, self.disturbance) if part)


def run_sweep(
    base: EvaluationConfig,
    output: str | Path,
    *,
    checkpoints: Sequence[str],
    tasks: Sequence[Mapping[str, Any] | None] = (None,),
    disturbances: Sequence[str] = (UNDISTURBED,),
    command: Sequence[str] = (),
    on_row: Callable[[SweepRow], None] | None = None,
) -> list[SweepRow]:
    """Evaluate every checkpoint on every task under every disturbance; what is there already is not done again.

    Args:
        base: Everything that the evaluations have in common.
        output: Folder of the results folders; gets ``sweep.json`` and ``sweep.html``.
        checkpoints: Run or checkpoint directories.
        tasks: Tasks as in `EvaluationConfig.task`; None is the one a policy was trained for.
        disturbances: Types of `robot_sim.disturbances`, with their default strengths, or ``"none"``.
        command: The command line that repeats this.
        on_row: Called after every evaluation.

    Raises:
        ConfigError: Nothing to evaluate, or something twice.
        UserError: What one evaluation raises.
    """
    for name, values in (("checkpoints", checkpoints), ("disturbances", disturbances)):
        if not values:
            raise ConfigError(f"{name}: none given; give some, separated by commas")
        if len(set(values)) != len(values):
            raise ConfigError(f"{name}: something is given twice: {', '.join(values)}")
    unknown = [name for name in disturbances if name not in (UNDISTURBED, *KINDS)]
    if unknown:
        raise ConfigError(f"disturbances: {unknown_name('disturbance', unknown[0], [UNDISTURBED, *KINDS])}")
    rows: list[SweepRow] = []
    for task, disturbance, checkpoint in itertools.product(tasks, disturbances, checkpoints):
        name = "" if task is None else str(task["name"])
        folder = Path(output) / _folder_name(checkpoints.index(checkpoint), checkpoint, name, disturbance)
        config = dataclasses.replace(
            base,
            checkpoint=checkpoint,
            task=task,
            disturbance=None if disturbance == UNDISTURBED else {"type": disturbance},
            output_dir=str(folder),
        )
        done = run_evaluation(config, command=command)
        first = next((row for row in rows if row.task == name), None)
        p_value = None
        if first is not None:
            p_value = compare_folders(ResultsFolder.read(first.folder), ResultsFolder.read(folder)).p_value
        row = SweepRow(
            checkpoint=checkpoint,
            task=name,
            disturbance=disturbance,
            folder=str(folder),
            summary=done.summary,
            p_value=p_value,
        )
        rows.append(row)
        _write(Path(output), rows, command)
        if on_row is not None:
            on_row(row)
    return rows


def _folder_name(index: int, checkpoint: str, task: str, disturbance: str) -> str:
    parts = [f"{index}-{Path(checkpoint).name}", task, disturbance]
    return "_".join(re.sub(r"[^\w.-]+", "-", part) for part in parts if part)


def _write(output: Path, rows: Sequence[SweepRow], command: Sequence[str]) -> None:
    write_json(output / "sweep.json", {"rows": [dataclasses.asdict(row) for row in rows]})
    cells = [
        (
            row.label,
            _percent(row.summary["success"]),
            _interval(row.summary["score"]),
            str(row.summary["n_episodes"]),
            "first" if row.p_value is None else f"{row.p_value:.3g}",
            Path(row.folder).name,
        )
        for row in rows
    ]
    columns = ("evaluation", "success", "score", "episodes", "p against the first", "folder")
    write_page(
        output / "sweep.html",
        title="Sweep",
        heading="Sweep",
        subtitle=f"{len(rows)} evaluations on the same seeds; bars are Wilson's 95 % intervals",
        sections=[
            section("Success rates", f'<figure class="card wide">{_bars(rows)}</figure>'),
            section("Evaluations", table(columns, cells)),
            section("Command", command_card(" ".join(command), "It continues where it stopped.")),
        ],
    )


def _percent(interval: Mapping[str, Any]) -> str:
    low, value, high = (100 * interval[key] for key in ("low", "value", "high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"


def _interval(interval: Mapping[str, Any]) -> str:
    return f"{interval['value']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"


def _bars(rows: Sequence[SweepRow]) -> str:
    with mpl.rc_context(STYLE):
        figure, axes = new_figure(9.6, 0.8 + 0.32 * len(rows))
        places = np.arange(len(rows))[::-1]
        values = np.array([row.summary["success"]["value"] for row in rows])
        low = np.array([row.summary["success"]["low"] for row in rows])
        high = np.array([row.summary["success"]["high"] for row in rows])
        axes.barh(places, values, color=SENTINELS["accent"], alpha=0.35, height=0.6)
        axes.hlines(places, low, high, color=SENTINELS["accent"], lw=2)
        axes.set_yticks(places, [row.label for row in rows])
        axes.set(xlim=(0, 1), xlabel="success rate")
        axes.grid(axis="y", visible=False)
        return to_svg(figure, "success rates with intervals")
