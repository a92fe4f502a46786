"""The training loop, the same for every policy.

::

    open data -> build policy -> (resume) -> [ step -> log -> validate -> checkpoint ] ... -> last checkpoint

A batch is a pure function of (seed, step), and so is the noise of its loss: a run that was killed continues
from its last checkpoint and ends with the same bits as one that was not (on a CPU, in the same environment, with
a schedule by steps).
"""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from robot_datasets.features import ACTION
from robot_policies.checkpoint import policy_config
from robot_policies.configuration import to_mapping
from robot_policies.policies import build_policy
from robot_policies.policy import Policy
from robot_policies.training.batches import to_tensors
from robot_policies.training.checkpoints import Checkpoints
from robot_policies.training.config import RunConfig, TrainerConfig
from robot_policies.training.data import TrainingData, open_data
from robot_policies.training.distributed import World, join_world
from robot_policies.training.initial import start_from
from robot_policies.training.interrupts import StopRequest, TrainingInterrupted
from robot_policies.training.loss import build_loss, without_sync
from robot_policies.training.metrics import Metrics
from robot_policies.training.optimisers import TrainingDiverged, clip_gradients, lr_factor, set_lr
from robot_policies.training.progress import Progress
from robot_policies.training.run import decide_resume, write_image_sheet, write_run_files
from robot_policies.training.seeding import mix_seed, seed_noise
from robot_policies.training.state import TrainState
from robot_policies.training.stopwatch import Stopwatch
from robot_policies.training.teachers import complete_policy, give_teacher
from robot_policies.training.validation import action_errors, fixed_windows

logger = logging.getLogger(__name__)


def train(config: Mapping[str, Any], *, open_store: Callable[[str], Any] | None = None) -> Path:
    """Train a policy and return its run directory; continues a run that is found there.

    Args:
        config: Resolved configuration tree, see `RunConfig`.
        open_store: Opens an episode store by path; for data that live elsewhere than on disk.

    Raises:
        UserError: The configuration, the data or the device do not fit; `TrainingDiverged`; or
            `TrainingInterrupted` after a signal, once everything is saved.
    """
    run = RunConfig.parse(config)
    run = replace(run, policy=complete_policy(run.policy))
    if run.trainer.threads is not None:
        torch.set_num_threads(run.trainer.threads)
    cfg, folder, world = run.trainer, Path(run.output_dir), join_world(run.device)
    resuming = decide_resume(run)
    data = open_data(run.dataset, run.window, seed=run.seed, open_store=open_store)
    state = TrainState.create(_initial_policy(run, data, world), cfg)
    checkpoints = Checkpoints(
        folder, keep_top_k=cfg.keep_top_k, config=to_mapping(run), stats=data.stats, card=data.card
    )
    if resuming:
        checkpoints.load(state)
        logger.info("continuing %s at step %d", folder, state.step)
    world.barrier()
    loader = data.loader(run, world)
    if world.is_main:
        write_run_files(run, world.device)
        checkpoints.prune(state)
        write_image_sheet(folder / "first_batch.png", loader.batch(0))
    loss = build_loss(state.policy, cfg, world)
    watch = Stopwatch(state.cpu_seconds, state.wall_seconds)
    stream = loader.batches(state.step * cfg.accumulate, _last_step(cfg) * cfg.accumulate)
    metrics = Metrics(
        folder,
        step=state.step,
        tensorboard=cfg.tensorboard,
        wandb=cfg.wandb,
        config=to_mapping(run),
        enabled=world.is_main,
    )
    progress = Progress(fraction=_fraction(state, cfg), interval=cfg.progress_seconds, enabled=world.is_main)
    signum = 0
    with StopRequest() as stop, metrics, progress, closing(stream):
        while _fraction(state, cfg) < 1.0 and not signum:
            values = train_step(state, loss, stream, run, world)
            state.step += 1
            state.add(values)
            state.cpu_seconds, state.wall_seconds = watch.read()
            signum, state.cpu_seconds = world.agree(stop.signum, state.cpu_seconds)
            done = _fraction(state, cfg) >= 1.0
            if done or state.step % cfg.log_every == 0:
                _log(state, metrics, world, loader.order.epoch(state.step * cfg.accumulate), values["lr"])
            progress.update(_fraction(state, cfg), state.step, {"loss": values["loss"], "lr": values["lr"]})
            with watch.paused():
                error = None
                if cfg.val_every and world.is_main and (done or state.step % cfg.val_every == 0):
                    error = validate(state, data, run, metrics, world)
                if world.is_main and (done or signum or state.step % cfg.checkpoint_every == 0):
                    checkpoints.save(state, error)
    world.barrier()  # nobody leaves before the files are complete
    if signum:
        raise TrainingInterrupted(
            f"stopped by {signal.Signals(signum).name} at step {state.step}; saved in {folder}; "
            f"run the same command to continue",
            signum,
        )
    return folder


