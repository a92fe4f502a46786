"""`robot-policies doctor`: what is installed, what is missing, and the line that adds it."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from robot_policies import __version__
from robot_policies.cli.extras import EXTRAS

_CORE = (
    "torch",
    "numpy",
    "zarr",
    "h5py",
    "simplejpeg",
    "av",
    "hydra-core",
    "diffusers",
    "accelerate",
    "safetensors",
)


def run(argv: Sequence[str]) -> int:
    """Print the report; exit status 1 if something that `make demo` needs is missing."""
    parser = argparse.ArgumentParser(
        prog="robot-policies doctor",
        description="Say what is installed, what is missing and how to add it. "
        "Exit status 1 if something that `make demo` needs is missing.",
        epilog="example: robot-policies doctor --json",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    options = parser.parse_args(list(argv))
    report = examine()
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        _show(report)
    return 0 if report["ready"] else 1


def examine() -> dict[str, Any]:
    """Return the report as a JSON-ready mapping; touches no network and starts no simulator."""
    core = {name: _version(name) for name in _CORE}
    extras = {
        extra.name: {
            "purpose": extra.purpose,
            "versions": {dist: _module_version(module, dist) for module, dist in extra.modules.items()},
            "remedy": extra.remedy,
        }
        for extra in EXTRAS.values()
    }
    rendering = _rendering()
    simulators = extras["sim"]["versions"].values()
    return {
        "robot_policies": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": _usable_cpus(),
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "accelerator": _accelerator(),
        "core": core,
        "extras": extras,
        "rendering": rendering,
        "ready": all([*core.values(), *simulators, rendering["backends"]]),
    }


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _module_version(module: str, distribution: str) -> str | None:
    """Version of the distribution that brings a module; another one may bring it (opencv has two)."""
    if importlib.util.find_spec(module) is None:
        return None
    version = _version(distribution)
    if version is None:
        providers = importlib.metadata.packages_distributions().get(module, [distribution])
        version = _version(providers[0])
    return version or "unknown"


def _usable_cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _accelerator() -> str | None:
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name(0)} (CUDA {torch.version.cuda})"
    return "Apple MPS" if torch.backends.mps.is_available() else None


def _rendering() -> dict[str, Any]:
    """Try both off-screen back ends for real, in child processes (about a second each)."""
    from robot_sim.system_libraries import REMEDY, loadable_backends

    libraries = loadable_backends()
    if importlib.util.find_spec("mujoco") is None:
        return {"libraries": libraries, "backends": [], "remedy": EXTRAS["sim"].remedy}
    from robot_sim.rendering import backend_works

    return {
        "libraries": libraries,
        "backends": [backend for backend in libraries if backend_works(backend)],
        "remedy": REMEDY,
    }


def _show(report: dict[str, Any]) -> None:
    console = Console()
    console.print(
        f"robot-policies {report['robot_policies']} on Python {report['python']}, {report['system']}\n"
        f"{report['cpus']} CPU cores usable, {report['disk_free_gb']} GB of disk free here, "
        f"accelerator: {report['accelerator'] or 'none (CPU only)'}",
        highlight=False,
    )
    table = Table(title="core packages", title_justify="left")
    table.add_column("package")
    table.add_column("version")
    for name, version in report["core"].items():
        table.add_row(name, version or "[red]missing[/red]")
    console.print(table)
    for name, extra in report["extras"].items():
        missing = [dist for dist, version in extra["versions"].items() if version is None]
        found = ", ".join(f"{dist} {version}" for dist, version in extra["versions"].items() if version)
        state = "[green]complete[/green]" if not missing else f"[yellow]missing {', '.join(missing)}[/yellow]"
        console.print(f"[bold]{name}[/bold] ({extra['purpose']}): {state} {found}", highlight=False)
        if missing:
            console.print(f"    {extra['remedy']}", highlight=False, markup=False)
    rendering = report["rendering"]
    drawn = ", ".join(rendering["backends"])
    console.print(f"[bold]off-screen rendering[/bold]: {drawn or '[red]none works[/red]'}", highlight=False)
    if not drawn:
        console.print(f"    {rendering['remedy']}", highlight=False, markup=False)
