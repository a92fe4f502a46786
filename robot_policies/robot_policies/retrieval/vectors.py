"""What is compared in retrieval: the observation and the action of every step, scaled alike for both datasets.

With ``window`` W = 1 a step is a transition (o_t, a_t), as in the paper. With W > 1 it is (o_t, a_t ... a_{t+W-1}), the
beginning of the behaviour that a chunk policy would imitate from there; beyond the episode's end the last action is
repeated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from robot_datasets.errors import DatasetError, unknown_name
from robot_datasets.features import ACTION, DEPTH_PREFIX, compare_features, is_image
from robot_datasets.store import EpisodeStore
from robot_datasets.windows import check_finite

DECODED_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class StepVectors:
    """All steps of one store.

    Attributes:
        states: Low-dimensional observations (T, S), standardised.
        actions: W actions each (T, W A), standardised and divided by sqrt(W), so that a window weighs as much as
            a transition.
        images: Colour images of all cameras (T, 3 cameras, size, size) uint8, or None.
    """

    states: Tensor
    actions: Tensor
    images: Tensor | None

    def __len__(self) -> int:
        return len(self.actions)

    def rows(self, indices: Tensor) -> StepVectors:
        """Some steps."""
        images = None if self.images is None else self.images[indices]
        return StepVectors(states=self.states[indices], actions=self.actions[indices], images=images)


def common_observation(prior: EpisodeStore, target: EpisodeStore, wanted: Sequence[str]) -> list[str]:
    """Observation features to compare: the wanted ones, or all that both stores have but depth.

    Raises:
        DatasetError: A feature is missing, or means something else in the two stores.
    """
    names = list(wanted) or [
        name
        for name in target.features
        if name in prior.features and name.startswith("observation.") and not name.startswith(DEPTH_PREFIX)
    ]
    for store in (prior, target):
        for name in (*names, ACTION):
            if name not in store.features:
                raise DatasetError(f"{store.path}: {unknown_name('feature', name, store.features)}")
    differences = compare_features(
        {name: target.features[name] for name in (*names, ACTION)}, dict(prior.features)
    )
    # Images are resized, so their size may differ.
    problems = [d for d in differences if not is_image(d.name)]
    if problems:
        more = f" (and {len(problems) - 1} more differences)" if len(problems) > 1 else ""
        raise DatasetError(
            f"{prior.path} does not fit {target.path}: {problems[0].name} {problems[0].problem}{more}; retrieve from "
            f"data of the same robot, or name what to compare"
        )
    if not names:
        raise DatasetError(f"{prior.path} and {target.path} have no observation feature in common")
    return names


def read_vectors(
    stores: Sequence[EpisodeStore], observation: Sequence[str], *, window: int, image_size: int
) -> list[StepVectors]:
    """Read all steps of all stores; scaled by the mean and deviation of the first one's steps.

    A component that does not move in the first store is shifted and not scaled.
    """
    low_dim = [name for name in observation if not is_image(name)]
    for store in stores:
        check_finite(store, [*low_dim, ACTION], np.arange(store.n_episodes))
    states = [_columns(store, low_dim) for store in stores]
    actions = [np.asarray(store.column(ACTION), np.float32) for store in stores]
    vectors = []
    for k, store in enumerate(stores):
        chunk = _standardised(actions[k], actions[0])[_window_steps(store, window)] / np.sqrt(window)
        vectors.append(
            StepVectors(
                states=torch.from_numpy(_standardised(states[k], states[0])),
                actions=torch.from_numpy(chunk.reshape(len(chunk), -1).astype(np.float32)),
                images=_images(store, [name for name in observation if is_image(name)], image_size),
            )
        )
    return vectors


def _columns(store: EpisodeStore, names: Sequence[str]) -> NDArray[np.float32]:
    parts = [np.asarray(store.column(name), np.float32).reshape(store.n_steps, -1) for name in names]
    return np.concatenate([np.empty((store.n_steps, 0), np.float32), *parts], axis=1)


def _standardised(values: NDArray[np.float32], reference: NDArray[np.float32]) -> NDArray[np.float32]:
    mean, std = reference.mean(axis=0, dtype=np.float64), reference.std(axis=0, dtype=np.float64)
    return ((values - mean) / np.where(std < 1e-4, 1.0, std)).astype(np.float32)


def _window_steps(store: EpisodeStore, window: int) -> NDArray[np.int64]:
    """Steps t .. t + window - 1 of every step t, the last one of its episode repeated; (T, window)."""
    ends = np.asarray(store.episode_ends, np.int64)
    last = np.repeat(ends - 1, np.diff(ends, prepend=0))
    return np.minimum(np.arange(store.n_steps)[:, None] + np.arange(window), last[:, None])


def _images(store: EpisodeStore, names: Sequence[str], size: int) -> Tensor | None:
    """All frames, shrunk by area averaging; (T, 3 cameras, size, size) uint8."""
    if not names:
        return None
    frames = torch.empty(store.n_steps, 3 * len(names), size, size, dtype=torch.uint8)
    for camera, name in enumerate(names):
        for rows, block in decoded(store, name, np.arange(store.n_steps)):
            shrunk = F.interpolate(block.float(), (size, size), mode="area")
            frames[rows, 3 * camera : 3 * camera + 3] = shrunk.round().to(torch.uint8)
    return frames


def decoded(store: EpisodeStore, name: str, steps: NDArray[np.int64]) -> Iterator[tuple[slice, Tensor]]:
    """Colour frames of the given steps in blocks: which of them, and (N, 3, H, W) uint8."""
    images = store.images(name)
    for start in range(0, len(steps), DECODED_AT_ONCE):
        rows = slice(start, min(start + DECODED_AT_ONCE, len(steps)))
        block = np.asarray(images.decode(steps[rows]))
        if block.shape[-1] == 1:
            block = np.repeat(block, 3, axis=-1)
        yield rows, torch.from_numpy(np.ascontiguousarray(block.transpose(0, 3, 1, 2)))
