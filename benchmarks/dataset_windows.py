"""Random training windows with images, per CPU-second: ours, diffusion_policy's sampler, lerobot's dataset class.

    robot-policies convert pusht_cchi_v7_replay.zarr.zip pusht.zarr --image-encoding raw
    python benchmarks/dataset_windows.py pusht.zarr --lerobot-python VENV/bin/python \
        --diffusion-policy CHECKOUT --diffusion-policy-python VENV/bin/python

The episodes of one store are written as ours (JPEG, PNG and raw frames), exported to LeRobot v3.0 (h264 video with a
key frame every other frame, and PNG in tables) and to a diffusion_policy buffer, and read from all of them by random
windows of 2 observed frames and 16 actions. First the readers are compared with each other: equal actions, and
frames within the loss of their encoding. Then they take turns; every round asks each for as many windows as take it
about `--seconds`. The figure is the median over the rounds of windows per CPU-second, all threads counted.

Ours gathers whole batches; the two others only know one window at a time, and are spared the cost of stacking them.
`--diffusion-policy` is a checkout of github.com/real-stanford/diffusion_policy, its Python one with zarr 2, numba and
imagecodecs; for lerobot's see scripts/lerobot_venv.sh. Without them, these rows are left out.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from window_protocol import difference

from robot_datasets.episode import Episode
from robot_datasets.errors import UserError
from robot_datasets.exporters import export
from robot_datasets.features import ACTION
from robot_datasets.image_codec import encode_frame
from robot_datasets.store import EpisodeStore, EpisodeStoreWriter

HERE = Path(__file__).parent
LOW_DIM = ("observation.state", ACTION)
SHOWN = 8
ROUNDING = 1e-4
"""Largest difference of equal actions; ours are float32, which diffusion_policy's sampler leaves to its caller."""


class Reader:
    """A reading process and what it has measured."""

    def __init__(self, name: str, kind: str, command: list[str], *, tolerance: float) -> None:
        """Start it.

        Args:
            name: For the table.
            kind: Readers of one kind are compared with each other.
            command: How to start it.
            tolerance: Allowed difference of mean grey levels from the original frames.
        """
        self.name, self.kind, self.tolerance = name, kind, tolerance
        self.rates: list[float] = []
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.n_windows: int = self._answer()["windows"]

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def measure(self, n: int, seed: int) -> float:
        """Return windows per CPU-second over `n` random windows."""
        return n / self.ask(draw=n, seed=seed)["cpu"]

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"{self.name} ended with {self.process.wait()}")


def reencoded(
    store: EpisodeStore, camera: str, encoding: str, folder: Path, episodes: int | None = None
) -> EpisodeStore:
    """Write the state, the action and one camera of the first `episodes` of `store` with frames encoded anew."""
    names = [name for name in (*LOW_DIM, camera) if name in store.features]
    features = {name: store.features[name] for name in names}
    path = folder / f"{encoding}.zarr"
    if path.exists():
        return EpisodeStore.open(path)
    images = store.images(camera)
    with EpisodeStoreWriter(
        path,
        features=features,
        fps=store.fps,
        embodiment=store.embodiment,
        image_encodings={camera: encoding},
    ) as writer:
        for start, end in zip(store.episode_starts[:episodes], store.episode_ends[:episodes], strict=True):
            steps = np.arange(start, end)
            frames = (encode_frame(images.decode([step])[0], encoding) for step in steps)
            columns = {n: store.column(n)[start:end] for n in names if n != camera}
            writer.add_episode(Episode(source_id=str(start), data=columns, images={camera: frames}))
        writer.publish()
    return EpisodeStore.open(path)


def start_readers(
    store: EpisodeStore, camera: str, folder: Path, arguments: argparse.Namespace
) -> list[Reader]:
    """Write the episodes in every format and start the readers of it; ours of raw frames is first, the reference."""
    raw = reencoded(store, camera, "raw", folder, arguments.episodes)
    readers = []
    for encoding, kind, tolerance in (("raw", "raw", 0.0), ("jpeg", "lossy", 3.0), ("png", "lossless", 0.0)):
        ours = raw if encoding == "raw" else reencoded(raw, camera, encoding, folder)
        command = [
            sys.executable,
            str(HERE / "window_reader_ours.py"),
            str(ours.path),
            camera,
            str(arguments.batch),
        ]
        readers.append(Reader(f"ours, {encoding}", kind, command, tolerance=tolerance))
    if arguments.diffusion_policy:
        buffer = folder / "buffer.zarr"
        if not buffer.exists():
            export(raw, buffer, format="diffusion_policy_zarr", options={"keys": "store"})
        key = camera.rpartition(".")[2] if not (buffer / "data" / camera).exists() else camera
        for name, kind, tolerance in (
            ("raw", "raw", 0.0),
            ("raw, stacked", "raw", 0.0),
            ("jpeg2k", "lossy", 3.0),
        ):
            script = str(HERE / "window_reader_diffusion_policy.py")
            checkout = str(arguments.diffusion_policy)
            command = [arguments.diffusion_policy_python, script, checkout, str(buffer), key, name]
            readers.append(Reader(f"diffusion_policy, {name} in RAM", kind, command, tolerance=tolerance))
    if arguments.lerobot_python:
        lengths = [str(n) for n in raw.episodes["n_steps"]]
        for images, kind, tolerance in (("video", "lossy", 8.0), ("image", "lossless", 0.0)):
            if not (folder / images).exists():
                export(raw, folder / images, format="lerobot-v3", options={"images": images})
            script = str(HERE / "window_reader_lerobot.py")
            command = [
                arguments.lerobot_python,
                script,
                str(folder / images),
                camera,
                str(store.fps),
                *lengths,
            ]
            name = "lerobot, h264 video" if images == "video" else "lerobot, PNG in tables"
            readers.append(Reader(name, kind, command, tolerance=tolerance))
    return readers


