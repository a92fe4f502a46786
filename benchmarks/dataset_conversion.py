"""Converting JPEG-in-HDF5 recordings: speed beside a plain file copy, memory by episode length, one and two workers.

    python benchmarks/dataset_conversion.py --folder FOLDER

Writes RoboMIND recordings (three cameras of 480x640 px, JPEG of camera-like noise, about 40 KB a frame) and converts
them in processes of their own, in turn with copying the same files (`shutil.copyfile` and a wait for the disk, as
conversion waits, too). CPU seconds are those of the process and all its children, user and system, imports excluded;
MB are of the source files. Wall time means something only on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from multiprocessing import forkserver, get_context
from pathlib import Path
from typing import Any

import numpy as np

SIZE = (480, 640)
CAMERAS = ("camera_top", "camera_left", "camera_right")
KEY = "observations/rgb_images/"


def write_recordings(root: Path, n_episodes: int, n_steps: int) -> Path:
    """Write recordings without depth; frames are drawn from a few different ones, which no encoding notices."""
    import h5py

    from robot_datasets.image_codec import encode_frame
    from robot_datasets.testing.robomind import write_robomind
    from robot_datasets.testing.scene import scene

    random = np.random.default_rng(0)
    frames = []
    for step in range(16):
        noise = random.normal(0, 5, (*SIZE, 3))
        picture = np.clip(scene(step, SIZE) + noise, 0, 255).astype(np.uint8)
        frames.append(np.frombuffer(encode_frame(picture, "jpeg", quality=80), np.uint8))
    for number in range(n_episodes):
        name = f"1014_{number:06d}"
        write_robomind(
            root, "h5_franka_3rgb", episode=name, n_steps=n_steps, depth=False, size=(8, 8), seed=number
        )
        path = next(root.rglob(f"{name}/data/trajectory.hdf5"))
        with h5py.File(path, "r+") as file:
            for camera in CAMERAS:
                del file[KEY + camera]
                column = file.create_dataset(KEY + camera, (n_steps,), h5py.vlen_dtype(np.uint8))
                for step, choice in enumerate(random.integers(0, len(frames), n_steps)):
                    column[step] = frames[choice]
        repacked = path.with_name("repacked")
        with h5py.File(path) as old, h5py.File(repacked, "w") as new:  # without the holes of what was deleted
            for key in old:
                old.copy(key, new)
        repacked.replace(path)
    return root


def written(root: Path, n_episodes: int, n_steps: int) -> Path:
    """Write recordings in a process of its own: every process begins with the peak memory of its parent."""
    process = get_context("spawn").Process(target=write_recordings, args=(root, n_episodes, n_steps))
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"recordings could not be written to {root}")
    return root


def cpu_seconds() -> float:
    """CPU time of this process and the children it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def do(what: str, source: Path, target: Path, workers: int) -> dict[str, float]:
    """Convert or copy, in this process; return what it took."""
    from robot_datasets.convert import convert
    from robot_datasets.importers import get_importer

    get_importer("robomind")
    for name in ("h5py", "zarr"):  # loaded before the clock starts
        import_module(name)
    cpu, wall = cpu_seconds(), time.perf_counter()
    if what == "convert":
        convert(source, target, format="robomind", workers=workers)
        # Workers are children of the fork server; what they took is known here once it has ended.
        getattr(forkserver, "_forkserver")._stop()  # noqa: B009
    else:
        for path in sorted(source.rglob("*.hdf5")):
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
            with copy.open("rb") as file:
                os.fsync(file.fileno())
    peak = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {
        "cpu": cpu_seconds() - cpu,
        "wall": time.perf_counter() - wall,
        "peak": peak[0] * 1024,
        "worker_peak": peak[1] * 1024,
    }


def measured(what: str, source: Path, folder: Path, workers: int = 1) -> dict[str, float]:
    """`do` it in a process of its own, and remove what it wrote."""
    target = folder / "target"
    command = [sys.executable, __file__, "--do", what, str(source), str(target), str(workers)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    shutil.rmtree(target)
    return json.loads(done.stdout.splitlines()[-1])


def speed(folder: Path, n_episodes: int, n_steps: int, rounds: int) -> None:
    """Print MB/s of copying and converting."""
    source = written(folder / "source", n_episodes, n_steps)
    megabytes = sum(path.stat().st_size for path in source.rglob("*.hdf5")) / 1e6
    ways: dict[str, tuple[str, int]] = {
        "plain copy": ("copy", 1),
        "convert, 1 worker": ("convert", 1),
        "convert, 2 workers": ("convert", 2),
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, (what, workers) in ways.items():
            taken = measured(what, source, folder, workers)
            if number:  # the first round fills caches
                found[name].append(taken)
    print(f"\n{n_episodes} recordings of {n_steps} steps, {megabytes:,.0f} MB, median of {rounds} rounds\n")
    print("| | MB per CPU-second | MB/s | of plain copy's MB/s | peak memory of a worker |")
    print("|---|--:|--:|--:|--:|")
    for name, values in found.items():
        cpu, wall = (statistics.median(megabytes / v[key] for v in values) for key in ("cpu", "wall"))
        ratio = statistics.median(
            a["wall"] / b["wall"] for a, b in zip(found["plain copy"], values, strict=True)
        )
        peak = max(max(v["peak"], v["worker_peak"]) for v in values) / 1e6
        print(f"| {name} | {cpu:,.0f} | {wall:,.0f} | {ratio:.0%} | {peak:,.0f} MB |")
    one, two = (found[f"convert, {n}"] for n in ("1 worker", "2 workers"))
    gain = statistics.median(a["wall"] / b["wall"] for a, b in zip(one, two, strict=True))
    print(f"\na second worker makes it {gain:.2f} times as fast")
    shutil.rmtree(source)


def memory(folder: Path, lengths: list[int]) -> None:
    """Print the peak memory of converting one recording of each length."""
    print("\n| steps of the recording | source | peak memory |")
    print("|--:|--:|--:|")
    for n_steps in lengths:
        source = written(folder / "source", 1, n_steps)
        megabytes = sum(path.stat().st_size for path in source.rglob("*.hdf5")) / 1e6
        taken = measured("convert", source, folder)
        print(f"| {n_steps:,} | {megabytes:,.0f} MB | {taken['peak'] / 1e6:,.0f} MB |", flush=True)
        shutil.rmtree(source)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=24)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="*", default=[200, 1000, 5000], help="for memory")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    parser.add_argument("--do", nargs=4, help=argparse.SUPPRESS)
    arguments: Any = parser.parse_args()
    if arguments.do:
        what, source, target, workers = arguments.do
        print(json.dumps(do(what, Path(source), Path(target), int(workers))))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        if arguments.rounds:
            speed(Path(folder), arguments.episodes, arguments.steps, arguments.rounds)
        memory(Path(folder), arguments.lengths)


if __name__ == "__main__":
    main()
