"""The convert command: a source turned into an episode store, with its report."""

from __future__ import annotations

import argparse
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_datasets.errors import DatasetError, UserError
from robot_datasets.image_codec import ENCODINGS
from robot_policies.cli.arguments import (
    add_json,
    command_parser,
    describe_options,
    make_console,
    parse_options,
)
from robot_policies.cli.progress import progress_bar

if TYPE_CHECKING:
    from robot_datasets.convert import ConversionReport, Progress

_INTERRUPTED = 130
_SHOWN = 10
_EXECUTORS = ("serial", "process", "ray")


def run(argv: list[str]) -> int:
    """Convert a source into an episode store; 0 on success, also if it was there already."""
    from robot_datasets.convert import NothingConvertedError

    arguments = _parser().parse_args(argv)
    done = 0
    try:
        with progress_bar("episodes", enabled=not arguments.json) as update:

            def show(progress: Progress) -> None:
                nonlocal done
                done = progress.done
                note = f", {progress.quarantined} set aside" if progress.quarantined else ""
                update(progress.done, progress.total, f"{progress.n_bytes / 1e6:,.0f} MB{note}")

            report = _convert(arguments, show)
    except KeyboardInterrupt:
        make_console(stderr=True).print(
            f"interrupted; {done} episodes are safe, run the same command again to go on", highlight=False
        )
        return _INTERRUPTED
    except NothingConvertedError as error:
        page = _write_report(error.report, arguments, argv)
        raise UserError(f"{error}{f' (report: {page})' if page else ''}") from error
    page = _write_report(report, arguments, argv)
    if arguments.json:
        print(json.dumps(report.to_dict() | {"report": page and str(page)}))
    else:
        _print(report, page)
    return 0


def _convert(arguments: argparse.Namespace, show: Any) -> ConversionReport:
    from robot_datasets.convert import convert

    options = parse_options(arguments.option)
    if arguments.image_encoding:
        options["image_encoding"] = arguments.image_encoding
    return convert(
        arguments.source,
        arguments.store,
        format=arguments.format,
        options=options,
        overwrite=arguments.overwrite,
        workers=arguments.workers,
        executor=arguments.executor,
        progress=show,
    )


def _parser() -> argparse.ArgumentParser:
    from robot_datasets.importers import get_importer, importer_names

    formats = "\n".join(describe_options(get_importer(name)) for name in importer_names())
    parser = command_parser(
        "convert",
        "Convert recorded demonstrations into an episode store. An interrupted conversion goes on where it\n"
        "stopped when the same command is run again; episodes that cannot be used are set aside with reasons.\n"
        "The store is the same whatever the number of workers. A report lies beside it, in STORE.report.",
        f"formats and their options:\n{formats}\n\nexample:\n"
        "  robot-policies convert pusht_cchi_v7_replay.zarr.zip data/pusht.zarr\n"
        "  robot-policies convert benchmark1_1_release/h5_franka_3rgb data/franka.zarr --workers 8",
    )
    parser.add_argument("source", help="file or directory to convert")
    parser.add_argument("store", help="where the episode store shall appear, e.g. data/pusht.zarr")
    parser.add_argument("--format", metavar="NAME", help="format of the source (default: recognised)")
    parser.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="option of the format"
    )
    parser.add_argument("--image-encoding", choices=ENCODINGS, help="short for --option image_encoding=...")
    parser.add_argument("--overwrite", action="store_true", help="replace the store at the target")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that read the source (default: 1)"
    )
    parser.add_argument(
        "--executor",
        choices=_EXECUTORS,
        help="where they run: in this process, on this machine, or on a Ray cluster whose nodes all see source "
        "and store (default: serial for one worker, else process)",
    )
    parser.add_argument("--report", metavar="DIR", help="folder for the report (default: STORE.report)")
    parser.add_argument("--no-report", action="store_true", help="write no report")
    add_json(parser)
    return parser


def _write_report(report: ConversionReport, arguments: argparse.Namespace, argv: list[str]) -> Path | None:
    """Write the JSON and the HTML report and return the latter's path.

    The report of the run that made a store is kept when another run finds the store up to date.
    """
    from robot_datasets.engine.report import HTML_NAME, JSON_NAME, describe, report_folder, write_json
    from robot_policies.pages.conversion import write_conversion_page

    if arguments.no_report:
        return None
    folder = Path(arguments.report) if arguments.report else report_folder(arguments.store)
    page = folder / HTML_NAME
    if report.unchanged and page.exists() and (folder / JSON_NAME).exists():
        return page
    content = describe(report) | {"command": shlex.join(["robot-policies", "convert", *argv])}
    try:
        write_json(content, folder)
        write_conversion_page(page, content)
    except OSError as error:
        raise DatasetError(
            f"the report cannot be written to {folder}: {error.strerror or error}; the store is not affected, "
            "choose another folder with --report"
        ) from error
    return page


def _print(report: ConversionReport, page: Path | None) -> None:
    from robot_datasets.engine.report import group_by_kind

    console = make_console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    for text in report.source_warnings:
        say(f"  warning: {text}")
    warnings = [(name, text) for name, texts in report.warnings.items() for text in texts]
    kinds = [("set aside", kind) for kind in group_by_kind(report.quarantined.items())]
    kinds += [("warning", kind) for kind in group_by_kind(warnings)]
    for what, kind in kinds[:_SHOWN]:
        more = f" and {len(kind.episodes) - 1:,} more" if len(kind.episodes) > 1 else ""
        say(f"  {what}: {kind.episodes[0]}{more}: {kind.text}")
    if len(kinds) > _SHOWN:
        say(f"  ... and {len(kinds) - _SHOWN} other messages; the report lists them")
    if report.n_lost_workers:
        say(f"  {report.n_lost_workers} worker processes died and were replaced")
    resumed = f", {report.n_resumed:,} of them by an earlier run" if report.n_resumed else ""
    rate = f", {report.n_bytes / report.seconds / 1e6:,.0f} MB/s" if report.n_bytes > 1e6 else ""
    what = (
        "is up to date, nothing to do: same source, same options"
        if report.unchanged
        else f"written in {report.seconds:.1f} s{rate}{resumed}"
    )
    say(
        f"{report.store}: {report.n_episodes:,} episodes, {report.n_steps:,} steps, "
        f"{len(report.quarantined)} set aside; {what}"
    )
    if page is not None:
        say(f"report: {page}")
