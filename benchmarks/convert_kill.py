"""Kill a conversion at random moments, run it again, and compare the stores byte by byte.

    python benchmarks/convert_kill.py pusht_cchi_v7_replay.zarr.zip --kills 20

Converts once without interruption and once more to see that the bytes repeat; then starts a conversion,
kills it (SIGKILL) after a random part of the uninterrupted time, and again until it was killed often enough;
then lets it finish. A further run with the kills aimed at the last tenth tries the publishing.
For a replay buffer, actions and images are then compared with the source, number by number.
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
from pathlib import Path
from typing import Any

import numpy as np

from robot_datasets.importers.diffusion_policy_zarr import open_buffer
from robot_datasets.store import EpisodeStore
from robot_datasets.testing import tree_digest


def start(source: Path, target: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """Start ``robot-policies convert`` in a process of its own."""
    command = [sys.executable, "-m", "robot_policies.cli.main", "convert", str(source), str(target)]
    for option in options:
        command += ["--option", option]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)


def convert(source: Path, target: Path, options: list[str]) -> float:
    """Convert without interruption and return the seconds it took."""
    began = time.monotonic()
    if start(source, target, options).wait() != 0:
        raise SystemExit(f"converting {source} failed")
    return time.monotonic() - began


def convert_with_kills(
    source: Path, target: Path, options: list[str], *, kills: int, window: tuple[float, float], seed: int
) -> list[int]:
    """Kill `kills` conversions after a time within `window` [s], then finish; return the journal's growth."""
    moments = random.Random(seed)
    journal = target.with_name(target.name + ".staging") / "journal.jsonl"
    safe: list[int] = []
    while len(safe) < kills:
        process = start(source, target, options)
        time.sleep(moments.uniform(*window))
        process.send_signal(signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:  # it was faster; begin again and go on counting
            shutil.rmtree(target, ignore_errors=True)
            continue
        safe.append(max(0, len(journal.read_bytes().splitlines()) - 1) if journal.exists() else 0)
    convert(source, target, options)
    return safe


def compare_with_source(source: Path, store: EpisodeStore) -> dict[str, bool]:
    """Compare actions and images with a replay buffer, number by number."""
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
    parser.add_argument("source", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        whole, again, killed, late = (
            Path(folder) / f"{n}.zarr" for n in ("whole", "again", "killed", "late")
        )
        seconds = convert(arguments.source, whole, arguments.option)
        convert(arguments.source, again, arguments.option)
        # Each run gets further, so kills within a twelfth of the whole time land all over the conversion.
        per_run = max(1.0, seconds / (arguments.kills / 2))
        common = {"source": arguments.source, "options": arguments.option, "seed": arguments.seed}
        safe = convert_with_kills(
            target=killed, kills=arguments.kills, window=(0.3, 0.3 + 2 * per_run), **common
        )
        convert_with_kills(target=late, kills=3, window=(0.9 * seconds, seconds), **common)
        store = EpisodeStore.open(whole)
        result = {
            "episodes": store.n_episodes,
            "steps": store.n_steps,
            "seconds": round(seconds, 1),
            **compare_with_source(arguments.source, store),
            "twice identical": tree_digest(again) == tree_digest(whole),
            "kills": len(safe),
            "episodes safe at each kill": safe,
            "killed identical": tree_digest(killed) == tree_digest(whole),
            "killed late identical": tree_digest(late) == tree_digest(whole),
            "nothing left beside": sorted(p.name for p in Path(folder).iterdir())
            == ["again.zarr", "killed.zarr", "late.zarr", "whole.zarr"],
        }
    print(json.dumps(result))
    if not all(value for value in result.values() if isinstance(value, bool)):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
