"""A twin corrected by pictures: how far from the surrogate it is, beside poses and beside nothing, and how fast.

The surrogate is a second simulation with friction 1.8 times and mass 1.4 times what the twin believes. It is watched by
three cameras of 128 x 96 pixels at 15 Hz, 80 ms late; its pictures are darker and tinted, noisy, and taken by cameras
that stand 2 mm and 0.2 degrees beside where the cell file has them. The tracker that pictures are compared with gives
poses at 30 Hz with 3 mm and 1.7 degrees of noise, 80 ms late. All twins get the same recordings.

    python benchmarks/twin_images.py --episodes 8 --out results/twin_images.jsonl
    python benchmarks/twin_images.py --out results/twin_images.jsonl --table docs/benchmarks/twin-images.md
    python benchmarks/twin_images.py --picture docs/benchmarks/twin-images.png

Interrupted, the first command continues. Per-Gaussian forces are slow on a CPU: `--forces N` measures them on the first
N episodes.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from twin_page import replace_part

from robot_sim.engine import mujoco
from robot_sim.experts.push_t import PushTExpert
from robot_sim.twin.cell import CameraCell, Cell, load_cell
from robot_sim.twin.correction import Correction, build_correction
from robot_sim.twin.gaussians.camera import looking_at
from robot_sim.twin.gaussians.image_correction import ImageForceConfig, ImageForceCorrection
from robot_sim.twin.gaussians.image_poses import CellPictures, ImageConfig, ImagePoses
from robot_sim.twin.gaussians.model_view import CellRenderer
from robot_sim.twin.gaussians.moving_picture import Solid, draw_moving
from robot_sim.twin.gaussians.sampling import body_from_model
from robot_sim.twin.geometry import rotation_between, turned
from robot_sim.twin.observed import ObservedState
from robot_sim.twin.recording import SurrogateView
from robot_sim.twin.scene import cell_task
from robot_sim.twin.surrogate import SurrogateCell, SurrogateConfig
from robot_sim.twin.twin import Twin

SEED = 6_000_000
SETTLE = 0.5  # the first observations are on their way [s]
IMAGE_RATE, LATENCY_NS = 15.0, 80_000_000
WIDTH, HEIGHT = 128, 96
EYES = {"left": (0.3, 0.65, 0.6), "right": (0.3, -0.65, 0.6), "front": (0.85, 0.0, 0.5)}
GAINS, NOISE = np.array([0.8, 0.85, 0.75]), 6.0 / 255.0
MISPLACED, MISTURNED = 0.002, np.radians(0.2)
SPACING = 0.012  # of Gaussians [m]
METHODS = ("none", "poses", "images", "images, exact cameras", "poses and images", "Gaussian forces")


def camera_cell() -> Cell:
    """Return the cell with the benchmark's cameras."""
    cameras = {
        n: looking_at(eye, (0.0, 0.0, 0.0), fov=34, width=WIDTH, height=HEIGHT) for n, eye in EYES.items()
    }
    return replace(load_cell("tabletop_push_t"), cameras=cameras)


def misplaced(camera: CameraCell, random: np.random.Generator) -> CameraCell:
    """Return where a camera really stands: calibration is never exact."""
    shift, turn = random.standard_normal((2, 3))
    position = np.array(camera.position) + MISPLACED * shift / np.linalg.norm(shift)
    quaternion = turned(np.array(camera.quaternion), MISTURNED * turn / np.linalg.norm(turn))
    return replace(camera, position=tuple(position.tolist()), quaternion=tuple(quaternion.tolist()))


class Photographer:
    """Takes the surrogate's pictures."""

    def __init__(self, cell: Cell, seed: int) -> None:
        self._random = np.random.default_rng([seed, 11])
        self.cameras = {name: misplaced(camera, self._random) for name, camera in cell.cameras.items()}
        self._model = cell_task(cell).visual_model
        self._data = mujoco.MjData(self._model)
        self._renderer, self._names = CellRenderer(self._model, self.cameras), list(self.cameras)

    def take(self, surrogate: SurrogateCell) -> dict[str, np.ndarray]:
        """Return a picture of each camera."""
        self._data.qpos[:] = surrogate.scene.data.qpos
        mujoco.mj_forward(self._model, self._data)
        return {name: self._spoilt(self._renderer.picture(self._data, name)) for name in self._names}

    def close(self) -> None:
        """Free the renderer."""
        self._renderer.close()

    def _spoilt(self, picture: np.ndarray) -> np.ndarray:
        noisy = picture / 255.0 * GAINS + NOISE * self._random.standard_normal(picture.shape)
        return np.clip(np.round(255 * noisy), 0, 255).astype(np.uint8)


