r"""PAD and UWM on images: what they do, what they foresee, and what video without actions adds.

    robot-policies convert --image-encoding raw pusht_cchi_v7_replay.zarr.zip pusht.zarr
    robot-policies generate task=lift task.images=true task.image_size=64 image_encoding=raw episodes=60 \
      output=lift.zarr
    python benchmarks/video_policies.py pusht pusht.zarr
    python benchmarks/video_policies.py lift lift.zarr

T_o 1, T_p 8, T_a 8, one future frame 8 steps ahead, 32 px (pad-conv: 48). Episodes are divided once (seed 0): some
are held out for the errors, `few` keep their actions in the arms of that name, the others are theirs as video without
actions:

    cloning                 control: regression of the chunk, with UWM's image encoder
    uwm, pad                all demonstrations with their actions
    pad-conv                the same, PAD that also sees through convolutions, and at 48 px
    uwm-few, pad-few        the few demonstrations alone
    uwm-video, pad-video    half of each batch from them, half from the videos

Every training has the same number of steps and windows per step; there is no choice among checkpoints. Score with a
95 % bootstrap interval over held-out initial states. Frame errors are mean squared errors of pixels in [0, 1] at
the policy's own size, of the mean of a few samples, on held-out windows. Rerun to resume: what is finished is kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from video_environments import TASKS, Task

from robot_datasets.edit import apply, drop
from robot_datasets.features import ACTION, STATE
from robot_datasets.store import EpisodeStore
from robot_datasets.windows import FUTURE_PREFIX, WindowDataset, WindowSpec

AHEAD = 8
SAMPLES = 2
WINDOWS = 128
PICTURES = 6


@dataclass(frozen=True)
class Arm:
    """One training: its preset, and which part of the data it sees (``all``, ``few`` or ``video``)."""

    policy: str
    data: str = "all"


ENCODER = (
    "{type: resnet, stage_channels: [8, 16, 32, 64], blocks_per_stage: 1, "
    "n_keypoints: 32, out_dim: 64, crop: 0.95}"
)
ARMS = {
    "cloning": Arm("behavior_cloning_mlp"),
    "uwm": Arm("uwm_tiny"),
    "pad": Arm("pad_tiny"),
    "pad-conv": Arm("pad_conv"),
    "uwm-few": Arm("uwm_tiny", "few"),
    "uwm-video": Arm("uwm_tiny", "video"),
    "pad-few": Arm("pad_tiny", "few"),
    "pad-video": Arm("pad_tiny", "video"),
}


def divide(task: Task, path: Path, folder: Path) -> dict[str, Path]:
    """Write the parts ``few``, ``rest`` and ``held`` of a store; what is there already is kept."""
    store = EpisodeStore.open(path)
    order = np.random.default_rng(0).permutation(store.n_episodes)
    held, few, rest = np.split(order, [task.held, task.held + task.few])
    kept = {STATE, ACTION, task.camera}
    unused = [name for name in store.features if name not in kept]
    parts = {}
    for name, chosen in (("few", few), ("rest", rest), ("held", held)):
        parts[name] = folder / f"{name}.zarr"
        if not parts[name].exists():
            others = np.setdiff1d(order, chosen).tolist()
            apply(drop(store, episodes=others, features=unused), parts[name])
    return parts


def overrides_of(arm: Arm, task: Task, parts: dict[str, Path]) -> list[str]:
    """What to train an arm with, apart from the budget."""
    few, rest = parts["few"], parts["rest"]
    counts = {name: EpisodeStore.open(parts[name]).n_steps for name in ("few", "rest")}
    data = {
        "all": f"[{{path: {few}, weight: {counts['few']}}}, {{path: {rest}, weight: {counts['rest']}}}]",
        "few": "",
        "video": f"[{{path: {few}}}, {{path: {rest}, actions: false}}]",
    }[arm.data]
    overrides = [
        f"policy={arm.policy}",
        f"dataset.observation=[{STATE},{task.camera}]",
        "dataset.val_ratio=0",
    ]
    if data:
        overrides += ["dataset=mixture", f"dataset.mixture={data}", "dataset.statistics=pooled"]
    else:
        overrides += ["dataset=image", f"dataset.path={few}"]
    if arm.policy == "behavior_cloning_mlp":
        width = ["policy.network.width=256", "policy.network.n_blocks=2"]
        return [*overrides, *width, f"+policy.image_encoder={ENCODER}"]
    return [*overrides, f"+dataset.future={{{task.camera}: [{AHEAD}]}}"]


def train_arm(name: str, task: Task, parts: dict[str, Path], args: argparse.Namespace) -> Path:
    """Train an arm, or continue it; returns the run directory."""
    from robot_policies.cli.hydra_app import compose_config
    from robot_policies.training.train import train

    run = args.output / task.name / f"{name}-{args.steps}-seed{args.seed}"
    if (run / "finished").exists():
        return run
    trainer = {
        "steps": args.steps,
        "batch_size": args.batch_size,
        "warmup_fraction": 0.05,
        "val_every": 0,
        "checkpoint_every": 200,
        "keep_top_k": 0,
        "tensorboard": "false",
        "threads": 1,
    }
    budget = [f"trainer.{key}={value}" for key, value in trainer.items()]
    window = f"window={{n_obs_steps: 1, horizon: {AHEAD}, n_action_steps: {AHEAD}}}"
    config = [
        *overrides_of(ARMS[name], task, parts),
        *budget,
        window,
        f"seed={args.seed}",
    ]
    train(compose_config("train", [*config, f"output_dir={run}"]))
    (run / "finished").touch()
    return run


def score(policy: Any, task: Task, args: argparse.Namespace) -> dict[str, list[float]]:
    """Score and success on held-out initial states."""
    from robot_policies.evaluation.evaluate import evaluate_policy

    seeds = range(args.first_seed, args.first_seed + args.episodes)
    # One environment after another where building one is dear, all at once where it is cheap.
    results = evaluate_policy(policy, task.make_env, seeds, workers=0, n_envs=task.side_by_side)
    return {"score": [r.score for r in results], "success": [float(r.success) for r in results]}


def held_out(task: Task, held: Path) -> dict[str, Tensor]:
    """`WINDOWS` windows of held-out episodes whose future frame exists."""
    windows = WindowDataset(
        EpisodeStore.open(held),
        WindowSpec(1, AHEAD, AHEAD),
        observation=[STATE, task.camera],
        future={task.camera: [AHEAD]},
    )
    order = np.random.default_rng(1).permutation(len(windows))[: 2 * WINDOWS]
    batch = {name: torch.as_tensor(value) for name, value in windows.__getitems__(np.sort(order)).items()}
    there = ~(batch[f"{FUTURE_PREFIX}{task.camera}_is_pad"].any(dim=1) | batch["action_is_pad"].any(dim=1))
    return {name: value[there][:WINDOWS] for name, value in batch.items()}


def _noise(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def foresee(policy: Any, task: Task, batch: dict[str, Tensor]) -> tuple[dict[str, float], dict[str, Any]]:
    """Errors on held-out windows by name, and the predicted frames (N, 3, h, w) in [0, 1] by name."""
    observation = {name: batch[name] for name in policy.spec.observation}
    variance = batch[ACTION].float().var(dim=(0, 1))
    moving = variance > 1e-6  # an action component that is never used has no scale to judge errors by

    def action_error(draw: Any) -> float:
        """Mean over `SAMPLES` of the squared error, each component that varies divided by its variance."""
        errors = [
            ((draw(_noise(k)).actions - batch[ACTION]) ** 2 / variance)[..., moving].mean()
            for k in range(SAMPLES)
        ]
        return float(torch.stack(errors).mean())

    errors = {"policy_action": action_error(lambda g: policy.predict_chunk(observation, generator=g))}
    if not policy.spec.future:
        return errors, {}
    codec = policy.codec(task.camera)

    def unit(frames: Tensor) -> Tensor:
        return (codec.encode(frames[:, -1]) + 1) / 2

    real, last = unit(batch[FUTURE_PREFIX + task.camera]), unit(batch[task.camera])
    draws: dict[str, Any] = {}
    if hasattr(policy, "infer_actions"):
        future = {FUTURE_PREFIX + task.camera: batch[FUTURE_PREFIX + task.camera]}
        draws["video"] = lambda g: policy.predict_frames(observation, generator=g)
        draws["forward"] = lambda g: policy.predict_frames(observation, actions=batch[ACTION], generator=g)
        errors["inverse_action"] = action_error(
            lambda g: policy.infer_actions(observation, future, generator=g)
        )
    else:
        draws["video"] = lambda g: policy.predict_chunk(observation, generator=g).predicted_frames
    frames: dict[str, Any] = {"now": last, "real": real}
    for name, draw in draws.items():
        samples = [draw(_noise(k)).frames[task.camera][:, 0].float() / 255 for k in range(SAMPLES)]
        frames[name] = samples[0]
        errors[name] = float((torch.stack(samples).mean(dim=0) - real).square().mean())
        errors[f"{name}_one_sample"] = float((samples[0] - real).square().mean())
    errors["copy_last"] = float((last - real).square().mean())
    return errors, frames


def judge(run: Path, task: Task, parts: dict[str, Path], args: argparse.Namespace) -> dict[str, Any]:
    """Everything measured of one training; kept beside it."""
    from robot_policies.checkpoint import load_policy

    path = run / f"judged_{args.first_seed}_{args.episodes}.json"
    if path.exists():
        return json.loads(path.read_text())
    policy = load_policy(run / "checkpoints" / "last").policy
    began = time.process_time()
    with torch.no_grad():
        errors, frames = foresee(policy.eval(), task, held_out(task, parts["held"]))
    if frames:
        chosen = np.linspace(0, len(frames["real"]) - 1, PICTURES).astype(np.int64)
        np.savez_compressed(run / "frames.npz", **{k: v.numpy()[chosen] for k, v in frames.items()})
    record = {
        **score(policy, task, args),
        "errors": errors,
        "parameters": policy.n_parameters(),
        "train_cpu_minutes": _cpu_minutes(run),
        "judge_cpu_seconds": time.process_time() - began,
    }
    path.write_text(json.dumps(record))
    return record


def _cpu_minutes(run: Path) -> float:
    """CPU time of a training [minutes]."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return max(r["cpu_seconds"] for r in records if "cpu_seconds" in r) / 60


