"""Time physics and control of a lift scene: robosuite's own loop beside batched simulation, in one run.

    python benchmarks/sim_speed.py --steps 60 --envs 64 --rounds 3

Same control frequency (20 Hz) and physics time-step (2 ms) everywhere, state observations, random actions in
[-0.3, 0.3]. Rows:

robosuite           `env.step` of Lift with a Panda and OSC_POSE, one environment, as it comes
same model, 500 Hz  robosuite's compiled model, batched physics, our OSC_POSE in every physics step
same model, 100 Hz  the same with a torque held for five physics steps
tabletop_lift, osc  our scene, OSC at 100 Hz, observations and rewards
tabletop_lift, joint   our scene, position servos, observations and rewards
tabletop_lift, osc, warp   with ``--warp DEVICE``: the same as ``osc``, stepped by mujoco_warp

The methods take turns `--rounds` times, and the fastest round of each counts: on a busy machine the slow rounds measure
the other programs. ``wall`` is per environment step; ``cpu`` is processor time per environment step, all threads.

A last part drives robosuite and the same-model batch with the same actions and says how far the hands are apart.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from robot_sim.controllers.controller import Controllers
from robot_sim.controllers.gripper import Gripper
from robot_sim.controllers.osc import OscPose
from robot_sim.engine import mujoco
from robot_sim.mujoco_tasks.simulation import TaskSimulation
from robot_sim.registry import make_task
from robot_sim.tasks import tabletop_lift
from robot_sim.vector.mujoco_names import ModelNames
from robot_sim.vector.physics import BatchedPhysics

JOINTS = tuple(f"robot0_joint{i}" for i in range(1, 8))
MOTORS = tuple(f"robot0_torq_j{i}" for i in range(1, 8))
FINGERS = ("gripper0_right_gripper_finger_joint1", "gripper0_right_gripper_finger_joint2")
TOOL = "gripper0_right_grip_site"
SUBSTEPS = 25


class SameModel:
    """Batched physics and our OSC on robosuite's own compiled model."""

    def __init__(self, scene: Any, n_envs: int, hold: int, threads: int | None) -> None:
        model, data = scene.sim.model._model, scene.sim.data._data
        names = ModelNames(model)
        self.physics = BatchedPhysics(model, n_envs, threads=threads)
        self.physics.set_state(np.arange(n_envs), qpos=data.qpos.copy(), qvel=data.qvel.copy())
        self.physics.ctrl[:] = data.ctrl
        self.tool, self.hold = names.site(TOOL), hold
        motors = names.actuators(*MOTORS)
        arm = OscPose(
            n_envs,
            site=self.tool,
            qpos=names.qpos(*JOINTS),
            qvel=names.qvel(*JOINTS),
            actuators=motors,
            limits=model.actuator_ctrlrange[motors],
            rest=data.qpos[names.qpos(*JOINTS)].copy(),
            hold=hold,
        )
        fingers = names.actuators(*FINGERS)
        gripper = Gripper(
            n_envs, actuators=fingers, opened=np.array([0.04, -0.04]), closed=np.array([0.0, 0.0])
        )
        self.controller = Controllers([arm, gripper])
        self.controller.reset(self.physics, np.arange(n_envs))
        gripper.state["closure"][:] = 0.0  # robosuite starts half way

    def step(self, actions: np.ndarray) -> np.ndarray:
        """Advance by one control step; return the tool's positions (N, 3)."""
        self.controller.set_goal(self.physics, actions)
        for _ in range(SUBSTEPS // self.hold):
            self.controller.write(self.physics)
            self.physics.step(self.hold)
        return self.physics.site_xpos[:, self.tool]


def timed(step: Callable[[], object], steps: int, per_step: int) -> tuple[float, float]:
    """Return wall and processor milliseconds per environment step."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    count = steps * per_step / 1000.0
    return (time.perf_counter() - wall) / count, (time.process_time() - cpu) / count


def contestants(
    n_envs: int, threads: int | None, env: Any, warp: str | None
) -> dict[str, tuple[Callable[[], object], int]]:
    """Return name -> (one step, environments it steps); `warp` is the device of one more, if any."""
    random = np.random.default_rng(0)

    def actions(n: int) -> np.ndarray:
        return random.uniform(-0.3, 0.3, (n, 7))

    import robosuite

    stock = robosuite.make(
        "Lift", robots="Panda", has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False,
        ignore_done=True, control_freq=20, hard_reset=False,
    )  # fmt: skip
    stock.reset()
    made: dict[str, tuple[Callable[[], object], int]] = {"robosuite": (lambda: stock.step(actions(1)[0]), 1)}
    for hold, rate in ((1, 500), (5, 100)):
        same = SameModel(env._scene, n_envs, hold, threads)
        made[f"same model, {rate} Hz"] = (lambda same=same: same.step(actions(n_envs)), n_envs)
    ours = [("osc", "osc_delta", "mujoco"), ("joint", "joint_delta", "mujoco")]
    ours += [("osc, warp", "osc_delta", f"warp:{warp}")] if warp else []
    for name, control, backend in ours:
        task = tabletop_lift.make_task(control=control)
        simulation = TaskSimulation(task, n_envs, threads=threads, backend=backend)
        simulation.reset(range(n_envs), range(n_envs))
        size = len(simulation.controller.low)

        def step(simulation: TaskSimulation = simulation, size: int = size) -> None:
            simulation.step(random.uniform(-0.3, 0.3, (n_envs, size)))
            simulation.observe()
            simulation.outcome()

        made[f"tabletop_lift, {name}"] = (step, n_envs)
    return made


def trajectories(env: Any, hold: int, seeds: range, steps: int) -> dict[str, float]:
    """Return how far robosuite's hand and ours drift apart under the same actions [mm]."""
    apart = []
    for seed in seeds:
        random = np.random.default_rng(seed)
        env.reset(seed=seed)
        ours = SameModel(env._scene, 1, hold, 0)
        action = np.zeros(7)
        for number in range(steps):
            if number % 5 == 0:
                action = np.append(random.uniform(-0.5, 0.5, 6), random.choice([-1.0, 1.0]))
                action[2] = abs(action[2])  # upwards: contacts would amplify any difference
            env.step(action)
            ours.step(action[None])
        theirs = env._scene.sim.data._data.site_xpos[ours.tool]
        apart.append(1e3 * float(np.linalg.norm(ours.physics.site_xpos[0, ours.tool] - theirs)))
    return {"median [mm]": round(float(np.median(apart)), 4), "largest [mm]": round(max(apart), 4)}


def main() -> int:
    """Run and print a table and JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=60, help="robosuite steps per round")
    parser.add_argument("--envs", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--trajectories", type=int, default=10, help="episodes of the comparison")
    parser.add_argument("--warp", metavar="DEVICE", help="time mujoco_warp too, on cpu or cuda:0")
    args = parser.parse_args()
    env: Any = make_task("lift")
    env.reset(seed=0)
    made = contestants(args.envs, args.threads, env, args.warp)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
    for _ in range(args.rounds):
        for name, (step, count) in made.items():
            step()
            times[name].append(timed(step, max(2, args.steps // count), count))
    best = {name: np.min(values, axis=0) for name, values in times.items()}
    wall, cpu = best["robosuite"]
    rows = {
        name: {
            "wall [ms]": round(float(w), 3), "cpu [ms]": round(float(c), 3),
            "x wall": round(float(wall / w), 1), "x per core": round(float(cpu / c), 1),
        }
        for name, (w, c) in best.items()
    }  # fmt: skip
    for name, row in rows.items():
        print(f"{name:24}", row)
    seeds = range(args.trajectories)
    drift = {f"{500 // hold} Hz": trajectories(env, hold, seeds, 50) for hold in (1, 5)}
    print("hands apart after 50 steps:", drift)
    setting = {
        "envs": args.envs,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "mujoco": mujoco.__version__,
    }
    print(json.dumps({"setting": setting, "rows": rows, "hands apart after 50 steps": drift}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
