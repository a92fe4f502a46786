"""The export command: an episode store written in another format."""

from __future__ import annotations

import argparse
import json

from robot_policies.cli.arguments import (
    add_json,
    command_parser,
    describe_options,
    make_console,
    open_store,
    parse_options,
)
from robot_policies.cli.progress import progress_bar


def run(argv: list[str]) -> int:
    """Write a store in another format; 0 on success."""
    from robot_datasets.exporters import export

    arguments = _export_parser().parse_args(argv)
    with progress_bar("episodes", enabled=not arguments.json) as update:
        report = export(
            open_store(arguments.store),
            arguments.out,
            format=arguments.format,
            options=parse_options(arguments.option),
            overwrite=arguments.overwrite,
            progress=lambda done, total: update(done, total, ""),
        )
    if arguments.json:
        print(json.dumps(report.to_dict()))
        return 0
    console = make_console()
    for warning in report.warnings:
        console.print(f"  {warning}", markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{report.target}: {report.n_episodes:,} episodes, {report.n_steps:,} steps as {report.format}; "
        f"written in {report.seconds:.1f} s",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _export_parser() -> argparse.ArgumentParser:
    from robot_datasets.exporters import exporter_names, get_exporter

    formats = "\n".join(describe_options(get_exporter(name)) for name in exporter_names())
    parser = command_parser(
        "export",
        "Write an episode store in another format. The folder appears whole or not at all.",
        f"formats and their options:\n{formats}\n\nexample:\n"
        "  robot-policies export data/pusht.zarr exports/pusht --format lerobot-v3",
    )
    parser.add_argument("store", help="an episode store: directory, zip, or address")
    parser.add_argument("out", help="folder to make")
    parser.add_argument("--format", required=True, metavar="NAME", help="what to write, see below")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="option of the format"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a dataset of the same kind")
    add_json(parser)
    return parser
