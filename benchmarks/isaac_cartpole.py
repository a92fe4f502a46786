"""Cartpole on the Isaac Gym-compatible interface under stock rl_games PPO: is it solved on this CPU, and how fast?

Trains with several seeds, judges the last policy of each on episodes of its own (deterministic actions, episodes that
reach the step limit count as solved), and draws the learning curves. With ``--checkout`` the task file of IsaacGymEnvs
is trained as well, unmodified, with its own training configuration.

    pip install --no-deps rl-games tensorboardX
    python benchmarks/isaac_cartpole.py --output runs/isaac_cartpole
    python benchmarks/isaac_cartpole.py --output runs/isaac_cartpole --checkout ~/IsaacGymEnvs

Every run is written when it is finished; a second call trains only what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from robot_datasets.errors import UserError
from robot_sim.isaac.cartpole import Cartpole, default_config
from robot_sim.isaac.checkout import load_config, make_task
from robot_sim.isaac.rl_games_env import register_rl_games

OWN, FOREIGN = "our Cartpole", "IsaacGymEnvs' cartpole.py"


def ppo_config(num_envs: int, epochs: int) -> dict[str, Any]:
    """Return rl_games' parameters for the own task: PPO with a small network."""
    return {
        "algo": {"name": "a2c_continuous"},
        "model": {"name": "continuous_a2c_logstd"},
        "network": {
            "name": "actor_critic",
            "separate": False,
            "space": {
                "continuous": {
                    "mu_activation": "None",
                    "sigma_activation": "None",
                    "mu_init": {"name": "default"},
                    "sigma_init": {"name": "const_initializer", "val": 0},
                    "fixed_sigma": True,
                }
            },
            "mlp": {
                "units": [32, 32],
                "activation": "elu",
                "initializer": {"name": "default"},
                "regularizer": {"name": "None"},
            },
        },
        "load_checkpoint": False,
        "load_path": "",
        "config": {
            **{"name": "Cartpole", "env_name": "rlgpu", "multi_gpu": False, "ppo": True},
            **{"mixed_precision": False, "normalize_input": True, "normalize_value": True},
            **{
                "normalize_advantage": True,
                "reward_shaper": {"scale_value": 0.1},
                "gamma": 0.99,
                "tau": 0.95,
            },
            **{"learning_rate": 3e-4, "lr_schedule": "adaptive", "kl_threshold": 0.008, "score_to_win": 1e9},
            **{
                "grad_norm": 1.0,
                "entropy_coef": 0.0,
                "truncate_grads": True,
                "e_clip": 0.2,
                "critic_coef": 4,
            },
            **{"horizon_length": 16, "minibatch_size": num_envs * 16, "mini_epochs": 8, "clip_value": True},
            **{"seq_len": 4, "bounds_loss_coef": 1e-4, "save_best_after": 10**6, "save_frequency": 0},
            **{"num_actors": num_envs, "max_epochs": epochs, "value_bootstrap": True},
        },
    }


def foreign_ppo_config(checkout: Path, num_envs: int, epochs: int) -> dict[str, Any]:
    """Return the checkout's own training configuration, adjusted to the number of environments and the CPU."""
    overrides = [f"max_iterations={epochs}", f"train.params.config.minibatch_size={num_envs * 16}"]
    params = load_config(checkout, "Cartpole", num_envs=num_envs, overrides=overrides)["train"]["params"]
    params["config"].update(save_best_after=10**6, save_frequency=0)
    return params


def make_observer() -> Any:
    """Return an rl_games observer that keeps a row per epoch and the agent."""
    from rl_games.common.algo_observer import AlgoObserver

    class Recorder(AlgoObserver):
        def __init__(self) -> None:
            self.rows: list[dict[str, float]] = []
            self.agent: Any = None
            self.start = time.perf_counter(), time.process_time()

        def after_init(self, algo: Any) -> None:
            self.agent = algo

        def after_print_stats(self, frame: int, epoch_num: int, total_time: float) -> None:
            del frame, total_time  # those of the epoch before
            if self.agent.game_rewards.current_size == 0:
                return
            self.rows.append(
                {
                    "epoch": epoch_num,
                    "frames": int(self.agent.frame),
                    "seconds": time.perf_counter() - self.start[0],
                    "cpu_seconds": time.process_time() - self.start[1],
                    "reward": float(np.ravel(self.agent.game_rewards.get_mean())[0]),
                    "length": float(self.agent.game_lengths.get_mean()),
                }
            )

    return Recorder()


