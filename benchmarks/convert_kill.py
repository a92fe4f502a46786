"""Kill a conversion at random moments, run it again, and compare the stores byte by byte.

    python benchmarks/convert_kill.py --episodes 500 --workers 2 --kills 50
    python benchmarks/convert_kill.py --source pusht_cchi_v7_replay.zarr.zip --kills 20

Without a source, a synthetic RoboMIND tree is written (three JPEG cameras in HDF5), some of its episodes damaged.
Converts once without interruption and with one process. Then starts a conversion and kills it (SIGKILL): usually
the main process, sometimes one of its workers, at a random moment that lies anywhere between the start of the
program and some episodes further; and again until it was killed often enough; then lets it finish. A conversion
that finishes before is compared and begun again. For a replay buffer, actions and images are finally compared
with the source, number by number.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.store import EpisodeStore
from robot_datasets.testing import tree_digest

FAULTY_EVERY = 25
KILL_A_WORKER = 0.3
KILL_AT_ONCE = 0.15
MOST_EPISODES_BETWEEN = 25


@dataclass
class Conversion:
    """One command, run again and again."""

    source: Path
    target: Path
    arguments: list[str]

    def start(self) -> subprocess.Popen[bytes]:
        """Start ``robot-policies convert`` in a process of its own."""
        command = [
            sys.executable,
            "-m",
            "robot_policies.cli.main",
            "convert",
            str(self.source),
            str(self.target),
        ]
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
        return subprocess.Popen(
            [*command, "--no-report", "--json", *self.arguments], env=environment, stdout=subprocess.DEVNULL
        )

    def finish(self) -> float:
        """Run to the end and return the seconds it took."""
        began = time.monotonic()
        if self.start().wait() != 0:
            raise SystemExit(f"converting {self.source} failed")
        return time.monotonic() - began

    def safe(self) -> int:
        """Episodes that the journal has."""
        try:
            journal = self.target.with_name(f"{self.target.name}.staging") / "journal.jsonl"
            return max(0, journal.read_bytes().count(b"\n") - 1)
        except FileNotFoundError:
            return 0


@dataclass
class Tally:
    """What the kills hit."""

    safe: list[int] = field(default_factory=list)
    hit: Counter[str] = field(default_factory=Counter)
    finished: int = 0
    identical: bool = True


def write_tree(root: Path, n_episodes: int) -> Path:
    """Write RoboMIND episodes with three cameras; every so many is damaged in one way or another."""
    from robot_datasets.testing.robomind import write_robomind

    faults = ("damaged_frame", "mixed_lengths", "nan", "truncated", "cut_frame")
    lengths = random.Random(0)
    for number in range(n_episodes):
        damaged = number % FAULTY_EVERY == FAULTY_EVERY - 1
        write_robomind(
            root,
            "h5_franka_3rgb",
            episode=f"1014_{number:06d}",
            n_steps=lengths.randint(5, 25),
            size=(60, 80),
            seed=number,
            faults=[faults[number // FAULTY_EVERY % len(faults)]] if damaged else (),
        )
    return root


def convert_with_kills(conversion: Conversion, expected: str, *, kills: int, seed: int) -> Tally:
    """Kill so often, then finish; every finished store is compared with `expected`."""
    moments, tally = random.Random(seed), Tally()
    while sum(tally.hit.values()) < kills:
        process = conversion.start()
        while process.poll() is None and sum(tally.hit.values()) < kills:
            wait_for_a_moment(conversion, process, moments)
            victims = workers_of(process.pid)
            worker = moments.choice(victims) if victims and moments.random() < KILL_A_WORKER else None
            try:
                os.kill(worker or process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            if worker is None and process.wait() != -signal.SIGKILL:
                break  # it was faster
            tally.hit["worker" if worker else phase(conversion)] += 1
            tally.safe.append(conversion.safe())
        if process.wait() == 0:
            compare(conversion, expected, tally)
    conversion.finish()  # does nothing to a store that was finished just before the last kill
    compare(conversion, expected, tally)
    return tally


def wait_for_a_moment(
    conversion: Conversion, process: subprocess.Popen[bytes], moments: random.Random
) -> None:
    """Wait until the conversion is a random number of episodes further, or only a moment."""
    if moments.random() < KILL_AT_ONCE:
        time.sleep(moments.uniform(0.0, 2.0))
        return
    goal = conversion.safe() + moments.randint(1, MOST_EPISODES_BETWEEN)
    publishing = conversion.target.with_name(f"{conversion.target.name}.staging") / "store" / "zarr.json"
    while process.poll() is None and conversion.safe() < goal and not publishing.exists():
        time.sleep(0.002)
    time.sleep(moments.uniform(0.0, 0.05))


def phase(conversion: Conversion) -> str:
    """Say what the conversion was doing when it was killed."""
    staging = conversion.target.with_name(f"{conversion.target.name}.staging")
    if (staging / "store" / "zarr.json").exists() or conversion.target.exists():
        return "while publishing"
    return "while converting" if conversion.safe() else "before the first episode"


def compare(conversion: Conversion, expected: str, tally: Tally) -> None:
    """Compare a finished store and remove it."""
    tally.finished += 1
    tally.identical &= tree_digest(conversion.target) == expected
    shutil.rmtree(conversion.target)


def workers_of(pid: int) -> list[int]:
    """Return the worker processes of a conversion (Linux), which are children of its fork server."""
    return [
        worker for server in children(pid) if b"forkserver" in command(server) for worker in children(server)
    ]


def children(pid: int) -> list[int]:
    """Return the child processes of a process (Linux)."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def command(pid: int) -> bytes:
    """Return the command line of a process (Linux)."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def compare_with_source(source: Path, store: EpisodeStore) -> dict[str, bool]:
    """Compare actions and images with a replay buffer, number by number."""
    from robot_datasets.importers.replay_buffer import open_buffer

    data: Any = open_buffer(source)["data"]
    images = store.images("observation.images.top")
    same = True
    for begin in range(0, store.n_steps, 161):
        block = data["img"][begin : begin + 161]
        same &= np.array_equal(images.decode(np.arange(begin, begin + len(block))), block)
    actions = np.array_equal(store.column("action"), data["action"][:])
    return {"actions identical": actions, "images identical": same}


def main() -> None:
    """Run the benchmark and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--source", type=Path, help="what to convert instead of a synthetic tree")
    parser.add_argument("--episodes", type=int, default=500)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        root = Path(folder)
        source = arguments.source or write_tree(root / "source", arguments.episodes)
        options = [word for option in arguments.option for word in ("--option", option)]
        whole = Conversion(source, root / "whole.zarr", options)
        seconds = whole.finish()
        expected = tree_digest(whole.target)
        workers = ["--workers", str(arguments.workers)]
        killed = Conversion(source, root / "killed.zarr", options + workers)
        tally = convert_with_kills(killed, expected, kills=arguments.kills, seed=arguments.seed)
        store = EpisodeStore.open(whole.target)
        result = {
            "episodes": store.n_episodes,
            "left out": len(store.quarantined),
            "steps": store.n_steps,
            "seconds undisturbed": round(seconds, 1),
            "workers": arguments.workers,
            "kills": dict(tally.hit),
            "episodes safe at each kill": tally.safe,
            "stores finished": tally.finished,
            "all identical": tally.identical,
            **(compare_with_source(source, store) if arguments.source else {}),
            "nothing left beside": {p.name for p in root.iterdir()} <= {"source", "whole.zarr"},
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
