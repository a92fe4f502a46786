"""What a policy expected to see, kept beside what it did see, for the report.

Of the first few episodes the predicted frames of the first camera are kept, chunk by chunk. What happened comes from
the replay that films the episode, so nothing is rendered or written while the policy is timed::

    predictions/<seed>.npz        camera, steps (n,), offsets (K,), predicted (n, K, H, W, C) uint8
    predictions/<seed>_seen.npz   steps (m,), frames (m, H, W, C) uint8
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # workers read this module, and do without torch
    from robot_policies.policy import PredictedFrames

FOLDER = "predictions"
MAX_EPISODES = 4
MAX_CHUNKS = 64


@dataclass(frozen=True, kw_only=True)
class Foresight:
    """One camera's predicted frames of one episode.

    Attributes:
        camera: Feature name.
        steps: (n,) control steps at which chunks were predicted.
        offsets: (K,) steps after those that the frames are for.
        predicted: (n, K, H, W, C) uint8.
    """

    camera: str
    steps: NDArray[np.int64]
    offsets: NDArray[np.int64]
    predicted: NDArray[np.uint8]

    @property
    def watched(self) -> NDArray[np.int64]:
        """Steps whose observation shows what there was, and what came: sorted, each once."""
        ahead = self.steps[:, None] + np.concatenate([[0], self.offsets])
        return np.unique(ahead)

    def save(self, folder: Path, seed: int) -> None:
        """Write ``predictions/<seed>.npz`` into a results folder."""
        arrays = {"steps": self.steps, "offsets": self.offsets, "predicted": self.predicted}
        write_arrays(folder / FOLDER / f"{seed}.npz", {**arrays, "camera": np.array(self.camera)})

    @classmethod
    def load(cls, path: Path) -> Foresight:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            names = ("steps", "offsets", "predicted")
            return cls(camera=str(arrays["camera"]), **{name: arrays[name] for name in names})


@dataclass
class ForesightLog:
    """Collects the predicted frames of one episode."""

    steps: list[int] = field(default_factory=list)
    frames: list[NDArray[np.uint8]] = field(default_factory=list)
    camera: str = ""
    offsets: tuple[int, ...] = ()

    def add(self, step: int, predicted: PredictedFrames, row: int) -> None:
        """Note what row `row` of a batch predicted at a step."""
        if len(self.steps) >= MAX_CHUNKS:
            return
        self.camera = next(iter(predicted.frames))
        self.offsets = predicted.offsets[self.camera]
        frames = predicted.frames[self.camera][row].cpu().numpy()
        self.steps.append(step)
        self.frames.append(np.ascontiguousarray(frames.transpose(0, 2, 3, 1)))

    def result(self) -> Foresight | None:
        """What was collected; None if nothing was."""
        if not self.steps:
            return None
        return Foresight(
            camera=self.camera,
            steps=np.array(self.steps, np.int64),
            offsets=np.array(self.offsets, np.int64),
            predicted=np.stack(self.frames),
        )


@dataclass(frozen=True, kw_only=True)
class Watch:
    """An order to keep a camera's frames of some steps while an episode is filmed.

    Attributes:
        path: The npz to write.
        camera: Feature name.
        steps: Steps to keep; 0 is the first observation.
    """

    path: Path
    camera: str
    steps: NDArray[np.int64]

    @classmethod
    def of(cls, folder: Path, seed: int) -> Watch | None:
        """What to watch in an episode whose predictions were kept; None if none were."""
        path = folder / FOLDER / f"{seed}.npz"
        if not path.exists():
            return None
        foresight = Foresight.load(path)
        seen = folder / FOLDER / f"{seed}_seen.npz"
        return cls(path=seen, camera=foresight.camera, steps=foresight.watched)

    def save(self, frames: dict[int, Any]) -> None:
        """Write the frames of the watched steps that there were."""
        if frames:
            steps, pictures = np.array(list(frames)), np.stack(list(frames.values()))
            write_arrays(self.path, {"steps": steps, "frames": pictures})


def read_seen(folder: Path, seed: int) -> dict[int, NDArray[np.uint8]]:
    """Frames by step that `Watch.save` wrote; empty if there are none."""
    path = folder / FOLDER / f"{seed}_seen.npz"
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as arrays:
        return dict(zip(arrays["steps"].tolist(), arrays["frames"], strict=True))


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an npz at once: the old one or the new one is there, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.tmp")
    with staging.open("wb") as file:
        np.savez_compressed(file, **dict(arrays))
    os.replace(staging, path)
