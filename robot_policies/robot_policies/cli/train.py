"""``robot-policies train``: train a policy from a composed configuration."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from robot_policies.cli.hydra_app import compose_config

EXAMPLES = (
    "dataset.path=demos.zarr output_dir=runs/demo",
    "dataset.path=demos.zarr policy=diffusion_mlp trainer.steps=2000 trainer.lr=1e-3",
    "dataset.path=demos.zarr trainer=cpu_budget trainer.time_budget_cpu_minutes=5",
    "+experiment=lift_demo trainer.steps=2000",
)


def run(argv: Sequence[str]) -> int:
    """Train as configured by Hydra overrides; returns the exit status, 128 + signal if asked to stop."""
    config = compose_config("train", list(argv), examples=EXAMPLES)
    _log_to_terminal()
    # Imported here so that --help does not wait for torch.
    from robot_policies.training.interrupts import TrainingInterrupted
    from robot_policies.training.train import train

    try:
        folder = train(config)
    except TrainingInterrupted as stop:
        logging.getLogger(__name__).warning("%s", stop)
        return 128 + stop.signum
    if _rank() == 0:
        print(f"trained: {folder}\nnext:    robot-policies eval checkpoint={folder}")
    return 0


def _log_to_terminal() -> None:
    """Show this project's messages on standard error: above the progress bar, or as plain lines in a log file."""
    from rich.console import Console
    from rich.logging import RichHandler

    console = Console(stderr=True)
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False)
        handler.setFormatter(logging.Formatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    if _rank() == 0:
        logging.getLogger("robot_policies").setLevel(logging.INFO)


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))