Messages = list[tuple[int, ObservedState]]


def record(cell: Cell, seed: int, seconds: float) -> tuple[Messages, np.ndarray, Cell]:
    """Return what arrives when [ns], the true poses by time, and the cell with its cameras where they really stand."""
    surrogate = SurrogateCell(cell, SurrogateConfig())
    surrogate.start(seed)
    expert = PushTExpert(SurrogateView(surrogate), noise=0.002)
    expert.reset(surrogate, seed)  # type: ignore[arg-type]  # the view knows the surrogate
    photographer = Photographer(cell, seed)
    messages: Messages = []
    truth, next_ns = [], 0
    for step in range(round(seconds * cell.rates.policy)):
        surrogate.command(expert.perturb(expert.act({})))
        while surrogate.time_ns < (step + 1) * round(1e9 / cell.rates.policy):
            if surrogate.time_ns >= next_ns:
                next_ns += round(1e9 / IMAGE_RATE)
                pictures = ObservedState(stamp_ns=surrogate.time_ns, images=photographer.take(surrogate))
                messages.append((surrogate.time_ns + LATENCY_NS, pictures))
            arrived = surrogate.advance(surrogate.time_ns + 4_000_000)
            messages += [(surrogate.time_ns, message) for message in arrived]
            truth.append([surrogate.time_ns, *np.concatenate(surrogate.truth("block"))])
    photographer.close()
    exact = replace(cell, cameras=photographer.cameras)
    return sorted(messages, key=lambda entry: entry[0]), np.array(truth), exact


def chosen(method: str, messages: Sequence[ObservedState], known: bool) -> list[ObservedState]:
    """Return the messages that a method is given; each is told once where the block is to begin with."""
    poses = method in ("poses", "poses and images") or (method in ("none", "Gaussian forces") and not known)
    pictures = method not in ("none", "poses")
    return [m for m in messages if (poses or not m.objects) and (pictures or not m.images)]


def measured(cell: Cell, messages: Messages, truth: np.ndarray, method: str) -> dict[str, float]:
    """Play a recording to a twin and return what it comes to."""
    body = {"block": body_from_model(cell_task(cell).visual_model, "block", spacing=SPACING)}
    reader = ImagePoses(cell, body) if "images" in method else None
    forces = ImageForceCorrection(ImageForceConfig(spacing=SPACING)) if method == "Gaussian forces" else None
    kind = "none" if method == "none" else "force"
    pull: Correction = build_correction({"type": kind}) if forces is None else forces
    twin = Twin(cell, corrections=[pull])
    place, turn, spent, found = [], [], [], 0
    upcoming, known = 0, False
    while twin.time_ns + cell.tick_ns <= truth[-1, 0]:
        arrived = []
        while upcoming < len(messages) and messages[upcoming][0] <= twin.time_ns:
            arrived.append(messages[upcoming][1])
            upcoming += 1
        given = chosen(method, arrived, known)
        known = known or any(message.objects for message in given)
        pictures = any(message.images for message in given)
        started = time.process_time()
        if reader is not None:
            given = reader.read(given, twin)
        read = time.process_time() - started
        twin.tick(given)
        if pictures:
            spent.append(read if reader is not None else time.process_time() - started)
            found += reader is None or reader.fits.get("block") is not None
        if twin.time_ns >= SETTLE * 1e9:
            row = truth[min(int(np.searchsorted(truth[:, 0], twin.time_ns)), len(truth) - 1)]
            position, quaternion = twin.world.pose("block")
            place.append(float(np.linalg.norm(row[1:3] - position[:2])))
            turn.append(abs(float(rotation_between(quaternion, row[4:8])[2])))
    if reader is not None:
        reader.close()
    if isinstance(forces, ImageForceCorrection):
        forces.close()
    figures = {
        "place_mean": np.mean(place),
        "place_p95": np.quantile(place, 0.95),
        "turn_mean": np.mean(turn),
        "turn_p95": np.quantile(turn, 0.95),
        "cpu_ms_median": 1e3 * np.median(spent) if spent else np.nan,
        "cpu_ms_p95": 1e3 * np.quantile(spent, 0.95) if spent else np.nan,
        "found": found / len(spent) if spent else np.nan,
    }
    return {name: float(value) for name, value in figures.items()}


