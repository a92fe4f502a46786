"""Very many episodes: a store of a million opens, and conversion needs hardly more memory for more of them.

    python benchmarks/dataset_scale.py --million 1000000 --convert 1000 10000 100000 --windows

The million are synthetic, but written by the writer that conversions use: every episode has ten steps of a 2-D state
and action, its own name, and one of a thousand instructions. The store is then opened in a fresh process, which also
reads the episode table and the windows' index. For conversion, a diffusion_policy buffer of so many episodes of ten
steps is converted in a fresh process. Memory is the largest resident set of the process, imports included.

`--windows` measures windows of 16 low-dimensional steps in whole batches, on 206 such episodes of 125 steps.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np

STEPS = 10
TASKS = 1000
TOGETHER = 20_000


def write_store(path: Path, n_episodes: int, *, n_steps: int = STEPS) -> None:
    """Write so many equal episodes under different names."""
    from robot_datasets.episode import Episode
    from robot_datasets.features import ACTION, STATE, Feature
    from robot_datasets.store import EpisodeStoreWriter
    from robot_datasets.store.parts import EpisodePart, PartWriter

    names = ("x", "y")
    features = {
        name: Feature(dtype="float32", shape=(2,), names=names, units=("m", "m")) for name in (STATE, ACTION)
    }
    with EpisodeStoreWriter(path, features=features, fps=10, embodiment="point") as writer:
        random = np.random.default_rng(0)
        columns = {name: random.normal(size=(n_steps, 2)).astype(np.float32) for name in features}
        part = PartWriter(writer.spec).write(
            Episode(source_id="-", data=columns), writer.parts_folder() / "0"
        )
        for first in range(0, n_episodes, TOGETHER):
            numbers = range(first, min(first + TOGETHER, n_episodes))
            entries = (
                {
                    **part.entry,
                    "source_id": f"task_{n % TASKS:04d}/success_episodes/train/{n:07d}",
                    "task": f"put object {n % TASKS} away",
                }
                for n in numbers
            )
            writer.add_parts([EpisodePart(entry, part.folder, part.n_row_bytes) for entry in entries])
        writer.publish()


def write_buffer(path: Path, n_episodes: int) -> None:
    """Write a diffusion_policy buffer."""
    import zarr

    group = zarr.create_group(str(path), zarr_format=2)
    data, meta = group.create_group("data"), group.create_group("meta")
    values = np.random.default_rng(0).normal(size=(n_episodes * STEPS, 2)).astype(np.float32)
    for key in ("action", "state"):
        data.create_array(key, shape=values.shape, dtype=values.dtype, chunks=(1 << 16, 2))[...] = values
    ends = np.arange(1, n_episodes + 1) * STEPS
    meta.create_array("episode_ends", shape=ends.shape, dtype="i8")[...] = ends


def open_store(path: Path) -> dict[str, float]:
    """Open a store and read its index, timing each."""
    from robot_datasets.store import EpisodeStore
    from robot_datasets.windows import WindowDataset, WindowSpec

    import_module("zarr")  # before the clock starts
    found: dict[str, float] = {"memory of imports alone [MB]": peak() / 1e6}

    def timed(what: str, wall: float, cpu: float) -> None:
        found[f"{what} [s]"] = time.perf_counter() - wall
        found[f"{what} [CPU s]"] = time.process_time() - cpu
        found[f"{what}, memory then [MB]"] = peak() / 1e6

    clocks = time.perf_counter(), time.process_time()
    store = EpisodeStore.open(path)
    timed("open", *clocks)
    clocks = time.perf_counter(), time.process_time()
    for name in ("source_id", "split", "task_index", "n_steps", "success"):
        store.episodes[name]
    assert len(store.tasks) == min(TASKS, store.n_episodes)
    timed("read names, splits, tasks, lengths", *clocks)
    clocks = time.perf_counter(), time.process_time()
    windows = WindowDataset(store, WindowSpec(2, 8, 4), observation=["observation.state"])
    windows.__getitems__(np.arange(64))
    timed("index windows, read a batch", *clocks)
    return found


def convert_buffer(source: Path, workers: int) -> dict[str, float]:
    """Convert a buffer; returns seconds and the peak memory of this process and of the largest worker."""
    from robot_datasets.convert import convert

    cpu, began = time.process_time(), time.perf_counter()
    options = {"fps": "10"}
    report = convert(source, source.with_name("converted.zarr"), options=options, workers=workers)
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {
        "episodes": report.n_episodes,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "memory [MB]": peak() / 1e6,
        "worker [MB]": worker / 1e6,
    }


def draw_windows(path: Path) -> None:
    """Print how many low-dimensional windows a CPU-second gives, in batches of several sizes."""
    from robot_datasets.store import EpisodeStore
    from robot_datasets.windows import WindowDataset, WindowSpec

    store = EpisodeStore.open(path)
    windows = WindowDataset(store, WindowSpec(2, 16, 8), observation=["observation.state"])
    random = np.random.default_rng(0)
    print("\n| windows per batch | windows per CPU-second, median of 7 |\n|--:|--:|")
    for batch in (64, 256, 1024):
        rates = []
        for _ in range(7):
            numbers = random.integers(0, len(windows), (max(1, 50_000 // batch), batch))
            cpu = time.process_time()
            for chosen in numbers:
                windows.__getitems__(chosen)
            rates.append(numbers.size / (time.process_time() - cpu))
        print(f"| {batch} | {np.median(rates):,.0f} |", flush=True)


def peak() -> int:
    """Largest resident set of this process so far [bytes] (Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def elsewhere(*words: str) -> dict[str, float]:
    """Run a part of this script in a fresh process and return what it found."""
    done = subprocess.run(
        [sys.executable, __file__, "--do", *words], stdout=subprocess.PIPE, check=True, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--million", type=int, default=0, help="episodes of the store to open")
    parser.add_argument(
        "--convert", type=int, nargs="*", default=[], help="episodes of the buffers to convert"
    )
    parser.add_argument("--workers", type=int, default=2, help="for conversion")
    parser.add_argument("--windows", action="store_true")
    parser.add_argument("--do", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.do:
        what, path, number = arguments.do
        if what == "write":
            write_store(Path(path), int(number))
        done = open_store(Path(path)) if what == "open" else {"memory [MB]": peak() / 1e6}
        print(json.dumps(convert_buffer(Path(path), int(number)) if what == "convert" else done))
        return
    with tempfile.TemporaryDirectory() as folder:
        if arguments.windows:
            write_store(Path(folder) / "few.zarr", 206, n_steps=125)
            draw_windows(Path(folder) / "few.zarr")
        if arguments.million:
            path = Path(folder) / "many.zarr"
            written = elsewhere("write", str(path), str(arguments.million))
            print(f"\n{arguments.million:,} episodes, written with {written['memory [MB]']:,.0f} MB\n")
            print(
                "\n".join(f"- {k}: {v:,.2f}" for k, v in elsewhere("open", str(path), "0").items()),
                flush=True,
            )
        if arguments.convert:
            print("\n| episodes | memory | of a worker | episodes/s | CPU ms per episode, main process |")
            print("|--:|--:|--:|--:|--:|")
        for number in arguments.convert:
            source = Path(folder) / str(number) / "buffer.zarr"
            source.parent.mkdir()
            write_buffer(source, number)
            f = elsewhere("convert", str(source), str(arguments.workers))
            speed, cpu = number / f["seconds"], f["cpu"] / number * 1e3
            print(
                f"| {number:,} | {f['memory [MB]']:,.0f} MB | {f['worker [MB]']:,.0f} MB | {speed:,.0f} | {cpu:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
