"""The commands that describe a store: inspect, stats."""

from __future__ import annotations

import argparse
import json
from typing import Any

from robot_policies.cli.arguments import (
    add_json,
    command_parser,
    make_console,
    open_store,
)


def run_inspect(argv: list[str]) -> int:
    """Show what a store holds."""
    from robot_datasets.summary import summarise

    arguments = _store_parser(
        "inspect", "Show what an episode store holds.", "inspect data/pusht.zarr"
    ).parse_args(argv)
    summary = summarise(open_store(arguments.store))
    if arguments.json:
        print(json.dumps(summary))
    else:
        _print_summary(summary)
    return 0


def run_stats(argv: list[str]) -> int:
    """Print the statistics of a store's features."""
    parser = _store_parser(
        "stats", "Print statistics per feature and component.", "stats data/pusht.zarr --feature action"
    )
    parser.add_argument(
        "--feature", action="append", metavar="NAME", help="this feature only; may be repeated"
    )
    arguments = parser.parse_args(argv)
    store = open_store(arguments.store)
    names = arguments.feature or sorted(store.features)
    stats = {name: store.stats(name) for name in names}
    if arguments.json:
        values = {n: {k: v.tolist() for k, v in s.to_dict().items()} for n, s in stats.items()}
        print(json.dumps(values))
        return 0
    for name, values in stats.items():
        _print_stats(name, store.features[name].names, values.to_array(), values.constant)
    return 0


def _store_parser(command: str, text: str, example: str) -> argparse.ArgumentParser:
    parser = command_parser(command, text, f"example:\n  robot-policies {example}")
    parser.add_argument(
        "store", help="an episode store: directory, zip, or address such as s3://bucket/demos.zarr"
    )
    add_json(parser)
    return parser


def _print_summary(summary: dict[str, Any]) -> None:
    from rich.table import Column, Table

    console = make_console()
    size = summary["bytes"]
    length = summary["episode_length"]
    rows = {
        "store": summary["path"] + (f" ({size / 1e6:,.1f} MB)" if size is not None else ""),
        "episodes": f"{summary['n_episodes']:,}, {length['min']} to {length['max']} steps, median {length['median']:g}",
        "steps": f"{summary['n_steps']:,} at {summary['fps']:g} Hz, {summary['seconds'] / 60:,.1f} minutes",
        "embodiment": summary["embodiment"] or "unknown",
        "success": ", ".join(f"{count:,} {name}" for name, count in summary["success"].items() if count),
        "splits": ", ".join(f"{count:,} {name}" for name, count in summary["splits"].items()),
        "set aside": f"{summary['n_quarantined']:,}",
        "source": summary["source"].get("name", "unknown"),
        "importer": summary["conversion"].get("importer", "none"),
        "fingerprint": summary["fingerprint"],
    }
    for name, value in rows.items():
        console.print(f"{name:>12}  {value}", markup=False, highlight=False, soft_wrap=True)
    for entry in summary["tasks"]:
        line = f"{'task':>12}  {entry['task'] or '(none)'}: {entry['n_episodes']:,} episodes"
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    table = Table(Column("feature", no_wrap=True), "type", "shape", "units", "meaning")
    for name, feature in summary["features"].items():
        kind = f"{feature['dtype']} {feature.get('encoding', '')}".strip()
        shape = " x ".join(str(n or "any") for n in feature["shape"])
        table.add_row(
            name, kind, shape, ", ".join(dict.fromkeys(feature.get("units", []))), feature.get("meaning", "")
        )
    console.print(table)


def _print_stats(name: str, components: tuple[str, ...], values: Any, constant: Any) -> None:
    from rich.table import Table

    from robot_datasets.statistics import STATISTICS

    flat, flags = values.reshape(len(STATISTICS), -1), constant.reshape(-1)
    table = Table(
        "component", *STATISTICS[1:], title=f"{name}  ({int(flat[0, 0]):,} values each)", title_justify="left"
    )
    for index in range(flat.shape[1]):
        label = components[index] if components else str(index)
        cells = [f"{value:.4g}" for value in flat[1:, index]]
        table.add_row(f"{label} (constant)" if flags[index] else label, *cells)
    make_console().print(table)
