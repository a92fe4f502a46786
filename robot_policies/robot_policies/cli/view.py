"""The view command: episodes in the rerun viewer, or as files for it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from robot_datasets.errors import UserError
from robot_policies.cli.arguments import chosen_episodes, command_parser, make_console, open_store

if TYPE_CHECKING:
    from robot_datasets.store import EpisodeStore

_MOST = 20


def run(argv: list[str]) -> int:
    """Open episodes in the viewer, or save them."""
    from robot_datasets.rerun_recording import show_recordings

    arguments = _parser().parse_args(argv)
    store = open_store(arguments.store)
    episodes = chosen_episodes(store, arguments.episode or ["0"])
    if arguments.save:
        return _save(store, episodes, Path(arguments.save))
    if len(episodes) > _MOST:
        raise UserError(
            f"{len(episodes)} episodes were asked for, the viewer opens up to {_MOST}; use --save"
        )
    show_recordings(store, episodes)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "view",
        "Open episodes in the rerun viewer: frames, curves, labelled parts and the instruction on one timeline. Needs\n"
        "the extra 'viz'. With --save the viewer is not opened; its files can be sent to somebody who has it.",
        "example:\n  robot-policies view data/pusht.zarr --episode 3 --save episode3.rrd",
    )
    parser.add_argument("store", help="an episode store")
    parser.add_argument(
        "--episode", action="append", default=[], metavar="N", help="numbers: 3 or 8-11 or 3,8-11 [0]"
    )
    parser.add_argument(
        "--save", metavar="FILE", help="write FILE.rrd; of several episodes, FILE-000003.rrd and so on"
    )
    return parser


def _save(store: EpisodeStore, episodes: list[int], path: Path) -> int:
    from robot_datasets.rerun_recording import save_recording

    if path.suffix != ".rrd":
        raise UserError(f"--save got '{path}'; expected a name that ends in .rrd")
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is no folder; make it first, or save elsewhere")
    for episode in episodes:
        target = path if len(episodes) == 1 else path.with_name(f"{path.stem}-{episode:06d}.rrd")
        save_recording(store, episode, target)
        make_console().print(
            f"saved: {target}; open it with: rerun {target}", markup=False, highlight=False, soft_wrap=True
        )
    return 0
