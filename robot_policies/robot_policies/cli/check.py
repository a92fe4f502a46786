"""The check command: is the store whole, and do the recordings in it have faults?"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from robot_datasets.errors import unknown_name
from robot_policies.cli.arguments import add_json, command_parser, make_console, open_store
from robot_policies.cli.progress import progress_bar

if TYPE_CHECKING:
    from rich.console import Console

    from robot_datasets.check import CheckReport
    from robot_datasets.checks import Finding, LintReport
    from robot_datasets.store import EpisodeStore

_INTEGRITY = "integrity"
_SHOWN = 20
_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


def run(argv: list[str]) -> int:
    """Read all of a store and look for faults; 1 if it is damaged or an error was found."""
    arguments = _parser().parse_args(argv)
    _require_known([*arguments.only, *arguments.skip])
    store = open_store(arguments.store)
    whole = not arguments.only or _INTEGRITY in arguments.only
    integrity = _read_everything(store, arguments) if whole and _INTEGRITY not in arguments.skip else None
    rules = [name for name in arguments.only if name != _INTEGRITY]
    report = None
    if (rules or not arguments.only) and (integrity is None or integrity.ok):
        report = _look_for_faults(store, arguments, rules)
    failed = (integrity is not None and not integrity.ok) or _fails(report, strict=arguments.strict)
    if arguments.json:
        parts = {} if integrity is None else integrity.to_dict()
        print(json.dumps({"ok": not failed, **parts, **({} if report is None else report.to_dict())}))
    else:
        console = make_console()
        if integrity is not None:
            _print_integrity(integrity, console)
        if report is not None:
            _print_findings(report, console)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    from robot_datasets.checks import rule_codes

    parser = command_parser(
        "check",
        "Read every byte of a store, decode every frame, and look for faults of the recordings in it. Ends with\n"
        "status 1 if it is damaged or something is certainly wrong, with --strict also if something looks wrong.",
        f"rules: integrity, {', '.join(rule_codes())}\n(docs/datasets/tools.md explains each)\n\n"
        "example:\n  robot-policies check data/pusht.zarr --skip slow-camera",
    )
    parser.add_argument("store", help="an episode store: directory, zip, or address")
    parser.add_argument(
        "--only", action="append", default=[], metavar="RULE", help="run this rule only; repeatable"
    )
    parser.add_argument(
        "--skip", action="append", default=[], metavar="RULE", help="leave this rule out; repeatable"
    )
    parser.add_argument("--strict", action="store_true", help="warnings fail, too")
    add_json(parser)
    return parser


def _require_known(rules: list[str]) -> None:
    from robot_datasets.checks import rule_codes
    from robot_datasets.errors import DatasetError

    known = [_INTEGRITY, *rule_codes()]
    for name in rules:
        if name not in known:
            raise DatasetError(unknown_name("rule", name, known))


def _read_everything(store: EpisodeStore, arguments: argparse.Namespace) -> CheckReport:
    from robot_datasets.check import check_store

    with progress_bar("episodes read", enabled=not arguments.json) as update:
        return check_store(store, progress=lambda done, total: update(done, total, ""))


def _look_for_faults(store: EpisodeStore, arguments: argparse.Namespace, rules: list[str]) -> LintReport:
    from robot_datasets.checks import lint

    skip = [name for name in arguments.skip if name != _INTEGRITY]
    with progress_bar("episodes looked at", enabled=not arguments.json) as update:
        return lint(store, only=rules, skip=skip, progress=lambda done, total: update(done, total, ""))


def _fails(report: LintReport | None, *, strict: bool) -> bool:
    return report is not None and report.worst() in (("error", "warning") if strict else ("error",))


def _print_integrity(report: CheckReport, console: Console) -> None:
    for problem in report.problems[:_SHOWN]:
        console.print(f"  {problem}", markup=False, highlight=False, soft_wrap=True)
    if report.n_problems > _SHOWN:
        console.print(f"  ... and {report.n_problems - _SHOWN} more; --json lists them")
    verdict = "no problems" if report.ok else f"{report.n_problems} problems"
    console.print(
        f"{report.store}: {verdict} in {report.n_episodes:,} episodes, {report.n_steps:,} steps, "
        f"{report.n_frames:,} frames",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )


def _print_findings(report: LintReport, console: Console) -> None:
    """Print one block per code and feature, the episodes it concerns together."""
    from rich.markup import escape

    groups: dict[tuple[str, str, str], list[Finding]] = {}
    for finding in report.findings:
        groups.setdefault((finding.severity, finding.code, finding.feature), []).append(finding)
    for (severity, code, feature), found in groups.items():
        colour, first = _COLOURS[severity], found[0]
        where = f"episode {first.episode} ({first.source_id}): " if first.episode is not None else ""
        console.print(
            f"[{colour}]{severity:>7}[/] [bold]{code}[/]{escape(f'  {feature}' if feature else '')}",
            highlight=False,
        )
        lines = [f"{where}{first.detail}", f"-> {first.remedy}"]
        if len(found) > 1:
            others = ", ".join(str(f.episode) for f in found[1:13]) + (", ..." if len(found) > 13 else "")
            lines.insert(1, f"also in {len(found) - 1} more: episodes {others}")
        for line in lines:
            console.print(f"        {line}", markup=False, highlight=False, soft_wrap=True)
    counts = ", ".join(f"{count:,} {code}" for code, count in report.counts.items())
    console.print(f"recordings: {counts or 'nothing found'}", markup=False, highlight=False, soft_wrap=True)
