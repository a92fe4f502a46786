"""Which folder holds a checkpoint: asked before torch, which takes seconds to import; a typo is told at once."""

from __future__ import annotations

from pathlib import Path

from robot_datasets.errors import UserError

MANIFEST = "manifest.json"


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or does not fit its configuration."""


def find_checkpoint(path: str | Path) -> Path:
    """Return the checkpoint directory meant by `path`: itself, or a run's best, else last checkpoint."""
    start = Path(path)
    if not start.exists():
        raise CheckpointError(
            f"{start} does not exist; expected a checkpoint or run directory; check the path"
        )
    for folder in (start, start / "checkpoints" / "best", start / "checkpoints" / "last"):
        if (folder / MANIFEST).exists():
            return folder.resolve()
    raise CheckpointError(
        f"{start} holds no checkpoint ({MANIFEST} not found there, nor in checkpoints/best or checkpoints/last); "
        f"expected a directory written by 'robot-policies train'"
    )
