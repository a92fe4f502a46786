"""``robot-policies eval``, ``report`` and ``compare``: judge a checkpoint, show it, compare two."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robot_policies.checkpoint_folder import find_checkpoint
from robot_policies.cli.hydra_app import compose_config

if TYPE_CHECKING:
    from robot_policies.evaluation.comparison import Comparison
    from robot_policies.evaluation.results import EpisodeResult

EXAMPLES = (
    "checkpoint=runs/lift_demo/train",
    "checkpoint=runs/pusht episodes=200 sampler=ddim sampler.steps=4",
    "checkpoint=runs/pusht executor.n_action_steps=4 video.keep=failures",
    "checkpoint=runs/pusht task=pusht output_dir=results/pusht overwrite=true",
)
ALL_FAILED = 1
# Without a terminal a line every so many episodes tells that the run is alive.
LINE_EVERY = 10


def run(argv: Sequence[str]) -> int:
    """Evaluate as configured by Hydra overrides; exit status 1 if no episode could be finished."""
    values = compose_config("eval", list(argv), examples=EXAMPLES)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("robot_policies").setLevel(logging.INFO)
    find_checkpoint(str(values["checkpoint"]))  # a typo is told before the seconds that torch takes
    # Imported here so that --help does not wait for torch.
    from robot_policies.evaluation.config import EvaluationConfig
    from robot_policies.evaluation.run import run_evaluation
    from robot_policies.evaluation.summary import headline

    config = EvaluationConfig.parse(values)
    with _Meter(config.episodes) as meter:
        try:
            done = run_evaluation(config, command=["robot-policies", "eval", *argv], progress=meter.update)
        except KeyboardInterrupt:
            meter.interrupted()
            raise
    print(f"{headline(done.summary)}\nreport: {done.report}")
    failures = done.summary["n_failures"]
    if failures:
        first = next(result for result in done.folder.results if result.failure)
        print(f"{failures} episodes broke, first seed {first.seed}: {first.failure}", file=sys.stderr)
    return ALL_FAILED if failures == done.summary["n_episodes"] else 0


def run_report(argv: Sequence[str]) -> int:
    """Write the summary and the report of a results folder again, finished or not."""
    parser = argparse.ArgumentParser(
        prog="robot-policies report",
        description="Write summary.json and report.html of an evaluation again, also of an unfinished one.",
        epilog="example: robot-policies report runs/lift_demo/eval",
    )
    parser.add_argument("folder", help="results folder written by 'robot-policies eval'")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    arguments = parser.parse_args(list(argv))
    from robot_policies.evaluation.run import rewrite_report
    from robot_policies.evaluation.summary import headline

    done = rewrite_report(arguments.folder)
    if arguments.json:
        print(json.dumps(done.summary, indent=1))
    else:
        print(f"{headline(done.summary)}\nreport: {done.report}")
    return 0


def run_compare(argv: Sequence[str]) -> int:
    """Compare two results folders on their common seeds."""
    parser = argparse.ArgumentParser(
        prog="robot-policies compare",
        description="Compare two evaluations of one task seed by seed: difference with interval, McNemar's test.",
        epilog="example: robot-policies compare runs/a/eval runs/b/eval",
    )
    parser.add_argument("first", help="results folder written by 'robot-policies eval'")
    parser.add_argument("second", help="the other one; differences are second minus first")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(list(argv))
    from robot_policies.evaluation.comparison import compare_folders
    from robot_policies.evaluation.results import ResultsFolder

    result = compare_folders(ResultsFolder.read(arguments.first), ResultsFolder.read(arguments.second))
    if arguments.json:
        print(json.dumps(result.to_dict(), indent=1))
    else:
        _show_comparison(result, arguments.first, arguments.second)
    return 0


def _show_comparison(result: Comparison, first: str, second: str) -> None:
    from rich.console import Console
    from rich.table import Table

    def percent(interval: Any) -> str:
        return f"{100 * interval.value:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"

    def number(interval: Any, sign: str = "") -> str:
        return f"{interval.value:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"

    table = Table(title=f"{result.n} common seeds, 95 % intervals")
    for name in ("", "score", "success"):
        table.add_column(name)
    table.add_row(first, number(result.score_first), percent(result.success_first))
    table.add_row(second, number(result.score_second), percent(result.success_second))
    table.add_row(
        "difference, paired",
        number(result.score_difference, "+"),
        f"only first {result.only_first}, only second {result.only_second}; McNemar p = {result.p_value:.3g}",
    )
    console = Console()
    console.print(table)
    if result.left_out:
        console.print(f"{result.left_out} episodes have no counterpart and are left out")
    for difference in result.protocol_differences:
        console.print(f"the protocols differ: {difference}", markup=False)
    console.print(result.verdict())


class _Meter:
    """Progress: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True)
        columns = (
            TextColumn("episodes"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[text]}"),
        )  # fmt: skip
        self._bar = Progress(*columns, console=self._console) if self._console.is_terminal else None
        self._task = None if self._bar is None else self._bar.add_task("", total=total, text="")
        self._done, self._total = 0, total

    def __enter__(self) -> _Meter:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, results: Sequence[EpisodeResult], total: int) -> None:
        """Show what is there after one more episode."""
        done = self._done = len(results)
        self._total = total
        text = f"mean score {sum(result.score for result in results) / done:.3f}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, text=text)
        elif done % LINE_EVERY == 0 or done == total:
            self._console.print(f"{done} of {total} episodes, {text}", highlight=False)

    def interrupted(self) -> None:
        """Say what is kept."""
        self._console.print(f"{self._done} of {self._total} episodes are kept; the same command continues")
