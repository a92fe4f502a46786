"""The inspect command: what a store holds, on the terminal or as a page with pictures."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_datasets.errors import UserError
from robot_policies.cli.arguments import add_json, command_parser, make_console, open_store
from robot_policies.cli.progress import progress_bar

if TYPE_CHECKING:
    from robot_datasets.store import EpisodeStore

_BARS = " ▁▂▃▄▅▆▇█"
# Rules that read frames; the page shows frames itself, and `check` runs all of them.
_SLOW_RULES = ("dark-frames", "frozen-frames", "slow-camera")


def run(argv: list[str]) -> int:
    """Show what a store holds."""
    from robot_datasets.summary import summarise

    parser = command_parser(
        "inspect",
        "Show what an episode store holds; with --html as one page with histograms, curves, frames and what the\n"
        "check of the numbers found.",
        "example:\n  robot-policies inspect data/pusht.zarr --html pusht.html",
    )
    parser.add_argument(
        "store", help="an episode store: directory, zip, or address such as s3://bucket/demos.zarr"
    )
    parser.add_argument("--html", metavar="FILE", help="write a page of one file, readable offline")
    add_json(parser)
    arguments = parser.parse_args(argv)
    store = open_store(arguments.store)
    summary = summarise(store)
    if arguments.html:
        command = shlex.join(["robot-policies", "inspect", *argv])
        _write_page(store, summary, Path(arguments.html), command, quiet=arguments.json)
    if arguments.json:
        print(json.dumps(summary))
    elif arguments.html:
        make_console().print(f"page: {arguments.html}", markup=False, highlight=False, soft_wrap=True)
    else:
        _print_summary(summary)
    return 0


def _write_page(
    store: EpisodeStore, summary: dict[str, Any], path: Path, command: str, *, quiet: bool
) -> None:
    from robot_datasets.checks import lint
    from robot_policies.pages.dataset import write_dataset_page

    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is no folder; make it first, or write the page elsewhere")
    with progress_bar("episodes looked at", enabled=not quiet) as update:
        report = lint(store, skip=_SLOW_RULES, progress=lambda done, total: update(done, total, ""))
    write_dataset_page(path, store, summary=summary, findings=report.findings, command=command)


def _print_summary(summary: dict[str, Any]) -> None:
    from rich.table import Column, Table

    console = make_console()
    for name, value in _lines(summary):
        console.print(f"{name:>12}  {value}", markup=False, highlight=False, soft_wrap=True)
    table = Table(Column("feature", no_wrap=True), "type", "shape", "units", "meaning", box=None)
    for name, feature in summary["features"].items():
        kind = f"{feature['dtype']} {feature.get('encoding', '')}".strip()
        shape = " x ".join(str(n or "any") for n in feature["shape"])
        units = ", ".join(dict.fromkeys(feature.get("units", [])))
        table.add_row(name, kind, shape, units, feature.get("meaning", ""))
    console.print(table)


def _lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    size, length = summary["bytes"], summary["episode_length"]
    counts = summary["length_histogram"]
    bars = "".join(_BARS[-(-8 * count // max(1, *counts))] for count in counts)
    tasks = [("task", f"{t['task'] or '(none)'}: {t['n_episodes']:,} episodes") for t in summary["tasks"]]
    if summary["n_tasks"] > len(tasks):
        tasks.append(("", f"and {summary['n_tasks'] - len(tasks):,} more tasks"))
    rows = [
        ("store", summary["path"] + (f" ({size / 1e6:,.1f} MB)" if size is not None else "")),
        ("episodes", f"{summary['n_episodes']:,}"),
        ("lengths", f"{length['min']} ▕{bars}▏ {length['max']} steps, median {length['median']:g}"),
        ("steps", f"{summary['n_steps']:,} at {summary['fps']:g} Hz, {summary['seconds'] / 60:,.1f} minutes"),
        ("embodiment", summary["embodiment"] or "unknown"),
        ("success", ", ".join(f"{count:,} {name}" for name, count in summary["success"].items() if count)),
        ("splits", ", ".join(f"{count:,} {name}" for name, count in summary["splits"].items())),
        ("segments", f"{summary['n_segments']:,}"),
        ("warnings", f"{summary['n_warnings']:,}"),
        ("set aside", f"{summary['n_quarantined']:,}"),
        ("source", str(summary["source"].get("name", "unknown"))),
        ("importer", str(summary["conversion"].get("importer", "none"))),
        ("fingerprint", summary["fingerprint"]),
    ]
    return rows + tasks
