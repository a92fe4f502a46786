"""The replay command: recorded actions, carried out once more in simulation."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robot_datasets.errors import UserError
from robot_policies.cli.arguments import (
    add_json,
    chosen_episodes,
    command_parser,
    make_console,
    open_store,
)
from robot_policies.cli.progress import progress_bar

if TYPE_CHECKING:
    from robot_datasets.store import EpisodeStore
    from robot_sim.replay import Replay, ReplayPlan
    from robot_sim.task import TaskEnv

_BY_DEFAULT = 5
_AT_START = 1e-3


def run(argv: list[str]) -> int:
    """Replay episodes of a store; 1 if one leaves its record by more than the tolerance asked for."""
    from robot_sim.replay import make_environment, plan_replay

    arguments = _parser().parse_args(argv)
    store = open_store(arguments.store)
    episodes = _episodes(store, arguments)
    if arguments.video and len(episodes) != 1:
        raise UserError(f"--video films one episode, {len(episodes)} were asked for; give --episode N")
    plan = plan_replay(store, task=arguments.task)
    replays = []
    with (
        contextlib.closing(make_environment(plan)) as env,
        progress_bar("episodes", enabled=not arguments.json) as update,
    ):
        for i, episode in enumerate(episodes):
            replays.append(_replay(env, store, episode, plan, arguments.video))
            update(i + 1, len(episodes), "")
    left = [
        r for r in replays if arguments.tolerance is not None and r.left_at(arguments.tolerance) is not None
    ]
    if arguments.json:
        print(json.dumps([_entry(replay, arguments.tolerance) for replay in replays]))
    else:
        _print(replays, store, plan, arguments)
    return 1 if left else 0


def _parser() -> argparse.ArgumentParser:
    parser = command_parser(
        "replay",
        "Carry out recorded actions once more in simulation, from the recorded start, and say how far each feature is\n"
        "from its record. For stores made by 'robot-policies generate', PushT demonstrations, and robosuite and\n"
        "robomimic recordings with their simulator states.",
        "example:\n  robot-policies replay data/pusht.zarr --episode 3 --video replay.mp4",
    )
    parser.add_argument("store", help="an episode store")
    parser.add_argument(
        "--episode", action="append", default=[], metavar="N", help="numbers: 3 or 8-11 or 3,8-11"
    )
    parser.add_argument(
        "--all", action="store_true", help=f"all episodes, instead of the first {_BY_DEFAULT}"
    )
    parser.add_argument("--task", help="simulated task, if it cannot be told from the store")
    parser.add_argument(
        "--tolerance", type=float, help="largest difference allowed, in the units of the features"
    )
    parser.add_argument("--video", metavar="FILE", help="film the replay of one episode (mp4)")
    add_json(parser)
    return parser


def _episodes(store: EpisodeStore, arguments: argparse.Namespace) -> list[int]:
    if not arguments.episode:
        return list(range(store.n_episodes if arguments.all else min(_BY_DEFAULT, store.n_episodes)))
    return chosen_episodes(store, arguments.episode)


def _replay(env: TaskEnv, store: EpisodeStore, episode: int, plan: ReplayPlan, video: str | None) -> Replay:
    from robot_sim.replay import replay_episode

    if not video:
        return replay_episode(env, store, episode, plan)
    from robot_policies.evaluation.video import VideoWriter

    path = Path(video)
    if not path.parent.is_dir():
        raise UserError(f"{path.parent} is no folder; make it first, or write the video elsewhere")
    with VideoWriter(path, fps=store.fps) as writer:
        return replay_episode(env, store, episode, plan, on_frame=writer.add)


def _entry(replay: Replay, tolerance: float | None) -> dict[str, Any]:
    return {
        "episode": replay.episode,
        "source_id": replay.source_id,
        "n_steps": replay.n_steps,
        "success": replay.success,
        "recorded_success": replay.recorded_success,
        "largest_error": {name: float(errors.max()) for name, errors in replay.errors.items()},
        "errors": {name: errors.tolist() for name, errors in replay.errors.items()},
        "left_at": None if tolerance is None else replay.left_at(tolerance),
    }


def _print(
    replays: list[Replay], store: EpisodeStore, plan: ReplayPlan, arguments: argparse.Namespace
) -> None:
    console = make_console()

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    say(f"replayed in task '{plan.task}'; largest difference of a component from the record:")
    for replay in replays:
        recorded = "" if replay.recorded_success is None else f", recorded {_word(replay.recorded_success)}"
        say(
            f"episode {replay.episode} ({replay.source_id}): {replay.n_steps} steps, "
            f"success {_word(replay.success)}{recorded}"
        )
        for name, errors in replay.errors.items():
            feature = store.features.get(name)  # none for a part of the simulator's state
            units = "/".join(dict.fromkeys(filter(None, feature.units))) if feature else "m or rad"
            say(f"    {name:<32} {errors.max():.3g} {units}, at step {errors.argmax()}")
        step = None if arguments.tolerance is None else replay.left_at(arguments.tolerance)
        if step is not None:
            say(f"    leaves its record at step {step}: more than {arguments.tolerance:g}")
        if max(errors[0] for errors in replay.errors.values()) > _AT_START:
            say(
                "    differs at its very start: was it trimmed, or recorded with another version of the simulator?"
            )


def _word(flag: bool) -> str:
    return "yes" if flag else "no"
