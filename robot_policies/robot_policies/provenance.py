"""Where a result comes from: software versions, machine and source revision."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those distributions that are installed."""
    versions: dict[str, str] = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Python, operating system, the device that computes and torch's threads."""
    on_gpu = device.type == "cuda"
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "device": torch.cuda.get_device_name(device) if on_gpu else platform.machine(),
        "torch_threads": torch.get_num_threads(),
    }


def source_revision() -> str | None:
    """Git commit of this source, with ``+dirty`` if files were changed; None outside a repository."""
    try:
        head = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head}+dirty" if changed else head


def _git(*words: str) -> str:
    here = Path(__file__).resolve().parent
    done = subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