def run(episodes: int, forces: int, seconds: float, out: Path) -> None:
    """Measure what is missing and append it, one line per episode and method."""
    cell = camera_cell()
    done = {(row["method"], row["seed"]) for row in read_rows(out)}
    out.parent.mkdir(parents=True, exist_ok=True)
    for index in range(episodes):
        seed = SEED + index
        wanted = [m for m in METHODS if (m, seed) not in done and (m != METHODS[-1] or index < forces)]
        if not wanted:
            continue
        messages, truth, exact = record(cell, seed, seconds)
        for method in wanted:
            row = {"method": method, "seed": seed, "load": os.getloadavg()[0]}
            row |= measured(exact if "exact" in method else cell, messages, truth, method)
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(seed, method, {k: round(v, 4) for k, v in row.items() if isinstance(v, float)}, flush=True)


def read_rows(out: Path) -> list[dict[str, Any]]:
    """Return the rows so far."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def table(rows: list[dict[str, Any]]) -> str:
    """Return the table as Markdown."""
    lines = [
        "| what the twin is told | episodes | position mean / p95 mm | angle mean / p95 deg | found | "
        "CPU per picture set, median / p95 ms |",
        "|---|---|---|---|---|---|",
    ]
    for method in METHODS:
        of = [row for row in rows if row["method"] == method]
        if not of:
            continue
        get = {k: np.array([row[k] for row in of]) for k in of[0] if k not in ("method", "seed")}
        line = (
            f"| {method} | {len(of)} | {1e3 * get['place_mean'].mean():.1f} / {1e3 * get['place_p95'].mean():.1f} | "
            f"{np.degrees(get['turn_mean'].mean()):.1f} / {np.degrees(get['turn_p95'].mean()):.1f} | "
        )
        if np.isnan(get["cpu_ms_median"]).all():
            lines.append(line + "– | – |")
        else:
            lines.append(
                line + f"{100 * get['found'].mean():.0f} % | {np.median(get['cpu_ms_median']):.0f} / "
                f"{np.median(get['cpu_ms_p95']):.0f} |"
            )
    return "\n".join(lines)


def picture(path: Path, seed: int, seconds: float) -> None:
    """Write observed, drawn, and their difference for each camera, with the block where a twin on pictures has it."""
    from PIL import Image

    cell = camera_cell()
    messages, _, _ = record(cell, seed, seconds)
    body = body_from_model(cell_task(cell).visual_model, "block", spacing=SPACING)
    solid, twin, reader = Solid.of_body(body), Twin(cell), ImagePoses(cell, {"block": body})
    last: ObservedState | None = None
    for arrival, message in messages:
        while twin.time_ns + cell.tick_ns <= arrival:
            twin.tick()
        if not message.objects:
            last = message if message.images else last
            twin.tick(reader.read([message], twin))
    fit, pictures = reader.fits["block"], CellPictures(cell, ImageConfig())
    assert fit is not None
    assert last is not None
    matrix = np.empty(9)
    mujoco.mju_quat2Mat(matrix, fit.quaternion)
    rows = []
    for view in pictures.views(last.images, twin.world.data.qpos, twin.world.joints[0]):
        drawn = draw_moving(
            solid, matrix.reshape(3, 3), fit.position, np.empty((0, 6)), view.camera, view.background
        )
        shown = np.where(view.valid[..., None], drawn.image, 0.5 * view.observed)
        difference = np.where(view.valid[..., None], 3 * np.abs(view.observed - drawn.image), 0.15)
        rows.append(np.concatenate([view.observed, shown, difference], axis=1))
    sheet = Image.fromarray((255 * np.clip(np.concatenate(rows), 0, 1)).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.resize((3 * sheet.width, 3 * sheet.height), Image.Resampling.NEAREST).save(path, optimize=True)
    reader.close()
    pictures.close()


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--episodes", type=int, default=0)
    parser.add_argument("--forces", type=int, default=1, help="episodes with per-Gaussian forces")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of an episode")
    parser.add_argument("--out", type=Path, default=Path("results/twin_images.jsonl"))
    parser.add_argument("--table", type=Path, help="write the table into this page")
    parser.add_argument("--picture", type=Path, help="write observed, drawn and difference to this PNG")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run(arguments.episodes, arguments.forces, arguments.seconds, arguments.out)
    if arguments.table:
        replace_part(arguments.table, "images", table(read_rows(arguments.out)))
    if arguments.picture:
        picture(arguments.picture, SEED, 3.0)


if __name__ == "__main__":
    main()
