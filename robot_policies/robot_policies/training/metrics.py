"""Where numbers go: JSONL always, TensorBoard and Weights & Biases if asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from robot_datasets.errors import UserError


class Metrics:
    """Writes one line of ``metrics.jsonl`` per call of `log`, and the same numbers to the other sinks.

    Args:
        folder: The run directory.
        step: Step the run continues from; lines beyond it, left by a killed process, are dropped so that every
            step is logged once.
        tensorboard: Write event files to ``folder/tensorboard``.
        wandb: Weights & Biases project, or None.
        config: Configuration shown by Weights & Biases.
        enabled: False writes nothing (ranks other than 0).
    """

    def __init__(
        self,
        folder: Path,
        *,
        step: int = 0,
        tensorboard: bool = False,
        wandb: str | None = None,
        config: Mapping[str, Any] | None = None,
        enabled: bool = True,
    ) -> None:
        self._file: TextIO | None = None
        self._tensorboard: Any = None
        self._wandb: Any = None
        if not enabled:
            return
        path = folder / "metrics.jsonl"
        keep_lines_until(path, step)
        self._file = path.open("a", encoding="utf-8")
        if tensorboard:
            from torch.utils.tensorboard.writer import SummaryWriter

            self._tensorboard = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        if wandb is not None:
            self._wandb = _start_wandb(folder, wandb, config or {})

    def log(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Record `values` of one `step`; `kind` tells lines apart (``train``, ``validation``)."""
        if self._file is None:
            return
        self._file.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
        self._file.flush()
        named = {name if "/" in name else f"{kind}/{name}": value for name, value in values.items()}
        if self._tensorboard is not None:
            for name, value in named.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(named, step=step)

    def close(self) -> None:
        """Flush and close every sink."""
        if self._file is not None:
            self._file.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def keep_lines_until(path: Path, step: int) -> None:
    """Drop lines of later steps, and a line cut short by a kill, from a JSONL file; atomic."""
    if not path.exists():
        return
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except json.JSONDecodeError:
            break
    staging = path.with_suffix(".tmp")
    staging.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    os.replace(staging, path)


def _start_wandb(folder: Path, project: str, config: Mapping[str, Any]) -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            "trainer.wandb is set, but Weights & Biases is not installed; 'pip install wandb', or set it to null"
        ) from error
    # The run's identity is its folder, so that a resumed run continues its curves.
    identity = folder.resolve().name
    return wandb.init(
        project=project, name=identity, id=identity, resume="allow", dir=str(folder), config=dict(config)
    )