def train_step(
    state: TrainState, loss: nn.Module, stream: Iterator[dict[str, Any]], run: RunConfig, world: World
) -> dict[str, float]:
    """One optimiser step; returns the values to log."""
    cfg = run.trainer
    lr = set_lr(state.optimiser, lr_factor(cfg, step=state.step, cpu_seconds=state.cpu_seconds))
    totals: dict[str, float] = {}
    for k in range(cfg.accumulate):
        batch = to_tensors(next(stream), world.device)
        seed_noise(world.device, run.seed, state.step * cfg.accumulate + k, world.rank)
        with without_sync(loss, skip=k + 1 < cfg.accumulate):
            value, terms = loss(batch)
            (value / cfg.accumulate).backward()
        for name, tensor in {"loss": value, **terms}.items():
            totals[name] = totals.get(name, 0.0) + tensor.item() / cfg.accumulate
    norm = clip_gradients(state.parameters, cfg.grad_clip)
    if not math.isfinite(norm + totals["loss"]):
        raise TrainingDiverged(
            f"step {state.step}, seed {run.seed}: loss {totals['loss']}, gradient norm {norm}, expected finite "
            f"numbers; lower trainer.lr, use trainer.precision=fp32 or check the data; the last checkpoint is intact"
        )
    state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)
    state.average.update(state.step)
    return {**totals, "grad_norm": norm, "lr": lr}


def validate(state: TrainState, data: TrainingData, run: RunConfig, metrics: Metrics, world: World) -> float:
    """Log action errors of the averaged policy on fixed windows; return the one that ranks checkpoints."""
    results: dict[str, float] = {}
    ranked = math.inf
    for name, dataset in (("train", data.train), ("val", data.validation)):
        if dataset is None:
            continue
        windows = fixed_windows(len(dataset), run.trainer.val_windows, run.dataset.split_seed)
        errors = action_errors(
            state.average.policy,
            dataset,
            windows,
            action_std=np.asarray(data.stats[ACTION]["std"], dtype=np.float64),
            seed=run.dataset.split_seed,
            device=world.device,
        )
        results.update({f"{name}/{key}": value for key, value in errors.items()})
        ranked = errors["action_nmse"]
    metrics.log(state.step, "validation", results)
    return ranked


def _initial_policy(run: RunConfig, data: TrainingData, world: World) -> Policy:
    seed_noise(world.device, mix_seed(run.seed, 0))
    policy = build_policy(policy_config(to_mapping(run)), data.spec, data.stats)
    give_teacher(policy)
    if run.init_from:
        start_from(policy, run.init_from)
    return policy.to(world.device).train()


def _log(state: TrainState, metrics: Metrics, world: World, epoch: float, lr: float) -> None:
    values = {"epoch": round(epoch, 4), **world.mean(state.take_means()), "lr": lr}
    times = {"cpu_seconds": round(state.cpu_seconds, 3), "wall_seconds": round(state.wall_seconds, 3)}
    metrics.log(state.step, "train", {**values, **times})


def _fraction(state: TrainState, cfg: TrainerConfig) -> float:
    """Share of the run that is done."""
    by_steps = state.step / cfg.steps if cfg.schedule_by == "steps" else 0.0
    budget = cfg.time_budget_cpu_minutes
    by_time = state.cpu_seconds / (60.0 * budget) if budget is not None else 0.0
    return max(by_steps, by_time)


def _last_step(cfg: TrainerConfig) -> int:
    return cfg.steps if cfg.schedule_by == "steps" else 2**62