def table(judged: dict[str, dict[str, Any]]) -> list[str]:
    """One line per arm."""
    from robot_policies.evaluation.statistics import bootstrap_mean

    lines = [
        "| arm | parameters | CPU minutes | score [95 %] | strict success | action error, policy | inverse "
        "| frame error: copy last | video | forward |",
        "|---" * 10 + "|",
    ]
    for name, record in judged.items():
        interval, errors = bootstrap_mean(record["score"]), record["errors"]
        actions = [f"{errors[k]:.3f}" if k in errors else "" for k in ("policy_action", "inverse_action")]
        frames = [f"{1e3 * errors[k]:.2f}" if k in errors else "" for k in ("copy_last", "video", "forward")]
        lines.append(
            f"| {name} | {record['parameters'] / 1e6:.2f} M | {record['train_cpu_minutes']:.1f} "
            f"| **{interval.value:.3f}** [{interval.low:.3f}, {interval.high:.3f}] "
            f"| {np.mean(record['success']):.2f} | {' | '.join([*actions, *frames])} |"
        )
    return lines


def gains(judged: dict[str, dict[str, Any]]) -> list[str]:
    """What video adds, on the same initial states and windows."""
    from robot_policies.evaluation.statistics import paired_difference

    lines = []
    for name in ("uwm", "pad"):
        if {f"{name}-few", f"{name}-video"} <= set(judged):
            few, video = judged[f"{name}-few"], judged[f"{name}-video"]
            gain = paired_difference(few["score"], video["score"])
            frames = [1e3 * r["errors"]["video"] for r in (few, video)]
            lines.append(
                f"* {name}: video adds {gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] to the score; frame "
                f"error {frames[0]:.2f} without, {frames[1]:.2f} with it."
            )
    return lines


