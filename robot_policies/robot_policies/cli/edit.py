"""The commands that make a new store of old ones: merge, split, trim, drop, rename, mirror."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_datasets.errors import UserError
from robot_policies.cli.arguments import (
    add_json,
    command_parser,
    make_console,
    open_store,
    parse_number,
    parse_numbers,
)
from robot_policies.cli.progress import progress_bar

if TYPE_CHECKING:
    from robot_datasets.edit import Edit, EditReport

_SHOWN = 10


def run_merge(argv: list[str]) -> int:
    """Put the episodes of several stores of one robot into a new store."""
    from robot_datasets.edit import merge

    parser = _parser(
        "merge",
        "Put the episodes of several stores of one robot into a new one, one store after the other.",
        "merge monday.zarr tuesday.zarr --out week.zarr",
    )
    parser.add_argument("stores", nargs="+", help="two or more episode stores")
    parser.add_argument("--out", required=True, help="the store to make")
    parser.add_argument("--embodiment", default="", help="robot name, if the stores disagree")
    arguments = parser.parse_args(argv)
    edit = merge([open_store(store) for store in arguments.stores], embodiment=arguments.embodiment)
    return _write([edit], [arguments.out], arguments, overwrite=arguments.overwrite)


def run_split(argv: list[str]) -> int:
    """Divide a store into one to train on and one held out."""
    from robot_datasets.edit import split

    parser = _parser(
        "split",
        "Divide the episodes of a store into two new stores. Training holds out the same episodes for the same\n"
        "ratio and seed.",
        "split demos.zarr train.zarr val.zarr --val-ratio 0.1 --seed 42",
    )
    parser.add_argument("store", help="an episode store")
    parser.add_argument("train", help="store of the training episodes to make")
    parser.add_argument("val", help="store of the validation episodes to make")
    parser.add_argument("--val-ratio", type=float, default=0.1, help="share of episodes held out [0.1]")
    parser.add_argument("--seed", type=int, default=42, help="seed of the choice [42]")
    parser.add_argument("--by-mark", action="store_true", help="go by the split marked in the store instead")
    arguments = parser.parse_args(argv)
    edits = split(
        open_store(arguments.store),
        val_ratio=arguments.val_ratio,
        seed=arguments.seed,
        by_mark=arguments.by_mark,
    )
    return _write(edits, [arguments.train, arguments.val], arguments, overwrite=arguments.overwrite)


def run_trim(argv: list[str]) -> int:
    """Cut the beginning or the end of episodes off."""
    from robot_datasets.edit import trim

    parser = _single(
        "trim",
        "Cut off what episodes begin or end with: waiting (--idle), or given steps.",
        "trim demos.zarr trimmed.zarr --idle --margin 0.5",
    )
    parser.add_argument(
        "--idle", action="store_true", help="cut off waiting, where neither state nor action change"
    )
    parser.add_argument("--margin", type=float, default=0.5, help="seconds of waiting that are kept [0.5]")
    parser.add_argument(
        "--steps", metavar="A:B", help="keep steps A to B - 1 of every episode, e.g. 5: or :-10"
    )
    parser.add_argument(
        "--episode", action="append", default=[], metavar="N=A:B", help="keep these of episode N; repeatable"
    )
    parser.add_argument("--min-steps", type=int, default=2, help="drop episodes left with fewer steps [2]")
    arguments = parser.parse_args(argv)
    single = (_pair(text, "--episode", "7=5:80") for text in arguments.episode)
    edit = trim(
        open_store(arguments.store),
        idle=arguments.idle,
        margin=arguments.margin,
        steps=_steps(arguments.steps) if arguments.steps else None,
        episodes={parse_number(number): _steps(steps) for number, steps in single},
        min_steps=arguments.min_steps,
    )
    return _write_single(edit, arguments)


def run_drop(argv: list[str]) -> int:
    """Leave episodes or features out."""
    from robot_datasets.edit import drop

    parser = _single(
        "drop",
        "Leave episodes or features out. Conditions name facts of an episode: episode, source_id, n_steps, seconds,\n"
        "task, split, success (True, False, None), warnings; quotes around the whole.",
        'drop demos.zarr clean.zarr --failed --where "n_steps < 20" --episode 3,8-11',
    )
    parser.add_argument(
        "--episode", action="append", default=[], metavar="N", help="numbers: 3 or 8-11 or 3,8-11"
    )
    parser.add_argument(
        "--where", default="", metavar="CONDITION", help="e.g. \"task == 'wipe' and seconds < 3\""
    )
    parser.add_argument("--failed", action="store_true", help="episodes known not to have reached their goal")
    parser.add_argument(
        "--list", metavar="FILE", help="names of episodes, one per line, or what check --json printed"
    )
    parser.add_argument("--code", action="append", default=[], help="of a check's output only these findings")
    parser.add_argument(
        "--feature", action="append", default=[], metavar="NAME", help="leave this feature out"
    )
    arguments = parser.parse_args(argv)
    edit = drop(
        open_store(arguments.store),
        episodes=[number for text in arguments.episode for number in parse_numbers(text)],
        source_ids=_read_list(Path(arguments.list), arguments.code) if arguments.list else None,
        where=arguments.where,
        failed=arguments.failed,
        features=arguments.feature,
    )
    return _write_single(edit, arguments)


def run_rename(argv: list[str]) -> int:
    """Give features, instructions or the robot another name."""
    from robot_datasets.edit import rename

    parser = _single(
        "rename",
        "Give features, instructions or the robot another name.",
        "rename demos.zarr renamed.zarr --feature observation.images.cam0=observation.images.top",
    )
    parser.add_argument("--feature", action="append", default=[], metavar="OLD=NEW", help="repeatable")
    parser.add_argument(
        "--task", action="append", default=[], metavar="OLD=NEW", help="instruction; repeatable"
    )
    parser.add_argument("--embodiment", metavar="NAME", help="new robot name")
    arguments = parser.parse_args(argv)
    example = "observation.images.cam0=observation.images.top"
    edit = rename(
        open_store(arguments.store),
        features=dict(_pair(text, "--feature", example) for text in arguments.feature),
        tasks=dict(_pair(text, "--task", "wipe=wipe the table", empty=True) for text in arguments.task),
        embodiment=arguments.embodiment,
    )
    return _write_single(edit, arguments)


def run_mirror(argv: list[str]) -> int:
    """Write the mirror images of demonstrations."""
    from robot_sim.mirror import mirror

    parser = _single(
        "mirror",
        "Write the mirror images of demonstrations of a symmetric task (PushT), to train on both: twice the data.",
        "mirror pusht.zarr mirrored.zarr",
    )
    arguments = parser.parse_args(argv)
    return _write_single(mirror(open_store(arguments.store)), arguments)


def _parser(command: str, text: str, example: str) -> argparse.ArgumentParser:
    parser = command_parser(
        command,
        f"{text}\nA new store is written, whole or not at all; frames are copied, not encoded again.",
        f"example:\n  robot-policies {example}",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a store that is there already")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    add_json(parser)
    return parser


def _single(command: str, text: str, example: str) -> argparse.ArgumentParser:
    """Return the parser of a command that makes one store of one."""
    parser = _parser(command, text, example)
    parser.add_argument("store", help="an episode store")
    parser.add_argument("out", nargs="?", help="the store to make")
    parser.add_argument(
        "--in-place", action="store_true", help="replace the store itself, in one step at the end"
    )
    return parser


def _write_single(edit: Edit, arguments: argparse.Namespace) -> int:
    if arguments.in_place == (arguments.out is not None):
        raise UserError("give either the store to make, or --in-place to replace the one that is read")
    target = arguments.store if arguments.in_place else arguments.out
    return _write([edit], [target], arguments, overwrite=arguments.overwrite or arguments.in_place)


def _write(
    edits: Sequence[Edit], targets: Sequence[str], arguments: argparse.Namespace, *, overwrite: bool
) -> int:
    from robot_datasets.edit import apply

    if len({os.path.abspath(target) for target in targets}) < len(targets):
        raise UserError(f"both parts would be written to {targets[0]}; give each a place of its own")
    if arguments.dry_run:
        return _print_plan(edits, targets, as_json=arguments.json)
    reports = []
    for edit, target in zip(edits, targets, strict=True):
        with progress_bar("episodes", enabled=not arguments.json) as update:

            def show(done: int, total: int, update: Callable[[int, int, str], None] = update) -> None:
                update(done, total, "")

            reports.append(apply(edit, target, overwrite=overwrite, progress=show))
    if arguments.json:
        print(json.dumps(reports[0].to_dict() if len(reports) == 1 else [r.to_dict() for r in reports]))
    else:
        for report in reports:
            _say(_outcome(report))
    return 0


def _outcome(report: EditReport) -> str:
    dropped = f", {report.n_dropped:,} left out" if report.n_dropped else ""
    what = "is up to date, nothing to do" if report.unchanged else f"written in {report.seconds:.1f} s"
    return f"{report.store}: {report.n_episodes:,} episodes, {report.n_steps:,} steps{dropped}; {what}"


def _print_plan(edits: Sequence[Edit], targets: Sequence[str], *, as_json: bool) -> int:
    plans: list[dict[str, Any]] = [
        {
            "store": target,
            "n_episodes": len(edit.pieces),
            "n_steps": edit.n_steps,
            "features": sorted(edit.features),
            "dropped": dict(edit.dropped),
        }
        for edit, target in zip(edits, targets, strict=True)
    ]
    if as_json:
        print(json.dumps(plans[0] if len(plans) == 1 else plans))
        return 0
    for plan in plans:
        dropped = plan["dropped"]
        for name, reason in list(dropped.items())[:_SHOWN]:
            _say(f"  {name}: {reason}")
        if len(dropped) > _SHOWN:
            _say(f"  ... and {len(dropped) - _SHOWN:,} more; --json lists them")
        _say(
            f"{plan['store']} would have {plan['n_episodes']:,} episodes, {plan['n_steps']:,} steps, "
            f"{len(dropped):,} left out; nothing was written"
        )
    return 0


def _say(text: str) -> None:
    make_console().print(text, markup=False, highlight=False, soft_wrap=True)


def _pair(text: str, option: str, example: str, *, empty: bool = False) -> tuple[str, str]:
    """``a=b`` -> (``a``, ``b``); with `empty`, the left side may be empty."""
    left, separator, right = text.partition("=")
    if not separator or not right or not (left or empty):
        raise UserError(f"{option} got '{text}'; expected e.g. {option} {example}")
    return left, right


def _steps(text: str) -> tuple[int | None, int | None]:
    """``5:80``, ``5:`` or ``:-10`` -> first step, one past the last."""
    first, separator, last = text.partition(":")
    try:
        if not separator:
            raise ValueError
        return (int(first) if first else None), (int(last) if last else None)
    except ValueError:
        raise UserError(f"'{text}' are no steps; expected A:B, for example 5:80 or :-10") from None


def _read_list(path: Path, codes: Sequence[str]) -> dict[str, str]:
    """Return episode name -> why, of a list of names or of a check's JSON."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}); expected one episode name per line") from error
    if not text.lstrip().startswith("{"):
        if codes:
            raise UserError(f"{path} is a plain list; --code is for what check --json printed")
        return {line.strip(): "" for line in text.splitlines() if line.strip()}
    try:
        found = [*json.loads(text).get("findings", []), *json.loads(text).get("problems", [])]
        rows = [(f["source_id"], f.get("code") or f["kind"]) for f in found if f.get("source_id")]
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not what check --json prints ({error}); run that again") from error
    known = {code for _, code in rows}
    for code in codes:
        if code not in known:
            raise UserError(f"{path} has no finding '{code}'; it has {', '.join(sorted(known)) or 'none'}")
    return {name: code for name, code in rows if not codes or code in codes}