def evaluate(agent: Any, task: Any, limit: int) -> dict[str, Any]:
    """Run one episode in every environment with the policy's mean action; return how many reach the limit."""
    task.reset_buf[:] = 1
    agent.set_eval()
    lengths = torch.zeros(task.num_envs, dtype=torch.long)
    observation = task.step(task.zero_actions())[0]  # this step starts every episode
    for step in range(1, limit + 1):
        with torch.no_grad():
            action = agent.get_action_values({"obs": observation["obs"]})["mus"]
        observation, _, reset, _ = task.step(torch.clamp(action, -1.0, 1.0))
        lengths[(lengths == 0) & (reset != 0)] = step
        if (lengths > 0).all():
            break
    solved = int((lengths >= limit - 1).sum())
    return {
        "episodes": task.num_envs,
        "solved": solved,
        "mean_length": float(lengths.float().mean()),
        "limit": limit,
    }


def train(kind: str, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train and judge one policy."""
    from rl_games.torch_runner import Runner

    random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)  # noqa: NPY002  # tasks of that time use it
    tasks: list[Any] = []

    def create(**_: Any) -> Any:
        if kind == OWN:
            tasks.append(Cartpole(default_config(arguments.num_envs)))
        else:
            tasks.append(make_task(arguments.checkout, "Cartpole", num_envs=arguments.num_envs))
        return tasks[-1]

    register_rl_games("rlgpu", create)
    if kind == OWN:
        params = ppo_config(arguments.num_envs, arguments.epochs)
    else:
        params = foreign_ppo_config(arguments.checkout, arguments.num_envs, arguments.epochs)
    params["seed"] = seed
    # Compiling the network needs a C++ compiler and takes longer than training it.
    params["config"].update(torch_compile=False, device="cpu", device_name="cpu")
    params["config"]["train_dir"] = str(arguments.output / "rl_games")
    recorder = make_observer()
    runner = Runner(recorder)
    runner.load({"params": params})
    runner.run({"train": True, "play": False, "checkpoint": None, "sigma": None})
    verdict = evaluate(recorder.agent, tasks[-1], limit=int(tasks[-1].max_episode_length))
    return {
        "task": kind,
        "seed": seed,
        "num_envs": arguments.num_envs,
        "curve": recorder.rows,
        "evaluation": verdict,
    }


def draw(results: list[dict[str, Any]], path: Path) -> None:
    """Draw episode length and return over frames, one line per seed."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), constrained_layout=True)
    colours = {OWN: "tab:blue", FOREIGN: "tab:orange"}
    for result in results:
        first = not any(line.get_label() == result["task"] for line in axes[0].lines)
        frames = [row["frames"] / 1000 for row in result["curve"]]
        for axis, key in zip(axes, ("length", "reward"), strict=True):
            axis.plot(
                frames,
                [row[key] for row in result["curve"]],
                color=colours[result["task"]],
                alpha=0.8,
                label=result["task"] if first else None,
            )
    limit = results[0]["evaluation"]["limit"]
    axes[0].axhline(limit, color="grey", linestyle=":", linewidth=1)
    axes[0].annotate("step limit", (0.02, limit), xycoords=("axes fraction", "data"), va="bottom", fontsize=8)
    axes[0].set(ylabel="steps per episode (mean of the last 100)", ylim=(0, limit * 1.1))
    axes[1].set(ylabel="return per episode (mean of the last 100)")
    for axis in axes:
        axis.set_xlabel("thousand environment steps")
        axis.grid(alpha=0.3)
    axes[0].legend(loc="lower right", frameon=False)
    figure.suptitle(f"Cartpole, rl_games PPO, {results[0]['num_envs']} environments, CPU", fontsize=11)
    figure.savefig(path, dpi=120)


def report(results: list[dict[str, Any]]) -> None:
    """Print the table."""
    print(
        f"{'task':28} {'seed':>4} {'frames':>8} {'wall s':>7} {'CPU s':>7} {'at 475':>8} {'solved episodes':>16}"
    )
    for result in results:
        last, verdict = result["curve"][-1], result["evaluation"]
        good = next((row["frames"] for row in result["curve"] if row["length"] >= 475), None)
        print(
            f"{result['task']:28} {result['seed']:4d} {last['frames']:8.0f} {last['seconds']:7.0f} "
            f"{last['cpu_seconds']:7.0f} {good or 'never':>8} {verdict['solved']:>9} of {verdict['episodes']:<4}"
        )


def main() -> None:
    """Run what is missing, then draw and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--num-envs", type=int, default=512)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--checkout", type=Path, help="folder of IsaacGymEnvs, to train its task as well")
    parser.add_argument("--figure", type=Path, help="where to draw the curves (OUTPUT/isaac_cartpole.png)")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    results = []
    for kind in [OWN, *([FOREIGN] if arguments.checkout else [])]:
        for seed in arguments.seeds:
            label = "own" if kind == OWN else "isaacgymenvs"
            path = arguments.output / f"{label}_{seed}.json"
            if not path.exists():
                result = train(kind, seed, arguments)
                partial = path.with_suffix(".partial")
                partial.write_text(json.dumps(result), encoding="utf-8")
                os.replace(partial, path)
            results.append(json.loads(path.read_text(encoding="utf-8")))
    draw(results, arguments.figure or arguments.output / "isaac_cartpole.png")
    report(results)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(f"error: {error}") from error