def draw_pictures(runs: dict[str, Path], path: Path) -> None:
    """Now, what came, and what each model foresaw, side by side; columns are held-out windows."""
    from PIL import Image, ImageDraw

    rows: list[tuple[str, NDArray[np.float32]]] = []
    for name, run in runs.items():
        if (run / "frames.npz").exists():
            with np.load(run / "frames.npz") as arrays:
                if not rows:
                    rows += [("now", arrays["now"]), ("8 steps later", arrays["real"])]
                kinds = [key for key in ("video", "forward") if key in arrays]
                rows += [(f"{name}: {kind}", arrays[kind]) for kind in kinds]
    if not rows:
        return
    scale, label = 96, 130
    sheet = Image.new("RGB", (label + PICTURES * (scale + 4), len(rows) * (scale + 4)), "white")
    pen = ImageDraw.Draw(sheet)
    for y, (title, frames) in enumerate(rows):
        pen.text((4, y * (scale + 4) + scale // 2), title, fill="black")
        for x, frame in enumerate(frames):
            pixels = (255 * frame.clip(0, 1)).astype(np.uint8).transpose(1, 2, 0)
            picture = Image.fromarray(pixels).resize((scale, scale), Image.Resampling.NEAREST)
            sheet.paste(picture, (label + x * (scale + 4), y * (scale + 4)))
    sheet.save(path)


def main(argv: list[str] | None = None) -> int:
    """Train, judge and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("store", type=Path, help="demonstrations with images")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--steps", type=int, default=600, help="optimiser steps of each training")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--episodes", type=int, default=50, help="evaluation episodes per training")
    parser.add_argument("--first-seed", type=int, default=100_000, help="first evaluation seed")
    parser.add_argument("--output", type=Path, default=Path("outputs/benchmark_video"))
    args = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    task = TASKS[args.task]
    parts = divide(task, args.store, args.output / task.name)
    judged, runs = {}, {}
    for name in args.arms:
        runs[name] = train_arm(name, task, parts, args)
        judged[name] = judge(runs[name], task, parts, args)
        logging.info("%s: %.3f %s", name, np.mean(judged[name]["score"]), judged[name]["errors"])
    draw_pictures(runs, args.output / f"{task.name}.png")
    command = f"python benchmarks/video_policies.py {task.name} {task.name}.zarr " + " ".join(
        (argv or sys.argv[1:])[2:]
    )
    lines = [*table(judged), "", *gains(judged), "", f"`{command.strip()}`"]
    text = "\n".join([*lines, "", f"Python {platform.python_version()}, one thread."])
    (args.output / f"{task.name}.md").write_text(text + "\n")
    logging.info(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
