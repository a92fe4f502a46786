"""The checkpoints of a run: written whole, ranked by validation error, and read again to continue.

``checkpoints/step_0001000`` holds a step; ``last`` and ``best`` are links to one. Only the newest checkpoint
keeps its ``trainer/`` folder, which is several times the size of the weights.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from robot_policies.checkpoint import (
    WEIGHTS,
    CheckpointError,
    Stats,
    read_json,
    read_tensors,
    save_policy,
    verify_manifest,
    write_json,
    write_manifest,
    write_tensors,
)
from robot_policies.training.state import TrainState

TENSORS = "state.safetensors"
NUMBERS = "state.json"
# The averaged weights are the checkpoint's policy.safetensors, and are not written twice.
_AVERAGE = "average."


class Checkpoints:
    """Writes and prunes ``folder/checkpoints``.

    Args:
        folder: The run directory.
        keep_top_k: Checkpoints kept for their validation error, besides the last.
        config: Resolved run configuration.
        stats: Statistics of the training data.
        card: Identity of the training data.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep_top_k: int,
        config: Mapping[str, Any],
        stats: Stats,
        card: Mapping[str, Any],
    ) -> None:
        self.folder = folder / "checkpoints"
        self._keep = keep_top_k
        self._config = config
        self._stats = stats
        self._card = card

    def save(self, state: TrainState, error: float | None) -> Path:
        """Write a checkpoint of `state`, point ``last`` and ``best`` to it, and remove what is not kept.

        Args:
            state: What to save; its ranking is updated.
            error: Validation error of this step, None if it was not validated.
        """
        folder = self.folder / f"step_{state.step:07d}"
        if folder.exists():  # saved a moment ago, before a request to stop at the same step
            return folder
        if error is not None:
            state.ranking = sorted([*state.ranking, (error, state.step)])[: self._keep]
        values = state.state_dict()
        tensors = {k: v for k, v in values.items() if isinstance(v, Tensor) and not k.startswith(_AVERAGE)}
        numbers = {k: v for k, v in values.items() if not isinstance(v, Tensor)}

        def write_trainer(staging: Path) -> None:
            (staging / "trainer").mkdir()
            write_tensors(staging / "trainer" / TENSORS, tensors)
            write_json(staging / "trainer" / NUMBERS, numbers)
            write_manifest(staging / "trainer")

        save_policy(
            folder,
            state.average.policy,
            config=self._config,
            stats=self._stats,
            dataset_card=self._card,
            write_extra=write_trainer,
        )
        _link(self.folder / "last", folder.name)
        if state.ranking:
            _link(self.folder / "best", f"step_{state.ranking[0][1]:07d}")
        self.prune(state)
        return folder

    def load(self, state: TrainState) -> None:
        """Continue from ``last``.

        Raises:
            CheckpointError: The checkpoint is damaged, or of other data.
        """
        folder = (self.folder / "last").resolve()
        for part in (folder, folder / "trainer"):
            verify_manifest(part)
        numbers = read_json(folder / "trainer" / NUMBERS)
        tensors = read_tensors(folder / "trainer" / TENSORS)
        average = {f"{_AVERAGE}{k}": v for k, v in read_tensors(folder / WEIGHTS).items()}
        found = read_json(folder / "dataset_card.json").get("fingerprint")
        if found != self._card.get("fingerprint"):
            raise CheckpointError(
                f"{folder} was trained on data with fingerprint {found}, found {self._card.get('fingerprint')}; "
                f"use the same store, or another output_dir"
            )
        try:
            state.load_state_dict({**numbers, **tensors, **average})
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{folder / 'trainer'} does not fit the policy ({error}); use another output_dir to start over"
            ) from error

    def prune(self, state: TrainState) -> None:
        """Remove what is neither last nor ranked, and what a killed process left unfinished or unlinked."""
        if not self.folder.exists():
            return
        last = (self.folder / "last").resolve().name
        ranked = {f"step_{step:07d}" for _, step in state.ranking}
        for path in self.folder.iterdir():
            if path.is_symlink():
                continue
            if path.name not in ranked and path.name != last:
                shutil.rmtree(path)
            elif path.name != last:
                shutil.rmtree(path / "trainer", ignore_errors=True)


def _link(link: Path, target: str) -> None:
    """Point `link` to its sibling `target`, atomically."""
    staging = link.with_name(f".{link.name}.tmp")
    staging.unlink(missing_ok=True)
    staging.symlink_to(target)
    os.replace(staging, link)
