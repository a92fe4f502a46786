"""The run directory: what was run, with what, and what came of it.

Layout::

    config.yaml  command.txt  environment.json  metrics.jsonl  first_batch.png (if there are cameras)
    tensorboard/  checkpoints/{step_0001000, ..., last, best}
"""

from __future__ import annotations

import importlib.metadata
import logging
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from robot_datasets.features import is_image
from robot_policies.checkpoint import write_json
from robot_policies.configuration import ConfigError, to_mapping
from robot_policies.training.config import RunConfig
from robot_policies.training.precision import has_native_bf16

logger = logging.getLogger(__name__)

# A resumed run may change these; everything else decides what is learned.
FREE_KEYS = (
    "output_dir",
    "device",
    "trainer.steps",
    "trainer.time_budget_cpu_minutes",
    "trainer.threads",
    "trainer.prefetch",
    "trainer.val_every",
    "trainer.val_windows",
    "trainer.checkpoint_every",
    "trainer.keep_top_k",
    "trainer.log_every",
    "trainer.tensorboard",
    "trainer.wandb",
    "trainer.progress_seconds",
    "trainer.resume",
)
PACKAGES = ("robot-policies", "torch", "numpy", "zarr", "diffusers", "safetensors", "hydra-core")


def decide_resume(config: RunConfig) -> bool:
    """Whether to continue the run in the output directory, or to start one there.

    Raises:
        ConfigError: ``trainer.resume`` contradicts what is there, or the run there was configured differently.
    """
    folder = Path(config.output_dir)
    last = folder / "checkpoints" / "last"
    mode = config.trainer.resume
    if not last.exists():
        if mode == "must":
            raise ConfigError(
                f"trainer.resume is 'must', but {last} does not exist; check output_dir, or use 'auto'"
            )
        return False
    if mode == "never":
        raise ConfigError(
            f"output_dir: {folder} holds a run; choose another folder, or use trainer.resume=auto"
        )
    before = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    changes = config_changes(before, to_mapping(config))
    if changes:
        raise ConfigError(
            f"output_dir: {folder} holds a run with another configuration ({'; '.join(changes[:3])}"
            f"{'; ...' if len(changes) > 3 else ''}); choose another output_dir, or the same configuration"
        )
    return True


def config_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences that a resumed run must not have, as ``key: old -> new``."""
    old, new = _flatten(before), _flatten(now)
    return [
        f"{key}: {old.get(key, 'absent')} -> {new.get(key, 'absent')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and key not in FREE_KEYS
    ]


def write_run_files(config: RunConfig, device: torch.device) -> None:
    """Write configuration, command and environment into the output directory."""
    folder = Path(config.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    _replace(folder / "config.yaml", yaml.safe_dump(to_mapping(config), sort_keys=False))
    _replace(folder / "command.txt", shlex.join(sys.argv) + "\n")
    staging = folder / "environment.json.tmp"
    write_json(staging, describe_environment(device))
    os.replace(staging, folder / "environment.json")


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Versions, device and source revision that a result depends on."""
    is_cuda = device.type == "cuda"
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": torch.cuda.get_device_name(device)
        if is_cuda
        else platform.processor() or platform.machine(),
        "native_bf16": has_native_bf16(device),
        "torch_threads": torch.get_num_threads(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git_commit": _git_commit(),
    }


def write_image_sheet(path: Path, batch: Mapping[str, Any], n: int = 16) -> None:
    """Write the last frame of the first `n` windows of each camera as one picture, to be looked at."""
    cameras = [name for name in batch if is_image(name)]
    if not cameras or path.exists():
        return
    from matplotlib.image import imsave

    rows = []
    for name in cameras:
        frames = np.asarray(batch[name])[:n, -1]
        frames = np.moveaxis(frames, -3, -1)[..., :3]
        columns = math.ceil(math.sqrt(len(frames)))
        blank = np.zeros(
            (columns * math.ceil(len(frames) / columns) - len(frames), *frames.shape[1:]), frames.dtype
        )
        grid = np.concatenate([frames, blank]).reshape(-1, columns, *frames.shape[1:])
        rows.append(np.concatenate([np.concatenate(list(row), axis=1) for row in grid], axis=0))
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 4), (0, width - row.shape[1]), (0, 0))) for row in rows]
    imsave(path, np.ascontiguousarray(np.concatenate(padded, axis=0)))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        flat.update(_flatten(value, f"{name}.") if isinstance(value, Mapping) else {name: value})
    return flat


def _replace(path: Path, text: str) -> None:
    staging = path.with_name(path.name + ".tmp")
    staging.write_text(text, encoding="utf-8")
    os.replace(staging, path)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """Commit of the source this runs from, with ``+dirty`` if it was changed; None outside a repository."""
    here = Path(__file__).resolve().parent
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, timeout=10, check=True
        )
        status = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=here, capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+dirty" if status.stdout.strip() else "")
