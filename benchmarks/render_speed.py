"""Time off-screen pictures of a lift scene, from robosuite's default down to the cheapest setting, in one run.

    python benchmarks/render_speed.py --frames 20 --picture docs/benchmarks/rendering.png

Rows are settings, columns sizes; ``x`` is the speed-up over robosuite's own `sim.render` of the same scene at the
same size. All settings draw the same state of robosuite's Lift from `agentview`; the last rows are our own scene. The
settings take turns `--rounds` times and the fastest frame of each counts. The picture shows the frames side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from robot_sim.engine import mujoco
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.rendering import FrameRenderer
from robot_sim.rendering_quality import FULL, RenderQuality, apply_to_xml
from robot_sim.tasks import tabletop_lift
from robot_sim.vector.cameras import InProcessCameras
from robot_sim.vector.render_workers import TaskFactory, WorkerCameras

QUALITIES: dict[str, RenderQuality] = {
    "as built": FULL,
    "no shadows": RenderQuality(shadow_size=0, samples=4, reflections=True, mesh_detail=1.0),
    "+ one sample": RenderQuality(samples=0, reflections=True, mesh_detail=1.0),
    "+ no reflections": RenderQuality(samples=0, reflections=False, mesh_detail=1.0),
    "+ 20 % of triangles": RenderQuality(mesh_detail=0.2),
    "+ 10 % of triangles": RenderQuality(mesh_detail=0.1),
}

Draw = Callable[[int], np.ndarray]


def robosuite_scene() -> tuple[Any, str]:
    """Return robosuite's environment with its own off-screen renderer, and its scene as XML."""
    import robosuite

    env = robosuite.make(
        "Lift", robots="Panda", has_renderer=False, has_offscreen_renderer=True, use_camera_obs=False,
        ignore_done=True, control_freq=20, hard_reset=False,
    )  # fmt: skip
    env.reset()
    return env, env.sim.model.get_xml()


def drawers(env: Any, xml: str) -> dict[str, Draw]:
    """Return name -> function that draws one frame of a size."""

    def draw_by_robosuite(size: int) -> np.ndarray:
        env.sim._render_context_offscreen.gl_ctx.make_current()  # it takes for granted that nobody else draws
        return env.sim.render(width=size, height=size, camera_name="agentview")[::-1]

    made: dict[str, Draw] = {"robosuite": draw_by_robosuite}
    for name, quality in QUALITIES.items():
        model = mujoco.MjModel.from_xml_string(apply_to_xml(xml, quality))
        data = mujoco.MjData(model)
        data.qpos[:] = env.sim.data._data.qpos
        mujoco.mj_forward(model, data)
        renderer = FrameRenderer(model, hidden_groups=(0,))
        made[name] = lambda size, r=renderer, d=data: r.render(d, "agentview", width=size, height=size)
        if name == "+ 10 % of triangles":
            made["  its depth"] = lambda size, r=renderer, d=data: r.render_depth(
                d, "agentview", width=size, height=size
            )
            made["  its segmentation"] = lambda size, r=renderer, d=data: r.render_segmentation(
                d, "agentview", width=size, height=size
            )
    task = tabletop_lift.make_task()
    simulation = TaskSimulation(task, 1)
    simulation.reset([0], [0])
    cameras = InProcessCameras(task)
    made["tabletop_lift, fast"] = lambda size: cameras.draw(simulation, np.array([0]), "agentview", size)[0]
    return made


def worker_rate(size: int, workers: int, frames: int) -> float:
    """Return wall milliseconds per picture of our scene, drawn by processes."""
    task = tabletop_lift.make_task()
    simulation = TaskSimulation(task, 32)
    simulation.reset(range(32), range(32))
    rows = np.arange(32)
    with WorkerCameras(TaskFactory(build=tabletop_lift.make_task), workers=workers) as cameras:
        cameras.draw(simulation, rows, "agentview", size)
        times = []
        for _ in range(max(2, frames // 4)):
            start = time.perf_counter()
            cameras.draw(simulation, rows, "agentview", size)
            times.append((time.perf_counter() - start) / len(rows))
    return 1e3 * min(times)


def save_picture(path: Path, frames: dict[str, np.ndarray]) -> None:
    """Write the frames side by side, with their names."""
    from PIL import Image, ImageDraw

    side, gap, title = 256, 8, 22
    columns = 4
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * (side + gap) + gap, rows * (side + title + gap) + gap), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (name, frame) in enumerate(frames.items()):
        x, y = gap + (number % columns) * (side + gap), gap + (number // columns) * (side + title + gap)
        pen.text((x, y + 4), name, fill="black")
        picture = Image.fromarray(frame).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(picture, (x, y + title))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path, optimize=True)


def main() -> int:
    """Run and print a table and JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=20, help="frames of each setting and size per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[84, 128])
    parser.add_argument("--workers", type=int, default=2, help="processes of the last row; 0 leaves it out")
    parser.add_argument("--picture", type=Path, help="write the frames side by side to this PNG")
    args = parser.parse_args()
    env, xml = robosuite_scene()
    made = drawers(env, xml)
    best: dict[str, dict[int, float]] = {name: {} for name in made}
    for _ in range(args.rounds):
        for size in args.sizes:
            for name, draw in made.items():
                if not name.startswith("  ") and draw(size).std() < 10:
                    raise SystemExit(f"'{name}' draws an empty picture at {size} px; nothing can be compared")
                for _ in range(args.frames if name != "robosuite" else max(3, args.frames // 4)):
                    start = time.process_time()
                    draw(size)
                    spent = 1e3 * (time.process_time() - start)
                    best[name][size] = min(best[name].get(size, np.inf), spent)
    rows = {
        name: {
            str(size): {"cpu [ms]": round(ms, 2), "x": round(best["robosuite"][size] / ms, 1)}
            for size, ms in sizes.items()
        }
        for name, sizes in best.items()
    }
    for name, row in rows.items():
        print(f"{name:24}", row)
    result: dict[str, Any] = {
        "rows": rows,
        "load": os.getloadavg()[0],
        "backend": os.environ.get("MUJOCO_GL"),
    }
    if args.workers:
        wall = {str(size): round(worker_rate(size, args.workers, args.frames), 2) for size in args.sizes}
        result[f"tabletop_lift, {args.workers} processes, wall [ms] per picture"] = wall
        print(f"{args.workers} processes, wall ms per picture:", wall)
    print(json.dumps(result))
    if args.picture is not None:
        size = args.sizes[-1]
        save_picture(args.picture, {n: d(size) for n, d in made.items() if not n.startswith("  ")})
    return 0


if __name__ == "__main__":
    sys.exit(main())