def require_equal(readers: list[Reader]) -> None:
    """End the benchmark unless all read the same windows."""
    reference = readers[0]
    numbers = np.random.default_rng(0).integers(0, reference.n_windows, SHOWN).tolist()
    truth = reference.ask(show=[0, reference.n_windows - 1, *numbers])["shown"]
    for reader in readers:
        if reader.n_windows != reference.n_windows:
            raise SystemExit(f"{reader.name} has {reader.n_windows} windows, expected {reference.n_windows}")
        found = reader.ask(show=[0, reader.n_windows - 1, *numbers])["shown"]
        actions, grey = difference(truth, found)
        print(f"{reader.name}: actions differ by {actions:.2g}, mean grey levels by {grey:.2g}", flush=True)
        if actions > ROUNDING or grey > reader.tolerance + 1e-3:
            raise SystemExit(
                f"{reader.name} reads other windows; expected grey levels within {reader.tolerance}"
            )


def take_turns(readers: list[Reader], *, rounds: int, seconds: float) -> None:
    """Measure every reader once a round, after a warm-up that finds out how many windows take how long."""
    counts = []
    for reader in readers:
        reader.measure(32, 0)
        counts.append(max(32, int(reader.measure(128, 1) * seconds)))
    for number in range(rounds):
        for reader, count in zip(readers, counts, strict=True):
            reader.rates.append(reader.measure(count, 2 + number))


def print_table(readers: list[Reader]) -> None:
    """Print one row per reader, and how much faster ours of the same kind is, round by round."""
    ours = {reader.kind: reader for reader in reversed(readers) if reader.name.startswith("ours")}
    print(
        "| reader | frames | windows per CPU-second | lowest to highest round | ours of this kind is faster by |"
    )
    print("|---|---|--:|--:|--:|")
    for reader in readers:
        ratio = np.median(np.divide(ours[reader.kind].rates, reader.rates))
        mark = "" if reader is ours[reader.kind] else f"{ratio:.1f}x"
        spread = f"{min(reader.rates):,.0f} to {max(reader.rates):,.0f}"
        print(f"| {reader.name} | {reader.kind} | {np.median(reader.rates):,.0f} | {spread} | {mark} |")


def main() -> None:
    """Write, compare, measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", help="an episode store with a camera; best with raw frames")
    parser.add_argument("--camera", help="image feature (default: the first)")
    parser.add_argument("--episodes", type=int, help="use the first so many only")
    parser.add_argument("--batch", type=int, default=64, help="windows per batch of ours")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU seconds per reader and round")
    parser.add_argument("--diffusion-policy", type=Path, help="checkout of diffusion_policy")
    parser.add_argument("--diffusion-policy-python", default=sys.executable)
    parser.add_argument("--lerobot-python")
    parser.add_argument(
        "--folder", type=Path, help="keep the written formats here, and use those that are there"
    )
    arguments = parser.parse_args()
    store = EpisodeStore.open(arguments.store)
    cameras = [name for name in store.spec.image_features if name.startswith("observation.images.")]
    if not cameras:
        raise UserError(f"{arguments.store} has no camera; expected one at least")
    camera = arguments.camera or cameras[0]
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        readers = start_readers(store, camera, folder, arguments)
        require_equal(readers)
        take_turns(readers, rounds=arguments.rounds, seconds=arguments.seconds)
        for reader in readers:
            reader.close()
    shape = store.features[camera].shape
    n_steps = int(store.episode_ends[: arguments.episodes][-1])
    n_episodes = len(store.episode_ends[: arguments.episodes])
    print(f"\n{n_episodes} episodes, {n_steps} steps, {camera} {shape[0]}x{shape[1]} px\n")
    print_table(readers)


if __name__ == "__main__":
    main()
